package objectstore

import (
	"context"
	"fmt"
	"io"
)

// resuming reads an object, and opens it again from where it was when the connection breaks.
type resuming struct {
	ctx    context.Context
	name   string
	open   func(ctx context.Context, offset int64) (io.ReadCloser, error)
	body   io.ReadCloser
	offset int64
	// left is how many bytes are still to come; -1 when the store did not say.
	left int64
	// fruitless counts the answers in a row that brought nothing; brought says that the present one brought something.
	fruitless int
	brought   bool
	err       error
}

// fruitlessLimit is how often a store may answer and yet not bring the next byte: then it does not have it. That happens to large objects
// of Swift whose segments are gone, and must not cost the patience that an outage does.
const fruitlessLimit = 4

// Read implements io.Reader.
func (r *resuming) Read(p []byte) (int, error) {
	for r.err == nil {
		if r.left == 0 {
			r.err = io.EOF
			break
		}
		if r.body == nil {
			if r.fruitless > 0 && !sleep(r.ctx, firstPause<<r.fruitless) {
				r.err = fmt.Errorf("reading %s: %w", r.name, context.Cause(r.ctx))
				break
			}
			if r.body, r.err = r.open(r.ctx, r.offset); r.err != nil {
				break
			}
			r.brought = false
		}
		n, err := r.body.Read(p)
		if r.left >= 0 {
			n = int(min(int64(n), r.left))
			r.left -= int64(n)
		}
		if r.offset += int64(n); n > 0 {
			r.fruitless, r.brought = 0, true
		}
		if err != nil {
			r.ended(err)
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, r.err
}

// ended decides what the end of a body means.
func (r *resuming) ended(err error) {
	switch {
	case r.left == 0 || r.left < 0 && err == io.EOF:
		r.err = io.EOF
	case r.ctx.Err() != nil:
		r.err = fmt.Errorf("reading %s: %w", r.name, context.Cause(r.ctx))
	default:
		_ = r.body.Close()
		r.body = nil
		if !r.brought {
			r.fruitless++
		}
		if r.fruitless >= fruitlessLimit {
			r.err = fmt.Errorf("reading %s: byte %d and what follows does not come: %w", r.name, r.offset, io.ErrUnexpectedEOF)
		}
	}
}

// Close implements io.Closer.
func (r *resuming) Close() error {
	if r.body == nil {
		return nil
	}
	if r.left == 0 {
		finish(r.body)
		return nil
	}
	return r.body.Close()
}
