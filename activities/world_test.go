package activities

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
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
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/testsuite"

	"transship/internal/registry"
)

// backend is an in-memory registry that remembers requests and can be made to answer otherwise.
type backend struct {
	*registry.Registry
	t *testing.T

	mu    sync.Mutex
	log   []string
	fault func(w http.ResponseWriter, r *http.Request) bool
}

func newBackend(t *testing.T, name string) *backend {
	b := &backend{t: t}
	inner := ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		b.log = append(b.log, r.Method+" "+r.URL.Path)
		fault := b.fault
		b.mu.Unlock()
		if fault == nil || !fault(w, r) {
			inner.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	var err error
	b.Registry, err = registry.New(registry.Options{Name: name, URL: server.URL, RetryWait: time.Millisecond})
	require.NoError(t, err)
	return b
}

// image pushes an image whose content is of its name, and returns its digest.
func (b *backend) image(repository, tag, content string) string {
	b.t.Helper()
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1}
	for i, part := range []string{`{"of":"` + content + `"}`, "layer of " + content} {
		digest, err := b.PutBlob(b.t.Context(), repository, []byte(part))
		require.NoError(b.t, err)
		d := v1.Descriptor{MediaType: types.OCILayer, Digest: digest, Size: int64(len(part))}
		if i == 0 {
			d.MediaType = types.OCIConfigJSON
			m.Config = d
		} else {
			m.Layers = append(m.Layers, d)
		}
	}
	raw, err := json.Marshal(m)
	require.NoError(b.t, err)
	require.NoError(b.t, b.PutManifest(b.t.Context(), repository, tag, string(m.MediaType), raw))
	d, err := b.Resolve(b.t.Context(), repository, tag)
	require.NoError(b.t, err)
	return d.Digest.String()
}

// has is the digest of a tag or digest; "" when it is not there.
func (b *backend) has(repository, reference string) string {
	b.t.Helper()
	d, err := b.Resolve(b.t.Context(), repository, reference)
	if err != nil {
		require.ErrorIs(b.t, err, registry.ErrNotFound)
		return ""
	}
	return d.Digest.String()
}

func (b *backend) setFault(f func(w http.ResponseWriter, r *http.Request) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fault = f
}

// requests counts those whose "METHOD path" begins and contains so.
func (b *backend) requests(method, part string) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, line := range b.log {
		if strings.HasPrefix(line, method+" ") && strings.Contains(line, part) {
			n++
		}
	}
	return n
}

func (b *backend) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.log = nil
}

// answer refuses requests whose path contains part.
func answerWith(status int, method, part string) func(w http.ResponseWriter, r *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != method || !strings.Contains(r.URL.Path, part) {
			return false
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprint(w, `{"errors":[{"code":"UNKNOWN","message":"injected"}]}`)
		return true
	}
}

// movers are two backends, old and new, with an environment that runs activities on them.
type movers struct {
	*Registries
	old, new *backend
	env      *testsuite.TestActivityEnvironment
}

func newMovers(t *testing.T) *movers {
	m := &movers{old: newBackend(t, "old"), new: newBackend(t, "new")}
	m.Registries = &Registries{Backends: map[string]*registry.Registry{"old": m.old.Registry, "new": m.new.Registry}}
	m.env = newEnvironment()
	m.env.RegisterActivity(m.Registries)
	return m
}

func newEnvironment() *testsuite.TestActivityEnvironment {
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	return suite.NewTestActivityEnvironment()
}

// run executes an activity, and gives its result.
func run[T any](env *testsuite.TestActivityEnvironment, activity any, args ...any) (result T, err error) {
	value, err := env.ExecuteActivity(activity, args...)
	if err != nil {
		return result, err
	}
	return result, value.Get(&result)
}
