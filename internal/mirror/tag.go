package mirror

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"transship/internal/distribution"
	"transship/internal/objectstore"
	"transship/internal/registry"
)

// tag is what the listings show of one tag: "current/link" comes first, and which digest its MD5 stands for is known when the "index/" entries have
// gone by.
type tag struct {
	name string
	// current is the MD5 of the source's current link; "" where the listing does not have one.
	current string
	// atFrom and atTo say on which sides there is a current link.
	atFrom, atTo bool
	// index are the digests that the tag has, or had, at the source; missing those that the target lacks.
	index, missing []digest.Digest
	changed        bool
}

// takeTag looks at one key of a tag.
func (r *repository) takeTag(ctx context.Context, path distribution.Path, p *pair) error {
	if r.tag == nil || r.tag.name != path.Tag {
		if err := r.endTag(ctx); err != nil {
			return err
		}
		r.tag = &tag{name: strings.Clone(path.Tag)}
	}
	t := r.tag
	if path.Kind == distribution.TagCurrent {
		t.atFrom, t.atTo = p.atFrom(), p.atTo()
		t.current = p.from.MD5
		t.changed = !p.same()
		return nil
	}
	if !p.atFrom() {
		return nil // history that the source has forgotten
	}
	t.index = append(t.index, path.Digest)
	if !p.atTo() || p.from.MD5 != p.to.MD5 {
		t.missing = append(t.missing, path.Digest)
		t.changed = true
	}
	return nil
}

// endTag decides about a tag when all its keys have gone by.
func (r *repository) endTag(ctx context.Context) error {
	t := r.tag
	r.tag = nil
	if t == nil {
		return nil
	}
	if !t.atFrom && len(t.index) > 0 {
		// Its history is listed and it is not: either the listing lags behind, or the tag has lost its link.
		there, err := r.linkedAtSource(ctx, distribution.Path{Kind: distribution.TagCurrent, Repository: r.name, Tag: t.name})
		if err != nil {
			return err
		}
		t.atFrom, t.changed = there, t.changed || there
	}
	switch {
	case !t.atFrom && !t.atTo && len(t.index) > 0:
		r.unexpected = append(r.unexpected, distribution.Path{Kind: distribution.TagIndex, Repository: r.name, Tag: t.name, Digest: t.index[0]}.Key()+" (the tag has no current link)")
		return nil
	case !t.atFrom && t.atTo:
		r.busy = true
		r.extraTags = append(r.extraTags, t.name)
		return nil
	}
	r.tags++
	if !t.changed {
		r.unchanged++
		return nil
	}
	r.busy = true
	return r.start(ctx, &r.tagging, func() error { return r.carryTag(ctx, t) })
}

// endTags is called when nothing more comes for the repository.
func (r *repository) endTags(ctx context.Context) error {
	if r.tag == nil {
		return nil
	}
	return r.endTag(ctx)
}

// carryTag brings a tag: what it refers to is there, or the tag is left out.
func (r *repository) carryTag(ctx context.Context, t *tag) error {
	d, err := r.resolve(ctx, t)
	switch {
	case errors.Is(err, errVanished):
		return nil
	case err != nil:
		return r.judgeTag(t.name, err)
	}
	select {
	case <-r.manifested:
	case <-ctx.Done():
		return ctx.Err()
	}
	missing := t.missing
	if len(t.index) == 0 { // the listing lags behind: it has the tag, and not yet its history
		missing = []digest.Digest{d}
	}
	for {
		there, err := r.hasManifest(ctx, d)
		if err != nil {
			return err
		}
		if there {
			break
		}
		now, err := d, error(nil)
		if !r.isBroken(d) {
			now, err = r.settled(ctx, r.name, t.name, d)
		}
		switch {
		case errors.Is(err, objectstore.ErrNotExist):
			return nil // it was deleted: the listing lags behind
		case err != nil:
			return r.judgeTag(t.name, err)
		case now == d:
			r.blame(d, &badContent{registry.Missing, "the tag's manifest is not in the repository"})
			r.affects(d, t.name)
			return nil
		}
		d, missing = now, []digest.Digest{now} // it was moved
	}
	for _, had := range missing {
		if r.isBroken(had) {
			continue
		}
		if err := r.link(ctx, distribution.Path{Kind: distribution.TagIndex, Repository: r.name, Tag: t.name, Digest: had}.Key(), had); err != nil {
			return err
		}
	}
	return r.link(ctx, distribution.Path{Kind: distribution.TagCurrent, Repository: r.name, Tag: t.name}.Key(), d)
}

// resolve says which digest a tag has at the source.
func (r *repository) resolve(ctx context.Context, t *tag) (d digest.Digest, err error) {
	for _, had := range t.index {
		if distribution.LinkMD5(had) == t.current {
			return had, nil
		}
	}
	d, err = r.readTag(ctx, r.From.Store, distribution.Path{Kind: distribution.TagCurrent, Repository: r.name, Tag: t.name})
	if errors.Is(err, objectstore.ErrNotExist) {
		return "", errVanished
	}
	return d, err
}

// settled says what a tag refers to at the source after its manifest turned out not to be there. A listing may have shown it as it was once; and a registry that is told to delete a manifest
// deletes its tags after it, so a tag of nothing counts only if it stays.
func (m *Mirror) settled(ctx context.Context, repository, name string, of digest.Digest) (now digest.Digest, err error) {
	const looks = 10
	for range looks {
		now, err = m.readTag(ctx, m.From.Store, distribution.Path{Kind: distribution.TagCurrent, Repository: repository, Tag: name})
		if err != nil || now != of {
			return now, err
		}
		select {
		case <-time.After(m.Untagging / looks):
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	return now, nil
}

// hasManifest reports whether the target has a link to the manifest of a tag.
func (r *repository) hasManifest(ctx context.Context, d digest.Digest) (bool, error) {
	if r.linked.has(d) {
		return true, nil
	}
	r.lateTurn.Lock()
	defer r.lateTurn.Unlock()
	return r.bringPart(ctx, d)
}

func (r *repository) isBroken(d digest.Digest) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.broken[d] != nil
}

// judgeTag records a tag whose own link is bad.
func (r *repository) judgeTag(name string, err error) error {
	bad := asBad(err)
	if bad == nil {
		return fmt.Errorf("tag %s:%s: %w", r.name, name, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.broken[digest.Digest("tag "+name)] = &registry.Problem{Kind: bad.kind, Backend: r.From.Backend, Repository: r.name, Tags: []string{name}, Detail: bad.detail}
	return nil
}
