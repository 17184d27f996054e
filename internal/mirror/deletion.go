package mirror

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"

	"transship/internal/distribution"
	"transship/internal/objectstore"
)

// followDeletions deletes at the target what the source no longer has and this migration wrote: tags first, then manifests. All else that only the target
// has is kept, and named.
func (r *repository) followDeletions(ctx context.Context) error {
	for _, name := range r.extraTags {
		gone, err := r.deleteTag(ctx, r.name, name)
		if err != nil {
			return err
		}
		r.tally(gone, r.name+":"+name)
	}
	tagsStay := len(r.kept) > 0
	for _, d := range r.extraManifests {
		if tagsStay { // and one of them may need this manifest
			r.kept = append(r.kept, r.name+"@"+d.String())
			continue
		}
		gone, err := r.deleteLink(ctx, distribution.Path{Kind: distribution.Revision, Repository: r.name, Digest: d}.Key())
		if err != nil {
			return err
		}
		r.tally(gone, r.name+"@"+d.String())
	}
	return nil
}

// fate is what became of something that only the target has.
type fate int

const (
	// stays: it is not ours to delete.
	stays fate = iota
	// deleted by us just now.
	deleted
	// wanted: the source has it after all, its listing lags behind.
	wanted
)

func (r *repository) tally(f fate, name string) {
	switch f {
	case deleted:
		r.walk.mu.Lock()
		r.deleted++
		r.walk.mu.Unlock()
	case stays:
		r.kept = append(r.kept, name)
	}
}

// deleteTag deletes a tag with its history, the current link first, so that it never refers to something half gone.
func (m *Mirror) deleteTag(ctx context.Context, repository, name string) (fate, error) {
	f, err := m.deleteLink(ctx, distribution.Path{Kind: distribution.TagCurrent, Repository: repository, Tag: name}.Key())
	if err != nil || f != deleted {
		return f, err
	}
	history := distribution.TagHistory(repository, name)
	for o, err := range m.To.Store.List(ctx, objectstore.ListOptions{Prefix: history}) {
		if err != nil {
			return f, fmt.Errorf("list the history of %s:%s at %s: %w", repository, name, m.To.Backend, err)
		}
		if _, err := m.deleteLink(ctx, o.Key); err != nil {
			return f, err
		}
	}
	return f, nil
}

// deleteLink deletes a link that this migration wrote and the source does not have. Neither is taken from a listing.
func (m *Mirror) deleteLink(ctx context.Context, key string) (f fate, err error) {
	err = m.within(ctx, func() error {
		there, err := exists(ctx, m.From.Store, key)
		if err != nil {
			return fmt.Errorf("is %s gone at %s: %w", key, m.From.Backend, err)
		}
		if there {
			f = wanted
			return nil
		}
		object, err := m.To.Store.Stat(ctx, key, objectstore.ReadOptions{Newest: true})
		switch {
		case errors.Is(err, objectstore.ErrNotExist):
			f = deleted
			return nil
		case err != nil:
			return fmt.Errorf("who wrote %s at %s: %w", key, m.To.Backend, err)
		case !m.Deletes || m.Mark == "" || object.Mark != m.Mark:
			f = stays
			return nil
		}
		if err := m.To.Store.Delete(ctx, key); err != nil {
			return fmt.Errorf("delete %s at %s: %w", key, m.To.Backend, err)
		}
		f = deleted
		return nil
	})
	return f, err
}

// deleteManifest follows the deletion of a manifest, and of the tags that go with it.
func (m *Mirror) deleteManifest(ctx context.Context, repository string, d digest.Digest) (deletedLinks int, kept []string, err error) {
	note := func(f fate, name string) {
		switch f {
		case deleted:
			deletedLinks++
		case stays:
			kept = append(kept, name)
		}
	}
	md5 := distribution.LinkMD5(d)
	for o, err := range m.To.Store.List(ctx, objectstore.ListOptions{Prefix: distribution.Tags(repository)}) {
		if err != nil {
			return deletedLinks, kept, fmt.Errorf("list the tags of %s at %s: %w", repository, m.To.Backend, err)
		}
		path := distribution.Parse(o.Key)
		if path.Kind != distribution.TagCurrent || o.MD5 != md5 {
			continue
		}
		f, err := m.deleteTag(ctx, repository, path.Tag)
		if err != nil {
			return deletedLinks, kept, err
		}
		note(f, repository+":"+path.Tag)
	}
	if len(kept) > 0 {
		return deletedLinks, append(kept, repository+"@"+d.String()), nil // a tag that stays needs its manifest
	}
	f, err := m.deleteLink(ctx, distribution.Path{Kind: distribution.Revision, Repository: repository, Digest: d}.Key())
	if err == nil {
		note(f, repository+"@"+d.String())
	}
	return deletedLinks, kept, err
}
