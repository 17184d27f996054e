package mirror

import (
	"context"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"transship/internal/distribution"
)

// walk is one Run: it goes through the joined listings and sets the work on each difference going.
type walk struct {
	*Mirror
	group *errgroup.Group
	// fail ends the context of all work, and says why.
	fail context.CancelCauseFunc
	// base is what the Mirror's counters said when this Run began.
	base Cursor

	mu     sync.Mutex
	cursor Cursor
	// open are the repositories that are not done, in the order of their keys: the cursor is before the first.
	open []*repository
}

// now is the cursor with everything that was sent so far.
func (w *walk) now() Cursor {
	sent := w.counted()
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.cursor
	p, b := sent.Progress, w.base.Progress
	c.Progress.Manifests += p.Manifests - b.Manifests
	c.Progress.Blobs += p.Blobs - b.Blobs
	c.Progress.BlobsPresent += p.BlobsPresent - b.BlobsPresent
	c.Progress.Bytes += p.Bytes - b.Bytes
	c.Links += sent.Links - w.base.Links
	c.Reread += sent.Reread - w.base.Reread
	return c
}

// all goes through a shard.
func (w *walk) all(ctx context.Context, shard Shard) error {
	o := shard.Listing()
	o.After = max(o.After, w.cursor.After)
	var r *repository
	for p, err := range join(ctx, w.From.Store, w.To.Store, o) {
		if err != nil {
			return err
		}
		path := distribution.Parse(p.key)
		if path.Kind == distribution.Upload {
			continue // open sessions stay where they are
		}
		if path.Repository == "" {
			w.mu.Lock()
			w.cursor.note([]string{p.key})
			w.mu.Unlock()
			continue
		}
		if r == nil || r.name != path.Repository {
			if err := w.leave(ctx, r); err != nil {
				return err
			}
			r = w.enter(path.Repository)
		}
		if path.Kind == distribution.Unknown {
			r.unexpected = append(r.unexpected, p.key)
			continue
		}
		if err := r.take(ctx, path, &p); err != nil {
			return err
		}
	}
	return w.leave(ctx, r)
}

func (w *walk) enter(name string) *repository {
	r := newRepository(w, strings.Clone(name))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open = append(w.open, r)
	return r
}

// leave says that there is nothing more to come for a repository.
func (w *walk) leave(ctx context.Context, r *repository) error {
	if r == nil {
		return nil
	}
	if err := r.endTags(ctx); err != nil {
		return err
	}
	if !r.busy {
		w.done(r)
		return nil
	}
	w.group.Go(func() error {
		if err := r.finish(ctx); err != nil {
			return err
		}
		w.done(r)
		return nil
	})
	return nil
}

// done moves the cursor past the repositories that are done and have none before them that is not.
func (w *walk) done(r *repository) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r.done = true
	for len(w.open) > 0 && w.open[0].done {
		first := w.open[0]
		w.open[0] = nil
		w.open = w.open[1:]
		w.cursor.add(first)
		w.cursor.After = distribution.Past(first.name)
	}
}

// start does something about a difference in a goroutine of its own. It waits while too many are under way. Whoever waits for begun finds the context ended if it failed: the
// group would say so only later, and the repository count as done until then.
func (w *walk) start(ctx context.Context, begun *sync.WaitGroup, do func() error) error {
	if err := w.entries.Acquire(ctx, 1); err != nil {
		return err
	}
	begun.Add(1)
	w.group.Go(func() error {
		defer begun.Done()
		defer w.entries.Release(1)
		err := do()
		if err != nil {
			w.fail(err)
		}
		return err
	})
	return nil
}
