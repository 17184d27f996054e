package registry

import (
	"context"
	"fmt"
	"slices"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"
)

// Repository carries over all tags of a repository that sort after the given one (all for ""), with everything they need and their
// referrers. All tags are tried even when some have problems; then the Result lists these and, without SkipBroken, the error is a
// *BrokenError. Any other error ends the copy at once.
func (c *Copier) Repository(ctx context.Context, repository, after string) (Result, error) {
	defer c.watched()()
	run := c.newRun(repository)
	res := Result{Repository: repository}
	tags, err := c.From.Tags(ctx, repository)
	if err != nil {
		return res, err
	}
	run.listed = true
	tags = slices.DeleteFunc(tags, func(tag string) bool { return tag <= after })

	cursor := &cursor{tags: tags, done: make([]bool, len(tags)), tell: func(tag string) {
		if c.TagDone != nil {
			c.TagDone(repository, tag)
		}
	}}
	var mu sync.Mutex
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(c.Jobs)
	for i, tag := range tags {
		if inner.Err() != nil {
			break
		}
		group.Go(func() error {
			out, err := run.tag(inner, tag)
			if err != nil {
				return fmt.Errorf("copying %s: %w", named(repository, tag), err)
			}
			mu.Lock()
			defer mu.Unlock()
			res.Tags++
			if out.unchanged {
				res.Unchanged++
			}
			if out.vanished {
				res.Vanished++
			}
			if !out.broken {
				cursor.finish(i)
			}
			return nil
		})
	}
	err = group.Wait()
	if ctx.Err() != nil {
		err = fmt.Errorf("copying %s: %w", repository, context.Cause(ctx))
	}
	res.Foreign = run.foreign.Load()
	res.Problems = run.found()
	if err != nil {
		return res, err
	}
	c.count(&c.counts.repositories)
	if c.SkipBroken {
		return res, nil
	}
	return res, run.broken()
}

// cursor turns tags that finish in any order into a position below which all are done. Its caller serialises the calls.
type cursor struct {
	tags []string
	done []bool
	next int
	tell func(tag string)
}

func (c *cursor) finish(i int) {
	c.done[i] = true
	for c.next < len(c.done) && c.done[c.next] {
		c.tell(c.tags[c.next])
		c.next++
	}
}

// tagged is what became of a tag.
type tagged struct {
	desc                        v1.Descriptor
	unchanged, vanished, broken bool
}
