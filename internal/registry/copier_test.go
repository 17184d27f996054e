package registry

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

const repo = "restricted/a"

func TestRepositoryCarriesEverythingATagNeeds(t *testing.T) {
	for name, opts := range map[string][]ggcr.Option{"without referrers API": nil, "with referrers API": {ggcr.WithReferrersSupport(true)}} {
		t.Run(name, func(t *testing.T) {
			from, to := newFake(t, "old", opts...), newFake(t, "new", opts...)
			base := randomBytes(100_000)
			amd, _ := from.image(repo, "", base, randomBytes(10))
			arm, _ := from.image(repo, "", base, randomBytes(20))
			inner := from.index(repo, "", arm)
			index := from.index(repo, "v1", amd, inner)
			plain, _ := from.image(repo, "v2", base)
			docker := v1.Manifest{SchemaVersion: 2, MediaType: types.DockerManifestSchema2,
				Config: from.putBlob(repo, types.DockerConfigJSON, []byte(`{}`)), Layers: []v1.Descriptor{from.putBlob(repo, types.DockerLayer, base)}}
			old := from.putManifest(repo, "v3", types.DockerManifestSchema2, docker)
			list := from.putManifest(repo, "v4", types.DockerManifestList,
				v1.IndexManifest{SchemaVersion: 2, MediaType: types.DockerManifestList, Manifests: []v1.Descriptor{old}})
			empty := from.putManifest(repo, "chart", types.OCIManifestSchema1, v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1,
				ArtifactType: "application/x", Config: from.putBlob(repo, types.OCIEmptyJSON, []byte("{}")), Layers: []v1.Descriptor{from.putBlob(repo, "x/empty", nil)}})

			c := &Copier{From: from.Registry, To: to.Registry}
			res, err := c.Repository(t.Context(), repo, "")
			require.NoError(t, err)
			require.Equal(t, Result{Repository: repo, Tags: 5}, res)
			for tag, d := range map[string]v1.Descriptor{"v1": index, "v2": plain, "v3": old, "v4": list, "chart": empty} {
				to.has(repo, tag, d.Digest)
				have, err := to.Manifest(t.Context(), repo, tag)
				require.NoError(t, err)
				require.Equal(t, d.MediaType, have.MediaType)
			}
			check := same(t, from, to, repo)
			require.EqualValues(t, 5, check.Tags)
			require.EqualValues(t, 8, check.Manifests)
			require.Equal(t, 1, to.requests("HEAD", digestOf(base)[:40])-1, "one HEAD of the Copier, one of Compare for the shared layer")
		})
	}
}

func digestOf(b []byte) string {
	h, err := hashOf("sha256", b)
	if err != nil {
		panic(err)
	}
	return h.String()
}

func TestNothingChangedCostsTwoHeadsPerTag(t *testing.T) {
	from, to := newFake(t, "old"), newFake(t, "new")
	for _, tag := range []string{"a", "b", "c"} {
		from.image(repo, tag, randomBytes(1000))
	}
	_, err := (&Copier{From: from.Registry, To: to.Registry}).Repository(t.Context(), repo, "")
	require.NoError(t, err)
	from.reset()
	to.reset()
	c := &Copier{From: from.Registry, To: to.Registry}
	res, err := c.Repository(t.Context(), repo, "")
	require.NoError(t, err)
	require.EqualValues(t, 3, res.Unchanged)
	require.Zero(t, to.requests("PUT", ""))
	require.Zero(t, to.requests("POST", ""))
	require.Zero(t, to.requests("HEAD", "/blobs/"))
	require.Equal(t, 3, to.requests("HEAD", "/manifests/"))
	require.Equal(t, 3, from.requests("HEAD", "/manifests/"))
	require.Zero(t, from.requests("GET", "/blobs/"))
	require.Zero(t, from.requests("GET", "/manifests/"))
	require.Equal(t, Progress{Repositories: 1, Tags: 3, TagsUnchanged: 3}, c.Progress())
}

func TestBlobBeforeManifestBeforeIndexBeforeTag(t *testing.T) {
	from, to := newFake(t, "old"), newFake(t, "new")
	layer := randomBytes(50_000)
	child, m := from.image(repo, "", layer)
	index := from.index(repo, "v1", child)
	sig := from.artifact(repo, index)
	list := from.fallback(repo, index.Digest, sig)

	_, err := (&Copier{From: from.Registry, To: to.Registry}).Tag(t.Context(), repo, "v1")
	require.NoError(t, err)
	order := []int{
		to.at("PUT", "/manifests/"+child.Digest.String()),
		to.at("PUT", "/manifests/"+index.Digest.String()),
		to.at("PUT", "/manifests/"+sig.Digest.String()),
		to.at("PUT", "/manifests/"+fallbackTag(index.Digest)),
		to.at("PUT", "/manifests/v1"),
	}
	require.NotContains(t, order, -1)
	require.IsIncreasing(t, order)
	to.has(repo, fallbackTag(index.Digest), list.Digest)
	require.Equal(t, 2, uploadsBefore(to, order[0]), "config and layer of the image")
	require.Equal(t, 4, uploadsBefore(to, order[2]), "and of the signature")
	require.Equal(t, 4, to.requests("PUT", "/blobs/"))
	require.Len(t, m.Layers, 1)
}

func uploadsBefore(f *fake, position int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, line := range f.log[:position] {
		if strings.HasPrefix(line, "PUT ") && strings.Contains(line, "/blobs/uploads/") {
			n++
		}
	}
	return n
}

func TestSharedLayersAreMountedAcrossRepositories(t *testing.T) {
	from, to := newFake(t, "old"), newFake(t, "new")
	base := randomBytes(300_000)
	from.image("restricted/a", "v1", base)
	from.image("restricted/b", "v1", base)
	c := &Copier{From: from.Registry, To: to.Registry}
	for _, r := range []string{"restricted/a", "restricted/b"} {
		_, err := c.Repository(t.Context(), r, "")
		require.NoError(t, err)
		same(t, from, to, r)
	}
	require.EqualValues(t, 1, c.Progress().BlobsMounted)
	require.EqualValues(t, 3, c.Progress().Blobs)
	// Deep comparison reads the layer at the target only; the source was read once.
	require.Equal(t, 1, from.requests("GET", "/blobs/"+digestOf(base)))
}

func TestCopiersThatShareHoldersSendASharedLayerOnceAlsoAtTheSameTime(t *testing.T) {
	from, to := newFake(t, "old"), newFake(t, "new")
	base := randomBytes(3_000_000)
	holders := NewHolders()
	var group errgroup.Group
	for _, r := range []string{"restricted/a", "restricted/b", "restricted/c", "restricted/d"} {
		from.image(r, "v1", base)
		group.Go(func() error {
			_, err := (&Copier{From: from.Registry, To: to.Registry, Holders: holders}).Repository(t.Context(), r, "")
			return err
		})
	}
	require.NoError(t, group.Wait())
	require.Equal(t, 1, from.requests("GET", "/blobs/"+digestOf(base)))
	for _, r := range []string{"restricted/a", "restricted/b", "restricted/c", "restricted/d"} {
		same(t, from, to, r)
	}
}

func TestSameBlobWantedAtOnceIsCopiedOnce(t *testing.T) {
	from, to := newFake(t, "old"), newFake(t, "new")
	base := randomBytes(2_000_000)
	for _, tag := range strings.Split("abcdefghijklmnop", "") {
		from.image(repo, tag, base)
	}
	c := &Copier{From: from.Registry, To: to.Registry, Jobs: 16}
	_, err := c.Repository(t.Context(), repo, "")
	require.NoError(t, err)
	require.Equal(t, 1, from.requests("GET", digestOf(base)))
	require.EqualValues(t, 17, c.Progress().Blobs)
	require.Equal(t, 1, to.requests("HEAD", digestOf(base)))
}

func TestTagDoneIsASafeCursor(t *testing.T) {
	from, to := newFake(t, "old"), newFake(t, "new")
	tags := strings.Split("abcdefghijklmnop", "")
	var broken v1.Hash
	for _, tag := range tags {
		_, m := from.image(repo, tag, randomBytes(1000))
		if tag == "k" {
			broken = m.Layers[0].Digest
		}
	}
	from.unlink(repo, broken)
	var mu sync.Mutex
	var told []string
	c := &Copier{From: from.Registry, To: to.Registry, Jobs: 6, SkipBroken: true, TagDone: func(r, tag string) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, tag)
	}}
	res, err := c.Repository(t.Context(), repo, "")
	require.NoError(t, err)
	require.Equal(t, tags[:10], told, "in order, and not beyond the tag that is broken")
	require.Len(t, res.Problems, 1)
	require.Equal(t, Problem{Kind: Missing, Backend: "old", Repository: repo, Digest: broken.String(), Tags: []string{"k"}, Detail: "the blob is not there"}, res.Problems[0])
	to.lacks(repo, "k")
	to.has(repo, "p", mustResolve(t, from, "p"))

	from.link(repo, broken.String()) // healed
	from.reset()
	res, err = c.Repository(t.Context(), repo, told[len(told)-1])
	require.NoError(t, err)
	require.EqualValues(t, 6, res.Tags)
	require.EqualValues(t, 5, res.Unchanged)
	require.Equal(t, tags, told)
}

func mustResolve(t *testing.T, f *fake, tag string) v1.Hash {
	t.Helper()
	d, err := f.Resolve(t.Context(), repo, tag)
	require.NoError(t, err)
	return d.Digest
}

func TestTagThatMovesIsFollowed(t *testing.T) {
	from, to := newFake(t, "old"), newFake(t, "new")
	first, _ := from.image(repo, "v1", randomBytes(10))
	second, _ := from.image(repo, "", randomBytes(10))
	m, err := from.Manifest(t.Context(), repo, second.Digest.String())
	require.NoError(t, err)
	from.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, first.Digest.String()) {
			from.setFault(nil)
			require.NoError(t, from.PutManifest(t.Context(), repo, "v1", string(m.MediaType), m.Raw))
			refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN")
			return true
		}
		return false
	})
	got, err := (&Copier{From: from.Registry, To: to.Registry}).Tag(t.Context(), repo, "v1")
	require.NoError(t, err)
	require.Equal(t, second.Digest, got)
	to.has(repo, "v1", second.Digest)
}

func TestTagDeletedMeanwhileIsNoProblem(t *testing.T) {
	from, to := newFake(t, "old"), newFake(t, "new")
	gone, _ := from.image(repo, "gone", randomBytes(10))
	from.image(repo, "stays", randomBytes(10))
	from.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, gone.Digest.String()) {
			from.setFault(func(w http.ResponseWriter, r *http.Request) bool {
				if strings.HasSuffix(r.URL.Path, "/gone") {
					refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN")
					return true
				}
				return false
			})
			refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN")
			return true
		}
		return false
	})
	c := &Copier{From: from.Registry, To: to.Registry}
	res, err := c.Repository(t.Context(), repo, "")
	require.NoError(t, err)
	require.EqualValues(t, 1, res.Vanished)
	to.lacks(repo, "gone")
	_, err = c.Tag(t.Context(), repo, "gone")
	require.ErrorIs(t, err, ErrNotFound)
	require.False(t, IsTemporary(err))
}

// Found by chaos: a manifest was read, and was gone when it was read again because its referrers came first. The migration ended as if the source were broken.
func TestTagDeletedBetweenTwoReadsIsNoProblem(t *testing.T) {
	from, to := newFake(t, "old"), newFake(t, "new")
	gone, _ := from.image(repo, "gone", randomBytes(10))
	reads := 0
	from.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		deleted := reads > 1 && (strings.HasSuffix(r.URL.Path, "/gone") || strings.HasSuffix(r.URL.Path, gone.Digest.String()))
		if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, gone.Digest.String()) {
			reads++
			deleted = reads > 1
		}
		if deleted {
			refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN")
		}
		return deleted
	})
	_, err := (&Copier{From: from.Registry, To: to.Registry}).Tag(t.Context(), repo, "gone")
	require.ErrorIs(t, err, ErrNotFound)
	require.Greater(t, reads, 1)
	to.lacks(repo, "gone")
}

func TestTagDeletedWhileItIsAuditedIsNoProblem(t *testing.T) {
	f := newFake(t, "old")
	image, _ := f.image(repo, "gone", randomBytes(10))
	deleted := false
	f.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if deleted = deleted || r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, image.Digest.String()); deleted {
			refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN")
		}
		return deleted
	})
	bad, _, err := Audit(t.Context(), f.Registry, repo, AuditOptions{})
	require.NoError(t, err)
	require.True(t, deleted)
	require.Empty(t, bad)
}

func TestByDigest(t *testing.T) {
	from, to := newFake(t, "old"), newFake(t, "new")
	untagged, _ := from.image(repo, "", randomBytes(10))
	sig := from.artifact(repo, untagged)
	from.fallback(repo, untagged.Digest, sig)
	loose := from.putBlob(repo, types.OCILayer, randomBytes(5000))
	c := &Copier{From: from.Registry, To: to.Registry}
	require.NoError(t, c.ManifestByDigest(t.Context(), repo, untagged.Digest))
	to.has(repo, untagged.Digest.String(), untagged.Digest)
	to.has(repo, sig.Digest.String(), sig.Digest)
	require.NoError(t, c.BlobByDigest(t.Context(), repo, loose.Digest))
	_, ok, err := to.HasBlob(t.Context(), repo, loose.Digest)
	require.NoError(t, err)
	require.True(t, ok)

	none := v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}
	require.ErrorIs(t, c.BlobByDigest(t.Context(), repo, none), ErrNotFound)
	require.ErrorIs(t, c.ManifestByDigest(t.Context(), repo, none), ErrNotFound)
}

func TestTargetThatLostAManifestIsFilledAgain(t *testing.T) {
	from, to := newFake(t, "old"), newFake(t, "new")
	child, m := from.image(repo, "", randomBytes(10))
	index := from.index(repo, "v1", child)
	c := &Copier{From: from.Registry, To: to.Registry}
	_, err := c.Tag(t.Context(), repo, "v1")
	require.NoError(t, err)
	// As after deletes and a garbage collection.
	for _, ref := range []string{"v1", index.Digest.String(), child.Digest.String()} {
		_, err := to.do(t.Context(), request{method: http.MethodDelete, path: "/v2/" + repo + "/manifests/" + ref, want: []int{http.StatusAccepted}})
		require.NoError(t, err)
	}
	to.unlink(repo, m.Layers[0].Digest)
	to.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, child.Digest.String()) && !to.linked(repo, m.Layers[0].Digest.String()) {
			refuse(w, http.StatusNotFound, "MANIFEST_BLOB_UNKNOWN")
			return true
		}
		return false
	})
	_, err = c.Tag(t.Context(), repo, "v1")
	require.NoError(t, err)
	same(t, from, to, repo)
}
