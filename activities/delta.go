package activities

import (
	"context"
	"errors"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"transship/internal/journal"
	"transship/internal/registry"
)

// ApplyParams is a delta to carry over.
type ApplyParams struct {
	From    string           `json:"from"`
	To      string           `json:"to"`
	Changes []journal.Change `json:"changes"`
	Jobs    int              `json:"jobs"`
	// Deletes follows deletions of manifests; KeptBefore names the manifests that the target had before this migration, as
	// repository@digest, and which are therefore not ours to delete.
	Deletes    bool     `json:"deletes,omitempty"`
	KeptBefore []string `json:"kept_before,omitempty"`
	// SkipBroken leaves out images that the source cannot serve whole.
	SkipBroken bool `json:"skip_broken,omitempty"`
	// Storage carries below the registries, from store to store, where Mark tells what is ours to delete; KeptBefore and Deletes are of no use there.
	Storage bool   `json:"storage,omitempty"`
	Mark    string `json:"mark,omitempty"`
}

// ApplyResult is what a delta came to.
type ApplyResult struct {
	Applied  int               `json:"applied"`
	Deleted  int               `json:"deleted,omitempty"`
	Progress registry.Progress `json:"progress"`
	// NotDeleted names what was deleted at the source and stays at the target, as repository@digest.
	NotDeleted []string           `json:"not_deleted,omitempty"`
	Problems   []registry.Problem `json:"problems,omitempty"`
}

// ApplyChanges brings what acknowledged writes touched to the target, as it is at the source now: blobs first, then manifests and tags, then
// deletions. Doing it again changes nothing.
func (r *Registries) ApplyChanges(ctx context.Context, p ApplyParams) (ApplyResult, error) {
	if p.Storage {
		return r.applyStored(ctx, p)
	}
	from, to, err := r.pair(p.From, p.To)
	if err != nil {
		return ApplyResult{}, err
	}
	copier := &registry.Copier{From: from, To: to, Jobs: p.Jobs, Holders: r.holdersOf(p.To)}
	defer beat(ctx, func() any { return copier.Progress() })()
	d := &delta{ApplyParams: p, copier: copier}
	for _, kind := range []func(journal.Change) bool{
		func(c journal.Change) bool { return c.Kind == journal.Blob },
		func(c journal.Change) bool { return c.Kind == journal.Manifest && !c.Deleted },
		func(c journal.Change) bool { return c.Kind == journal.Manifest && c.Deleted },
	} {
		group, inner := errgroup.WithContext(ctx)
		group.SetLimit(max(1, p.Jobs))
		results := make([]ApplyResult, len(p.Changes))
		for i, c := range p.Changes {
			if kind(c) {
				group.Go(func() error { return d.apply(inner, c, &results[i]) })
			}
		}
		err := group.Wait()
		for _, one := range results {
			d.result.Applied += one.Applied
			d.result.Deleted += one.Deleted
			d.result.NotDeleted = append(d.result.NotDeleted, one.NotDeleted...)
			d.result.Problems = append(d.result.Problems, one.Problems...)
		}
		if err != nil {
			return d.result, final(err)
		}
	}
	d.result.Progress = copier.Progress()
	return d.result, nil
}

type delta struct {
	ApplyParams
	copier *registry.Copier
	result ApplyResult
}

func (d *delta) apply(ctx context.Context, c journal.Change, result *ApplyResult) error {
	err := d.carry(ctx, c, result)
	if problems := registry.Problems(err); d.SkipBroken && len(problems) > 0 {
		result.Problems = problems
		return nil
	}
	if err != nil {
		return fmt.Errorf("carry over %s %s of %s: %w", c.Kind, c.Reference, c.Repository, err)
	}
	result.Applied++
	return nil
}

func (d *delta) carry(ctx context.Context, c journal.Change, result *ApplyResult) error {
	var digest v1.Hash
	if journal.IsDigest(c.Reference) {
		var err error
		if digest, err = v1.NewHash(c.Reference); err != nil {
			return nil // no registry can have acknowledged it
		}
	}
	var err error
	switch {
	case c.Kind == journal.Blob:
		err = d.copier.BlobByDigest(ctx, c.Repository, digest)
	case digest == v1.Hash{}:
		_, err = d.copier.Tag(ctx, c.Repository, c.Reference)
	default:
		err = d.copier.ManifestByDigest(ctx, c.Repository, digest)
	}
	// What is gone from the source was deleted, or never stored: a write whose outcome was unknown, or a mount that became an upload. Only the
	// thing itself, though: a layer that it needs and that is missing is a problem.
	gone, lookErr := d.gone(ctx, c, digest, err)
	switch {
	case lookErr != nil:
		return lookErr
	case !gone:
		return err
	case c.Kind == journal.Blob || digest == v1.Hash{}:
		return nil
	}
	return d.delete(ctx, c.Repository, digest, result)
}

// gone reports whether the source no longer has what was changed.
func (d *delta) gone(ctx context.Context, c journal.Change, digest v1.Hash, err error) (bool, error) {
	if !errors.Is(err, registry.ErrNotFound) {
		return false, nil
	}
	if c.Kind == journal.Blob {
		_, there, err := d.copier.From.HasBlob(ctx, c.Repository, digest)
		return !there, err
	}
	_, err = d.copier.From.Resolve(ctx, c.Repository, c.Reference)
	if errors.Is(err, registry.ErrNotFound) {
		return true, nil
	}
	return false, err
}

// delete follows a deletion, unless the target had the manifest before this migration.
func (d *delta) delete(ctx context.Context, repository string, digest v1.Hash, result *ApplyResult) error {
	_, err := d.copier.To.Resolve(ctx, repository, digest.String())
	if errors.Is(err, registry.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	name := repository + "@" + digest.String()
	for _, kept := range d.KeptBefore {
		if kept == name || kept == "*" {
			result.NotDeleted = append(result.NotDeleted, name)
			return nil
		}
	}
	if !d.Deletes {
		result.NotDeleted = append(result.NotDeleted, name)
		return nil
	}
	err = d.copier.To.DeleteManifest(ctx, repository, digest)
	switch {
	case err == nil:
		result.Deleted++
	case errors.Is(err, registry.ErrUnsupported):
		result.NotDeleted = append(result.NotDeleted, name)
	case !errors.Is(err, registry.ErrNotFound):
		return err
	}
	return nil
}

// VerifyChanges looks whether the target has what a delta touched, as the source has it. It is cheap: it costs what the delta touched.
func (r *Registries) VerifyChanges(ctx context.Context, p ApplyParams) ([]registry.Difference, error) {
	if p.Storage {
		return r.compareStored(ctx, p)
	}
	from, to, err := r.pair(p.From, p.To)
	if err != nil {
		return nil, err
	}
	defer beat(ctx, func() any { return nil })()
	differences := make([]*registry.Difference, len(p.Changes))
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(max(1, p.Jobs))
	for i, c := range p.Changes {
		group.Go(func() (err error) {
			differences[i], err = compareChange(inner, from, to, c)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, final(err)
	}
	var found []registry.Difference
	for _, d := range differences {
		if d != nil {
			found = append(found, *d)
		}
	}
	return found, nil
}

func compareChange(ctx context.Context, from, to *registry.Registry, c journal.Change) (*registry.Difference, error) {
	state := func(r *registry.Registry) (string, error) {
		if c.Kind == journal.Blob {
			digest, err := v1.NewHash(c.Reference)
			if err != nil {
				return "", nil
			}
			_, there, err := r.HasBlob(ctx, c.Repository, digest)
			if !there {
				return "", err
			}
			return c.Reference, err
		}
		d, err := r.Resolve(ctx, c.Repository, c.Reference)
		if errors.Is(err, registry.ErrNotFound) {
			return "", nil
		}
		return d.Digest.String(), err
	}
	want, err := state(from)
	if err != nil || want == "" { // deleted, or never there: what the target keeps of it is in the result of the delta
		return nil, err
	}
	have, err := state(to)
	if err != nil || have == want {
		return nil, err
	}
	return &registry.Difference{Repository: c.Repository, Tag: c.Reference, Kind: registry.DifferentTag, Want: want, Have: have}, nil
}
