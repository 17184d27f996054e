package mirror

import (
	"context"
	"iter"

	"transship/internal/objectstore"
)

// pair is what both sides have under one key; a side without it has an empty Key.
type pair struct {
	key      string
	from, to objectstore.Object
}

func (p *pair) atFrom() bool { return p.from.Key != "" }
func (p *pair) atTo() bool   { return p.to.Key != "" }

// same reports whether both sides hold the same content. Stores give the MD5 of anything that was stored in one piece, which links always are.
func (p *pair) same() bool {
	return p.atFrom() && p.atTo() && p.from.MD5 != "" && p.from.MD5 == p.to.MD5
}

// join yields every key that either listing has, in byte order. Both are read at the same time, ahead of each other by 15,000 keys at most.
func join(ctx context.Context, from, to objectstore.Store, o objectstore.ListOptions) iter.Seq2[pair, error] {
	return func(yield func(pair, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		a, b := follow(ctx, from.List(ctx, o)), follow(ctx, to.List(ctx, o))
		for {
			x, err := a.head()
			if err != nil {
				yield(pair{}, err)
				return
			}
			y, err := b.head()
			if err != nil {
				yield(pair{}, err)
				return
			}
			var p pair
			switch {
			case x == nil && y == nil:
				return
			case y == nil || x != nil && x.Key < y.Key:
				p = pair{key: x.Key, from: *x}
				a.pop()
			case x == nil || y.Key < x.Key:
				p = pair{key: y.Key, to: *y}
				b.pop()
			default:
				p = pair{key: x.Key, from: *x, to: *y}
				a.pop()
				b.pop()
			}
			if !yield(p, nil) {
				return
			}
		}
	}
}

// batchSize is how many objects of a listing change hands at once; ahead is how many batches wait at most. One store may give pages of 10,000, the other
// of 1,000: each must be able to go on while the join waits for the other, or the two take the sum of their times.
const (
	batchSize = 500
	ahead     = 30
)

// batch is a piece of a listing, and the error that ends it.
type batch struct {
	objects []objectstore.Object
	err     error
}

// stream is a listing that is read ahead.
type stream struct {
	batches <-chan batch
	now     batch
}

// follow reads a listing in a goroutine of its own, until it ends or ctx does.
func follow(ctx context.Context, listing iter.Seq2[objectstore.Object, error]) *stream {
	batches := make(chan batch, ahead)
	go func() {
		defer close(batches)
		send := func(b batch) bool {
			select {
			case batches <- b:
				return true
			case <-ctx.Done():
				return false
			}
		}
		var objects []objectstore.Object
		for o, err := range listing {
			if err != nil {
				send(batch{objects, err})
				return
			}
			if objects = append(objects, o); len(objects) == batchSize {
				if !send(batch{objects: objects}) {
					return
				}
				objects = make([]objectstore.Object, 0, batchSize)
			}
		}
		// A listing that broke off with the context must not look like one that ended.
		send(batch{objects, ctx.Err()})
	}()
	return &stream{batches: batches}
}

// head is the next object, nil at the end.
func (s *stream) head() (*objectstore.Object, error) {
	for len(s.now.objects) == 0 {
		if s.now.err != nil {
			return nil, s.now.err
		}
		next, ok := <-s.batches
		if !ok {
			return nil, nil
		}
		s.now = next
	}
	return &s.now.objects[0], nil
}

func (s *stream) pop() { s.now.objects = s.now.objects[1:] }
