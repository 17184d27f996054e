package objectstore

import (
	"bytes"
	"errors"
	"io"
	"sync"
)

// lent is a body whose bytes belong to a buffer. An HTTP client may go on reading a body after it gave the answer, and the buffer may hold
// something else by then: so it is revoked first.
type lent struct {
	mu      sync.Mutex
	content *bytes.Reader
	revoked bool
}

var errRevoked = errors.New("the request is over")

func lend(content []byte) *lent { return &lent{content: bytes.NewReader(content)} }

// revoke returns when nothing reads the bytes any more, nor will.
func (l *lent) revoke() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.revoked = true
}

// Read implements io.Reader.
func (l *lent) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.content.Len() == 0 {
		return 0, io.EOF
	}
	if l.revoked {
		return 0, errRevoked
	}
	return l.content.Read(p)
}

// Seek implements io.Seeker.
func (l *lent) Seek(offset int64, whence int) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.content.Seek(offset, whence)
}
