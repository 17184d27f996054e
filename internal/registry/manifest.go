package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"transship/internal/distribution"
)

// emptyBlob is the digest of no bytes.
var emptyBlob = v1.Hash{Algorithm: "sha256", Hex: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}

// Manifest is a manifest or index as the registry stores it, and what it refers to.
type Manifest struct {
	Raw       []byte
	MediaType types.MediaType
	Digest    v1.Hash
	// Children are the manifests of an index.
	Children []v1.Descriptor
	// Blobs are config and layers, each digest once.
	Blobs []v1.Descriptor
	// Subject is the manifest that this one is about (a signature's image), or nil. It need not exist.
	Subject *v1.Descriptor
}

// Descriptor describes the manifest as an index would.
func (m *Manifest) Descriptor() v1.Descriptor {
	return v1.Descriptor{MediaType: m.MediaType, Size: int64(len(m.Raw)), Digest: m.Digest}
}

// IsIndex reports whether the manifest lists other manifests.
func (m *Manifest) IsIndex() bool { return m.MediaType.IsIndex() || len(m.Children) > 0 }

// foreign reports whether registries keep only a reference to the blob, and clients fetch it from elsewhere
// (https://github.com/opencontainers/image-spec/blob/v1.0.2/layer.md#non-distributable-layers).
func foreign(d v1.Descriptor) bool { return len(d.URLs) > 0 || !d.MediaType.IsDistributable() }

// Resolve asks which manifest a tag or digest refers to: digest, size and media type, without its bytes.
// The error is ErrNotFound when there is none.
func (r *Registry) Resolve(ctx context.Context, repository, reference string) (v1.Descriptor, error) {
	a, err := r.do(ctx, request{
		doing:  "resolving " + named(repository, reference),
		method: http.MethodHead, path: "/v2/" + repository + "/manifests/" + reference, scopes: []string{pullScope(repository)},
		header: map[string]string{"Accept": distribution.Accept}, want: []int{http.StatusOK},
	})
	var e *Error
	if errors.As(err, &e) && e.Status == http.StatusMethodNotAllowed {
		return r.resolveByGet(ctx, repository, reference)
	}
	if err != nil {
		return v1.Descriptor{}, err
	}
	digest, err := v1.NewHash(a.header.Get("Docker-Content-Digest"))
	if err != nil || a.length < 0 {
		return r.resolveByGet(ctx, repository, reference)
	}
	return v1.Descriptor{Digest: digest, Size: a.length, MediaType: types.MediaType(a.header.Get("Content-Type"))}, nil
}

func (r *Registry) resolveByGet(ctx context.Context, repository, reference string) (v1.Descriptor, error) {
	m, err := r.Manifest(ctx, repository, reference)
	if err != nil {
		return v1.Descriptor{}, err
	}
	return m.Descriptor(), nil
}

// Manifest reads the manifest that a tag or digest refers to. Its bytes are hashed: when they are not what the digest, or the
// registry's own Docker-Content-Digest, promises, the error is a *Problem of kind Corrupt. ErrNotFound when there is none.
func (r *Registry) Manifest(ctx context.Context, repository, reference string) (*Manifest, error) {
	a, err := r.do(ctx, request{
		doing:  "reading manifest " + named(repository, reference),
		method: http.MethodGet, path: "/v2/" + repository + "/manifests/" + reference, scopes: []string{pullScope(repository)},
		header: map[string]string{"Accept": distribution.Accept}, want: []int{http.StatusOK},
	})
	if err != nil {
		return nil, err
	}
	m := &Manifest{Raw: a.body, MediaType: types.MediaType(a.header.Get("Content-Type"))}
	want, promised := v1.NewHash(reference)
	if promised != nil {
		want, promised = v1.NewHash(a.header.Get("Docker-Content-Digest"))
	}
	if promised != nil {
		want = v1.Hash{Algorithm: "sha256"}
	}
	if m.Digest, err = hashOf(want.Algorithm, a.body); err != nil {
		return nil, fmt.Errorf("backend %s: reading manifest %s: %w", r.name, named(repository, reference), err)
	}
	if m.MediaType == types.DockerManifestSchema1Signed && promised == nil {
		// The digest of a signed schema 1 manifest covers its payload without the signatures; only the registry computes it.
		m.Digest = want
	}
	if promised == nil && m.Digest != want {
		return nil, r.problem(Corrupt, repository, want, "the %d bytes of the manifest hash to %s", len(a.body), m.Digest)
	}
	m.parse()
	return m, nil
}

// parse reads the references out of whatever kind of manifest it is. One that is no JSON, or has none, refers to nothing;
// whether a registry takes such a thing is for the registry to say.
func (m *Manifest) parse() {
	var doc struct {
		MediaType types.MediaType `json:"mediaType"`
		Manifests []v1.Descriptor `json:"manifests"`
		Config    *v1.Descriptor  `json:"config"`
		Layers    []v1.Descriptor `json:"layers"`
		Blobs     []v1.Descriptor `json:"blobs"` // of the short-lived OCI artifact manifest
		Subject   *v1.Descriptor  `json:"subject"`
		FSLayers  []struct {
			BlobSum v1.Hash `json:"blobSum"`
		} `json:"fsLayers"` // of Docker's schema 1, which gives no sizes
	}
	if json.Unmarshal(m.Raw, &doc) != nil {
		return
	}
	if m.MediaType == "" || m.MediaType == "application/json" || strings.HasPrefix(string(m.MediaType), "text/plain") {
		m.MediaType = doc.MediaType
	}
	m.Children, m.Subject = doc.Manifests, doc.Subject
	blobs := append(doc.Layers, doc.Blobs...)
	if doc.Config != nil {
		blobs = append([]v1.Descriptor{*doc.Config}, blobs...)
	}
	for _, layer := range doc.FSLayers {
		blobs = append(blobs, v1.Descriptor{Digest: layer.BlobSum, Size: -1})
	}
	seen := map[v1.Hash]bool{}
	for _, b := range blobs {
		if b.Digest.Hex != "" && !seen[b.Digest] {
			seen[b.Digest] = true
			if b.Size == 0 && b.Digest != emptyBlob {
				b.Size = -1 // left out, as old tools do
			}
			m.Blobs = append(m.Blobs, b)
		}
	}
}

// PutManifest stores a manifest as it is under a tag or its digest. What it refers to must be there already; the registry's own
// list of referrers is not touched.
func (r *Registry) PutManifest(ctx context.Context, repository, reference, mediaType string, raw []byte) error {
	_, err := r.do(ctx, request{
		doing:  "putting manifest " + named(repository, reference),
		method: http.MethodPut, path: "/v2/" + repository + "/manifests/" + reference, scopes: []string{pushScope(repository)},
		header: map[string]string{"Content-Type": mediaType}, body: raw,
		want: []int{http.StatusCreated, http.StatusOK, http.StatusAccepted},
	})
	return err
}

// DeleteManifest deletes a manifest and with it every tag that points at it. ErrNotFound when it is gone already,
// ErrUnsupported when the registry has deletes disabled.
func (r *Registry) DeleteManifest(ctx context.Context, repository string, digest v1.Hash) error {
	_, err := r.do(ctx, request{
		doing:  "deleting manifest " + named(repository, digest.String()),
		method: http.MethodDelete, path: "/v2/" + repository + "/manifests/" + digest.String(), scopes: []string{deleteScope(repository)},
		want: []int{http.StatusAccepted, http.StatusOK, http.StatusNoContent},
	})
	return err
}

// named writes a reference as people do: name:tag or name@digest.
func named(repository, reference string) string {
	if strings.Contains(reference, ":") {
		return repository + "@" + reference
	}
	return repository + ":" + reference
}
