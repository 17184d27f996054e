package mirror

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"

	"transship/internal/distribution"
	"transship/internal/registry"
)

// repository is the work on one repository. Its keys come in the order layers, manifests, tags; what is worked on at the same time keeps the order of
// references: a layer's link follows its blob, a manifest's link all its layers, an index's link its manifests, a tag its manifest.
type repository struct {
	*walk
	name string
	// busy says that there is anything to do at all.
	busy bool
	done bool

	layers, revisions, tagging sync.WaitGroup
	// manifested is closed when every manifest is linked, or known to be broken.
	manifested chan struct{}
	inTags     bool
	tag        *tag

	// layered and linked are layers and manifests that the target has links to.
	layered, linked digests

	mu sync.Mutex
	// broken has, for every blob and manifest that cannot be carried, the problem that is the cause.
	broken map[digest.Digest]*registry.Problem
	// late are manifests that refer to other manifests: they come after all others.
	late []lateManifest
	// lateTurn is held by whoever links them.
	lateTurn sync.Mutex

	extraTags      []string
	extraManifests []digest.Digest

	tags, unchanged, deleted int64
	unexpected, kept         []string
}

func newRepository(w *walk, name string) *repository {
	return &repository{walk: w, name: name, manifested: make(chan struct{}), broken: map[digest.Digest]*registry.Problem{}}
}

// take looks at one key.
func (r *repository) take(ctx context.Context, path distribution.Path, p *pair) error {
	switch path.Kind {
	case distribution.Layer:
		return r.takeLayer(ctx, path, p)
	case distribution.Revision:
		return r.takeRevision(ctx, path, p)
	case distribution.Signature:
		return r.takeSignature(ctx, path, p)
	}
	if err := r.endManifests(ctx); err != nil {
		return err
	}
	return r.takeTag(ctx, path, p)
}

func (r *repository) takeLayer(ctx context.Context, path distribution.Path, p *pair) error {
	switch {
	case p.same() && p.from.MD5 == distribution.LinkMD5(path.Digest):
		r.layered.add(path.Digest)
		return nil
	case !p.atFrom():
		return nil // a layer more refers to nothing and harms nobody
	}
	r.busy = true
	return r.start(ctx, &r.layers, func() error { return r.carryLayer(ctx, path, p.from.MD5) })
}

// carryLayer brings a blob and the link to it.
func (r *repository) carryLayer(ctx context.Context, path distribution.Path, md5 string) error {
	if err := r.readable(ctx, path, md5); err != nil {
		return r.judge(path.Digest, err)
	}
	if err := r.ensure(ctx, path.Digest); err != nil {
		return r.judge(path.Digest, err)
	}
	if err := r.link(ctx, path.Key(), path.Digest); err != nil {
		return err
	}
	r.layered.add(path.Digest)
	return nil
}

func (r *repository) takeSignature(ctx context.Context, path distribution.Path, p *pair) error {
	if p.same() || !p.atFrom() {
		return nil
	}
	r.busy = true
	return r.start(ctx, &r.revisions, func() error {
		if err := r.ensure(ctx, path.Digest); err != nil {
			return r.judge(path.Digest, err)
		}
		return r.link(ctx, path.Key(), path.Digest)
	})
}

func (r *repository) takeRevision(ctx context.Context, path distribution.Path, p *pair) error {
	switch {
	case p.same() && p.from.MD5 == distribution.LinkMD5(path.Digest):
		r.linked.add(path.Digest)
		return nil
	case !p.atFrom():
		r.busy = true
		r.extraManifests = append(r.extraManifests, path.Digest)
		return nil
	}
	r.busy = true
	return r.start(ctx, &r.revisions, func() error { return r.carryRevision(ctx, path, p.from.MD5) })
}

// carryRevision brings a manifest, when everything that it needs is there.
func (r *repository) carryRevision(ctx context.Context, path distribution.Path, md5 string) error {
	if err := r.readable(ctx, path, md5); err != nil {
		return r.judge(path.Digest, err)
	}
	manifest, err := r.ensureManifest(ctx, path.Digest)
	if err != nil {
		return r.judge(path.Digest, err)
	}
	r.layers.Wait()
	for _, blob := range manifest.Blobs {
		if ok, err := r.hasLayer(ctx, blob.Digest, path.Digest); !ok {
			return err
		}
	}
	if len(manifest.Manifests) > 0 || manifest.Subject != "" {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.late = append(r.late, late(path.Digest, manifest))
		return nil
	}
	return r.linkRevision(ctx, path.Digest)
}

func (r *repository) linkRevision(ctx context.Context, d digest.Digest) error {
	if err := r.link(ctx, distribution.Path{Kind: distribution.Revision, Repository: r.name, Digest: d}.Key(), d); err != nil {
		return err
	}
	r.linked.add(d)
	r.counts.manifests.Add(1)
	return nil
}

// hasLayer reports whether the target has a link to a layer that a manifest needs; where not, the manifest is broken for the same reason.
func (r *repository) hasLayer(ctx context.Context, layer, manifest digest.Digest) (bool, error) {
	if r.layered.has(layer) {
		return true, nil
	}
	if r.breaks(layer, manifest) {
		return false, nil
	}
	path := distribution.Path{Kind: distribution.Layer, Repository: r.name, Digest: layer}
	there, err := r.linkedAtTarget(ctx, path)
	if err != nil || there {
		return there, err
	}
	// The listing of the source may lag behind: the link is there, though it was not listed.
	if there, err = r.linkedAtSource(ctx, path); err != nil {
		return false, err
	}
	if there {
		if err := r.carryLayer(ctx, path, distribution.LinkMD5(layer)); err != nil {
			return false, err
		}
		return !r.breaks(layer, manifest), nil
	}
	r.blame(layer, &badContent{kind: registry.Missing, detail: "the repository has no link to this layer, although manifest " + manifest.String() + " uses it: pulls of it fail"})
	r.breaks(layer, manifest)
	return false, nil
}

// endManifests is called when the last manifest of the repository was seen: those that refer to others come now.
func (r *repository) endManifests(ctx context.Context) error {
	if r.inTags {
		return nil
	}
	r.inTags = true
	if !r.busy {
		close(r.manifested)
		return nil
	}
	r.group.Go(func() error {
		r.layers.Wait()
		r.revisions.Wait()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := r.carryLate(ctx); err != nil {
			return err
		}
		close(r.manifested)
		return nil
	})
	return nil
}

// finish waits until everything is there, and follows deletions then: first of tags, then of manifests.
func (r *repository) finish(ctx context.Context) error {
	if err := r.endManifests(ctx); err != nil {
		return err
	}
	select {
	case <-r.manifested:
	case <-ctx.Done():
		return ctx.Err()
	}
	r.layers.Wait()
	r.tagging.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return r.followDeletions(ctx)
}

// judge records content that cannot be carried; what was deleted meanwhile is nobody's problem; any other error is returned.
func (r *repository) judge(d digest.Digest, err error) error {
	bad := asBad(err)
	if errors.Is(err, errVanished) {
		return nil
	}
	if bad == nil {
		return err
	}
	r.blame(d, bad)
	return nil
}

func (r *repository) blame(d digest.Digest, bad *badContent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.broken[d] == nil {
		r.broken[d] = &registry.Problem{Kind: bad.kind, Backend: r.From.Backend, Repository: r.name, Digest: d.String(), Detail: bad.detail}
	}
}

// breaks makes what needs a broken thing broken as well, and reports whether it was broken.
func (r *repository) breaks(part, whole digest.Digest) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	cause := r.broken[part]
	if cause == nil {
		return false
	}
	if r.broken[whole] == nil {
		r.broken[whole] = cause
	}
	return true
}

// affects adds a tag to the problem of its manifest, and reports whether there is one.
func (r *repository) affects(d digest.Digest, tag string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	cause := r.broken[d]
	if cause == nil {
		return false
	}
	cause.Tags = append(cause.Tags, tag)
	return true
}

// problems are the causes, each once, in a settled order.
func (r *repository) problems() []registry.Problem {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := map[*registry.Problem]bool{}
	var all []registry.Problem
	for _, p := range r.broken {
		if !seen[p] {
			seen[p] = true
			slices.Sort(p.Tags)
			all = append(all, *p)
		}
	}
	slices.SortFunc(all, func(a, b registry.Problem) int { return strings.Compare(a.Digest, b.Digest) })
	return all
}
