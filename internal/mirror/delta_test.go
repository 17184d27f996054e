package mirror

import (
	"fmt"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"transship/internal/distribution"
	"transship/internal/journal"
	"transship/internal/registry"
)

func manifestOf(repository, reference string) journal.Change {
	return journal.Change{Kind: journal.Manifest, Repository: repository, Reference: reference}
}

// Found by measuring a freeze: a delta of more than a dozen images listed all blobs of the target, which takes the longer the more there are.
func TestADeltaOfManyImagesListsNothing(t *testing.T) {
	w := newWorld()
	var changes []journal.Change
	for i := range 2 * listAfter {
		tag := fmt.Sprintf("v%d", i)
		w.source.Tag("restricted/a", tag, w.source.Image("restricted/a", nil, "layer "+tag))
		changes = append(changes, manifestOf("restricted/a", tag))
	}
	applied, err := w.mirror().Apply(t.Context(), changes)
	require.NoError(t, err)
	assert.Empty(t, applied.Problems)
	w.whole(t)
	assert.Zero(t, w.from.Counts()["list"]+w.to.Counts()["list"])
}

// The last delta rests on the journal alone: it lists nothing, and costs what was written.
func TestADeltaBringsExactlyWhatTheJournalNames(t *testing.T) {
	for _, before := range []int{10, 100} {
		w := newWorld()
		for i := range before {
			w.source.Tag("restricted/a", fmt.Sprintf("v%d", i), w.source.Image("restricted/a", nil, fmt.Sprintf("layer %d", i)))
		}
		w.run(t)
		one := w.source.Image("restricted/a", nil, "new layer")
		index := w.source.Index("restricted/a", one)
		w.source.Tag("restricted/a", "v1", one)
		w.source.Tag("restricted/a", "multi", index)
		blob := w.source.Blob("restricted/a", "of an unfinished push")
		w.guarded(t)
		changes := []journal.Change{
			{Kind: journal.Blob, Repository: "restricted/a", Reference: blob.String()}, manifestOf("restricted/a", "v1"), manifestOf("restricted/a", "multi"),
			{Kind: journal.Blob, Repository: "restricted/a", Reference: digest.FromString("never stored").String()},
			manifestOf("restricted/a", digest.FromString("never stored").String()),
		}
		found, err := w.mirror().CompareChanges(t.Context(), changes)
		require.NoError(t, err)
		assert.Len(t, found, 3)

		w.from.Reset()
		w.to.Reset()
		applied, err := w.mirror().Apply(t.Context(), changes)
		require.NoError(t, err)
		assert.Empty(t, applied.Problems)
		w.whole(t)
		assert.LessOrEqual(t, w.from.Counts()["list"]+w.to.Counts()["list"], 1, "but for the tags of what was deleted")
		assert.Less(t, w.from.Counts()["stat"]+w.from.Counts()["get"], 30, "whatever the size of the prefix: %d", before)

		found, err = w.mirror().CompareChanges(t.Context(), changes)
		require.NoError(t, err)
		assert.Empty(t, found)
		w.to.Reset()
		_, err = w.mirror().Apply(t.Context(), changes)
		require.NoError(t, err)
		assert.Zero(t, w.to.Counts()["put"], "again, it changes nothing")
	}
}

// Distribution deletes the tags of a deleted manifest with it; the journal names the manifest only.
// A registry on a disk that is killed while it writes leaves empty files, and cannot read them (found by chaos, where a registry was asked for one).
func TestADeltaWritesAgainWhatWasCutOffAtTheTarget(t *testing.T) {
	w := newWorld()
	w.source.Tag("restricted/a", "v1", w.source.Image("restricted/a", nil, "layer"))
	w.run(t)
	changes := []journal.Change{manifestOf("restricted/a", "v1")}
	for _, key := range w.to.Keys() {
		if path := distribution.Parse(key); path.Kind == distribution.Revision {
			changes = append(changes, manifestOf("restricted/a", path.Digest.String()))
		} else if path.Kind == distribution.Layer {
			changes = append(changes, journal.Change{Kind: journal.Blob, Repository: "restricted/a", Reference: path.Digest.String()})
		}
	}
	for _, key := range w.to.Keys() {
		if path := distribution.Parse(key); path.Kind == distribution.Blob || path.Kind == distribution.TagIndex {
			continue // of blobs, presence knows that; what history says is never read
		}
		w.to.PutString(key, "")
		found, err := w.mirror().CompareChanges(t.Context(), changes)
		require.NoError(t, err)
		assert.Len(t, found, 1, key)
		_, err = w.mirror().Apply(t.Context(), changes)
		require.NoError(t, err)
		w.whole(t)
	}
}

func TestADeltaFollowsTheDeletionOfAManifestWithItsTags(t *testing.T) {
	w := newWorld()
	gone := w.source.Image("restricted/a", nil, "to be deleted")
	w.source.Tag("restricted/a", "one", gone)
	w.source.Tag("restricted/a", "two", gone)
	w.source.Tag("restricted/a", "stays", w.source.Image("restricted/a", nil, "stays"))
	w.run(t)
	for _, key := range w.from.Keys() {
		p := distribution.Parse(key)
		if p.Tag == "one" || p.Tag == "two" || p.Kind == distribution.Revision && p.Digest == gone {
			require.NoError(t, w.from.Delete(t.Context(), key))
		}
	}
	change := manifestOf("restricted/a", gone.String())
	change.Deleted = true
	other := w.mirror()
	other.Mark = "another migration"
	applied, err := other.Apply(t.Context(), []journal.Change{change})
	require.NoError(t, err)
	assert.Zero(t, applied.Deleted)
	assert.ElementsMatch(t, []string{"restricted/a:one", "restricted/a:two", "restricted/a@" + gone.String()}, applied.NotDeleted)

	applied, err = w.mirror().Apply(t.Context(), []journal.Change{change})
	require.NoError(t, err)
	assert.Equal(t, 3, applied.Deleted)
	assert.Empty(t, applied.NotDeleted)
	for _, key := range w.to.Keys() {
		p := distribution.Parse(key)
		assert.False(t, p.Tag == "one" || p.Tag == "two" || p.Kind == distribution.Revision && p.Digest == gone, key)
	}
	check, err := w.mirror().Compare(t.Context(), everything, CompareOptions{})
	require.NoError(t, err)
	assert.Empty(t, check.Differences)
}

func TestADeltaOfSomethingBrokenNamesItsTag(t *testing.T) {
	w := newWorld()
	w.source.Tag("restricted/a", "v1", w.source.Image("restricted/a", nil, "bad layer"))
	w.source.Tag("restricted/a", "v2", w.source.Image("restricted/a", nil, "good layer"))
	w.from.PutString(distribution.BlobKey(digest.FromString("bad layer")), "Bad layer")
	w.guarded(t)
	changes := []journal.Change{manifestOf("restricted/a", "v1"), manifestOf("restricted/a", "v2")}
	applied, err := w.mirror().Apply(t.Context(), changes)
	var broken *registry.BrokenError
	require.ErrorAs(t, err, &broken)
	assert.Equal(t, []string{"restricted/a:v1"}, tagsOf(applied.Problems))
	m := w.mirror()
	m.SkipBroken = true
	applied, err = m.Apply(t.Context(), changes)
	require.NoError(t, err)
	assert.Len(t, applied.Problems, 1)
	w.hashed(t)
	_, there := w.to.Content(distribution.Path{Kind: distribution.TagCurrent, Repository: "restricted/a", Tag: "v2"}.Key())
	assert.True(t, there)
}

func TestCompareNamesEveryDifference(t *testing.T) {
	w := newWorld()
	w.images()
	w.run(t)
	check, err := w.mirror().Compare(t.Context(), everything, CompareOptions{})
	require.NoError(t, err)
	assert.Empty(t, check.Differences)
	assert.EqualValues(t, 6, check.Repositories)
	assert.EqualValues(t, 24, check.Tags)

	one := w.source.Image("restricted/a", nil, "base layer", "layer of restricted/a")
	at := func(kind distribution.Kind, tag string, d digest.Digest) string {
		return distribution.Path{Kind: kind, Repository: "restricted/a", Tag: tag, Digest: d}.Key()
	}
	two, _ := w.from.Content(at(distribution.TagCurrent, "v2", ""))
	for _, key := range []string{
		at(distribution.TagCurrent, "v1", ""), at(distribution.Revision, "", digest.Digest(two)), at(distribution.Layer, "", digest.FromString("base layer")),
	} {
		require.NoError(t, w.to.Delete(t.Context(), key))
	}
	w.to.PutString(at(distribution.TagCurrent, "multi", ""), one.String())
	w.target.Tag("restricted/a", "extra", one)
	check, err = w.mirror().Compare(t.Context(), everything, CompareOptions{})
	require.NoError(t, err)
	kinds := map[string]string{}
	for _, d := range check.Differences {
		assert.Equal(t, "restricted/a", d.Repository)
		kinds[d.Kind] = d.Tag
	}
	assert.Equal(t, map[string]string{
		registry.MissingTag: "v1", MissingManifest: "v1", MissingLayer: "", registry.DifferentTag: "multi", registry.ExtraTag: "extra",
	}, kinds)
	check, err = w.mirror().Compare(t.Context(), everything, CompareOptions{AllowExtra: true})
	require.NoError(t, err)
	assert.Len(t, check.Differences, 4)

	w.run(t)
	check, err = w.mirror().Compare(t.Context(), everything, CompareOptions{AllowExtra: true})
	require.NoError(t, err)
	assert.Empty(t, check.Differences, "and the next run mends it")
}

func TestInventoryComesFromTheListingAlone(t *testing.T) {
	w := newWorld()
	w.images()
	var tags []string
	for tag, err := range Inventory(t.Context(), w.from, "restricted") {
		require.NoError(t, err)
		content, _ := w.from.Content(distribution.Path{Kind: distribution.TagCurrent, Repository: tag.Repository, Tag: tag.Name}.Key())
		assert.Equal(t, string(content), tag.Digest.String())
		tags = append(tags, tag.Repository+":"+tag.Name)
	}
	assert.Len(t, tags, 24)
	assert.Equal(t, map[string]int{"list": 1}, w.from.Counts())

	// Where the listing does not show the history, or is wrong, the link itself is read.
	l := &lagging{Memory: w.from, hidden: func(key string) bool { return distribution.Parse(key).Kind == distribution.TagIndex }}
	w.from.PutString(distribution.Path{Kind: distribution.TagCurrent, Repository: "restricted/a", Tag: "v1"}.Key(), "nonsense")
	n := 0
	for tag, err := range Inventory(t.Context(), l, "restricted") {
		require.NoError(t, err)
		assert.NoError(t, tag.Digest.Validate())
		n++
	}
	assert.Equal(t, 23, n, "all but the one whose link is bad")
}

func TestShardsHaveEveryRepositoryOnce(t *testing.T) {
	w := newWorld()
	w.images()
	for i := range 30 {
		w.source.Image(fmt.Sprintf("restricted/more-%02d", i), nil, "layer")
	}
	for _, n := range []int{1, 2, 7, 36, 100} {
		shards, err := Shards(t.Context(), w.from, "restricted", n)
		require.NoError(t, err)
		assert.LessOrEqual(t, len(shards), n)
		var keys []string
		repositories := 0
		for _, s := range shards {
			repositories += s.Repositories
			seen := map[string]bool{}
			for o, err := range w.from.List(t.Context(), s.Listing()) {
				require.NoError(t, err)
				keys = append(keys, o.Key)
				seen[distribution.Parse(o.Key).Repository] = true
			}
			assert.Len(t, seen, s.Repositories)
		}
		assert.Equal(t, 36, repositories)
		all := slices.DeleteFunc(w.from.Keys(), func(key string) bool {
			p := distribution.Parse(key)
			return p.Repository == "" || p.Repository == "other" || p.Repository == "restricted2/a"
		})
		assert.Equal(t, all, keys)
	}
}

func TestRepositoriesAreJumpedOver(t *testing.T) {
	w := newWorld()
	for i := range 5 * scan {
		w.source.Link(distribution.Path{Kind: distribution.Layer, Repository: "restricted/long", Digest: digest.FromString(fmt.Sprint(i))})
	}
	w.source.Image("restricted/last", nil, "layer")
	w.source.Image("restricted/zz", nil, "layer")
	var names []string
	require.NoError(t, Repositories(t.Context(), w.from, "restricted", func(name string) error { names = append(names, name); return nil }))
	assert.Equal(t, []string{"restricted/last", "restricted/long", "restricted/zz"}, names)
	assert.Equal(t, 2, w.from.Counts()["list"])
}
