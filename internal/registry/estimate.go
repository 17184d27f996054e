package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"
)

// Estimation is what copying a repository would mean, for the plan. Digests are keys, so that a caller can count what repositories share once.
type Estimation struct {
	Repository string `json:"repository"`
	// Tags of the source; TagsPresent are the same at the target already.
	Tags        int64 `json:"tags"`
	TagsPresent int64 `json:"tags_present"`
	// TagsChanged exist at the target with another digest: they would be moved.
	TagsChanged []string `json:"tags_changed,omitempty"`
	// TagsOnlyAtTarget would stay as they are.
	TagsOnlyAtTarget []string `json:"tags_only_at_target,omitempty"`
	// Manifests and Blobs give the bytes of each, by digest, for the tags that are not present.
	Manifests map[string]int64 `json:"-"`
	Blobs     map[string]int64 `json:"-"`
	// BlobsPresent are those of Blobs that the target's repository has.
	BlobsPresent map[string]bool `json:"-"`
	// Problems lists manifests that the source does not have or that are bad; an Audit finds more.
	Problems []Problem `json:"problems,omitempty"`
}

// Copy sums up what would be sent: the blobs that the target does not have, and their bytes.
func (e *Estimation) Copy() (blobs, bytes int64) {
	for digest, size := range e.Blobs {
		if !e.BlobsPresent[digest] {
			blobs++
			bytes += max(size, 0)
		}
	}
	return blobs, bytes
}

// Estimate reads the manifests of a repository at the source, and asks the target which of it is there. Nothing is written. Jobs is how
// many requests are under way at once; 0 means 8.
func Estimate(ctx context.Context, from, to *Registry, repository string, jobs int) (Estimation, error) {
	e := &estimator{from: from, to: to, walker: newWalker(from, repository, false, jobs, nil, nil)}
	e.Repository = repository
	e.Manifests, e.Blobs, e.BlobsPresent = map[string]int64{}, map[string]int64{}, map[string]bool{}
	tags, err := from.Tags(ctx, repository)
	if err != nil {
		return e.Estimation, err
	}
	have, err := to.Tags(ctx, repository)
	if err != nil {
		return e.Estimation, err
	}
	e.Tags = int64(len(tags))
	for _, tag := range have {
		if _, known := slices.BinarySearch(tags, tag); !known {
			e.TagsOnlyAtTarget = append(e.TagsOnlyAtTarget, tag)
		}
	}
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(cap(e.slots))
	for _, tag := range tags {
		_, there := slices.BinarySearch(have, tag)
		group.Go(func() error {
			if err := e.tag(inner, tag, there); err != nil {
				return fmt.Errorf("estimating %s: %w", named(repository, tag), err)
			}
			return nil
		})
	}
	err = group.Wait()
	if ctx.Err() != nil {
		err = fmt.Errorf("estimating %s: %w", repository, context.Cause(ctx))
	}
	slices.Sort(e.TagsChanged)
	e.Problems = e.found.list()
	return e.Estimation, err
}

type estimator struct {
	Estimation
	*walker
	from, to *Registry

	once  flights[struct{}]
	mu    sync.Mutex
	found problems
}

func (e *estimator) tag(ctx context.Context, tag string, there bool) error {
	var want, have v1.Descriptor
	err := e.within(ctx, func() (err error) {
		if want, err = e.from.Resolve(ctx, e.Repository, tag); err != nil || !there {
			return err
		}
		have, err = e.to.Resolve(ctx, e.Repository, tag)
		if errors.Is(err, ErrNotFound) {
			there, err = false, nil
		}
		return err
	})
	if errors.Is(err, ErrNotFound) {
		return nil // deleted meanwhile
	}
	if err != nil {
		return err
	}
	e.mu.Lock()
	switch {
	case there && want.Digest == have.Digest:
		e.TagsPresent++
		e.mu.Unlock()
		return nil
	case there:
		e.TagsChanged = append(e.TagsChanged, tag)
	}
	e.mu.Unlock()
	err = e.manifest(ctx, want)
	e.problem(err, tag)
	if problemsIn(err) != nil {
		return nil
	}
	return err
}

// manifest adds a manifest, its children and its blobs.
func (e *estimator) manifest(ctx context.Context, d v1.Descriptor) error {
	_, err := e.once.do(ctx, d.Digest.String(), func() (struct{}, error) {
		var m *Manifest
		err := e.within(ctx, func() (err error) {
			m, err = e.from.Manifest(ctx, e.Repository, d.Digest.String())
			return err
		})
		switch {
		case errors.Is(err, ErrNotFound) && !knownManifest(d):
			return struct{}{}, e.blob(ctx, d)
		case errors.Is(err, ErrNotFound):
			return struct{}{}, e.from.problem(Missing, e.Repository, d.Digest, "the manifest is not there")
		case err != nil:
			return struct{}{}, err
		}
		e.mu.Lock()
		e.Manifests[d.Digest.String()] = int64(len(m.Raw))
		e.mu.Unlock()
		var tasks []func(context.Context) error
		for _, child := range m.Children {
			tasks = append(tasks, func(ctx context.Context) error { return e.manifest(ctx, child) })
		}
		for _, b := range m.Blobs {
			tasks = append(tasks, func(ctx context.Context) error { return e.blob(ctx, b) })
		}
		return struct{}{}, all(ctx, tasks)
	})
	return err
}

// blob adds a blob, and asks the target for it.
func (e *estimator) blob(ctx context.Context, d v1.Descriptor) error {
	_, err := e.once.do(ctx, "blob "+d.Digest.String(), func() (struct{}, error) {
		return struct{}{}, e.within(ctx, func() error {
			_, there, err := e.to.HasBlob(ctx, e.Repository, d.Digest)
			if err != nil {
				return err
			}
			e.mu.Lock()
			defer e.mu.Unlock()
			e.Blobs[d.Digest.String()] = d.Size
			if there {
				e.BlobsPresent[d.Digest.String()] = true
			}
			return nil
		})
	})
	return err
}

func (e *estimator) problem(err error, tag string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, p := range problemsIn(err) {
		e.found.add(p, tag)
	}
}
