package mirror

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"transship/internal/distribution"
	"transship/internal/journal"
	"transship/internal/objectstore"
	"transship/internal/registry"
)

// Applied is what a delta came to.
type Applied struct {
	Changes  int
	Deleted  int
	Progress registry.Progress
	// NotDeleted names what was deleted at the source and stays at the target, because this migration did not write it.
	NotDeleted []string
	Problems   []registry.Problem
}

// Apply brings what acknowledged writes touched to the target, as it is at the source now, read from the newest replica: blobs first, then manifests and tags,
// then deletions. It looks at nothing else, so that its cost is that of the changes. Doing it again changes nothing.
func (m *Mirror) Apply(ctx context.Context, changes []journal.Change) (Applied, error) {
	m.init()
	m.Known.presence.onlyAsks()
	d := &delta{walk: &walk{Mirror: m, base: m.counted()}, repositories: map[string]*repository{}}
	for _, c := range changes {
		if d.repositories[c.Repository] == nil {
			r := newRepository(d.walk, c.Repository)
			close(r.manifested) // nothing comes later here
			d.repositories[c.Repository] = r
		}
	}
	for _, now := range []func(journal.Change) bool{
		func(c journal.Change) bool { return c.Kind == journal.Blob },
		func(c journal.Change) bool { return c.Kind == journal.Manifest && !c.Deleted },
		func(c journal.Change) bool { return c.Kind == journal.Manifest && c.Deleted },
	} {
		group, inner := errgroup.WithContext(ctx)
		group.SetLimit(m.Jobs)
		for _, c := range changes {
			if now(c) {
				group.Go(func() error {
					if err := d.carry(inner, d.repositories[c.Repository], c); err != nil {
						return fmt.Errorf("carry over %s %s of %s: %w", c.Kind, c.Reference, c.Repository, err)
					}
					return nil
				})
			}
		}
		if err := group.Wait(); err != nil {
			return d.applied(changes), err
		}
	}
	result := d.applied(changes)
	if len(result.Problems) > 0 && !m.SkipBroken {
		return result, &registry.BrokenError{Problems: result.Problems}
	}
	return result, nil
}

type delta struct {
	*walk
	repositories map[string]*repository
	deleted      int
	kept         []string
}

func (d *delta) applied(changes []journal.Change) Applied {
	d.mu.Lock()
	defer d.mu.Unlock()
	a := Applied{Changes: len(changes), Deleted: d.deleted, NotDeleted: d.kept}
	for _, r := range d.repositories {
		a.Problems = append(a.Problems, r.problems()...)
	}
	now, before := d.counted().Progress, d.base.Progress
	a.Progress = registry.Progress{Manifests: now.Manifests - before.Manifests, Blobs: now.Blobs - before.Blobs, Bytes: now.Bytes - before.Bytes}
	return a
}

func (d *delta) carry(ctx context.Context, r *repository, c journal.Change) error {
	if !journal.IsDigest(c.Reference) {
		return d.carryTag(ctx, r, c.Reference)
	}
	of, err := digest.Parse(c.Reference)
	if err != nil {
		return nil // no registry can have acknowledged it
	}
	if c.Kind == journal.Blob {
		return d.carryBlob(ctx, r, of)
	}
	there, err := d.carryManifest(ctx, r, of)
	if err != nil || there {
		return err
	}
	deleted, kept, err := d.deleteManifest(ctx, r.name, of)
	d.note(deleted, kept...)
	return err
}

func (d *delta) note(deleted int, kept ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.deleted += deleted
	d.kept = append(d.kept, kept...)
}

func (d *delta) carryBlob(ctx context.Context, r *repository, of digest.Digest) error {
	path := distribution.Path{Kind: distribution.Layer, Repository: r.name, Digest: of}
	there, err := r.linkedAtSource(ctx, path)
	if err != nil || !there { // never stored, such as a mount that became an upload; or deleted
		return err
	}
	if there, err = r.linkedAtTarget(ctx, path); err != nil || there {
		return err
	}
	return r.carryLayer(ctx, path, distribution.LinkMD5(of))
}

// carryManifest brings a manifest with all that it needs, and reports whether the source has it.
func (d *delta) carryManifest(ctx context.Context, r *repository, of digest.Digest) (there bool, err error) {
	path := distribution.Path{Kind: distribution.Revision, Repository: r.name, Digest: of}
	if there, err = r.linkedAtSource(ctx, path); err != nil || !there {
		return false, err
	}
	linked, err := r.linkedAtTarget(ctx, path)
	if err != nil || linked { // then it has all that it needs as well
		return true, err
	}
	if err := r.carryRevision(ctx, path, distribution.LinkMD5(of)); err != nil {
		return true, err
	}
	return true, r.carryLate(ctx)
}

func (d *delta) carryTag(ctx context.Context, r *repository, name string) error {
	current := distribution.Path{Kind: distribution.TagCurrent, Repository: r.name, Tag: name}
	of, err := d.readTag(ctx, d.From.Store, current)
	switch {
	case errors.Is(err, objectstore.ErrNotExist):
		f, err := d.deleteTag(ctx, r.name, name)
		switch f {
		case deleted:
			d.note(1)
		case stays:
			d.note(0, r.name+":"+name)
		}
		return err
	case err != nil:
		return r.judgeTag(name, err)
	}
	there, err := d.carryManifest(ctx, r, of)
	if err != nil {
		return err
	}
	if !there && !r.isBroken(of) {
		if now, err := d.settled(ctx, r.name, name, of); errors.Is(err, objectstore.ErrNotExist) || err == nil && now != of {
			return d.carryTag(ctx, r, name)
		} else if err != nil {
			return r.judgeTag(name, err)
		}
		r.blame(of, &badContent{registry.Missing, "the tag's manifest is not in the repository"})
	}
	if r.affects(of, name) {
		return nil
	}
	// A link that is bad at the target is replaced as one that is absent would be.
	if has, err := d.readTag(ctx, d.To.Store, current); err == nil && has == of {
		return nil
	} else if err != nil && !errors.Is(err, objectstore.ErrNotExist) && asBad(err) == nil {
		return err
	}
	if err := r.link(ctx, distribution.Path{Kind: distribution.TagIndex, Repository: r.name, Tag: name, Digest: of}.Key(), of); err != nil {
		return err
	}
	return r.link(ctx, current.Key(), of)
}

func (m *Mirror) readTag(ctx context.Context, store objectstore.Store, current distribution.Path) (d digest.Digest, err error) {
	err = m.within(ctx, func() error {
		d, err = ReadLink(ctx, store, current.Key())
		return err
	})
	return d, err
}

// CompareChanges looks whether the target has what a delta touched as the source has it. It costs what the delta touched.
func (m *Mirror) CompareChanges(ctx context.Context, changes []journal.Change) ([]registry.Difference, error) {
	m.init()
	found := make([]*registry.Difference, len(changes))
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(m.Jobs)
	for i, c := range changes {
		group.Go(func() error {
			want, err := m.state(inner, m.From.Store, m.linkedAtSource, c)
			if err != nil || want == "" { // deleted, or never there: what the target keeps of it is in the result of the delta
				return err
			}
			have, err := m.state(inner, m.To.Store, m.linkedAtTarget, c)
			if err == nil && have != want {
				found[i] = &registry.Difference{Repository: c.Repository, Tag: c.Reference, Kind: registry.DifferentTag, Want: want.String(), Have: have.String()}
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	var differences []registry.Difference
	for _, d := range found {
		if d != nil {
			differences = append(differences, *d)
		}
	}
	return differences, nil
}

// state is the digest that a changed thing has in a store; empty when it is not there.
func (m *Mirror) state(ctx context.Context, store objectstore.Store, linked func(context.Context, distribution.Path) (bool, error), c journal.Change) (digest.Digest, error) {
	path := distribution.Path{Repository: c.Repository, Digest: digest.Digest(c.Reference)}
	switch {
	case !journal.IsDigest(c.Reference):
		path = distribution.Path{Kind: distribution.TagCurrent, Repository: c.Repository, Tag: c.Reference}
		d, err := m.readTag(ctx, store, path)
		if errors.Is(err, objectstore.ErrNotExist) || asBad(err) != nil {
			return "", nil
		}
		return d, err
	case path.Digest.Validate() != nil:
		return "", nil
	case c.Kind == journal.Blob:
		path.Kind = distribution.Layer
	default:
		path.Kind = distribution.Revision
	}
	there, err := linked(ctx, path)
	if err != nil || !there {
		return "", err
	}
	return path.Digest, nil
}
