//go:build lab

package audit_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/ncw/swift/v2"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"transship/internal/audit"
	"transship/internal/distribution"
	"transship/internal/distribution/distributiontest"
	"transship/internal/mirror"
	"transship/internal/objectstore"
	"transship/lab/seed"
	"transship/lab/servers"
	"transship/lab/servers/shared"
)

const (
	swiftRoot = "files/docker/registry/v2/"
	cephRoot  = "docker/registry/v2/"
	app       = "restricted/app-000"
	large     = "restricted/large"
)

func TestMain(m *testing.M) { shared.Main(m) }

var whole = mirror.Shard{Prefix: "restricted"}

// real is a Swift that docker-registry wrote, and a copy of it on Ceph.
type real struct {
	lab               *shared.Stores
	container, bucket string
	swift, ceph       mirror.Side
	raw               *swift.Connection
}

func newReal(t *testing.T) *real {
	t.Helper()
	lab := shared.Shared(t)
	r := &real{lab: lab, container: lab.NewContainer(t), bucket: lab.NewBucket(t)}
	r.raw = &swift.Connection{AuthUrl: lab.Swift.AuthURL, UserName: lab.Swift.Username, ApiKey: lab.Swift.Password}
	store, err := objectstore.NewSwift(t.Context(), objectstore.SwiftOptions{
		AuthURL: lab.Swift.AuthURL, Username: lab.Swift.Username, Password: lab.Swift.Password, Container: r.container, Root: swiftRoot,
	})
	require.NoError(t, err)
	r.swift = mirror.Side{Backend: "swift", Store: store}
	r.ceph = r.onCeph(t, cephRoot)
	require.NoError(t, r.raw.Authenticate(t.Context()))
	return r
}

// onCeph is a folder of the bucket.
func (r *real) onCeph(t *testing.T, root string) mirror.Side {
	t.Helper()
	store, err := objectstore.NewS3(t.Context(), objectstore.S3Options{
		Endpoint: r.lab.Ceph.Endpoint, Region: r.lab.Ceph.Region, AccessKey: r.lab.Ceph.AccessKey, SecretKey: r.lab.Ceph.SecretKey, Bucket: r.bucket, Root: root,
	})
	require.NoError(t, err)
	return mirror.Side{Backend: "ceph", Store: store}
}

func carry(t *testing.T, from, to mirror.Side, shard mirror.Shard, skip bool) {
	t.Helper()
	_, err := (&mirror.Mirror{From: from, To: to, Mark: "test", SkipBroken: skip}).Run(t.Context(), shard, mirror.Cursor{})
	require.NoError(t, err)
}

func look(t *testing.T, at mirror.Side, shard mirror.Shard, deep bool) ([]audit.Finding, audit.Counts) {
	t.Helper()
	found, counts, err := (&audit.Audit{Side: at, Deep: deep}).Run(t.Context(), shard)
	require.NoError(t, err)
	return found, counts
}

func heal(t *testing.T, good, bad mirror.Side, found []audit.Finding) []audit.Finding {
	t.Helper()
	healed, err := (&audit.Healer{Good: good, Bad: bad, Mark: "heal-test"}).Heal(t.Context(), found)
	require.NoError(t, err)
	return healed
}

// validated has go-containerregistry check every byte of every tag, as `crane validate` does, through a registry on the store.
func validated(t *testing.T, registry *servers.Registry, repositories ...string) {
	t.Helper()
	for _, repository := range repositories {
		ref, err := name.NewRepository(strings.TrimPrefix(registry.URL, "http://")+"/"+repository, name.Insecure)
		require.NoError(t, err)
		tags, err := remote.List(ref, remote.WithContext(t.Context()))
		require.NoError(t, err)
		require.NotEmpty(t, tags)
		group, ctx := errgroup.WithContext(t.Context())
		group.SetLimit(4)
		for _, tag := range tags {
			group.Go(func() error {
				d, err := remote.Get(ref.Tag(tag), remote.WithContext(ctx))
				if err != nil {
					return fmt.Errorf("%s: %w", tag, err)
				}
				if d.MediaType.IsIndex() {
					return valid(d.ImageIndex())(validate.Index)
				}
				return valid(d.Image())(func(img v1.Image, o ...validate.Option) error { return validate.Image(img, o...) })
			})
		}
		require.NoError(t, group.Wait(), repository)
	}
}

func valid[T any](what T, err error) func(func(T, ...validate.Option) error) error {
	return func(check func(T, ...validate.Option) error) error {
		if err != nil {
			return err
		}
		return check(what)
	}
}

// image is what a tag refers to.
type image struct {
	digest digest.Digest
	distribution.Manifest
}

func (r *real) image(t *testing.T, repository, tag string) image {
	t.Helper()
	d, err := mirror.ReadLink(t.Context(), r.swift.Store, current(repository, tag))
	require.NoError(t, err)
	raw, err := mirror.ReadManifest(t.Context(), r.swift, d, objectstore.ReadOptions{})
	require.NoError(t, err)
	m, err := distribution.ParseManifest(raw)
	require.NoError(t, err)
	return image{d, m}
}

// own is the layer that only this image has.
func (i image) own() distribution.Reference { return i.Blobs[len(i.Blobs)-1] }

func current(repository, tag string) string {
	return distribution.Path{Kind: distribution.TagCurrent, Repository: repository, Tag: tag}.Key()
}

func layerLink(d digest.Digest) string {
	return distribution.Path{Kind: distribution.Layer, Repository: app, Digest: d}.Key()
}

func revision(d digest.Digest) string {
	return distribution.Path{Kind: distribution.Revision, Repository: app, Digest: d}.Key()
}

// put overwrites an object of Swift, or makes one.
func (r *real) put(t *testing.T, key, content string) {
	t.Helper()
	_, err := r.raw.ObjectPut(t.Context(), r.container, swiftRoot+key, strings.NewReader(content), true, "", "", nil)
	require.NoError(t, err)
}

// remove deletes an object of Swift alone: of a blob not its segments.
func (r *real) remove(t *testing.T, key string) {
	t.Helper()
	require.NoError(t, r.raw.ObjectDelete(t.Context(), r.container, swiftRoot+key))
}

// lose takes an object off the disk, without a word to anybody.
func (r *real) lose(t *testing.T, object string) {
	t.Helper()
	files, err := r.lab.Swift.ObjectFiles(r.container, object)
	require.NoError(t, err)
	for _, f := range files {
		require.NoError(t, os.Remove(f))
	}
}

// segments are the names of the objects that a blob consists of, as the registry wrote it.
func (r *real) segments(t *testing.T, d digest.Digest) []string {
	t.Helper()
	list, err := r.swift.Store.(objectstore.Segmented).Segments(t.Context(), distribution.BlobKey(d))
	require.NoError(t, err)
	require.NotEmpty(t, list, "the registry wrote the blob as a Dynamic Large Object")
	names := make([]string, len(list))
	for i := range list {
		names[i] = strings.TrimPrefix(list[i].Key, r.container+"/")
	}
	return names
}

// planted is what a fault concerns, and the tags that it affects.
type planted struct {
	path string
	tags []string
}

// fault is one case. plant damages what belongs to one tag.
type fault struct {
	name     string
	category audit.Category
	plant    func(t *testing.T, r *real, tag string) planted
	// deep says that only a deep audit finds it; also what follows from it; mend undoes what nothing heals.
	deep bool
	also audit.Category
	mend func(t *testing.T, r *real, p planted)
}

// rounds are faults that are planted, found and healed together: each on a tag of its own.
var rounds = map[string][]fault{
	"blobs": {
		{name: "a layer is gone", category: audit.BlobMissing, also: audit.ManifestPartMissing, plant: layer(func(t *testing.T, r *real, b distribution.Reference) {
			r.remove(t, distribution.BlobKey(b.Digest))
		})},
		{name: "a layer is empty", category: audit.BlobEmpty, plant: layerSays(func(int) string { return "" })},
		{name: "a layer is cut off", category: audit.BlobShort, plant: layerSays(func(size int) string { return strings.Repeat("x", size/2) })},
		{name: "a layer is too long", category: audit.BlobLong, plant: layerSays(func(size int) string { return strings.Repeat("x", size+1) })},
		{name: "a layer has other bytes of the same length", category: audit.BlobCorrupt, deep: true, plant: layerSays(func(size int) string { return strings.Repeat("x", size) })},
		{name: "a segment has other bytes of the same length", category: audit.BlobCorrupt, deep: true, plant: layer(func(t *testing.T, r *real, b distribution.Reference) {
			_, err := r.raw.ObjectPut(t.Context(), r.container, r.segments(t, b.Digest)[0], strings.NewReader(strings.Repeat("x", int(b.Size))), true, "", "", nil)
			require.NoError(t, err)
		})},
		{name: "a layer is listed and gone", category: audit.ListedGone, plant: layer(func(t *testing.T, r *real, b distribution.Reference) {
			r.lose(t, swiftRoot+distribution.BlobKey(b.Digest))
		})},
		{name: "its only segment is listed and gone", category: audit.SegmentsMissing, deep: true, plant: layer(func(t *testing.T, r *real, b distribution.Reference) {
			r.lose(t, r.segments(t, b.Digest)[0])
		})},
		{name: "the segments of a config are gone", category: audit.SegmentsMissing, plant: func(t *testing.T, r *real, tag string) planted {
			config := r.image(t, app, tag).Blobs[0]
			for _, segment := range r.segments(t, config.Digest) {
				require.NoError(t, r.raw.ObjectDelete(t.Context(), r.container, segment))
			}
			return planted{distribution.BlobKey(config.Digest), []string{tag}}
		}},
		{name: "a segment in the middle is gone", category: audit.SegmentsMissing, plant: segment("v0", func(t *testing.T, r *real, names []string) {
			require.NoError(t, r.raw.ObjectDelete(t.Context(), r.container, names[1]))
		})},
		{name: "the last segment is gone", category: audit.SegmentsMissing, plant: segment("v1", func(t *testing.T, r *real, names []string) {
			require.NoError(t, r.raw.ObjectDelete(t.Context(), r.container, names[len(names)-1]))
		})},
		{name: "a segment in the middle is listed and gone", category: audit.SegmentsMissing, deep: true, plant: segment("v2", func(t *testing.T, r *real, names []string) {
			r.lose(t, names[1])
		})},
	},
	"a layer of all images": {
		{name: "a base layer has other bytes of the same length", category: audit.BlobCorrupt, deep: true, plant: func(t *testing.T, r *real, _ string) planted {
			base := r.image(t, app, "v0").Blobs[1]
			key := distribution.BlobKey(base.Digest)
			r.put(t, key, strings.Repeat("x", int(base.Size)))
			tags := []string{"multi", "signature"}
			for i := range tagged {
				tags = append(tags, fmt.Sprintf("v%d", i))
			}
			slices.Sort(tags)
			return planted{key, tags}
		}},
	},
	"links": {
		{name: "a tag has lost its link", category: audit.LinkMissing, plant: func(t *testing.T, r *real, tag string) planted {
			r.remove(t, current(app, tag))
			return planted{current(app, tag), []string{tag}}
		}},
		{name: "a tag's link is empty", category: audit.LinkEmpty, plant: tagLink("")},
		{name: "a tag's link is nonsense", category: audit.LinkBad, plant: tagLink("sha256:nonsense")},
		{name: "a layer's link is empty", category: audit.LinkEmpty, plant: func(t *testing.T, r *real, tag string) planted {
			return r.says(t, layerLink(r.image(t, app, tag).own().Digest), "", tag)
		}},
		{name: "a manifest's link is empty", category: audit.LinkEmpty, plant: func(t *testing.T, r *real, tag string) planted {
			return r.says(t, revision(r.image(t, app, tag).digest), "", tag)
		}},
		{name: "a manifest's link is nonsense", category: audit.LinkBad, plant: func(t *testing.T, r *real, tag string) planted {
			return r.says(t, revision(r.image(t, app, tag).digest), "nonsense", tag)
		}},
		{name: "a layer's link says another digest", category: audit.LinkWrong, plant: func(t *testing.T, r *real, tag string) planted {
			i := r.image(t, app, tag)
			return r.says(t, layerLink(i.own().Digest), i.Blobs[1].Digest.String(), tag)
		}},
		{name: "a layer has no link", category: audit.LayerLinkMissing, plant: func(t *testing.T, r *real, tag string) planted {
			key := layerLink(r.image(t, app, tag).own().Digest)
			r.remove(t, key)
			return planted{key, []string{tag}}
		}},
		{name: "a layer's link is listed and gone", category: audit.ListedGone, deep: true, plant: func(t *testing.T, r *real, tag string) planted {
			key := layerLink(r.image(t, app, tag).own().Digest)
			r.lose(t, swiftRoot+key)
			return planted{key, []string{tag}}
		}},
		{name: "a tag's link is listed and gone", category: audit.ListedGone, deep: true, plant: func(t *testing.T, r *real, tag string) planted {
			r.lose(t, swiftRoot+current(app, tag))
			return planted{current(app, tag), []string{tag}}
		}},
	},
	"manifests, and what nothing heals": {
		{name: "a manifest is gone", category: audit.BlobMissing, plant: manifest(func(t *testing.T, r *real, key string) { r.remove(t, key) })},
		{name: "a manifest is empty", category: audit.BlobEmpty, plant: manifest(func(t *testing.T, r *real, key string) { r.put(t, key, "") })},
		{name: "a manifest has other bytes", category: audit.BlobCorrupt, plant: manifest(func(t *testing.T, r *real, key string) { r.put(t, key, `{"schemaVersion":2}`) })},
		{name: "a manifest is listed and gone", category: audit.ListedGone, plant: manifest(func(t *testing.T, r *real, key string) { r.lose(t, swiftRoot+key) })},
		{name: "a tag's manifest has no link", category: audit.TagManifestMissing, plant: func(t *testing.T, r *real, tag string) planted {
			r.remove(t, revision(r.image(t, app, tag).digest))
			return planted{current(app, tag), []string{tag}}
		}},
		{name: "an index lacks a manifest", category: audit.ManifestPartMissing, plant: func(t *testing.T, r *real, _ string) planted {
			index := r.image(t, app, "multi")
			r.remove(t, revision(index.Manifests[1].Digest))
			return planted{revision(index.digest), []string{"multi"}}
		}},
		{name: "a layer is linked as a manifest", category: audit.ManifestBad, plant: func(t *testing.T, r *real, tag string) planted {
			d := r.image(t, app, tag).own().Digest
			r.put(t, revision(d), d.String())
			return planted{distribution.BlobKey(d), []string{tag}}
		}, mend: func(t *testing.T, r *real, p planted) { r.remove(t, revision(distribution.Parse(p.path).Digest)) }},
		{name: "a layer's link is not listed", category: audit.NotListed, mend: listAgain, plant: hidden(func(i image, _ string) string { return layerLink(i.own().Digest) })},
		{name: "a manifest's link is not listed", category: audit.NotListed, mend: listAgain, plant: hidden(func(i image, _ string) string { return revision(i.digest) })},
		{name: "a tag's link is not listed", category: audit.NotListed, mend: listAgain, plant: hidden(func(_ image, tag string) string { return current(app, tag) })},
		{name: "a key that no registry writes", category: audit.Unexpected, plant: func(t *testing.T, r *real, _ string) planted {
			key := "repositories/" + app + "/_layers/readme"
			r.put(t, key, "?")
			return planted{key, nil}
		}, mend: func(t *testing.T, r *real, p planted) { r.remove(t, p.path) }},
	},
}

// tagged is how many tags a round needs.
const tagged = 11

type plant func(t *testing.T, r *real, tag string) planted

// layer damages the layer that only one tag has.
func layer(damage func(t *testing.T, r *real, b distribution.Reference)) plant {
	return func(t *testing.T, r *real, tag string) planted {
		own := r.image(t, app, tag).own()
		damage(t, r, own)
		return planted{distribution.BlobKey(own.Digest), []string{tag}}
	}
}

func layerSays(what func(size int) string) plant {
	return layer(func(t *testing.T, r *real, b distribution.Reference) {
		r.put(t, distribution.BlobKey(b.Digest), what(int(b.Size)))
	})
}

// segment damages a large layer of several segments.
func segment(tag string, damage func(t *testing.T, r *real, names []string)) plant {
	return func(t *testing.T, r *real, _ string) planted {
		own := r.image(t, large, tag).own()
		names := r.segments(t, own.Digest)
		require.GreaterOrEqual(t, len(names), 3)
		damage(t, r, names)
		return planted{distribution.BlobKey(own.Digest), []string{tag}}
	}
}

func manifest(damage func(t *testing.T, r *real, key string)) plant {
	return func(t *testing.T, r *real, tag string) planted {
		key := distribution.BlobKey(r.image(t, app, tag).digest)
		damage(t, r, key)
		return planted{key, []string{tag}}
	}
}

func tagLink(says string) plant {
	return func(t *testing.T, r *real, tag string) planted { return r.says(t, current(app, tag), says, tag) }
}

func (r *real) says(t *testing.T, key, content, tag string) planted {
	t.Helper()
	r.put(t, key, content)
	return planted{key, []string{tag}}
}

func hidden(what func(i image, tag string) string) plant {
	return func(t *testing.T, r *real, tag string) planted {
		key := what(r.image(t, app, tag), tag)
		require.NoError(t, r.lab.Swift.Unlist(t.Context(), r.container, swiftRoot+key))
		return planted{key, []string{tag}}
	}
}

// listAgain writes a link as it is once more, which brings it into the listing.
func listAgain(t *testing.T, r *real, p planted) {
	t.Helper()
	said, err := mirror.ReadLink(t.Context(), r.swift.Store, p.path)
	require.NoError(t, err)
	r.put(t, p.path, said.String())
}

// Each fault is planted in what the real registry wrote to the real Swift, found, named with its tags, not carried by the mirror, and healed from Ceph. Promise 3.
func TestRealFaultsOfSwiftAreFoundNamedNotCarriedAndHealed(t *testing.T) {
	r := newReal(t)
	old := r.lab.SwiftRegistry(t, r.container)
	pushed := seed.Set{
		Prefix: "restricted", Repositories: 1, Tags: tagged, Layers: 1, LayerSize: 20 << 10, BaseSize: 200 << 10, Special: true, Large: []int{11 << 20, 11 << 20, 11 << 20},
	}
	require.NoError(t, pushed.Push(t.Context(), strings.TrimPrefix(old.URL, "http://"), 8))
	carry(t, r.swift, r.ceph, whole, false)
	for _, deep := range []bool{false, true} {
		found, counts := look(t, r.swift, whole, deep)
		require.Empty(t, found, "a clean store")
		assert.EqualValues(t, tagged+6, counts.Tags) // the list of what refers to an image is a tag, too
		assert.EqualValues(t, 2, counts.Repositories)
		assert.NotZero(t, counts.Bytes)
	}
	before, err := audit.CountOrphans(t.Context(), r.swift.Store)
	require.NoError(t, err)
	assert.Zero(t, before.Blobs)

	for name, faults := range rounds {
		t.Run(name, func(t *testing.T) { r.round(t, name, faults) })
	}

	found, _ := look(t, r.swift, whole, true)
	assert.Empty(t, found, "everything is healed")
	validated(t, old, app, large)
	r.orphans(t, before)
}

// round takes faults through their lives.
func (r *real) round(t *testing.T, aside string, faults []fault) {
	plants := make([]planted, len(faults))
	for i, f := range faults {
		plants[i] = f.plant(t, r, fmt.Sprintf("v%d", i))
	}
	shallow, _ := look(t, r.swift, whole, false)
	deep, _ := look(t, r.swift, whole, true)
	to := r.onCeph(t, strings.ReplaceAll(aside, " ", "-")+"/"+cephRoot)
	carry(t, r.swift, to, whole, true)
	healed := heal(t, r.ceph, r.swift, deep)
	after, _ := look(t, r.swift, whole, true)

	want, stay := 0, 0
	for i, f := range faults {
		want++
		if f.also != "" {
			want++
		}
		t.Run(f.name, func(t *testing.T) {
			p := plants[i]
			assert.Equal(t, !f.deep, find(shallow, f, p) != nil, "found by a look at sizes and references: %v", shallow)
			x := find(deep, f, p)
			require.NotNil(t, x, "%v", deep)
			assert.Equal(t, p.tags, withoutLists(x.Tags))
			assert.Contains(t, []string{app, large}, x.Repository)
			assert.NotEmpty(t, x.Cure)
			if f.also != "" {
				also := slices.IndexFunc(deep, func(x audit.Finding) bool { return x.Category == f.also && slices.Equal(x.Tags, p.tags) })
				require.GreaterOrEqual(t, also, 0)
				assert.True(t, deep[also].Derived)
			}
			if f.mend == nil {
				assert.True(t, find(healed, f, p).Healed, find(healed, f, p).Unhealed)
				assert.Nil(t, find(after, f, p))
				return
			}
			stay++
			assert.False(t, find(healed, f, p).Healed)
			assert.NotNil(t, find(after, f, p), "nothing heals it")
			f.mend(t, r, p)
		})
	}
	assert.Len(t, deep, want, "nothing else is wrong")
	assert.Len(t, after, stay)
	r.carried(t, to, deep)
}

// find is the finding of a fault.
func find(found []audit.Finding, f fault, p planted) *audit.Finding {
	for i := range found {
		if found[i].Category == f.category && found[i].Path == p.path {
			return &found[i]
		}
	}
	return nil
}

// carried looks whether a mirror of what is damaged has all tags that can be served, no others, and nothing that is bad.
func (r *real) carried(t *testing.T, to mirror.Side, found []audit.Finding) {
	t.Helper()
	bad, _ := look(t, to, whole, true)
	assert.Empty(t, bad, "the mirror carried something that is bad, or that refers to what it left out")
	broken := map[string]bool{}
	for _, f := range found {
		// The listing says what a link contains, so that one that is gone comes along; and what is no manifest is one that no tag has.
		if !f.Category.Breaks() || f.Category == audit.ManifestBad || f.Category == audit.ListedGone && distribution.Parse(f.Path).Kind != distribution.Blob {
			continue
		}
		for _, tag := range f.Tags {
			broken[f.Repository+":"+tag] = true
		}
	}
	has := func(side mirror.Side) (tags []string) {
		for o, err := range side.Store.List(t.Context(), objectstore.ListOptions{Prefix: distribution.Under("restricted")}) {
			require.NoError(t, err)
			if p := distribution.Parse(o.Key); p.Kind == distribution.TagCurrent {
				tags = append(tags, p.Repository+":"+p.Tag)
			}
		}
		return tags
	}
	want := slices.DeleteFunc(has(r.ceph), func(tag string) bool { return broken[tag] })
	assert.Equal(t, want, has(to))
}

// withoutLists leaves out the tags under which clients keep the list of what refers to an image.
func withoutLists(tags []string) []string {
	return slices.DeleteFunc(slices.Clone(tags), func(tag string) bool { return strings.HasPrefix(tag, "sha256-") })
}

// orphans are what is left of healed blobs, and what is planted.
func (r *real) orphans(t *testing.T, before audit.Orphans) {
	t.Helper()
	healed, err := audit.CountOrphans(t.Context(), r.swift.Store)
	require.NoError(t, err)
	assert.Zero(t, healed.Blobs)
	assert.Greater(t, healed.Segments, before.Segments, "the segments of what was written anew")
	r.put(t, distribution.BlobKey(digest.FromString("nobody's")), "nobody's")
	_, err = r.raw.ObjectPut(t.Context(), r.container, "segments/abc/nobody/0000000000000001", strings.NewReader("nobody's"), true, "", "", nil)
	require.NoError(t, err)
	now, err := audit.CountOrphans(t.Context(), r.swift.Store)
	require.NoError(t, err)
	assert.Equal(t, audit.Orphans{Blobs: 1, Bytes: 8, Segments: healed.Segments + 1, SegmentBytes: healed.SegmentBytes + 8}, now)
}

// The same on Ceph, healed from Swift.
func TestRealFaultsOfCephAreFoundNamedNotCarriedAndHealed(t *testing.T) {
	r := newReal(t)
	source := seed.Set{Prefix: "restricted", Repositories: 1, Tags: 2, Layers: 1, LayerSize: 20 << 10, BaseSize: 20 << 10}
	next := r.lab.CephRegistry(t, r.bucket)
	require.NoError(t, source.Push(t.Context(), strings.TrimPrefix(next.URL, "http://"), 4))
	carry(t, r.ceph, r.swift, whole, false)
	found, _ := look(t, r.ceph, whole, true)
	require.Empty(t, found, "a clean store")
	v0, v1 := r.image(t, app, "v0"), r.image(t, app, "v1")
	blob := distribution.BlobKey(v0.own().Digest)
	put := func(key, content string) {
		_, err := r.ceph.Store.Put(t.Context(), key, bytes.NewReader([]byte(content)), int64(len(content)), objectstore.PutOptions{})
		require.NoError(t, err)
	}
	remove := func(key string) { require.NoError(t, r.ceph.Store.Delete(t.Context(), key)) }
	for i, f := range []struct {
		category audit.Category
		path     string
		tag      string
		plant    func()
	}{
		{audit.BlobCorrupt, blob, "v0", func() { put(blob, strings.Repeat("x", int(v0.own().Size))) }},
		{audit.BlobShort, blob, "v0", func() { put(blob, "x") }},
		{audit.BlobLong, blob, "v0", func() { put(blob, strings.Repeat("x", int(v0.own().Size)+1)) }},
		{audit.BlobEmpty, blob, "v0", func() { put(blob, "") }},
		{audit.BlobMissing, blob, "v0", func() { remove(blob) }},
		{audit.BlobCorrupt, distribution.BlobKey(v1.digest), "v1", func() { put(distribution.BlobKey(v1.digest), "{}") }},
		{audit.BlobMissing, distribution.BlobKey(v1.digest), "v1", func() { remove(distribution.BlobKey(v1.digest)) }},
		{audit.LinkEmpty, layerLink(v1.own().Digest), "v1", func() { put(layerLink(v1.own().Digest), "") }},
		{audit.LinkBad, current(app, "v1"), "v1", func() { put(current(app, "v1"), "nonsense") }},
		{audit.LinkWrong, revision(v1.digest), "v1", func() { put(revision(v1.digest), v0.digest.String()) }},
		{audit.LinkMissing, current(app, "v0"), "v0", func() { remove(current(app, "v0")) }},
		{audit.LayerLinkMissing, layerLink(v0.own().Digest), "v0", func() { remove(layerLink(v0.own().Digest)) }},
		{audit.TagManifestMissing, current(app, "v0"), "v0", func() { remove(revision(v0.digest)) }},
	} {
		t.Run(fmt.Sprintf("%s of %s", f.category, distribution.Parse(f.path).Digest), func(t *testing.T) {
			f.plant()
			found, _ := look(t, r.ceph, whole, true)
			at := slices.IndexFunc(found, func(x audit.Finding) bool { return x.Category == f.category })
			require.GreaterOrEqual(t, at, 0, "%v", found)
			assert.Equal(t, f.path, found[at].Path)
			assert.Equal(t, []string{f.tag}, found[at].Tags)

			to := r.onCeph(t, fmt.Sprintf("case-%d/%s", i, cephRoot))
			carry(t, r.ceph, to, whole, true)
			carried, _ := look(t, to, whole, true)
			assert.Empty(t, carried, "the mirror carried something that is bad, or that refers to what it left out")

			healed := heal(t, r.swift, r.ceph, found)
			after, _ := look(t, r.ceph, whole, true)
			assert.Empty(t, after, "%v", healed)
		})
	}
	validated(t, next, app)
	o, err := audit.CountOrphans(t.Context(), r.ceph.Store)
	require.NoError(t, err)
	assert.Equal(t, audit.Orphans{}, o)
	put(distribution.BlobKey(digest.FromString("nobody's")), "nobody's")
	o, err = audit.CountOrphans(t.Context(), r.ceph.Store)
	require.NoError(t, err)
	assert.Equal(t, audit.Orphans{Blobs: 1, Bytes: 8}, o)
}

// Nothing is healed with what is bad itself: a copy that was damaged in the same place leaves everything as it is.
func TestRealFaultWithNoGoodCopyStaysAndSaysWhy(t *testing.T) {
	r := newReal(t)
	content := strings.Repeat("a layer", 1000)
	r.lay(t, content)
	carry(t, r.swift, r.ceph, whole, false)
	d := digest.FromString(content)
	wrong := strings.Repeat("x", len(content))
	r.put(t, distribution.BlobKey(d), wrong)
	_, err := r.ceph.Store.Put(t.Context(), distribution.BlobKey(d), strings.NewReader(wrong), int64(len(wrong)), objectstore.PutOptions{})
	require.NoError(t, err)
	found, _ := look(t, r.swift, whole, true)
	healed := heal(t, r.ceph, r.swift, found)
	require.Len(t, healed, 1)
	assert.False(t, healed[0].Healed)
	assert.Contains(t, healed[0].Unhealed, "ceph has no good copy: its 7000 bytes do not hash to its name")
	body, _, err := r.swift.Store.Get(t.Context(), distribution.BlobKey(d), objectstore.ReadOptions{})
	require.NoError(t, err)
	defer body.Close()
	raw, err := io.ReadAll(body)
	require.NoError(t, err)
	assert.Equal(t, wrong, string(raw), "what was there stays")
}

// lay writes one image of one layer.
func (r *real) lay(t *testing.T, content string) {
	t.Helper()
	tree := distributiontest.Tree{Put: func(key, content string) { r.put(t, key, content) }}
	tree.Tag(app, "v0", tree.Image(app, nil, content))
}
