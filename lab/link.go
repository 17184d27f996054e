package lab

import (
	"fmt"
	"io"
	"net"
	"sync"
)

// Link carries connections to one address, and can be cut: then nothing gets through in either direction, and nobody is told, as when a cable is pulled. What was on its way
// arrives when the link is mended.
type Link struct {
	listener net.Listener
	to       string

	mu    sync.Mutex
	open  chan struct{} // closed while the link is whole
	ended chan struct{}
	conns map[net.Conn]bool
}

// OpenLink makes a link to host:port.
func OpenLink(to string) (*Link, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("link to %s: %w", to, err)
	}
	l := &Link{listener: listener, to: to, open: make(chan struct{}), ended: make(chan struct{}), conns: map[net.Conn]bool{}}
	close(l.open)
	go l.accept()
	return l, nil
}

// Address is the near end of the link.
func (l *Link) Address() string { return l.listener.Addr().String() }

// Cut lets nothing through from now on.
func (l *Link) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.open:
		l.open = make(chan struct{})
	default:
	}
}

// Mend ends a cut.
func (l *Link) Mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.open:
	default:
		close(l.open)
	}
}

// Close ends the link and its connections.
func (l *Link) Close() {
	_ = l.listener.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.ended:
		return
	default:
		close(l.ended)
	}
	for c := range l.conns {
		_ = c.Close()
	}
}

// whole waits until the link is, and reports whether it ever will be.
func (l *Link) whole() bool {
	l.mu.Lock()
	open := l.open
	l.mu.Unlock()
	select {
	case <-open:
		return true
	case <-l.ended:
		return false
	}
}

func (l *Link) accept() {
	for {
		near, err := l.listener.Accept()
		if err != nil {
			return
		}
		go l.carry(near)
	}
}

func (l *Link) carry(near net.Conn) {
	defer near.Close()
	if !l.whole() {
		return
	}
	far, err := net.Dial("tcp", l.to)
	if err != nil {
		return
	}
	defer far.Close()
	l.mu.Lock()
	l.conns[near], l.conns[far] = true, true
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.conns, near)
		delete(l.conns, far)
		l.mu.Unlock()
	}()
	done := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
		go func() {
			l.pass(way[0], way[1])
			done <- struct{}{}
		}()
	}
	<-done
}

func (l *Link) pass(from io.Reader, to io.Writer) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			if !l.whole() {
				return
			}
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
