package mirror

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"transship/internal/distribution"
	"transship/internal/objectstore"
	"transship/internal/registry"
)

// Kinds of differences between two stores, beside those of internal/registry.
const (
	// MissingManifest: the target has no link to a manifest of the source.
	MissingManifest = "missing-manifest"
	// MissingLayer: the target has no link to a layer of the source.
	MissingLayer = "missing-layer"
)

// CompareOptions say what is no difference.
type CompareOptions struct {
	// AllowExtra: tags that only the target has.
	AllowExtra bool
	// Left are problems of the source that were left out of the copy, with all that needs them.
	Left []registry.Problem
}

// Compare looks from the listings alone whether the target has every link of the source's shard, with the same content. Each difference is the last word: the link
// itself is looked at before it is called one, because a listing may lag behind. What the links lead to is for the audit to look at.
func (m *Mirror) Compare(ctx context.Context, shard Shard, o CompareOptions) (registry.Check, error) {
	m.init()
	c := &comparison{Mirror: m, o: o}
	for p, err := range join(ctx, m.From.Store, m.To.Store, shard.Listing()) {
		if err != nil {
			return c.check, err
		}
		path := distribution.Parse(p.key)
		if path.Repository != c.repository {
			c.leave()
			c.repository = strings.Clone(path.Repository)
			c.check.Repositories++
		}
		if err := c.take(ctx, path, &p); err != nil {
			return c.check, err
		}
	}
	c.leave()
	return c.check, nil
}

type comparison struct {
	*Mirror
	o          CompareOptions
	check      registry.Check
	repository string
	// manifests are those that differ in this repository; their tags come later.
	manifests []registry.Difference
}

func (c *comparison) take(ctx context.Context, path distribution.Path, p *pair) error {
	switch path.Kind {
	case distribution.Layer, distribution.Revision:
		return c.takeLink(ctx, path, p)
	case distribution.TagCurrent:
		return c.takeTag(ctx, path, p)
	case distribution.TagIndex:
		for i := range c.manifests {
			if d := &c.manifests[i]; d.Want == path.Digest.String() && p.atFrom() && d.Tag == "" {
				d.Tag = path.Tag
			}
		}
	}
	return nil
}

// leave ends a repository: its differences have the tags now that they concern.
func (c *comparison) leave() {
	c.check.Differences = append(c.check.Differences, c.manifests...)
	c.manifests = nil
}

func (c *comparison) takeLink(ctx context.Context, path distribution.Path, p *pair) error {
	kind := MissingLayer
	if path.Kind == distribution.Layer {
		c.check.Blobs++
	} else {
		kind = MissingManifest
		c.check.Manifests++
	}
	if p.same() || !p.atFrom() {
		return nil
	}
	// Both were listed a moment ago: what counts is how they are now.
	there, err := exists(ctx, c.From.Store, p.key)
	if err != nil || !there {
		return err
	}
	if has, err := ReadLink(ctx, c.To.Store, p.key); err == nil && has == path.Digest {
		return nil
	} else if err != nil && !errors.Is(err, objectstore.ErrNotExist) && asBad(err) == nil {
		return err
	}
	left, err := c.left(ctx, path, 0)
	if err != nil || left {
		return err
	}
	c.manifests = append(c.manifests, registry.Difference{Repository: c.repository, Kind: kind, Want: path.Digest.String()})
	return nil
}

// left reports whether something was left out because it, or what it needs, is broken at the source.
func (c *comparison) left(ctx context.Context, path distribution.Path, depth int) (bool, error) {
	broken := func(d digest.Digest) bool {
		return slices.ContainsFunc(c.o.Left, func(p registry.Problem) bool { return p.Repository == c.repository && p.Digest == d.String() })
	}
	if len(c.o.Left) == 0 || depth > 4 {
		return false, nil
	}
	if broken(path.Digest) || path.Kind != distribution.Revision {
		return broken(path.Digest), nil
	}
	raw, err := c.readManifest(ctx, path.Digest)
	if asBad(err) != nil {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	manifest, err := distribution.ParseManifest(raw)
	if err != nil {
		return true, nil // it cannot have been carried
	}
	for _, blob := range manifest.Blobs {
		if broken(blob.Digest) {
			return true, nil
		}
	}
	for _, part := range manifest.Manifests {
		if left, err := c.left(ctx, distribution.Path{Kind: distribution.Revision, Digest: part.Digest}, depth+1); left || err != nil {
			return left, err
		}
	}
	return false, nil
}

func (c *comparison) takeTag(ctx context.Context, path distribution.Path, p *pair) error {
	if p.atFrom() {
		c.check.Tags++
	}
	if p.same() {
		return nil
	}
	skip := slices.ContainsFunc(c.o.Left, func(l registry.Problem) bool {
		return l.Repository == c.repository && slices.Contains(l.Tags, path.Tag)
	})
	if skip {
		return nil
	}
	read := func(store objectstore.Store) (string, error) {
		d, err := ReadLink(ctx, store, p.key)
		switch {
		case errors.Is(err, objectstore.ErrNotExist):
			return "", nil
		case asBad(err) != nil:
			return "bad link", nil
		}
		return d.String(), err
	}
	want, err := read(c.From.Store)
	if err != nil {
		return err
	}
	have, err := read(c.To.Store)
	if err != nil || want == have {
		return err
	}
	d := registry.Difference{Repository: c.repository, Tag: strings.Clone(path.Tag), Kind: registry.DifferentTag, Want: want, Have: have}
	switch {
	case want == "" && c.o.AllowExtra:
		return nil
	case want == "":
		d.Kind = registry.ExtraTag
	case have == "":
		d.Kind = registry.MissingTag
	}
	c.check.Differences = append(c.check.Differences, d)
	return nil
}
