package mirror

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"transship/internal/distribution"
	"transship/internal/distribution/distributiontest"
	"transship/internal/objectstore"
	"transship/internal/objectstore/storetest"
	"transship/internal/registry"
)

// world is a source and a target, and a mirror between them.
type world struct {
	from, to *storetest.Memory
	source   distributiontest.Tree
	target   distributiontest.Tree
}

func newWorld() *world {
	w := &world{from: &storetest.Memory{Name: "old"}, to: &storetest.Memory{Name: "new"}}
	w.source = distributiontest.Tree{Put: func(key, content string) { w.from.PutString(key, content) }}
	w.target = distributiontest.Tree{Put: func(key, content string) { w.to.PutString(key, content) }}
	return w
}

func (w *world) mirror() *Mirror {
	return &Mirror{From: Side{"old", w.from}, To: Side{"new", w.to}, Mark: "migration-1", Jobs: 8, Deletes: true, Untagging: 10 * time.Millisecond}
}

var everything = Shard{Prefix: "restricted"}

func (w *world) run(t *testing.T) Cursor {
	t.Helper()
	at, err := w.mirror().Run(t.Context(), everything, Cursor{})
	require.NoError(t, err)
	return at
}

// images are what simple copies forget: untagged manifests, an index, an artifact with a subject, shared layers, a sha512 blob, a layer of an unfinished
// push, nested repositories and names that sort oddly.
func (w *world) images() {
	for _, repository := range []string{"restricted/a", "restricted/a/b", "restricted/a-b", "restricted/a.b", "restricted/0", "restricted"} {
		one := w.source.Image(repository, nil, "base layer", "layer of "+repository)
		w.source.Tag(repository, "v1", one)
		two := w.source.Image(repository, nil, "base layer", "second layer of "+repository)
		w.source.Tag(repository, "v1", two) // v1 moved: it has a history
		w.source.Tag(repository, "v2", two)
		index := w.source.Index(repository, one, two)
		w.source.Tag(repository, "multi", index)
		w.source.Tag(repository, "nested", w.source.Index(repository, index))
		w.source.Image(repository, map[string]any{
			"subject": distributiontest.Descriptor{MediaType: distributiontest.ManifestType, Digest: two, Size: 1},
		}, "signature of "+repository)
		w.source.Blob(repository, "layer of an unfinished push")
		long := digest.SHA512.FromString("long name")
		w.source.Put(distribution.BlobKey(long), "long name")
		w.source.Link(distribution.Path{Kind: distribution.Layer, Repository: repository, Digest: long})
		w.source.Put(distribution.Under(repository)+"_uploads/4b1c/startedat", "now")
	}
	for _, repository := range []string{"restricted2/a", "other"} {
		w.source.Tag(repository, "v1", w.source.Image(repository, nil, "not of the prefix"))
	}
}

// wanted are the keys that a mirror of the prefix brings.
func (w *world) wanted() []string {
	needed := map[string]bool{}
	var keys []string
	for _, key := range w.from.Keys() {
		p := distribution.Parse(key)
		if p.Kind == distribution.Blob || p.Kind == distribution.Upload || p.Repository != "restricted" && !strings.HasPrefix(p.Repository, "restricted/") {
			continue
		}
		keys = append(keys, key)
		if p.Digest != "" {
			needed[distribution.BlobKey(p.Digest)] = true
		}
	}
	for key := range needed {
		if _, there := w.from.Content(key); there {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// whole fails unless the target has exactly what is wanted.
func (w *world) whole(t *testing.T) {
	t.Helper()
	require.Equal(t, w.wanted(), w.to.Keys())
	for _, key := range w.to.Keys() {
		want, _ := w.from.Content(key)
		have, _ := w.to.Content(key)
		assert.Equal(t, string(want), string(have), key)
	}
}

// guarded has every write to the target checked: it refers to nothing that is not there (promise 7), and no blob is other than its name says (promise 3).
func (w *world) guarded(t *testing.T) {
	has := func(p distribution.Path) bool { _, ok := w.to.Content(p.Key()); return ok }
	w.to.Fault = func(op, key string) error {
		p := distribution.Parse(key)
		if op != "put" || p.Kind == distribution.Blob {
			return nil
		}
		need := func(q distribution.Path) {
			if !has(q) {
				t.Errorf("%s is written before %s", key, q.Key())
			}
		}
		at := func(kind distribution.Kind, d digest.Digest) distribution.Path {
			return distribution.Path{Kind: kind, Repository: p.Repository, Digest: d}
		}
		switch p.Kind {
		case distribution.Layer:
			need(at(distribution.Blob, p.Digest))
		case distribution.Revision:
			need(at(distribution.Blob, p.Digest))
			raw, _ := w.to.Content(distribution.BlobKey(p.Digest))
			manifest, err := distribution.ParseManifest(raw)
			assert.NoError(t, err)
			for _, blob := range manifest.Blobs {
				need(at(distribution.Layer, blob.Digest))
			}
			for _, part := range manifest.Manifests {
				need(at(distribution.Revision, part.Digest))
			}
			if manifest.Subject != "" {
				need(at(distribution.Revision, manifest.Subject))
			}
		case distribution.TagCurrent:
			content, _ := w.from.Content(key)
			need(at(distribution.Revision, digest.Digest(content)))
		}
		return nil
	}
}

func (w *world) hashed(t *testing.T) {
	t.Helper()
	for _, key := range w.to.Keys() {
		if p := distribution.Parse(key); p.Kind == distribution.Blob {
			content, _ := w.to.Content(key)
			assert.Equal(t, p.Digest, p.Digest.Algorithm().FromBytes(content), "%s is carried though it is bad", key)
		}
	}
}

// lagging is a store whose listing does not show some keys yet.
type lagging struct {
	*storetest.Memory
	hidden func(key string) bool
}

func (l *lagging) List(ctx context.Context, o objectstore.ListOptions) iter.Seq2[objectstore.Object, error] {
	return func(yield func(objectstore.Object, error) bool) {
		for object, err := range l.Memory.List(ctx, o) {
			if err == nil && l.hidden(object.Key) {
				continue
			}
			if !yield(object, err) {
				return
			}
		}
	}
}

// outdated is a store that lists what it held once.
type outdated struct {
	*storetest.Memory
	once *storetest.Memory
}

func (o *outdated) List(ctx context.Context, options objectstore.ListOptions) iter.Seq2[objectstore.Object, error] {
	return o.once.List(ctx, options)
}

func tagsOf(problems []registry.Problem) (tags []string) {
	for _, p := range problems {
		for _, tag := range p.Tags {
			tags = append(tags, fmt.Sprintf("%s:%s", p.Repository, tag))
		}
	}
	slices.Sort(tags)
	return slices.Compact(tags)
}
