package audit

import (
	"context"
	"errors"
	"io"
	"iter"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"transship/internal/distribution"
	"transship/internal/distribution/distributiontest"
	"transship/internal/mirror"
	"transship/internal/objectstore"
	"transship/internal/objectstore/storetest"
)

const affected = "restricted/a"

// faulty is a backend with images, a healthy copy of it, and what the faults are planted in.
type faulty struct {
	bad, good            *storetest.Memory
	layer, other         digest.Digest
	image, index, second digest.Digest
}

func newFaulty(t *testing.T) *faulty {
	f := &faulty{bad: &storetest.Memory{Name: "old"}, good: &storetest.Memory{Name: "new"}}
	tree := distributiontest.Tree{Put: func(key, content string) { f.bad.PutString(key, content); f.good.PutString(key, content) }}
	f.image = tree.Image(affected, nil, "a layer", "another layer")
	f.second = tree.Image(affected, nil, "only in the second")
	f.index = tree.Index(affected, f.image)
	tree.Tag(affected, "v1", f.image)
	tree.Tag(affected, "v2", f.second)
	tree.Tag(affected, "multi", f.index)
	tree.Tag("restricted/b", "shared", tree.Image("restricted/b", nil, "a layer"))
	f.layer, f.other = digest.FromString("a layer"), digest.FromString("another layer")
	return f
}

func (f *faulty) audit(t *testing.T, deep bool) ([]Finding, Counts) {
	t.Helper()
	a := &Audit{Side: mirror.Side{Backend: "old", Store: f.bad}, Deep: deep, Untagging: time.Millisecond}
	found, counts, err := a.Run(t.Context(), mirror.Shard{Prefix: "restricted"})
	require.NoError(t, err)
	return found, counts
}

func link(kind distribution.Kind, d digest.Digest) string {
	return distribution.Path{Kind: kind, Repository: affected, Digest: d}.Key()
}

func current(tag string) string {
	return distribution.Path{Kind: distribution.TagCurrent, Repository: affected, Tag: tag}.Key()
}

func TestACleanStoreGivesNoFinding(t *testing.T) {
	for _, deep := range []bool{false, true} {
		found, counts := newFaulty(t).audit(t, deep)
		assert.Empty(t, found)
		assert.EqualValues(t, 4, counts.Tags)
		assert.EqualValues(t, 4, counts.Manifests)
		assert.EqualValues(t, 2, counts.Repositories)
		assert.Zero(t, counts.Transient)
	}
}

// A registry deletes a manifest before its tags, which on Swift takes a while: an image that a client is deleting is no finding.
func TestAnImageThatIsBeingDeletedIsNoFinding(t *testing.T) {
	f := newFaulty(t)
	require.NoError(t, f.bad.Delete(t.Context(), link(distribution.Revision, f.second)))
	began := time.Now()
	a := &Audit{Side: mirror.Side{Backend: "old", Store: f.bad}, Untagging: 5 * time.Second}
	time.AfterFunc(50*time.Millisecond, func() { _ = f.bad.Delete(context.Background(), current("v2")) })
	found, counts, err := a.Run(t.Context(), mirror.Shard{Prefix: "restricted"})
	require.NoError(t, err)
	assert.Empty(t, found)
	assert.EqualValues(t, 1, counts.Transient)
	assert.Less(t, time.Since(began), 4*time.Second, "nobody waits longer than it takes")
}

// faults are the categories: how each is planted, which tags it affects, and whether a copy heals it.
var faults = map[string]struct {
	category Category
	plant    func(t *testing.T, f *faulty)
	path     func(f *faulty) string
	tags     []string
	deep     bool // only a deep audit finds it
	derived  []Category
	stays    bool // nothing heals it
}{
	"missing layer": {BlobMissing, func(t *testing.T, f *faulty) {
		require.NoError(t, f.bad.Delete(t.Context(), distribution.BlobKey(f.other)))
	}, func(f *faulty) string { return distribution.BlobKey(f.other) }, []string{"multi", "v1"}, false, []Category{ManifestPartMissing}, false},
	"missing manifest": {BlobMissing, func(t *testing.T, f *faulty) {
		require.NoError(t, f.bad.Delete(t.Context(), distribution.BlobKey(f.image)))
	}, func(f *faulty) string { return distribution.BlobKey(f.image) }, []string{"multi", "v1"}, false, nil, false},
	"empty": {BlobEmpty, func(_ *testing.T, f *faulty) { f.bad.PutString(distribution.BlobKey(f.other), "") },
		func(f *faulty) string { return distribution.BlobKey(f.other) }, []string{"multi", "v1"}, false, nil, false},
	"short": {BlobShort, func(_ *testing.T, f *faulty) { f.bad.PutString(distribution.BlobKey(f.other), "another") },
		func(f *faulty) string { return distribution.BlobKey(f.other) }, []string{"multi", "v1"}, false, nil, false},
	"long": {BlobLong, func(_ *testing.T, f *faulty) {
		f.bad.PutString(distribution.BlobKey(f.other), "another layer and more")
	},
		func(f *faulty) string { return distribution.BlobKey(f.other) }, []string{"multi", "v1"}, false, nil, false},
	"other bytes": {BlobCorrupt, func(_ *testing.T, f *faulty) { f.bad.PutString(distribution.BlobKey(f.other), "Another layer") },
		func(f *faulty) string { return distribution.BlobKey(f.other) }, []string{"multi", "v1"}, true, nil, false},
	"other manifest": {BlobCorrupt, func(_ *testing.T, f *faulty) { f.bad.PutString(distribution.BlobKey(f.second), "{}") },
		func(f *faulty) string { return distribution.BlobKey(f.second) }, []string{"v2"}, false, nil, false},
	"segment gone": {SegmentsMissing, func(_ *testing.T, f *faulty) {
		f.bad.PutSegmented(distribution.BlobKey(f.other), "another", objectstore.Dynamic, []objectstore.Object{
			{Key: "registry/segments/abc/0000000000000001", Size: 4}, {Key: "registry/segments/abc/0000000000000003", Size: 3},
		})
	}, func(f *faulty) string { return distribution.BlobKey(f.other) }, []string{"multi", "v1"}, false, nil, false},
	"last segment gone": {SegmentsMissing, func(_ *testing.T, f *faulty) {
		f.bad.PutSegmented(distribution.BlobKey(f.other), "another", objectstore.Dynamic, []objectstore.Object{{Key: "registry/segments/abc/0000000000000001", Size: 7}})
	}, func(f *faulty) string { return distribution.BlobKey(f.other) }, []string{"multi", "v1"}, false, nil, false},
	"segment listed and gone": {SegmentsMissing, func(_ *testing.T, f *faulty) {
		f.bad.PutSegmented(distribution.BlobKey(f.other), "another layer", objectstore.Dynamic, []objectstore.Object{
			{Key: "registry/segments/abc/0000000000000001", Size: 7}, {Key: "registry/segments/abc/0000000000000002", Size: 6},
		})
		f.bad.Truncate(distribution.BlobKey(f.other), 7)
	}, func(f *faulty) string { return distribution.BlobKey(f.other) }, []string{"multi", "v1"}, true, nil, false},
	"empty layer link": {LinkEmpty, func(_ *testing.T, f *faulty) { f.bad.PutString(link(distribution.Layer, f.other), "") },
		func(f *faulty) string { return link(distribution.Layer, f.other) }, []string{"multi", "v1"}, false, nil, false},
	"link with nonsense": {LinkBad, func(_ *testing.T, f *faulty) { f.bad.PutString(link(distribution.Revision, f.image), "nonsense") },
		func(f *faulty) string { return link(distribution.Revision, f.image) }, []string{"multi", "v1"}, false, nil, false},
	"link to something else": {LinkWrong, func(_ *testing.T, f *faulty) {
		f.bad.PutString(link(distribution.Revision, f.image), f.second.String())
	},
		func(f *faulty) string { return link(distribution.Revision, f.image) }, []string{"multi", "v1"}, false, nil, false},
	"empty tag": {LinkEmpty, func(_ *testing.T, f *faulty) { f.bad.PutString(current("v1"), "") },
		func(*faulty) string { return current("v1") }, []string{"v1"}, false, nil, false},
	"tag with nonsense": {LinkBad, func(_ *testing.T, f *faulty) { f.bad.PutString(current("v1"), "nonsense") },
		func(*faulty) string { return current("v1") }, []string{"v1"}, false, nil, false},
	"tag gone": {LinkMissing, func(t *testing.T, f *faulty) { require.NoError(t, f.bad.Delete(t.Context(), current("v1"))) },
		func(*faulty) string { return current("v1") }, []string{"v1"}, false, nil, false},
	"no layer link": {LayerLinkMissing, func(t *testing.T, f *faulty) {
		require.NoError(t, f.bad.Delete(t.Context(), link(distribution.Layer, f.other)))
	}, func(f *faulty) string { return link(distribution.Layer, f.other) }, []string{"multi", "v1"}, false, nil, false},
	"tag without manifest": {TagManifestMissing, func(t *testing.T, f *faulty) {
		require.NoError(t, f.bad.Delete(t.Context(), link(distribution.Revision, f.second)))
	}, func(*faulty) string { return current("v2") }, []string{"v2"}, false, nil, false},
	"index without manifest": {ManifestPartMissing, func(t *testing.T, f *faulty) {
		require.NoError(t, f.bad.Delete(t.Context(), link(distribution.Revision, f.image)))
	}, func(f *faulty) string { return link(distribution.Revision, f.index) }, []string{"multi"}, false, []Category{TagManifestMissing}, false},
	"unexpected": {Unexpected, func(_ *testing.T, f *faulty) { f.bad.PutString("repositories/restricted/a/_layers/readme", "?") },
		func(*faulty) string { return "repositories/restricted/a/_layers/readme" }, nil, false, nil, true},
}

func TestEachFaultIsFoundNamedAndHealed(t *testing.T) {
	for name, c := range faults {
		t.Run(name, func(t *testing.T) {
			f := newFaulty(t)
			c.plant(t, f)
			if c.deep {
				found, _ := f.audit(t, false)
				assert.Empty(t, found)
			}
			found, _ := f.audit(t, true)
			require.NotEmpty(t, found)
			i := slices.IndexFunc(found, func(x Finding) bool { return x.Category == c.category && x.Repository != "restricted/b" })
			require.GreaterOrEqual(t, i, 0, "%v", found)
			assert.Equal(t, c.path(f), found[i].Path)
			assert.Equal(t, c.tags, found[i].Tags)
			assert.Equal(t, affected, found[i].Repository)
			assert.NotEmpty(t, found[i].Cure)
			var others []Category
			for j, x := range found {
				if j != i {
					others = append(others, x.Category)
				}
			}
			assert.Equal(t, c.derived, slices.Compact(others))

			// The mirror of what is found does not carry it.
			to := &storetest.Memory{}
			m := &mirror.Mirror{From: mirror.Side{Backend: "old", Store: f.bad}, To: mirror.Side{Backend: "new", Store: to}, SkipBroken: true, Untagging: time.Millisecond}
			_, err := m.Run(t.Context(), mirror.Shard{Prefix: "restricted"}, mirror.Cursor{})
			require.NoError(t, err)
			for _, key := range to.Keys() {
				content, _ := to.Content(key)
				if p := distribution.Parse(key); p.Kind == distribution.Blob {
					assert.Equal(t, p.Digest, digest.FromBytes(content))
				}
			}

			h := &Healer{Good: mirror.Side{Backend: "new", Store: f.good}, Bad: mirror.Side{Backend: "old", Store: f.bad}}
			healed, err := h.Heal(t.Context(), found)
			require.NoError(t, err)
			after, _ := f.audit(t, true)
			if c.stays {
				assert.Len(t, after, len(found))
				return
			}
			assert.Empty(t, after)
			assert.True(t, healed[i].Healed, healed[i].Unhealed)
		})
	}
}

func TestABlobOfSeveralRepositoriesIsHealedOnce(t *testing.T) {
	f := newFaulty(t)
	f.bad.PutString(distribution.BlobKey(f.layer), "A layer")
	found, _ := f.audit(t, true)
	require.Len(t, found, 2)
	f.bad.Reset()
	healed, err := (&Healer{Good: mirror.Side{Backend: "new", Store: f.good}, Bad: mirror.Side{Backend: "old", Store: f.bad}}).Heal(t.Context(), found)
	require.NoError(t, err)
	assert.True(t, healed[0].Healed && healed[1].Healed)
	assert.Equal(t, 1, f.bad.Counts()["put"])
	after, _ := f.audit(t, true)
	assert.Empty(t, after)
}

// Nothing is healed with something that is bad itself.
func TestABadCopyHealsNothing(t *testing.T) {
	for name, c := range faults {
		if c.stays {
			continue
		}
		t.Run(name, func(t *testing.T) {
			f := newFaulty(t)
			c.plant(t, f)
			found, _ := f.audit(t, true)
			before := map[string]string{}
			for _, key := range f.bad.Keys() {
				content, _ := f.bad.Content(key)
				before[key] = string(content)
			}
			f.good, f.bad = f.bad, f.good
			c.plant(t, f)
			f.good, f.bad = f.bad, f.good
			h := &Healer{Good: mirror.Side{Backend: "new", Store: f.good}, Bad: mirror.Side{Backend: "old", Store: f.bad}}
			healed, err := h.Heal(t.Context(), found)
			require.NoError(t, err)
			for _, x := range healed {
				assert.False(t, x.Healed, x.Path)
				if !x.Derived {
					assert.NotEmpty(t, x.Unhealed)
				}
			}
			for _, key := range f.bad.Keys() {
				content, _ := f.bad.Content(key)
				assert.Equal(t, before[key], string(content), key)
			}
		})
	}
}

func TestListingAndObjectDisagreeing(t *testing.T) {
	f := newFaulty(t)
	gone := map[string]bool{distribution.BlobKey(f.other): true, link(distribution.Layer, f.layer): true}
	f.bad.Fault = func(op, key string) error {
		if gone[key] && (op == "stat" || op == "get") {
			return objectstore.ErrNotExist
		}
		return nil
	}
	found, _ := f.audit(t, true)
	paths := map[string]Category{}
	for _, x := range found {
		paths[x.Path] = x.Category
	}
	assert.Equal(t, map[string]Category{distribution.BlobKey(f.other): ListedGone, link(distribution.Layer, f.layer): ListedGone}, paths)
}

// Swift answers with an error at once when the first segment of an object is gone although it is listed.
func TestASegmentedBlobThatGivesNothingIsAFindingAndNoError(t *testing.T) {
	f := newFaulty(t)
	key := distribution.BlobKey(f.other)
	for parts, segment := range map[objectstore.Parts]string{objectstore.Dynamic: "0000000000000001", objectstore.Static: "a-0"} {
		f.bad.PutSegmented(key, "another layer", parts, []objectstore.Object{{Key: "registry/segments/abc/" + segment, Size: 13}})
		f.bad.Fault = func(op, asked string) error {
			if op == "get" && asked == key {
				return io.ErrUnexpectedEOF
			}
			return nil
		}
		found, _ := f.audit(t, true)
		require.Len(t, found, 1)
		assert.Equal(t, SegmentsMissing, found[0].Category)
		assert.Equal(t, "segment "+segment+" is listed and cannot be read: 0 of 13 bytes came", found[0].Detail)
		assert.Equal(t, []string{"multi", "v1"}, found[0].Tags)
	}
}

// unlisted is a store whose listing does not show some keys.
type unlisted struct {
	*storetest.Memory
	key func(string) bool
}

func (u unlisted) List(ctx context.Context, o objectstore.ListOptions) iter.Seq2[objectstore.Object, error] {
	return func(yield func(objectstore.Object, error) bool) {
		for object, err := range u.Memory.List(ctx, o) {
			if err == nil && u.key(object.Key) {
				continue
			}
			if !yield(object, err) {
				return
			}
		}
	}
}

// While an audit runs, clients push and delete: what the listing could not yet show, or still shows, is no fault. What it never shows is one.
func TestWhatIsPushedOrDeletedMeanwhileIsNoFinding(t *testing.T) {
	for _, hidden := range []func(f *faulty) string{
		func(f *faulty) string { return link(distribution.Layer, f.other) },
		func(f *faulty) string { return link(distribution.Revision, f.image) },
		func(*faulty) string { return current("v1") },
	} {
		for _, written := range []time.Duration{-time.Hour, time.Hour} {
			f := newFaulty(t)
			key := hidden(f)
			content, _ := f.bad.Content(key)
			f.bad.Now = func() time.Time { return time.Now().Add(written) }
			f.bad.PutString(key, string(content))
			found, _, err := (&Audit{Side: mirror.Side{Backend: "old", Store: unlisted{f.bad, func(k string) bool { return k == key }}}, Deep: true, Untagging: time.Millisecond}).Run(t.Context(), mirror.Shard{Prefix: "restricted"})
			require.NoError(t, err)
			if written > 0 {
				assert.Empty(t, found)
				continue
			}
			require.NotEmpty(t, found)
			assert.Equal(t, NotListed, found[0].Category)
			assert.Equal(t, key, found[0].Path)
		}

		f := newFaulty(t)
		f.bad.Fault = func(op, key string) error { // deleted after the listing, before the look
			if op == "stat" && key == hidden(f) {
				return errors.Join(f.bad.Delete(context.Background(), key), objectstore.ErrNotExist)
			}
			return nil
		}
		found, _ := f.audit(t, true)
		assert.Empty(t, found)
	}
}

func TestATransientFaultIsNoFinding(t *testing.T) {
	f := newFaulty(t)
	var asked atomic.Int64
	f.bad.Fault = func(op, key string) error {
		if key == distribution.BlobKey(f.other) && op == "stat" && asked.Add(1) == 1 {
			return objectstore.ErrNotExist
		}
		return nil
	}
	found, counts := f.audit(t, true)
	assert.Empty(t, found)
	assert.EqualValues(t, 1, counts.Transient)
}

func TestWhatCannotBeAskedIsNoFinding(t *testing.T) {
	f := newFaulty(t)
	broken := errors.New("503")
	f.bad.Fault = func(op, key string) error {
		if op == "stat" && strings.HasPrefix(key, distribution.Blobs) {
			return broken
		}
		return nil
	}
	_, _, err := (&Audit{Side: mirror.Side{Backend: "old", Store: f.bad}, Untagging: time.Millisecond}).Run(t.Context(), mirror.Shard{Prefix: "restricted"})
	require.ErrorIs(t, err, broken)
}

func TestOrphansAreCounted(t *testing.T) {
	f := newFaulty(t)
	o, err := CountOrphans(t.Context(), f.bad)
	require.NoError(t, err)
	assert.Zero(t, o.Blobs)
	f.bad.PutString(distribution.BlobKey(digest.FromString("nobody")), "nobody")
	f.bad.PutSegmented(distribution.BlobKey(f.layer), "a layer", objectstore.Dynamic, []objectstore.Object{{Key: "registry/segments/used/0000000000000001", Size: 7}})
	o, err = CountOrphans(t.Context(), f.bad)
	require.NoError(t, err)
	assert.EqualValues(t, 1, o.Blobs)
	assert.EqualValues(t, 6, o.Bytes)
}

func TestAListOfFindingsEndsWhereItWouldBeTooLong(t *testing.T) {
	many := make([]Finding, 10)
	assert.Len(t, First(many, 20, 1<<20), 10)
	assert.Len(t, First(many, 3, 1<<20), 3)
	assert.Len(t, First(many, 20, 1000), 5)
	many[2].Tags = slices.Repeat([]string{"a-tag"}, 1000) // as a base layer has
	assert.Len(t, First(many, 20, 5000), 2)
	assert.Empty(t, First(nil, 20, 1000))
}

// Whoever heals a few at a time must not come to a link before its blob.
func TestCausesAreHealedFirst(t *testing.T) {
	gone := Finding{Category: ListedGone, Path: distribution.BlobKey(digest.FromString("x"))}
	list := []Finding{{Category: Unexpected}, {Category: TagManifestMissing}, {Category: LinkEmpty}, gone, {Category: ListedGone, Path: current("v1")}, {Category: BlobCorrupt}}
	slices.SortStableFunc(list, CausesFirst)
	var order []Category
	for _, f := range list {
		order = append(order, f.Category)
	}
	assert.Equal(t, []Category{ListedGone, BlobCorrupt, LinkEmpty, ListedGone, TagManifestMissing, Unexpected}, order)
}

func TestALargeBlobIsReadToItsEnd(t *testing.T) {
	f := newFaulty(t)
	content := strings.Repeat("0123456789abcdef", (64<<20)/16+100)
	d := distributiontest.Tree{Put: func(key, content string) { f.bad.PutString(key, content) }}.Blob(affected, content)
	found, counts := f.audit(t, true)
	assert.Empty(t, found)
	assert.Greater(t, counts.Bytes, int64(len(content)))
	f.bad.PutString(distribution.BlobKey(d), content[:len(content)-1]+"x")
	found, _ = f.audit(t, true)
	require.Len(t, found, 1)
	assert.Equal(t, BlobCorrupt, found[0].Category)
}
