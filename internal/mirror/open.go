package mirror

import (
	"context"
	"errors"
	"io"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"transship/internal/objectstore"
)

const (
	// large is from how many bytes on a blob is read in ranges, several at once: a Swift proxy hands out one object with one core, and slows down the reading of a Dynamic
	// Large Object to one segment a second after the first ten (rate_limit_after_segment, https://docs.openstack.org/swift/latest/middleware.html#dlo).
	large = 64 << 20
	// rangeSize in bytes, and how many ranges are read ahead, bound the memory that a large blob takes: 64 MiB.
	rangeSize   = 8 << 20
	rangesAhead = 4
	// largeAtOnce is how many large blobs are under way.
	largeAtOnce = 2
)

// Large lets a few large blobs be read at the same time. Its zero value is not ready: NewLarge makes one.
type Large struct{ turns *semaphore.Weighted }

// NewLarge bounds what the reading of large blobs takes of memory.
func NewLarge() Large { return Large{semaphore.NewWeighted(largeAtOnce)} }

// Open opens an object. A large one is read in ranges, a few ahead of the reader.
func (l Large) Open(ctx context.Context, store objectstore.Store, key string, o objectstore.ReadOptions) (io.ReadCloser, objectstore.Object, error) {
	body, object, err := store.Get(ctx, key, o)
	if err != nil || object.Size < large || object.Size > maxObject {
		return body, object, err
	}
	_ = body.Close() // the turn may be long in coming
	if err := l.turns.Acquire(ctx, 1); err != nil {
		return nil, object, err
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &ranges{cancel: cancel, done: func() { l.turns.Release(1) }, pieces: make(chan chan []byte, rangesAhead), free: make(chan []byte, rangesAhead+2)}
	r.group, r.ctx = errgroup.WithContext(ctx)
	r.group.Go(func() error { return r.fetch(store, key, o, object) })
	return r, object, nil
}

// ranges is a large object that is read in several requests.
type ranges struct {
	ctx    context.Context
	cancel context.CancelFunc
	done   func()
	group  *errgroup.Group
	// pieces are the ranges in their order, each ready when its buffer comes.
	pieces chan chan []byte
	// free are buffers to be used again.
	free      chan []byte
	now, rest []byte
	err       error
}

// errReplaced says that an object became another one while it was read.
var errReplaced = errors.New("the object was replaced while it was read")

func (r *ranges) fetch(store objectstore.Store, key string, o objectstore.ReadOptions, object objectstore.Object) error {
	defer close(r.pieces)
	for offset := int64(0); offset < object.Size; offset += rangeSize {
		piece := make(chan []byte, 1)
		select {
		case r.pieces <- piece:
		case <-r.ctx.Done():
			return r.ctx.Err()
		}
		r.group.Go(func() error {
			buffer := r.buffer()[:min(rangeSize, object.Size-offset)]
			body, now, err := store.Get(r.ctx, key, objectstore.ReadOptions{Newest: o.Newest, Offset: offset, Length: int64(len(buffer))})
			if err != nil {
				return err
			}
			defer body.Close()
			if now.ETag != object.ETag {
				return errReplaced
			}
			if _, err := io.ReadFull(body, buffer); err != nil {
				return early(err)
			}
			piece <- buffer
			return nil
		})
	}
	return nil
}

func (r *ranges) buffer() []byte {
	select {
	case b := <-r.free:
		return b[:rangeSize]
	default:
		return make([]byte, rangeSize)
	}
}

// early is io.ErrUnexpectedEOF for both ways of ending early.
func early(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (r *ranges) Read(p []byte) (int, error) {
	if len(r.rest) == 0 && r.err == nil {
		r.err = r.next()
	}
	if r.err != nil {
		return 0, r.err
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// next waits for the next range.
func (r *ranges) next() error {
	if r.now != nil {
		select {
		case r.free <- r.now:
		default:
		}
		r.now = nil
	}
	piece, ok := <-r.pieces
	if !ok {
		if err := r.group.Wait(); err != nil {
			return err
		}
		return io.EOF
	}
	select {
	case r.now = <-piece:
		r.rest = r.now
		return nil
	case <-r.ctx.Done():
		if err := r.group.Wait(); err != nil {
			return err // what ended the others
		}
		return context.Cause(r.ctx)
	}
}

func (r *ranges) Close() error {
	r.cancel()
	for range r.pieces { // what is under way ends
	}
	_ = r.group.Wait()
	r.done()
	return nil
}
