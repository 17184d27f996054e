package registry

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCompareFindsEachDifference(t *testing.T) {
	from, to := newFake(t, "old"), newFake(t, "new")
	from.image(repo, "same", randomBytes(10))
	_, gone := from.image(repo, "blob-gone", randomBytes(10))
	_, rotten := from.image(repo, "blob-rotten", randomBytes(10))
	_, short := from.image(repo, "blob-short", randomBytes(10))
	moved, _ := from.image(repo, "moved", randomBytes(10))
	lost, _ := from.image(repo, "lost", randomBytes(10))
	_, err := (&Copier{From: from.Registry, To: to.Registry}).Repository(t.Context(), repo, "")
	require.NoError(t, err)
	other, _ := to.image(repo, "moved", randomBytes(10))
	extra, _ := to.image(repo, "extra", randomBytes(10))
	_, err = to.do(t.Context(), request{method: http.MethodDelete, path: "/v2/" + repo + "/manifests/lost", want: []int{http.StatusAccepted}})
	require.NoError(t, err)
	to.unlink(repo, gone.Layers[0].Digest)
	rot := serveBlob(rotten.Layers[0].Digest, 10, randomBytes(10))
	to.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodHead && strings.HasSuffix(r.URL.Path, short.Layers[0].Digest.String()) {
			w.Header().Set("Content-Length", "3")
			return true
		}
		return rot(w, r)
	})
	kinds := func(opt CompareOptions) map[string]string {
		check, err := Compare(t.Context(), from.Registry, to.Registry, repo, opt)
		require.NoError(t, err)
		require.EqualValues(t, 6, check.Tags)
		found := map[string]string{}
		for _, d := range check.Differences {
			require.Equal(t, repo, d.Repository)
			found[d.Tag] = d.Kind + " " + d.Want + " " + d.Have
		}
		return found
	}
	want := map[string]string{
		"blob-gone":  "missing " + gone.Layers[0].Digest.String() + " ",
		"blob-short": "short " + short.Layers[0].Digest.String() + " ",
		"moved":      "tag " + moved.Digest.String() + " " + other.Digest.String(),
		"lost":       "missing-tag " + lost.Digest.String() + " ",
		"extra":      "extra  " + extra.Digest.String(),
	}
	require.Equal(t, want, kinds(CompareOptions{}))
	want["blob-rotten"] = "corrupt " + rotten.Layers[0].Digest.String() + " "
	require.Equal(t, want, kinds(CompareOptions{Deep: true}))
	delete(want, "extra")
	require.Equal(t, want, kinds(CompareOptions{Deep: true, AllowExtra: true}))
}

func TestCompareLooksAgainAtATagThatMoves(t *testing.T) {
	from, to := newFake(t, "old"), newFake(t, "new")
	from.image(repo, "v1", randomBytes(10))
	c := &Copier{From: from.Registry, To: to.Registry}
	_, err := c.Tag(t.Context(), repo, "v1")
	require.NoError(t, err)
	// Somebody pushes between our two requests, and the mirror follows a moment later.
	to.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodHead && strings.HasSuffix(r.URL.Path, "/manifests/v1") {
			to.setFault(nil)
			from.image(repo, "v1", randomBytes(20))
			_, err := c.Tag(t.Context(), repo, "v1")
			require.NoError(t, err)
		}
		return false
	})
	check := same(t, from, to, repo)
	require.EqualValues(t, 1, check.Tags)
	// A tag that is new at both since the lists were read is no extra.
	from.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/tags/list") {
			from.setFault(nil)
			_, _ = w.Write([]byte(`{"tags":[]}`))
			return true
		}
		return false
	})
	check = same(t, from, to, repo)
	require.EqualValues(t, 1, check.Tags)
}

func TestSharedLayersAreHashedOnceAcrossRepositories(t *testing.T) {
	f := newFake(t, "old")
	layer := randomBytes(50_000)
	f.image("restricted/a", "v1", layer)
	f.image("restricted/a", "v2", layer)
	f.image("restricted/b", "v1", layer)
	f.reset()
	shared := &Checked{}
	for _, r := range []string{"restricted/a", "restricted/b"} {
		bad, check, err := Audit(t.Context(), f.Registry, r, AuditOptions{Deep: true, Checked: shared})
		require.NoError(t, err)
		require.Empty(t, bad)
		require.EqualValues(t, 1, check.Repositories)
	}
	require.Equal(t, 1, f.requests("GET", digestOf(layer)))
	require.Equal(t, 2, f.requests("HEAD", digestOf(layer)))

	f.setFault(serveBlob(mustHash(digestOf(layer)), len(layer), randomBytes(len(layer))))
	shared = &Checked{}
	for _, r := range []string{"restricted/a", "restricted/b"} {
		bad, _, err := Audit(t.Context(), f.Registry, r, AuditOptions{Deep: true, Checked: shared})
		require.NoError(t, err)
		require.Len(t, bad, 1)
		require.Equal(t, r, bad[0].Repository)
	}
}

func TestEstimate(t *testing.T) {
	from, to := newFake(t, "old"), newFake(t, "new")
	base := randomBytes(1000)
	from.image(repo, "present", base)
	_, err := (&Copier{From: from.Registry, To: to.Registry}).Repository(t.Context(), repo, "")
	require.NoError(t, err)
	one, m := from.image(repo, "", base, randomBytes(500))
	two, _ := from.image(repo, "", base, randomBytes(501))
	from.index(repo, "new", one, two)
	from.image(repo, "changed", base)
	to.image(repo, "changed", randomBytes(5))
	to.image(repo, "theirs", randomBytes(6))
	_, bad := from.image(repo, "bad", base)
	require.NotNil(t, bad)

	to.reset()
	e, err := Estimate(t.Context(), from.Registry, to.Registry, repo, 0)
	require.NoError(t, err)
	require.EqualValues(t, 4, e.Tags)
	require.EqualValues(t, 1, e.TagsPresent)
	require.Equal(t, []string{"changed"}, e.TagsChanged)
	require.Equal(t, []string{"theirs"}, e.TagsOnlyAtTarget)
	require.Len(t, e.Manifests, 5)
	require.True(t, e.BlobsPresent[digestOf(base)])
	require.EqualValues(t, 500, e.Blobs[m.Layers[1].Digest.String()])
	blobs, bytes := e.Copy()
	require.EqualValues(t, 6, blobs, "two layers, four configs")
	require.Greater(t, bytes, int64(1001))
	require.Zero(t, to.requests("PUT", "")+to.requests("POST", ""))
}
