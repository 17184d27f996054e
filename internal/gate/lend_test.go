package gate

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"transship/internal/journal"
	"transship/internal/routing"
)

// shelf is a registry that takes a manifest only when it has what the manifest needs.
type shelf struct {
	mu     sync.Mutex
	has    map[string]bool
	pushed []string
	asked  int
	// denies has it answer questions with 401.
	denies bool
}

func (b *shelf) put(digests ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range digests {
		b.has[d] = true
	}
}

func (b *shelf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	digest := path.Base(r.URL.Path)
	switch {
	case r.Method == http.MethodHead && (b.denies || r.Header.Get("Authorization") != "Basic of-the-client"):
		w.WriteHeader(http.StatusUnauthorized)
	case r.Method == http.MethodHead:
		b.asked++
		if !b.has[digest] {
			w.WriteHeader(http.StatusNotFound)
		}
	default:
		raw, _ := io.ReadAll(r.Body)
		for _, needed := range []string{digest1, digest2} {
			if strings.Contains(string(raw), needed) && !b.has[needed] {
				w.WriteHeader(http.StatusBadRequest)
				_, _ = io.WriteString(w, `{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown to registry","detail":{"digest":"`+needed+`"}}]}`)
				return
			}
		}
		b.pushed = append(b.pushed, string(raw))
		w.WriteHeader(http.StatusCreated)
	}
}

const (
	digest1 = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
	digest2 = "sha256:2222222222222222222222222222222222222222222222222222222222222222"
)

// lending is a gate between two shelves, of which the new one serves.
type lending struct {
	*site
	old, new *shelf
	carried  []journal.Change
	fails    error
}

func newLending(t *testing.T, fallback routing.Scope) *lending {
	l := &lending{site: newSite(t), old: &shelf{has: map[string]bool{}}, new: &shelf{has: map[string]bool{}}}
	for name, b := range map[string]*shelf{"old": l.old, "new": l.new} {
		server := httptest.NewServer(b)
		t.Cleanup(server.Close)
		l.Backends[name], _ = url.Parse(server.URL)
	}
	l.Carry = func(_ context.Context, _ routing.Prefix, from string, changes []journal.Change, _ []routing.Upload) error {
		assert.Equal(t, "old", from)
		l.carried = append(l.carried, changes...)
		for _, c := range changes {
			if l.fails == nil {
				l.new.put(c.Reference)
			}
		}
		return l.fails
	}
	l.Set(prefix, Rule{Mode: routing.Watched, Backend: "new", Other: "old", Scope: fallback, Fallback: fallback})
	return l
}

func (l *lending) push(t *testing.T, manifest string) *http.Response {
	t.Helper()
	w := ask2(l.site, "m", "/v2/restricted/x/manifests/v1")
	require.Equal(t, "relay", w.Header().Get(HeaderVia))
	req, err := http.NewRequest(http.MethodPut, l.URL+"/relay/m/new/v2/restricted/x/manifests/v1", strings.NewReader(manifest))
	require.NoError(t, err)
	req.Header.Set("Authorization", "Basic of-the-client")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

const (
	image = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",` +
		`"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"` + digest1 + `","size":1},` +
		`"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"` + digest2 + `","size":1}]}`
	index = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json",` +
		`"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + digest1 + `","size":1}]}`
)

// No push fails because of a flip: a client found a blob at the old backend, left it out of its push, and the flip came in between.
func TestAManifestGetsWhatOnlyTheOtherBackendHas(t *testing.T) {
	l := newLending(t, routing.Digests)
	l.old.put(digest1, digest2)
	l.new.put(digest1)
	assert.Equal(t, http.StatusCreated, l.push(t, image).StatusCode)
	assert.Equal(t, []journal.Change{{Kind: journal.Blob, Repository: "restricted/x", Reference: digest2}}, l.carried)
	assert.Equal(t, []string{image}, l.new.pushed)
	assert.Empty(t, l.old.pushed)
}

func TestAnIndexGetsAManifestThatOnlyTheOtherBackendHas(t *testing.T) {
	l := newLending(t, routing.Digests)
	l.old.put(digest1)
	assert.Equal(t, http.StatusCreated, l.push(t, index).StatusCode)
	assert.Equal(t, []journal.Change{{Kind: journal.Manifest, Repository: "restricted/x", Reference: digest1}}, l.carried)
}

func TestAManifestWhoseBackendHasEverythingCostsNoQuestion(t *testing.T) {
	l := newLending(t, routing.Digests)
	l.new.put(digest1, digest2)
	assert.Equal(t, http.StatusCreated, l.push(t, image).StatusCode)
	assert.Zero(t, l.new.asked+l.old.asked)
}

func TestAManifestThatNeedsWhatNobodyHasIsRefusedByTheRegistry(t *testing.T) {
	l := newLending(t, routing.Digests)
	l.old.put(digest1)
	l.new.put(digest1)
	resp := l.push(t, image)
	answer, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	assert.Equal(t, http.StatusBadRequest, resp.StatusCode)
	assert.Contains(t, string(answer), "MANIFEST_BLOB_UNKNOWN", "word for word")
	assert.Empty(t, l.carried, "and no migration is asked for anything")
}

// What clients deleted after the flip stays gone.
func TestADeletedBlobIsNotLent(t *testing.T) {
	l := newLending(t, routing.Nothing)
	assert.Empty(t, ask2(l.site, "m", "/v2/restricted/x/manifests/v1").Header().Get(HeaderVia), "nothing is read from the old backend any more")

	l = newLending(t, routing.Digests)
	l.old.put(digest1)
	l.Set(prefix, Rule{Mode: routing.Watched, Backend: "new", Other: "old", Scope: routing.Blobs, Fallback: routing.Blobs})
	assert.Equal(t, http.StatusBadRequest, l.push(t, index).StatusCode, "manifests are not lent any more")
	assert.Empty(t, l.carried)
}

func TestAManifestWhoseBlobCannotBeCarriedNowIsToComeBack(t *testing.T) {
	l := newLending(t, routing.Digests)
	l.old.put(digest1, digest2)
	l.fails = errors.New("Temporal is away")
	resp := l.push(t, image)
	assert.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
	assert.Equal(t, "3", resp.Header.Get("Retry-After"))
}

// Who may push may not always read.
func TestAnOtherBackendThatDoesNotAnswerDoesNotChangeTheRefusal(t *testing.T) {
	l := newLending(t, routing.Digests)
	l.old.put(digest1, digest2)
	l.old.denies = true
	assert.Equal(t, http.StatusBadRequest, l.push(t, image).StatusCode)
}

// A canary before a flip reads from the new backend, but nobody's image needs it.
func TestNothingIsLentBeforeTheFlip(t *testing.T) {
	g := newGate()
	g.Set(prefix, Rule{Mode: routing.Watched, Backend: "old", Other: "new", Scope: routing.Digests})
	assert.Empty(t, ask(g, "/begin", "m", "PUT", "/v2/restricted/x/manifests/v1").Header().Get(HeaderVia))
}
