package objectstore

import (
	"context"
	"io"
	"iter"
)

// Throttled keeps what is asked of a store within limits; several of them can lie over each other. A request is what the store is asked at once: a
// page of a listing, each part of a large object. Attempts that a store makes by itself after an error are not counted: they come with pauses. What it
// gives is Segmented when store is.
func Throttled(store Store, l *Limits) Store {
	t := throttled{store, l}
	if segmented, ok := store.(Segmented); ok {
		return segmentedThrottled{t, segmented}
	}
	return t
}

type throttled struct {
	Store
	limits *Limits
}

// pages are stores that know how many objects one request lists.
type pages interface{ perPage() int }

func (s *Swift) perPage() int { return 10000 }
func (s *S3) perPage() int    { return s.o.PageSize }

func (t throttled) perPage() int {
	if p, ok := t.Store.(pages); ok {
		return p.perPage()
	}
	return 1000
}

// eachPage passes a listing on, as fast as its requests may be made.
func eachPage[T any](ctx context.Context, t throttled, listing iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var zero T
		if err := t.limits.requests.wait(ctx, 1); err != nil {
			yield(zero, err)
			return
		}
		n := 0
		for item, err := range listing {
			if n++; err == nil && n%t.perPage() == 0 {
				err = t.limits.requests.wait(ctx, 1)
			}
			if !yield(item, err) || err != nil {
				return
			}
		}
	}
}

func (t throttled) List(ctx context.Context, o ListOptions) iter.Seq2[Object, error] {
	return eachPage(ctx, t, t.Store.List(ctx, o))
}

func (t throttled) Directories(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return eachPage(ctx, t, t.Store.Directories(ctx, prefix))
}

func (t throttled) Stat(ctx context.Context, key string, o ReadOptions) (Object, error) {
	if err := t.limits.requests.wait(ctx, 1); err != nil {
		return Object{}, err
	}
	return t.Store.Stat(ctx, key, o)
}

func (t throttled) Get(ctx context.Context, key string, o ReadOptions) (io.ReadCloser, Object, error) {
	if err := t.limits.requests.wait(ctx, 1); err != nil {
		return nil, Object{}, err
	}
	body, object, err := t.Store.Get(ctx, key, o)
	if err != nil {
		return nil, object, err
	}
	return &slowReader{ctx: ctx, limits: t.limits, from: body, Closer: body}, object, nil
}

func (t throttled) Put(ctx context.Context, key string, body io.Reader, size int64, o PutOptions) (Object, error) {
	if err := t.limits.requests.wait(ctx, 1); err != nil {
		return Object{}, err
	}
	return t.Store.Put(ctx, key, &slowReader{ctx: ctx, limits: t.limits, from: body, parts: true}, size, o)
}

func (t throttled) Delete(ctx context.Context, key string) error {
	if err := t.limits.requests.wait(ctx, 1); err != nil {
		return err
	}
	return t.Store.Delete(ctx, key)
}

type segmentedThrottled struct {
	throttled
	segmented Segmented
}

func (t segmentedThrottled) Segments(ctx context.Context, key string) ([]Object, error) {
	if err := t.limits.requests.wait(ctx, 1); err != nil {
		return nil, err
	}
	return t.segmented.Segments(ctx, key)
}

func (t segmentedThrottled) AllSegments(ctx context.Context) iter.Seq2[Object, error] {
	return eachPage(ctx, t.throttled, t.segmented.AllSegments(ctx))
}

// slowReader passes a body on as fast as its bytes may go.
type slowReader struct {
	io.Closer
	ctx    context.Context
	limits *Limits
	from   io.Reader
	// parts: each part that was read becomes a request.
	parts bool
	read  int64
}

// Read implements io.Reader.
func (r *slowReader) Read(p []byte) (int, error) {
	if len(p) > byteBurst && !r.limits.bytes.unbounded() {
		p = p[:byteBurst]
	}
	n, err := r.from.Read(p)
	if wait := r.limits.bytes.wait(r.ctx, n); wait != nil {
		return n, wait
	}
	before := r.read / partSize
	if r.read += int64(n); r.parts && r.read/partSize > before {
		if wait := r.limits.requests.wait(r.ctx, 1); wait != nil {
			return n, wait
		}
	}
	return n, err
}
