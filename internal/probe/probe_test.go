package probe

import (
	"bytes"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/stretchr/testify/require"

	"transship/internal/registry"
)

// open gives a client of an in-memory registry whose answers may be spoilt.
func open(t *testing.T, name string, spoil func(http.Handler) http.Handler) *registry.Registry {
	t.Helper()
	handler := ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)))
	if spoil != nil {
		handler = spoil(handler)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	r, err := registry.New(registry.Options{Name: name, URL: server.URL, RetryWait: time.Millisecond})
	require.NoError(t, err)
	return r
}

// spoiled changes the body of some answers.
func spoiled(which func(*http.Request) bool, change func([]byte) []byte) func(http.Handler) http.Handler {
	return func(inner http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !which(r) {
				inner.ServeHTTP(w, r)
				return
			}
			seen := httptest.NewRecorder()
			inner.ServeHTTP(seen, r)
			for key, values := range seen.Header() {
				if key != "Content-Length" && key != "Docker-Content-Digest" {
					w.Header()[key] = values
				}
			}
			w.WriteHeader(seen.Code)
			_, _ = w.Write(change(seen.Body.Bytes()))
		})
	}
}

func read(part string) func(*http.Request) bool {
	return func(r *http.Request) bool { return r.Method == http.MethodGet && strings.Contains(r.URL.Path, part) }
}

func TestAProbePushesAndPullsAndLooksAtTheBackend(t *testing.T) {
	r := open(t, "edge-1", nil)
	result, err := Run(t.Context(), r, r, "restricted/probe")
	require.NoError(t, err)
	require.Positive(t, result.Push)
	require.Positive(t, result.Pull)
	d, err := r.Resolve(t.Context(), "restricted/probe", Tag)
	require.NoError(t, err)
	require.Equal(t, result.Digest, d.Digest.String())
	again, err := Run(t.Context(), r, nil, "restricted/probe")
	require.NoError(t, err)
	require.NotEqual(t, result.Digest, again.Digest, "no two probes push the same")
}

func TestAByteThatIsNotWhatWasPushedFailsTheProbe(t *testing.T) {
	r := open(t, "edge-1", spoiled(read("/blobs/"), func(b []byte) []byte {
		b = bytes.Clone(b)
		b[len(b)/2] ^= 1
		return b
	}))
	_, err := Run(t.Context(), r, nil, "restricted/probe")
	require.ErrorContains(t, err, "probe: pull the config of restricted/probe:probe through edge-1")
}

func TestALayerThatComesBackShortFailsTheProbe(t *testing.T) {
	r := open(t, "edge-1", spoiled(read("/blobs/"), func(b []byte) []byte {
		if len(b) < layerSize {
			return b
		}
		return b[:len(b)-1]
	}))
	_, err := Run(t.Context(), r, nil, "restricted/probe")
	require.ErrorContains(t, err, "pull the layer of")
}

func TestATagThatIsStillTheOneBeforeFailsTheProbe(t *testing.T) {
	stale := []byte(nil)
	r := open(t, "edge-1", spoiled(read("/manifests/"+Tag), func(b []byte) []byte {
		if stale == nil {
			stale = bytes.Clone(b)
		}
		return stale
	}))
	_, err := Run(t.Context(), r, nil, "restricted/probe")
	require.NoError(t, err)
	_, err = Run(t.Context(), r, nil, "restricted/probe")
	require.ErrorContains(t, err, "just after")
}

func TestAProbeThatLandsOnTheWrongBackendFails(t *testing.T) {
	_, err := Run(t.Context(), open(t, "edge-1", nil), open(t, "new", nil), "restricted/probe")
	require.ErrorContains(t, err, "what was pushed through edge-1 is not at backend new, which should serve it")
}

func TestAPushThatIsRefusedFailsTheProbe(t *testing.T) {
	r := open(t, "edge-1", func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })
	})
	_, err := Run(t.Context(), r, nil, "restricted/probe")
	require.ErrorContains(t, err, "probe: push to restricted/probe through edge-1")
}
