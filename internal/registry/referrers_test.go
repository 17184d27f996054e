package registry

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/require"
)

var (
	withAPI    = []ggcr.Option{ggcr.WithReferrersSupport(true)}
	withoutAPI []ggcr.Option
)

func TestReferrersAreCarriedRecursively(t *testing.T) {
	for name, c := range map[string]struct{ from, to []ggcr.Option }{
		"fallback to fallback": {withoutAPI, withoutAPI},
		"fallback to API":      {withoutAPI, withAPI},
		"API to API":           {withAPI, withAPI},
		"API to fallback":      {withAPI, withoutAPI},
	} {
		for _, whole := range []bool{false, true} {
			t.Run(name+map[bool]string{false: " by tag", true: " by repository"}[whole], func(t *testing.T) {
				from, to := newFake(t, "old", c.from...), newFake(t, "new", c.to...)
				child, _ := from.image(repo, "", randomBytes(100))
				img := from.index(repo, "v1", child)
				sbom := from.artifact(repo, img)
				signature := from.artifact(repo, sbom) // a signature of the SBOM
				ofChild := from.artifact(repo, child)
				subjects := map[v1.Hash]v1.Descriptor{img.Digest: sbom, sbom.Digest: signature, child.Digest: ofChild}
				if c.from == nil {
					for subject, d := range subjects {
						from.fallback(repo, subject, d)
					}
				}
				cp := &Copier{From: from.Registry, To: to.Registry}
				copyIt := func() {
					var err error
					if whole {
						_, err = cp.Repository(t.Context(), repo, "")
					} else {
						_, err = cp.Tag(t.Context(), repo, "v1")
					}
					require.NoError(t, err)
				}
				copyIt()
				for subject, d := range subjects {
					to.has(repo, d.Digest.String(), d.Digest)
					list, err := to.Referrers(t.Context(), repo, subject)
					require.NoError(t, err)
					require.Len(t, list, 1)
					require.Equal(t, d.Digest, list[0].Digest)
				}
				same(t, from, to, repo)
				// An unchanged image that gets one more signature.
				late := from.artifact(repo, img)
				if c.from == nil {
					from.fallback(repo, img.Digest, sbom, late)
				}
				to.reset()
				copyIt()
				to.has(repo, late.Digest.String(), late.Digest)
				list, err := to.Referrers(t.Context(), repo, img.Digest)
				require.NoError(t, err)
				require.Len(t, list, 2)
				require.Equal(t, 0, to.requests("PUT", img.Digest.String()))
				same(t, from, to, repo)
				to.reset()
				copyIt()
				require.Zero(t, to.requests("PUT", ""), "nothing changed, nothing is put")
			})
		}
	}
}

func TestCircleOfReferrersEnds(t *testing.T) {
	from, to := newFake(t, "old"), newFake(t, "new")
	img, _ := from.image(repo, "v1", randomBytes(10))
	sig := from.artifact(repo, img)
	from.fallback(repo, img.Digest, sig, img) // lists the image itself
	from.fallback(repo, sig.Digest, img, sig)
	_, err := (&Copier{From: from.Registry, To: to.Registry}).Tag(t.Context(), repo, "v1")
	require.NoError(t, err)
	to.has(repo, sig.Digest.String(), sig.Digest)
	require.NoError(t, (&Copier{From: from.Registry, To: to.Registry}).ManifestByDigest(t.Context(), repo, sig.Digest))
}

func TestRegistryWhoseReferrersAreACircle(t *testing.T) {
	from, to := newFake(t, "old", withAPI...), newFake(t, "new", withAPI...)
	img, _ := from.image(repo, "v1", randomBytes(10))
	sig := from.artifact(repo, img)
	from.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/referrers/") {
			return false
		}
		w.Header().Set("Content-Type", string(types.OCIImageIndex))
		require.NoError(t, json.NewEncoder(w).Encode(v1.IndexManifest{SchemaVersion: 2, Manifests: []v1.Descriptor{img, sig}}))
		return true
	})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err := (&Copier{From: from.Registry, To: to.Registry}).Tag(ctx, repo, "v1")
	require.NoError(t, err)
	bad, _, err := Audit(ctx, from.Registry, repo, AuditOptions{})
	require.NoError(t, err)
	require.Empty(t, bad)
}

func TestTaggedSignatureBringsItsSubjectFirst(t *testing.T) {
	from, to := newFake(t, "old"), newFake(t, "new")
	img, _ := from.image(repo, "", randomBytes(10))
	sig := from.artifact(repo, img)
	list := from.fallback(repo, img.Digest, sig)
	_, err := (&Copier{From: from.Registry, To: to.Registry}).Tag(t.Context(), repo, fallbackTag(img.Digest))
	require.NoError(t, err)
	to.has(repo, fallbackTag(img.Digest), list.Digest)
	require.Less(t, to.at("PUT", img.Digest.String()), to.at("PUT", sig.Digest.String()))
	require.NotEqual(t, -1, to.at("PUT", img.Digest.String()))
}

func TestSubjectThatTheSourceDoesNotHave(t *testing.T) {
	from, to := newFake(t, "old"), newFake(t, "new")
	ghost, err := hashOf("sha256", []byte("deleted long ago"))
	require.NoError(t, err)
	sig := from.artifact(repo, v1.Descriptor{MediaType: types.OCIManifestSchema1, Size: 16, Digest: ghost})
	from.fallback(repo, ghost, sig)
	_, err = (&Copier{From: from.Registry, To: to.Registry}).Repository(t.Context(), repo, "")
	require.NoError(t, err)
	same(t, from, to, repo)
}

func TestBrokenSignatureDoesNotKeepItsImageBack(t *testing.T) {
	for name, opts := range map[string][]ggcr.Option{"API": withAPI, "fallback": withoutAPI} {
		t.Run(name, func(t *testing.T) {
			from, to := newFake(t, "old", opts...), newFake(t, "new", opts...)
			img, _ := from.image(repo, "v1", randomBytes(10))
			sig := from.artifact(repo, img)
			m, err := from.Manifest(t.Context(), repo, sig.Digest.String())
			require.NoError(t, err)
			from.unlink(repo, m.Blobs[1].Digest)
			if opts == nil {
				from.fallback(repo, img.Digest, sig)
			}
			for range 2 { // the second time the image is there already
				_, err = (&Copier{From: from.Registry, To: to.Registry}).Tag(t.Context(), repo, "v1")
				var broken *BrokenError
				require.ErrorAs(t, err, &broken)
				require.Len(t, broken.Problems, 1)
				require.Contains(t, broken.Problems[0].Tags, "v1")
				to.has(repo, "v1", img.Digest)
				to.lacks(repo, sig.Digest.String())
				to.lacks(repo, fallbackTag(img.Digest))
			}
		})
	}
}
