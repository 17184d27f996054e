package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"transship/internal/distribution"
	"transship/internal/distribution/distributiontest"
	"transship/internal/journal"
	"transship/internal/objectstore"
	"transship/internal/objectstore/storetest"
	"transship/internal/registry"
)

// Promise 7, and the whole of what a registry-level copy leaves behind.
func TestEverythingOfThePrefixComesInTheOrderOfItsReferences(t *testing.T) {
	for range 20 { // the order of concurrent work differs each time
		w := newWorld()
		w.images()
		w.guarded(t)
		at := w.run(t)
		w.whole(t)
		assert.EqualValues(t, 6, at.Progress.Repositories)
		assert.EqualValues(t, 24, at.Progress.Tags)
		assert.Zero(t, at.Progress.TagsUnchanged)
		assert.Empty(t, at.Problems)
		assert.Empty(t, at.Unexpected)
	}
}

// Promise 8.
func TestNothingChangedCostsTheListings(t *testing.T) {
	w := newWorld()
	w.images()
	w.run(t)
	w.from.Reset()
	w.to.Reset()
	at := w.run(t)
	assert.Equal(t, at.Progress.Tags, at.Progress.TagsUnchanged)
	assert.Zero(t, at.Links)
	for _, store := range []map[string]int{w.from.Counts(), w.to.Counts()} {
		assert.Equal(t, 1, store["list"], "one listing on each side")
		delete(store, "list")
		assert.Empty(t, store)
	}
}

func TestSharedBlobsComeOnce(t *testing.T) {
	w := newWorld()
	for i := range 50 {
		w.source.Image(fmt.Sprintf("restricted/r%d", i), nil, "shared by all")
	}
	var puts atomic.Int64
	shared := distribution.BlobKey(digest.FromString("shared by all"))
	w.to.Fault = func(op, key string) error {
		if op == "put" && key == shared {
			puts.Add(1)
		}
		return nil
	}
	w.run(t)
	assert.EqualValues(t, 1, puts.Load())
}

// Promise 3: whatever is wrong with a blob, it is named with the tags that it affects, it and they are not carried, and all else is.
func TestABadBlobIsReportedWithItsTagsAndNeverCarried(t *testing.T) {
	layer := digest.FromString("layer of restricted/a")
	manifestOf := func(w *world) digest.Digest {
		return w.source.Image("restricted/a", nil, "base layer", "layer of restricted/a")
	}
	for name, c := range map[string]struct {
		plant func(w *world)
		kind  registry.Kind
		of    digest.Digest
		tags  []string
	}{
		"missing":      {func(w *world) { _ = w.from.Delete(t.Context(), distribution.BlobKey(layer)) }, registry.Missing, layer, nil},
		"empty":        {func(w *world) { w.from.PutString(distribution.BlobKey(layer), "") }, registry.Short, layer, nil},
		"corrupt":      {func(w *world) { w.from.PutString(distribution.BlobKey(layer), "Layer of restricted/a") }, registry.Corrupt, layer, nil},
		"shorter":      {func(w *world) { w.from.PutString(distribution.BlobKey(layer), "layer of restr") }, registry.Corrupt, layer, nil},
		"cut":          {func(w *world) { w.from.Truncate(distribution.BlobKey(layer), 5) }, registry.Short, layer, nil},
		"bad manifest": {func(w *world) { w.from.PutString(distribution.BlobKey(manifestOf(w)), "{}") }, registry.Corrupt, "", nil},
		"empty layer link": {func(w *world) {
			w.from.PutString(distribution.Path{Kind: distribution.Layer, Repository: "restricted/a", Digest: layer}.Key(), "")
		}, registry.Corrupt, layer, nil},
		"no layer link": {func(w *world) {
			_ = w.from.Delete(t.Context(), distribution.Path{Kind: distribution.Layer, Repository: "restricted/a", Digest: layer}.Key())
		}, registry.Missing, layer, nil},
		"no manifest link": {func(w *world) {
			_ = w.from.Delete(t.Context(), distribution.Path{Kind: distribution.Revision, Repository: "restricted/a", Digest: manifestOf(w)}.Key())
		}, registry.Missing, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			w.images()
			w.source.Tag("restricted/a", "pinned", manifestOf(w))
			c.plant(w)
			w.guarded(t)

			at, err := w.mirror().Run(t.Context(), everything, Cursor{})
			var broken *registry.BrokenError
			require.ErrorAs(t, err, &broken)
			require.Len(t, at.Problems, 1)
			p := at.Problems[0]
			assert.Equal(t, c.kind, p.Kind, p.Detail)
			assert.Equal(t, "old", p.Backend)
			if c.of != "" {
				assert.Equal(t, c.of.String(), p.Digest)
			}
			assert.Equal(t, []string{"restricted/a:multi", "restricted/a:nested", "restricted/a:pinned"}, tagsOf(at.Problems))
			w.hashed(t)
			for _, tag := range []string{"multi", "nested", "pinned"} {
				_, there := w.to.Content(distribution.Path{Kind: distribution.TagCurrent, Repository: "restricted/a", Tag: tag}.Key())
				assert.False(t, there, "tag %s needs what is bad", tag)
			}
			_, there := w.to.Content(distribution.Path{Kind: distribution.TagCurrent, Repository: "restricted/a", Tag: "v2"}.Key())
			assert.True(t, there, "tag v2 needs nothing bad")

			// Left out, it is no difference; otherwise it is.
			m := w.mirror()
			m.SkipBroken = true
			at, err = m.Run(t.Context(), everything, Cursor{})
			require.NoError(t, err)
			check, err := w.mirror().Compare(t.Context(), everything, CompareOptions{Left: at.Problems})
			require.NoError(t, err)
			assert.Empty(t, check.Differences)
			check, err = w.mirror().Compare(t.Context(), everything, CompareOptions{})
			require.NoError(t, err)
			assert.NotEmpty(t, check.Differences)
		})
	}
}

func TestBadTagLinks(t *testing.T) {
	current := distribution.Path{Kind: distribution.TagCurrent, Repository: "restricted/a", Tag: "v2"}.Key()
	for content, detail := range map[string]string{"": "is empty", "no digest": "no digest"} {
		w := newWorld()
		w.images()
		w.from.PutString(current, content)
		at, err := w.mirror().Run(t.Context(), everything, Cursor{})
		require.Error(t, err)
		require.Len(t, at.Problems, 1)
		assert.Contains(t, at.Problems[0].Detail, detail)
		assert.Equal(t, []string{"restricted/a:v2"}, tagsOf(at.Problems))
		_, there := w.to.Content(current)
		assert.False(t, there)
	}
}

// A bad answer that a second reading of the newest copy does not confirm is no bad blob.
func TestWhatIsBadOnceIsReadAgain(t *testing.T) {
	w := newWorld()
	w.images()
	key := distribution.BlobKey(digest.FromString("layer of restricted/a"))
	var reads atomic.Int64
	w.from.Fault = func(op, at string) error {
		if op == "get" && at == key && reads.Add(1) == 1 {
			return objectstore.ErrNotExist
		}
		return nil
	}
	at := w.run(t)
	assert.EqualValues(t, 1, at.Reread)
	w.whole(t)
}

func TestUnexpectedKeysAreNamed(t *testing.T) {
	w := newWorld()
	w.images()
	strange := []string{
		"repositories/restricted/a/_layers/sha256/nothex/link", "repositories/restricted/a/_manifests/readme.txt", "repositories/restricted/stray",
		"repositories/restricted/zz/_layers/sha256/abc",
	}
	for _, key := range strange {
		w.from.PutString(key, "?")
	}
	at := w.run(t)
	assert.ElementsMatch(t, strange, at.Unexpected)
	assert.EqualValues(t, len(strange), at.UnexpectedCount)
}

// Promise 6: killed anywhere, the target is sound, and the next run completes it.
func TestKilledAnywhere(t *testing.T) {
	crash := errors.New("killed")
	for kill := 1; ; kill++ {
		w := newWorld()
		w.images()
		w.guarded(t)
		guard := w.to.Fault
		var puts atomic.Int64
		w.to.Fault = func(op, key string) error {
			if op == "put" && puts.Add(1) >= int64(kill) {
				return crash
			}
			return guard(op, key)
		}
		at, err := w.mirror().Run(t.Context(), everything, Cursor{})
		if err == nil {
			assert.Greater(t, kill, 100)
			return
		}
		require.ErrorIs(t, err, crash)
		w.hashed(t)
		w.to.Fault = guard
		_, err = w.mirror().Run(t.Context(), everything, at)
		require.NoError(t, err)
		w.whole(t)
		if kill > 40 {
			kill += 6
		}
	}
}

func TestTheCursorGoesPastWhatIsDone(t *testing.T) {
	w := newWorld()
	w.images()
	last := digest.FromString("layer of restricted/a/b") // its repository comes last but for none
	crash := errors.New("killed")
	w.to.Fault = func(op, key string) error {
		if op == "put" && key == distribution.BlobKey(last) {
			return crash
		}
		return nil
	}
	at, err := w.mirror().Run(t.Context(), everything, Cursor{})
	require.ErrorIs(t, err, crash)
	w.to.Fault = nil
	var mu sync.Mutex
	asked := map[string]bool{}
	w.from.Fault = func(op, key string) error {
		if op == "list" && strings.HasSuffix(key, "link") {
			mu.Lock()
			defer mu.Unlock()
			asked[distribution.Parse(key).Repository] = true
		}
		return nil
	}
	_, err = w.mirror().Run(t.Context(), everything, at)
	require.NoError(t, err)
	w.whole(t)
	if at.After != "" {
		for repository := range asked {
			assert.Greater(t, distribution.Of(repository), at.After, "listed again though it was done")
		}
	}
}

// Promise 9.
func TestDeletionsAreFollowedOnlyForWhatThisMigrationWrote(t *testing.T) {
	w := newWorld()
	w.images()
	old := w.target.Image("restricted/a", nil, "was there before")
	w.target.Tag("restricted/a", "before", old)
	w.run(t)

	gone := w.source.Image("restricted/a", nil, "to be deleted")
	w.source.Tag("restricted/a", "gone", gone)
	w.run(t)
	tag := distribution.Path{Kind: distribution.TagCurrent, Repository: "restricted/a", Tag: "gone"}
	revision := distribution.Path{Kind: distribution.Revision, Repository: "restricted/a", Digest: gone}
	history := distribution.Path{Kind: distribution.TagIndex, Repository: "restricted/a", Tag: "gone", Digest: gone}
	for _, p := range []distribution.Path{tag, revision, history} {
		require.NoError(t, w.from.Delete(t.Context(), p.Key()))
	}

	other := w.mirror()
	other.Mark = "another migration"
	at, err := other.Run(t.Context(), everything, Cursor{})
	require.NoError(t, err)
	assert.Zero(t, at.Deleted)
	assert.Subset(t, at.NotDeleted, []string{"restricted/a:gone", "restricted/a:before"})

	off := w.mirror()
	off.Deletes = false
	at, err = off.Run(t.Context(), everything, Cursor{})
	require.NoError(t, err)
	assert.Zero(t, at.Deleted)

	at = w.run(t)
	assert.EqualValues(t, 1, at.Deleted, "the tag; its manifest stays while a tag that is not ours stays")
	_, there := w.to.Content(tag.Key())
	assert.False(t, there)
	_, there = w.to.Content(distribution.Path{Kind: distribution.TagCurrent, Repository: "restricted/a", Tag: "before"}.Key())
	assert.True(t, there)
	_, there = w.to.Content(distribution.BlobKey(gone))
	assert.True(t, there, "blobs are never deleted")
}

func TestAManifestIsDeletedAfterItsTags(t *testing.T) {
	w := newWorld()
	gone := w.source.Image("restricted/a", nil, "to be deleted")
	w.source.Tag("restricted/a", "gone", gone)
	w.source.Tag("restricted/a", "stays", w.source.Image("restricted/a", nil, "stays"))
	w.run(t)
	for _, key := range w.from.Keys() {
		if strings.Contains(key, "/tags/gone/") || strings.Contains(key, "revisions/sha256/"+gone.Encoded()) {
			require.NoError(t, w.from.Delete(t.Context(), key))
		}
	}
	at := w.run(t)
	assert.EqualValues(t, 2, at.Deleted)
	for _, key := range w.to.Keys() {
		assert.NotContains(t, key, "/tags/gone/")
		assert.NotContains(t, key, "revisions/sha256/"+gone.Encoded())
	}
}

// A listing of the source may lag behind what was acknowledged: nothing that is there is deleted, and nothing is called broken.
func TestALaggingListingOfTheSource(t *testing.T) {
	w := newWorld()
	w.images()
	w.run(t)
	all := w.to.Keys()
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // a repeatable choice
		hidden := map[string]bool{}
		for _, key := range w.from.Keys() {
			hidden[key] = r.IntN(3) == 0
		}
		m := w.mirror()
		m.From.Store = &lagging{Memory: w.from, hidden: func(key string) bool { return hidden[key] }}
		at, err := m.Run(t.Context(), everything, Cursor{})
		require.NoError(t, err)
		assert.Zero(t, at.Deleted)
		assert.Equal(t, all, w.to.Keys())

		// Into an empty target, what comes is sound.
		fresh := newWorld()
		fresh.from = w.from
		fresh.guarded(t)
		m = fresh.mirror()
		m.From.Store = &lagging{Memory: w.from, hidden: func(key string) bool { return hidden[key] }}
		_, err = m.Run(t.Context(), everything, Cursor{})
		require.NoError(t, err)
		fresh.hashed(t)
	}
}

// A listing that still shows a tag of a deleted manifest is no reason to call the manifest missing.
func TestATagThatIsListedAndGoneIsNotMissing(t *testing.T) {
	w, once := newWorld(), newWorld()
	d := w.source.Image("restricted/a", nil, "deleted")
	w.source.Tag("restricted/a", "v1", d)
	w.source.Tag("restricted/a", "v2", w.source.Image("restricted/a", nil, "stays"))
	for _, key := range w.from.Keys() {
		content, _ := w.from.Content(key)
		p := distribution.Parse(key)
		manifest := p.Kind == distribution.Revision && p.Digest == d
		if !manifest {
			once.from.PutString(key, string(content))
		}
		if manifest || p.Tag == "v1" {
			require.NoError(t, w.from.Delete(t.Context(), key))
		}
	}
	m := w.mirror()
	m.From.Store = &outdated{Memory: w.from, once: once.from}
	_, err := m.Run(t.Context(), everything, Cursor{})
	require.NoError(t, err)
	tag := func(name string) string {
		return distribution.Path{Kind: distribution.TagCurrent, Repository: "restricted/a", Tag: name}.Key()
	}
	assert.NotContains(t, w.to.Keys(), tag("v1"))
	assert.Contains(t, w.to.Keys(), tag("v2"))
}

// What was deleted just before is brought all the same where all of it is listed. The comparison finds it, and a delta takes it away.
func TestATagThatIsListedAndGoneIsTakenAwayByADelta(t *testing.T) {
	w, once := newWorld(), newWorld()
	w.source.Tag("restricted/a", "v1", w.source.Image("restricted/a", nil, "deleted"))
	for _, key := range w.from.Keys() {
		content, _ := w.from.Content(key)
		once.from.PutString(key, string(content))
		if p := distribution.Parse(key); p.Kind == distribution.Revision || p.Tag != "" {
			require.NoError(t, w.from.Delete(t.Context(), key))
		}
	}
	m := w.mirror()
	m.From.Store = &outdated{Memory: w.from, once: once.from}
	_, err := m.Run(t.Context(), everything, Cursor{})
	require.NoError(t, err)
	check, err := w.mirror().Compare(t.Context(), everything, CompareOptions{})
	require.NoError(t, err)
	require.Len(t, check.Differences, 1)
	assert.Equal(t, registry.ExtraTag, check.Differences[0].Kind)
	applied, err := w.mirror().Apply(t.Context(), []journal.Change{manifestOf("restricted/a", "v1")})
	require.NoError(t, err)
	assert.Equal(t, 1, applied.Deleted)
	check, err = w.mirror().Compare(t.Context(), everything, CompareOptions{})
	require.NoError(t, err)
	assert.Empty(t, check.Differences)
}

// A listing that never shows a tag, though the registry serves it: the tag's history, which is listed, gives it away.
func TestATagThatIsServedAndNotListedComesAlong(t *testing.T) {
	w := newWorld()
	w.images()
	w.guarded(t)
	m := w.mirror()
	m.From.Store = &lagging{Memory: w.from, hidden: func(key string) bool { return distribution.Parse(key).Kind == distribution.TagCurrent }}
	at, err := m.Run(t.Context(), everything, Cursor{})
	require.NoError(t, err)
	w.whole(t)
	assert.Empty(t, at.Unexpected)
}

func TestAListingThatBreaksOffEndsTheRun(t *testing.T) {
	for _, side := range []string{"from", "to"} {
		w := newWorld()
		w.images()
		w.run(t)
		broken := errors.New("connection reset")
		fault := func(op, key string) error {
			if op == "list" && strings.Contains(key, "restricted/a.b") {
				return broken
			}
			return nil
		}
		if side == "from" {
			w.from.Fault = fault
		} else {
			w.to.Fault = fault
		}
		before := w.to.Keys()
		_, err := w.mirror().Run(t.Context(), everything, Cursor{})
		require.ErrorIs(t, err, broken, side)
		assert.Equal(t, before, w.to.Keys())
	}
}

func TestManyBlobsAndALargeOne(t *testing.T) {
	w := newWorld()
	for i := range 300 {
		w.source.Tag("restricted/many", fmt.Sprintf("v%d", i), w.source.Image("restricted/many", nil, fmt.Sprintf("layer %d", i)))
	}
	huge := strings.Repeat("0123456789abcdef", (large+rangeSize+100)/16)
	w.source.Tag("restricted/huge", "v1", w.source.Image("restricted/huge", nil, huge))
	w.guarded(t)
	w.run(t)
	w.whole(t)
	assert.Less(t, w.to.Counts()["stat"], 3*listAfter, "a target with few blobs is listed instead of being asked for each")
}

func TestSubjectsThatWereNeverPushed(t *testing.T) {
	w := newWorld()
	d := w.source.Image("restricted/a", map[string]any{
		"subject": distributiontest.Descriptor{MediaType: distributiontest.ManifestType, Digest: digest.FromString("elsewhere"), Size: 1},
	}, "signature")
	w.run(t)
	_, there := w.to.Content(distribution.Path{Kind: distribution.Revision, Repository: "restricted/a", Digest: d}.Key())
	assert.True(t, there)
}

// giant says of one object that it is larger than any store takes.
type giant struct {
	*storetest.Memory
	key string
}

func (g *giant) Get(ctx context.Context, key string, o objectstore.ReadOptions) (io.ReadCloser, objectstore.Object, error) {
	body, object, err := g.Memory.Get(ctx, key, o)
	if key == g.key {
		object.Size = maxObject + 1
	}
	return body, object, err
}

func TestAnObjectThatNoStoreTakesIsReported(t *testing.T) {
	w := newWorld()
	w.images()
	m := w.mirror()
	m.From.Store = &giant{w.from, distribution.BlobKey(digest.FromString("layer of restricted/a"))}
	at, err := m.Run(t.Context(), everything, Cursor{})
	require.Error(t, err)
	require.Len(t, at.Problems, 1)
	assert.Contains(t, at.Problems[0].Detail, "5 TB")
	assert.NotEmpty(t, tagsOf(at.Problems))
}
