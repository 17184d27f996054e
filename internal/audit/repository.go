package audit

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"transship/internal/distribution"
	"transship/internal/mirror"
	"transship/internal/objectstore"
	"transship/internal/registry"
)

// repository is what the listing shows of one repository, and what is wrong with it. It is what bounds the memory of an audit.
type repository struct {
	*Audit
	name      string
	layers    map[digest.Digest]bool
	manifests map[digest.Digest]bool
	tags      []*tag
	// suspects are links whose listing shows another content than their path.
	suspects []distribution.Path
	links    []distribution.Path

	mu       sync.Mutex
	findings []Finding
	// parts are what each readable manifest needs.
	parts map[digest.Digest]distribution.Manifest
}

type tag struct {
	name    string
	current string // MD5 of the current link
	listed  bool
	index   []digest.Digest
	digest  digest.Digest // once known
}

func newRepository(a *Audit, name string) *repository {
	return &repository{
		Audit: a, name: name, layers: map[digest.Digest]bool{}, manifests: map[digest.Digest]bool{}, parts: map[digest.Digest]distribution.Manifest{},
	}
}

// see takes in one key of the listing.
func (r *repository) see(path distribution.Path, o objectstore.Object) {
	switch path.Kind {
	case distribution.Upload:
		return
	case distribution.Unknown:
		r.add(found(Unexpected, o.Key, r.name, "", ""))
		return
	}
	r.counts.links.Add(1)
	path.Repository, path.Tag = r.name, strings.Clone(path.Tag)
	if path.Kind == distribution.TagCurrent || path.Kind == distribution.TagIndex {
		if n := len(r.tags); n == 0 || r.tags[n-1].name != path.Tag {
			r.tags = append(r.tags, &tag{name: path.Tag})
		}
		t := r.tags[len(r.tags)-1]
		if path.Kind == distribution.TagCurrent {
			t.listed, t.current = true, o.MD5
			r.links = append(r.links, path)
			return
		}
		t.index = append(t.index, path.Digest)
	}
	switch path.Kind {
	case distribution.Layer:
		r.layers[path.Digest] = true
	case distribution.Revision:
		r.manifests[path.Digest] = true
	}
	r.links = append(r.links, path)
	if o.MD5 != distribution.LinkMD5(path.Digest) {
		r.suspects = append(r.suspects, path)
	}
}

func (r *repository) add(f Finding) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.findings = append(r.findings, f)
}

// audit looks at everything that was seen.
func (r *repository) audit(ctx context.Context) ([]Finding, error) {
	r.counts.repositories.Add(1)
	for _, look := range []func(context.Context) error{r.lookAtLinks, r.lookAtManifests, r.lookAtBlobs, r.lookAtReferences, r.lookAtTags} {
		if err := look(ctx); err != nil {
			return nil, err
		}
	}
	r.affected()
	return sorted(r.findings), nil
}

// lookAtLinks reads the links whose content the listing does not confirm, and asks for all of them when the audit is deep.
func (r *repository) lookAtLinks(ctx context.Context) error {
	err := each(ctx, r.Jobs, r.suspects, func(ctx context.Context, path distribution.Path) error {
		return r.readLink(ctx, path)
	})
	if err != nil || !r.Deep {
		return err
	}
	return each(ctx, r.Jobs, r.links, func(ctx context.Context, path distribution.Path) error {
		f, err := r.twice(func(o objectstore.ReadOptions) (Finding, error) {
			_, err := r.Store.Stat(ctx, path.Key(), o)
			if errors.Is(err, objectstore.ErrNotExist) {
				return found(ListedGone, path.Key(), r.name, path.Digest, "the link is in the listing, and the store says that it does not exist"), nil
			}
			return Finding{}, err
		})
		if err != nil || f.Category == "" {
			return err
		}
		return r.gone(ctx, path)
	})
}

// gone is for a link that was listed and is not there: a fault, unless it was deleted meanwhile.
func (r *repository) gone(ctx context.Context, path distribution.Path) error {
	still, err := r.isListed(ctx, path.Key())
	if err != nil || !still {
		return err
	}
	r.add(found(ListedGone, path.Key(), r.name, path.Digest, "the link is in the listing, and the store says that it does not exist"))
	return nil
}

// readLink names what is wrong with a link, if anything is.
func (r *repository) readLink(ctx context.Context, path distribution.Path) error {
	said, err := mirror.ReadLink(ctx, r.Store, path.Key())
	_, detail, bad := mirror.IsBad(err)
	switch {
	case errors.Is(err, objectstore.ErrNotExist):
		if !r.Deep { // else the look at all links says it
			return r.gone(ctx, path)
		}
	case bad && strings.HasSuffix(detail, "is empty"):
		r.add(found(LinkEmpty, path.Key(), r.name, path.Digest, "the link has no bytes"))
	case bad:
		r.add(found(LinkBad, path.Key(), r.name, path.Digest, "%s", detail))
	case err != nil:
		return err
	case path.Digest != "" && said != path.Digest:
		r.add(found(LinkWrong, path.Key(), r.name, path.Digest, "it says %s", said))
	default:
		r.counts.transient.Add(1) // the listing lagged behind
	}
	return nil
}

// lookAtManifests reads and hashes every manifest, and notes what it needs.
func (r *repository) lookAtManifests(ctx context.Context) error {
	return each(ctx, r.Jobs, keys(r.manifests), func(ctx context.Context, d digest.Digest) error {
		r.counts.manifests.Add(1)
		var raw []byte
		f, err := r.twice(func(o objectstore.ReadOptions) (f Finding, err error) {
			raw, err = mirror.ReadManifest(ctx, r.Side, d, o)
			kind, detail, bad := mirror.IsBad(err)
			if !bad {
				return Finding{}, err
			}
			return found(categoryOf(kind, detail), distribution.BlobKey(d), r.name, d, "manifest: %s", detail), nil
		})
		if err != nil {
			return err
		}
		if f.Category == BlobMissing {
			if f, err = r.listed(ctx, f); err != nil {
				return err
			}
		}
		if f.Category != "" {
			r.add(f)
			return nil
		}
		r.counts.bytes.Add(int64(len(raw)))
		manifest, err := distribution.ParseManifest(raw)
		if err != nil {
			r.add(found(ManifestBad, distribution.BlobKey(d), r.name, d, "%s", err))
			return nil
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.parts[d] = manifest
		return nil
	})
}

func categoryOf(kind registry.Kind, detail string) Category {
	switch {
	case kind == registry.Missing:
		return BlobMissing
	case kind == registry.Short && strings.Contains(detail, "no bytes"):
		return BlobEmpty
	case kind == registry.Short:
		return BlobShort
	case kind == registry.Refused:
		return ManifestBad
	}
	return BlobCorrupt
}

func keys(set map[digest.Digest]bool) []digest.Digest {
	list := make([]digest.Digest, 0, len(set))
	for d := range set {
		list = append(list, d)
	}
	slices.Sort(list)
	return list
}

// lookAtReferences looks for links that manifests need and the listing does not have.
func (r *repository) lookAtReferences(ctx context.Context) error {
	type need struct{ part, of distribution.Path }
	var needs []need
	at := func(kind distribution.Kind, d digest.Digest) distribution.Path {
		return distribution.Path{Kind: kind, Repository: r.name, Digest: d}
	}
	seen := map[distribution.Path]bool{}
	for d, manifest := range r.parts {
		for _, blob := range manifest.Blobs {
			if p := at(distribution.Layer, blob.Digest); !r.layers[blob.Digest] && !seen[p] {
				seen[p] = true
				needs = append(needs, need{p, at(distribution.Revision, d)})
			}
		}
		for _, part := range manifest.Manifests {
			if p := at(distribution.Revision, part.Digest); !r.manifests[part.Digest] {
				needs = append(needs, need{p, at(distribution.Revision, d)})
			}
		}
	}
	return each(ctx, r.Jobs, needs, func(ctx context.Context, n need) error {
		there, err := r.there(ctx, n.part)
		switch {
		case err != nil || there:
			return err
		case n.part.Kind == distribution.Layer:
			r.add(found(LayerLinkMissing, n.part.Key(), r.name, n.part.Digest, "manifest %s uses the layer", n.of.Digest))
		default:
			r.add(found(ManifestPartMissing, n.of.Key(), r.name, n.of.Digest, "the repository does not have its manifest %s", n.part.Digest))
		}
		return nil
	})
}

// there reports whether a link that was not listed is there all the same: a fault of the listing, unless it was written after that.
func (r *repository) there(ctx context.Context, path distribution.Path) (bool, error) {
	o, err := r.Store.Stat(ctx, path.Key(), objectstore.ReadOptions{Newest: true})
	if errors.Is(err, objectstore.ErrNotExist) {
		return false, nil
	}
	if err == nil && o.Modified.Before(r.began) {
		r.add(found(NotListed, path.Key(), r.name, path.Digest, "the link is there, and the listing does not show it"))
	}
	return err == nil, err
}

// lookAtTags finds out what each tag refers to, and whether that is there.
func (r *repository) lookAtTags(ctx context.Context) error {
	var mu sync.Mutex
	var dangling []*tag
	err := each(ctx, r.Jobs, r.tags, func(ctx context.Context, t *tag) error {
		r.counts.tags.Add(1)
		path := distribution.Path{Kind: distribution.TagCurrent, Repository: r.name, Tag: t.name}
		if err := r.resolve(ctx, t, path); err != nil || t.digest == "" {
			return err
		}
		if r.manifests[t.digest] {
			return nil
		}
		revision := distribution.Path{Kind: distribution.Revision, Repository: r.name, Digest: t.digest}
		there, err := r.there(ctx, revision)
		if err != nil || there {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		dangling = append(dangling, t)
		return nil
	})
	if err != nil {
		return err
	}
	if dangling, err = r.staying(ctx, dangling); err != nil {
		return err
	}
	for _, t := range dangling {
		path := distribution.Path{Kind: distribution.TagCurrent, Repository: r.name, Tag: t.name}
		f := found(TagManifestMissing, path.Key(), r.name, t.digest, "the repository does not have this manifest")
		f.Tags = []string{t.name}
		r.add(f)
	}
	return nil
}

// staying leaves out tags that are being deleted: a registry deletes a manifest before it looks for the tags of it, one by one.
func (r *repository) staying(ctx context.Context, dangling []*tag) ([]*tag, error) {
	for began := time.Now(); len(dangling) > 0 && time.Since(began) < r.Untagging; {
		select {
		case <-time.After(min(time.Second, r.Untagging)):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		var left []*tag
		for _, t := range dangling {
			path := distribution.Path{Kind: distribution.TagCurrent, Repository: r.name, Tag: t.name}
			now, err := mirror.ReadLink(ctx, r.Store, path.Key())
			switch _, _, bad := mirror.IsBad(err); {
			case err == nil && now == t.digest, bad:
				left = append(left, t)
			case err == nil, errors.Is(err, objectstore.ErrNotExist):
				r.counts.transient.Add(1)
			default:
				return nil, err
			}
		}
		dangling = left
	}
	return dangling, nil
}

func (r *repository) resolve(ctx context.Context, t *tag, path distribution.Path) error {
	finding := func(c Category, detail string) {
		f := found(c, path.Key(), r.name, "", "%s", detail)
		f.Tags = []string{t.name}
		r.add(f)
	}
	for _, d := range t.index {
		if t.listed && distribution.LinkMD5(d) == t.current {
			t.digest = d
			return nil
		}
	}
	said, err := mirror.ReadLink(ctx, r.Store, path.Key())
	_, detail, bad := mirror.IsBad(err)
	switch {
	case errors.Is(err, objectstore.ErrNotExist) && t.listed:
		if !r.Deep { // else the look at all links says it
			return r.gone(ctx, path)
		}
	case errors.Is(err, objectstore.ErrNotExist):
		finding(LinkMissing, "the tag has a history, and no current link")
	case bad && strings.HasSuffix(detail, "is empty"):
		finding(LinkEmpty, "the link has no bytes")
	case bad:
		finding(LinkBad, detail)
	case err != nil:
		return err
	case !t.listed:
		t.digest = said
		_, err := r.there(ctx, path)
		return err
	default:
		t.digest = said
	}
	return nil
}

// affected fills in the tags of each finding: those whose manifest, or a manifest of it, needs what was found.
func (r *repository) affected() {
	if len(r.findings) == 0 {
		return
	}
	parents := map[digest.Digest][]digest.Digest{}
	for d, manifest := range r.parts {
		for _, part := range append(manifest.Blobs, manifest.Manifests...) {
			parents[part.Digest] = append(parents[part.Digest], d)
		}
	}
	named := map[digest.Digest][]string{}
	for _, t := range r.tags {
		if t.digest != "" {
			named[t.digest] = append(named[t.digest], t.name)
		}
	}
	for i := range r.findings {
		f := &r.findings[i]
		seen := map[digest.Digest]bool{}
		var up func(digest.Digest)
		up = func(d digest.Digest) {
			if d == "" || seen[d] {
				return
			}
			seen[d] = true
			f.Tags = append(f.Tags, named[d]...)
			for _, parent := range parents[d] {
				up(parent)
			}
		}
		up(f.Digest)
		if path := distribution.Parse(f.Path); path.Tag != "" && path.Kind == distribution.TagCurrent {
			f.Tags = append(f.Tags, path.Tag)
		}
		slices.Sort(f.Tags)
		f.Tags = slices.Compact(f.Tags)
	}
}
