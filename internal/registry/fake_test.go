package registry

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/require"
)

// fake is the library's in-memory registry with what it lacks: blobs belong to repositories, may be mounted, and requests are recorded
// and can be answered otherwise.
type fake struct {
	*Registry
	t      *testing.T
	server *httptest.Server

	mu    sync.Mutex
	log   []string        // "METHOD path" in order of arrival
	links map[string]bool // repository@digest
	fault func(w http.ResponseWriter, r *http.Request) bool
}

func newFake(t *testing.T, name string, opts ...ggcr.Option) *fake {
	t.Helper()
	f := &fake{t: t, links: map[string]bool{}}
	inner := ggcr.New(append(opts, ggcr.Logger(log.New(io.Discard, "", 0)))...)
	f.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f.serve(inner, w, r) }))
	t.Cleanup(f.server.Close)
	var err error
	f.Registry, err = New(Options{Name: name, URL: f.server.URL, RetryWait: time.Millisecond})
	require.NoError(t, err)
	return f
}

func (f *fake) serve(inner http.Handler, w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.log = append(f.log, r.Method+" "+r.URL.Path)
	fault := f.fault
	f.mu.Unlock()
	if fault != nil && fault(w, r) {
		return
	}
	repo, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/blobs/")
	digest := r.URL.Query().Get("digest")
	switch {
	case (r.Method == http.MethodHead || r.Method == http.MethodGet) && strings.HasPrefix(rest, "sha256:") && !f.linked(repo, rest):
		refuse(w, http.StatusNotFound, "BLOB_UNKNOWN")
	case r.Method == http.MethodPost && f.linked(r.URL.Query().Get("from"), r.URL.Query().Get("mount")):
		f.link(repo, r.URL.Query().Get("mount"))
		w.WriteHeader(http.StatusCreated)
	case r.Method == http.MethodPut && digest != "":
		inner.ServeHTTP(&onCreated{w, func() { f.link(repo, digest) }}, r)
	case r.Method == http.MethodDelete && rest != "":
		w.WriteHeader(http.StatusNoContent)
	default:
		inner.ServeHTTP(w, r)
	}
}

type onCreated struct {
	http.ResponseWriter
	then func()
}

func (o *onCreated) WriteHeader(status int) {
	if status == http.StatusCreated {
		o.then()
	}
	o.ResponseWriter.WriteHeader(status)
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errors":[{"code":%q,"message":"injected"}]}`, code)
}

func (f *fake) linked(repo, digest string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.links[repo+"@"+digest]
}

func (f *fake) link(repo, digest string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.links[repo+"@"+digest] = true
}

func (f *fake) unlink(repo string, digest v1.Hash) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.links, repo+"@"+digest.String())
}

// setFault installs a fault; nil heals.
func (f *fake) setFault(fault func(w http.ResponseWriter, r *http.Request) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

func (f *fake) reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log = nil
}

// requests counts those recorded whose "METHOD path" has the method and contains the part.
func (f *fake) requests(method, part string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, line := range f.log {
		if strings.HasPrefix(line, method+" ") && strings.Contains(line, part) {
			n++
		}
	}
	return n
}

// at is the position of the first recorded request that matches; -1 if none.
func (f *fake) at(method, part string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, line := range f.log {
		if strings.HasPrefix(line, method+" ") && strings.Contains(line, part) {
			return i
		}
	}
	return -1
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n), byte(rand.Int()), byte(rand.Int()), byte(rand.Int()), byte(rand.Int())})
	_, _ = r.Read(b)
	return b
}

// putBlob stores a blob and describes it.
func (f *fake) putBlob(repo string, mediaType types.MediaType, content []byte) v1.Descriptor {
	f.t.Helper()
	h, err := f.PutBlob(f.t.Context(), repo, content)
	require.NoError(f.t, err)
	return v1.Descriptor{MediaType: mediaType, Size: int64(len(content)), Digest: h}
}

// putManifest stores any manifest under a tag ("" for by digest) and describes it.
func (f *fake) putManifest(repo, tag string, mediaType types.MediaType, manifest any) v1.Descriptor {
	f.t.Helper()
	raw, err := json.Marshal(manifest)
	require.NoError(f.t, err)
	h, err := hashOf("sha256", raw)
	require.NoError(f.t, err)
	if tag == "" {
		tag = h.String()
	}
	require.NoError(f.t, f.PutManifest(f.t.Context(), repo, tag, string(mediaType), raw))
	return v1.Descriptor{MediaType: mediaType, Size: int64(len(raw)), Digest: h}
}

// image stores an image of the layers under a tag ("" for none).
func (f *fake) image(repo, tag string, layers ...[]byte) (v1.Descriptor, v1.Manifest) {
	f.t.Helper()
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1}
	m.Config = f.putBlob(repo, types.OCIConfigJSON, []byte(fmt.Sprintf(`{"architecture":"amd64","x":"%x"}`, randomBytes(8))))
	for _, l := range layers {
		m.Layers = append(m.Layers, f.putBlob(repo, types.OCILayer, l))
	}
	return f.putManifest(repo, tag, m.MediaType, m), m
}

// artifact stores a signature-like manifest about a subject, and returns it.
func (f *fake) artifact(repo string, subject v1.Descriptor) v1.Descriptor {
	f.t.Helper()
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, ArtifactType: "application/vnd.example.signature", Subject: &subject}
	m.Config = f.putBlob(repo, types.OCIEmptyJSON, []byte("{}"))
	m.Layers = []v1.Descriptor{f.putBlob(repo, "application/vnd.example.signature+text", randomBytes(40))}
	return f.putManifest(repo, "", m.MediaType, m)
}

// fallback stores the fallback index that lists referrers of a subject.
func (f *fake) fallback(repo string, subject v1.Hash, list ...v1.Descriptor) v1.Descriptor {
	f.t.Helper()
	return f.index(repo, fallbackTag(subject), list...)
}

func (f *fake) index(repo, tag string, list ...v1.Descriptor) v1.Descriptor {
	f.t.Helper()
	return f.putManifest(repo, tag, types.OCIImageIndex, v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: list})
}

// has asserts that the fake resolves the reference to the digest.
func (f *fake) has(repo, reference string, digest v1.Hash) {
	f.t.Helper()
	d, err := f.Resolve(f.t.Context(), repo, reference)
	require.NoError(f.t, err)
	require.Equal(f.t, digest, d.Digest)
}

// lacks asserts that the fake has no such manifest.
func (f *fake) lacks(repo, reference string) {
	f.t.Helper()
	_, err := f.Resolve(f.t.Context(), repo, reference)
	require.ErrorIs(f.t, err, ErrNotFound)
}

// same asserts by Compare, deep, that the target has all that the source has.
func same(t *testing.T, from, to *fake, repo string) Check {
	t.Helper()
	check, err := Compare(t.Context(), from.Registry, to.Registry, repo, CompareOptions{Deep: true})
	require.NoError(t, err)
	require.Empty(t, check.Differences)
	return check
}
