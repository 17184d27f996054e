//go:build lab

package edge

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"transship/internal/routing"
)

// connection is one that a client keeps, and writes on by hand.
type connection struct {
	net.Conn
	answers *bufio.Reader
}

func (n *node) connect() *connection {
	conn, err := net.Dial("tcp", strings.TrimPrefix(n.url, "http://"))
	require.NoError(n.t, err)
	n.t.Cleanup(func() { conn.Close() })
	require.NoError(n.t, conn.SetDeadline(time.Now().Add(time.Minute)))
	return &connection{conn, bufio.NewReader(conn)}
}

// put sends the head of a write of four bytes. Its answer is 0 when the connection was closed.
func (c *connection) put(path string) {
	_, _ = io.WriteString(c, "PUT "+path+" HTTP/1.1\r\nHost: registry\r\nAuthorization: Basic dTpw\r\nContent-Length: 4\r\n\r\n")
}

func (c *connection) answer() int {
	resp, err := http.ReadResponse(c.answers, nil)
	if err != nil {
		return 0
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	return resp.StatusCode
}

const unnamed = "/v2/unknown-so-far/app/manifests/"

// Promise 1: a prefix that nginx did not know is watched when the journal has all its writes, also those that a worker process from before the reload had begun.
func TestAPrefixIsWatchedWhenOlderProcessesHaveEndedWhatTheyHadBegun(t *testing.T) {
	n := newNode(t)
	n.apply(1, route("restricted", routing.Open, "old"))
	slow := n.connect()
	slow.put(unnamed + "slow")
	time.Sleep(100 * time.Millisecond) // nginx has it
	require.Positive(t, n.apply(2, route("restricted", routing.Open, "old"), route("unknown-so-far", routing.Watched, "old")).Reload)
	answered := make(chan int, 1)
	go func() {
		time.Sleep(2 * time.Second)
		_, _ = io.WriteString(slow, "body")
		answered <- slow.answer()
		slow.Close()
	}()
	require.NoError(t, n.Outlast(t.Context()))
	select {
	case status := <-answered:
		require.Equal(t, http.StatusCreated, status)
	case <-time.After(500 * time.Millisecond):
		t.Fatal("a write goes on that will end after the listing, and that no journal will have")
	}
}

// The same on idle connections, which nginx keeps open since 1.27.4 if the site wants that: older ones close them, and there is nothing to wait for.
func TestAPrefixIsWatchedWhenIdleConnectionsOfOlderProcessesAreGone(t *testing.T) {
	n := newNode(t)
	keeps := keepsIdle(t) != ""
	n.apply(1, route("restricted", routing.Open, "old"))
	used, idle := n.connect(), n.connect()
	for _, c := range []*connection{used, idle} {
		c.put("/v2/restricted/app/manifests/v1")
		_, _ = io.WriteString(c, "body")
		require.Equal(t, http.StatusCreated, c.answer())
	}
	require.Positive(t, n.apply(2, route("restricted", routing.Open, "old"), route("unknown-so-far", routing.Watched, "old")).Reload)
	used.put(unnamed + "at-once")
	_, _ = io.WriteString(used, "body")
	at := used.answer()
	require.Equal(t, keeps, at == http.StatusCreated, "%d: this is what makes the wait necessary", at)
	begin := time.Now()
	require.NoError(t, n.Outlast(t.Context()))
	t.Logf("nginx keeps idle connections: %t; waited %s", keeps, time.Since(begin).Round(time.Millisecond))
	idle.put(unnamed + "late")
	_, _ = io.WriteString(idle, "body")
	if idle.answer() == http.StatusCreated {
		n.journaled(unnamed + "late")
	}
}
