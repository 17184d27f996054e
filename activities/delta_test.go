package activities

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"transship/internal/journal"
	"transship/internal/registry"
)

func manifest(repository, reference string, deleted bool) journal.Change {
	return journal.Change{Kind: journal.Manifest, Repository: repository, Reference: reference, Deleted: deleted}
}

func apply(m *movers, p ApplyParams) (ApplyResult, error) {
	p.From, p.To, p.Jobs = "old", "new", 2
	return run[ApplyResult](m.env, m.ApplyChanges, p)
}

func TestADeltaBringsWhatWasTouchedAsItIsNow(t *testing.T) {
	m := newMovers(t)
	m.old.image("p/a", "v1", "first")
	now := m.old.image("p/a", "v1", "second")
	byDigest := m.old.image("p/a", "other", "third")
	blob, err := m.old.PutBlob(t.Context(), "p/b", []byte("a blob without a manifest yet"))
	require.NoError(t, err)
	changes := []journal.Change{manifest("p/a", "v1", false), manifest("p/a", byDigest, false), {Kind: journal.Blob, Repository: "p/b", Reference: blob.String()}}
	r, err := apply(m, ApplyParams{Changes: changes})
	require.NoError(t, err)
	require.Equal(t, 3, r.Applied)
	require.Positive(t, r.Progress.Bytes)
	require.Equal(t, now, m.new.has("p/a", "v1"))
	require.Equal(t, byDigest, m.new.has("p/a", byDigest))
	require.Empty(t, m.new.has("p/a", "other"), "only what was touched is brought")
	_, there, err := m.new.HasBlob(t.Context(), "p/b", blob)
	require.NoError(t, err)
	require.True(t, there)
	m.new.forget()
	_, err = apply(m, ApplyParams{Changes: changes})
	require.NoError(t, err)
	require.Zero(t, m.new.requests("PUT", ""), "again, it changes nothing")
}

func TestADeletionIsFollowedUnlessTheTargetHadItBefore(t *testing.T) {
	for _, c := range []struct {
		name   string
		params ApplyParams
		kept   bool
	}{
		{"ours to delete", ApplyParams{Deletes: true}, false},
		{"another was there before", ApplyParams{Deletes: true, KeptBefore: []string{"p/b@sha256:x"}}, false},
		{"it was there before", ApplyParams{Deletes: true, KeptBefore: []string{"this"}}, true},
		{"too much was there before to name it", ApplyParams{Deletes: true, KeptBefore: []string{"*"}}, true},
		{"deletions are not followed in this direction", ApplyParams{}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMovers(t)
			digest := m.new.image("p/a", "v1", "gone")
			for i, name := range c.params.KeptBefore {
				if name == "this" {
					c.params.KeptBefore[i] = "p/a@" + digest
				}
			}
			m.old.image("p/a", "v2", "stays")
			c.params.Changes = []journal.Change{manifest("p/a", digest, true)}
			r, err := apply(m, c.params)
			require.NoError(t, err)
			if c.kept {
				require.Equal(t, digest, m.new.has("p/a", digest))
				require.Equal(t, []string{"p/a@" + digest}, r.NotDeleted)
				require.Zero(t, r.Deleted)
				return
			}
			require.Empty(t, m.new.has("p/a", digest))
			require.Equal(t, 1, r.Deleted)
			require.Empty(t, r.NotDeleted)
			require.Zero(t, m.new.requests("DELETE", "/blobs/"), "blobs are never deleted")
		})
	}
}

func TestADeletionThatTheTargetDoesNotSupportIsReported(t *testing.T) {
	m := newMovers(t)
	digest := m.new.image("p/a", "v1", "gone")
	m.new.setFault(answerWith(http.StatusMethodNotAllowed, "DELETE", "/manifests/"))
	r, err := apply(m, ApplyParams{Deletes: true, Changes: []journal.Change{manifest("p/a", digest, true)}})
	require.NoError(t, err)
	require.Equal(t, []string{"p/a@" + digest}, r.NotDeleted)
}

func TestAManifestThatIsBackAtTheSourceIsNotDeleted(t *testing.T) {
	m := newMovers(t)
	digest := m.old.image("p/a", "v1", "back")
	r, err := apply(m, ApplyParams{Deletes: true, Changes: []journal.Change{manifest("p/a", digest, true)}})
	require.NoError(t, err)
	require.Zero(t, r.Deleted)
	require.Equal(t, digest, m.new.has("p/a", digest))
}

func TestWhatVanishedOrNeverWasIsNoError(t *testing.T) {
	m := newMovers(t)
	m.old.image("p/a", "v1", "a")
	never := "sha256:" + "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	r, err := apply(m, ApplyParams{Deletes: true, Changes: []journal.Change{
		manifest("p/a", "no-such-tag", false), manifest("p/a", never, false), manifest("p/a", "sha256:nonsense", false),
		{Kind: journal.Blob, Repository: "p/a", Reference: never}, {Kind: journal.Blob, Repository: "p/a", Reference: "sha256:nonsense"},
	}})
	require.NoError(t, err)
	require.Zero(t, r.Deleted)
	require.Empty(t, r.NotDeleted)
}

func TestALayerThatIsMissingIsAProblemAndNotADeletion(t *testing.T) {
	m := newMovers(t)
	digest := m.old.image("p/a", "v1", "a")
	m.old.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		return answerWith(http.StatusNotFound, "GET", "/blobs/")(w, r) || answerWith(http.StatusNotFound, "HEAD", "/blobs/")(w, r)
	})
	changes := []journal.Change{manifest("p/a", "v1", false), manifest("p/a", digest, false)}
	_, err := apply(m, ApplyParams{Deletes: true, Changes: changes})
	require.ErrorContains(t, err, "is missing")
	r, err := apply(m, ApplyParams{Deletes: true, SkipBroken: true, Changes: changes})
	require.NoError(t, err)
	require.NotEmpty(t, r.Problems)
	require.Empty(t, m.new.has("p/a", "v1"))
	require.Zero(t, m.new.requests("DELETE", ""))
}

func TestVerifyChangesComparesWhatADeltaTouched(t *testing.T) {
	m := newMovers(t)
	same := m.old.image("p/a", "same", "same")
	m.new.image("p/a", "same", "same")
	want := m.old.image("p/a", "moved", "new")
	have := m.new.image("p/a", "moved", "old")
	missing := m.old.image("p/a", "missing", "missing")
	blob, err := m.old.PutBlob(t.Context(), "p/a", []byte("only at old"))
	require.NoError(t, err)
	found, err := run[[]registry.Difference](m.env, m.VerifyChanges, ApplyParams{From: "old", To: "new", Jobs: 2, Changes: []journal.Change{
		manifest("p/a", "same", false), manifest("p/a", same, false), manifest("p/a", "moved", false), manifest("p/a", "missing", false),
		manifest("p/a", "deleted", true), {Kind: journal.Blob, Repository: "p/a", Reference: blob.String()}, {Kind: journal.Blob, Repository: "p/a", Reference: "sha256:x"},
	}})
	require.NoError(t, err)
	require.Equal(t, []registry.Difference{
		{Repository: "p/a", Tag: "moved", Kind: registry.DifferentTag, Want: want, Have: have},
		{Repository: "p/a", Tag: "missing", Kind: registry.DifferentTag, Want: missing},
		{Repository: "p/a", Tag: blob.String(), Kind: registry.DifferentTag, Want: blob.String()},
	}, found)
}
