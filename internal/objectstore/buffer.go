package objectstore

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sync/semaphore"
)

// memory is how many bytes of bodies one store holds at most, whatever is under way: they must be at hand to be sent again. A part that is larger
// (of objects beyond 128 GiB) is held alone.
const memory = 128 << 20

// buffers lends memory for bodies, and takes it back.
type buffers struct {
	free  *semaphore.Weighted
	pools [len(classes)]sync.Pool
}

// classes are the sizes that buffers have: of links, manifests and configs, small layers, and parts.
var classes = [...]int64{4 << 10, 64 << 10, 1 << 20, 4 << 20, partSize}

func newBuffers() *buffers { return &buffers{free: semaphore.NewWeighted(memory)} }

// buffer is a piece of a body.
type buffer struct {
	bytes []byte
	owner *buffers
	class int
}

// lend waits until there is memory for size bytes.
func (b *buffers) lend(ctx context.Context, size int64) (*buffer, error) {
	if err := b.free.Acquire(ctx, min(size, memory)); err != nil {
		return nil, fmt.Errorf("waiting for memory: %w", context.Cause(ctx))
	}
	for class, most := range classes {
		if size <= most {
			if held, ok := b.pools[class].Get().(*buffer); ok {
				held.bytes = held.bytes[:size]
				return held, nil
			}
			return &buffer{make([]byte, size, most), b, class}, nil
		}
	}
	return &buffer{make([]byte, size), b, -1}, nil
}

// back returns the buffer. Nothing may hold on to its bytes.
func (b *buffer) back() {
	b.owner.free.Release(min(int64(len(b.bytes)), memory))
	if b.class >= 0 {
		b.owner.pools[b.class].Put(b)
	}
}

// fill reads as many bytes as the buffer is long. An error that comes together with the last byte is not lost: the source keeps it.
func (b *buffer) fill(body *source) error {
	_, err := io.ReadFull(body, b.bytes)
	return err
}

func (b *buffer) md5() string { return md5hex(b.bytes) }

func md5hex(content []byte) string {
	sum := md5.Sum(content)
	return hex.EncodeToString(sum[:])
}

// source is a body that is to be stored, of which is known whether it came to a good end.
type source struct {
	key  string
	body io.Reader
	size int64
	read int64
	err  error
}

// Read implements io.Reader; errors of the body are marked as such.
func (s *source) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.body.Read(p)
	s.read += int64(n)
	switch {
	case s.read > s.size:
		s.err = &SizeError{Key: s.key, Announced: s.size, Read: s.size + 1}
	case err == io.EOF && s.read < s.size:
		s.err = &SizeError{Key: s.key, Announced: s.size, Read: s.read}
	case err == io.EOF:
		s.err = io.EOF
	case err != nil:
		s.err = &BodyError{Key: s.key, Err: err}
	}
	return n, s.err
}

// end reads on until the body says that it ended, and well: only then may anything of it become visible.
func (s *source) end() error {
	var one [1]byte
	for {
		if _, err := s.Read(one[:]); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// failed reports whether the body did not come to a good end.
func (s *source) failed() bool { return s.err != nil && s.err != io.EOF }
