package main

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
)

// ports are the addresses of everything that listens. All but frontend and ui are on loopback and picked by the kernel, so
// that several servers run side by side.
type ports struct {
	frontend, ui                         netip.AddrPort
	history, matching, workers, behindUI netip.AddrPort
}

// pickPorts resolves port 0 to free ports. It holds all of them until the last is found, so no two are the same; between that
// and their use another process may take one, which then fails the start with a message that names it.
func pickPorts(listen, ui string) (ports, error) {
	var picked ports
	for _, want := range []struct {
		flag, address string
		into          *netip.AddrPort
	}{
		{"--listen", listen, &picked.frontend},
		{"--ui", ui, &picked.ui},
		{"internal", "127.0.0.1:0", &picked.history},
		{"internal", "127.0.0.1:0", &picked.matching},
		{"internal", "127.0.0.1:0", &picked.workers},
		{"internal", "127.0.0.1:0", &picked.behindUI},
	} {
		address, err := netip.ParseAddrPort(want.address)
		if err != nil {
			return ports{}, fmt.Errorf("%s %q: want IP:PORT such as 127.0.0.1:7233: %w", want.flag, want.address, err)
		}
		held, err := net.Listen("tcp", address.String())
		if err != nil {
			return ports{}, fmt.Errorf("%s %s cannot be had (port 0 picks a free one): %w", want.flag, want.address, err)
		}
		defer func() { _ = held.Close() }()
		*want.into = netip.AddrPortFrom(address.Addr(), uint16(held.Addr().(*net.TCPAddr).Port))
	}
	return picked, nil
}

// reach is the address at which a listener on address is reached from this machine.
func reach(address netip.AddrPort) string {
	host := address.Addr()
	if host.IsUnspecified() {
		host = netip.MustParseAddr("127.0.0.1")
		if address.Addr().Is6() {
			host = netip.IPv6Loopback()
		}
	}
	return net.JoinHostPort(host.String(), strconv.Itoa(int(address.Port())))
}
