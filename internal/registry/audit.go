package registry

import (
	"context"
	"errors"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"
)

// AuditOptions say how closely to look.
type AuditOptions struct {
	// Deep reads and hashes every byte; otherwise presence and sizes are checked.
	Deep bool
	// Jobs is how many requests are under way at once; 0 means 8.
	Jobs int
	// Observe is told the counts after each finished thing, and every second. Calls do not overlap.
	Observe func(Check)
	// Checked is shared among the deep checks of one registry; nil means by itself.
	Checked *Checked
}

// Audit looks at every tag of a repository and at all that it needs, and lists what is bad, with the tags affected. A tag that is
// deleted meanwhile is passed over. An error means that the audit could not be finished, not that something is bad.
func Audit(ctx context.Context, r *Registry, repository string, opt AuditOptions) ([]Problem, Check, error) {
	w := newWalker(r, repository, opt.Deep, opt.Jobs, opt.Checked, opt.Observe)
	defer w.watched()()
	tags, err := r.Tags(ctx, repository)
	if err != nil {
		return nil, w.check(), err
	}
	run := &run{repository: repository} // for its collection of problems
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(cap(w.slots))
	for _, tag := range tags {
		group.Go(func() error {
			bad, err := w.tag(inner, tag)
			if err != nil {
				return fmt.Errorf("auditing %s: %w", named(repository, tag), err)
			}
			for i := range bad {
				run.record(&bad[i], tag)
			}
			return nil
		})
	}
	err = group.Wait()
	if ctx.Err() != nil {
		err = fmt.Errorf("auditing %s: %w", repository, context.Cause(ctx))
	}
	return run.found(), w.check(), err
}

// tag gives the problems of what a tag refers to, and of what refers to that by the API; fallback tags are tags of their own.
func (w *walker) tag(ctx context.Context, tag string) ([]Problem, error) {
	d, err := w.resolve(ctx, tag)
	var bad *Problem
	switch {
	case errors.As(err, &bad):
		return []Problem{*bad}, nil
	case errors.Is(err, ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	}
	w.tags.Add(1)
	found, err := w.manifest(ctx, d)
	if err != nil {
		return nil, err
	}
	more, err := w.referrers(ctx, w.reg, d)
	if found = append(found, more...); err != nil || len(found) == 0 {
		return nil, err
	}
	gone, err := w.gone(ctx, tag)
	if err != nil || gone {
		return nil, err
	}
	return found, nil
}

func (w *walker) resolve(ctx context.Context, tag string) (d v1.Descriptor, err error) {
	err = w.within(ctx, func() (err error) {
		d, err = w.reg.Resolve(ctx, w.repository, tag)
		return err
	})
	return d, err
}

// gone reports whether a tag is not there any more: a client may have deleted the image while we looked at it.
func (w *walker) gone(ctx context.Context, tag string) (bool, error) {
	_, err := w.resolve(ctx, tag)
	var bad *Problem
	switch {
	case err == nil, errors.As(err, &bad):
		return false, nil
	case errors.Is(err, ErrNotFound):
		return true, nil
	}
	return false, err
}

// referrers walks to everything that, by the API of the registry asked, refers to a manifest, directly or not.
func (w *walker) referrers(ctx context.Context, ask *Registry, of v1.Descriptor) ([]Problem, error) {
	var found []Problem
	seen := map[v1.Hash]bool{of.Digest: true}
	for queue := []v1.Descriptor{of}; len(queue) > 0; queue = queue[1:] {
		var list []v1.Descriptor
		err := w.within(ctx, func() (err error) {
			list, _, err = ask.referrersByAPI(ctx, w.repository, queue[0].Digest)
			if err == nil && queue[0].MediaType.IsIndex() && !ask.lacksReferrers() {
				var m *Manifest
				if m, err = ask.Manifest(ctx, w.repository, queue[0].Digest.String()); err == nil {
					for _, child := range m.Children {
						if !seen[child.Digest] {
							seen[child.Digest] = true
							queue = append(queue, child)
						}
					}
				} else if !IsTemporary(err) && ctx.Err() == nil {
					err = nil // the walk over manifests has reported it
				}
			}
			return err
		})
		if err != nil {
			return found, err
		}
		for _, d := range list {
			if seen[d.Digest] {
				continue
			}
			seen[d.Digest] = true
			bad, err := w.manifest(ctx, d)
			if err != nil {
				return found, err
			}
			found = append(found, bad...)
			queue = append(queue, d)
		}
	}
	return found, nil
}
