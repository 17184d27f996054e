package servers

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
)

// given are the addresses that this process has handed out: two sets of servers that start side by side must not get the same one before they listen.
var given = struct {
	sync.Mutex
	addresses map[string]bool
}{addresses: map[string]bool{}}

// FreePorts returns n addresses on the loopback interface that nobody listens on. They are below the range from which the kernel takes ports for outgoing
// connections, or one of those might take a port before its server does.
func FreePorts(n int) ([]string, error) {
	given.Lock()
	defer given.Unlock()
	var addresses []string
	for range 1000 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(20_000))) //nolint:gosec // no secret
		if err != nil {
			continue
		}
		defer l.Close()
		address := l.Addr().String()
		if given.addresses[address] {
			continue
		}
		given.addresses[address] = true
		if addresses = append(addresses, address); len(addresses) == n {
			return addresses, nil
		}
	}
	return nil, errors.New("found no free ports from 10000 to 30000")
}

// port is the port of an address that FreePorts returned.
func port(address string) string {
	_, p, err := net.SplitHostPort(address)
	if err != nil {
		panic(err) // FreePorts made it
	}
	return p
}
