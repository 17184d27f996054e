package objectstore

import (
	"context"
	"iter"
)

// page is what one request for a listing gives.
type page[T any] struct {
	items []T
	// next is what the following page comes after; empty when there is none.
	next string
	err  error
}

// paged yields the items of one page after the other. The next page is fetched while one is consumed. fetch is told what to go on after, and
// how many items came before.
func paged[T any](ctx context.Context, after string, fetch func(ctx context.Context, after string, seen int) page[T]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		var zero T
		p, seen := fetch(ctx, after, 0), 0
		for p.err == nil {
			seen += len(p.items)
			var ahead chan page[T]
			if p.next != "" {
				ahead = make(chan page[T], 1)
				go func(next string, seen int) { ahead <- fetch(ctx, next, seen) }(p.next, seen)
			}
			for _, item := range p.items {
				if !yield(item, nil) {
					return
				}
			}
			if ahead == nil {
				return
			}
			p = <-ahead
		}
		yield(zero, p.err)
	}
}
