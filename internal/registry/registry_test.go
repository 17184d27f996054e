package registry

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/require"
)

func mustHash(s string) v1.Hash {
	h, err := v1.NewHash(s)
	if err != nil {
		panic(err)
	}
	return h
}

func serve(t *testing.T, h http.HandlerFunc) *Registry {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return client(t, Options{Name: "old", URL: s.URL})
}

func client(t *testing.T, o Options) *Registry {
	t.Helper()
	o.RetryWait = time.Millisecond
	r, err := New(o)
	require.NoError(t, err)
	return r
}

func TestNewRefusesWhatCannotBeARegistry(t *testing.T) {
	for _, url := range []string{"", "localhost:5000", "ftp://h", "http://", "http://h/path", "http://u:p@h", "http://h?x=1", "://"} {
		_, err := New(Options{Name: "old", URL: url})
		require.ErrorContains(t, err, `backend "old"`, url)
		require.NotContains(t, err.Error(), "u:p")
	}
	_, err := New(Options{Name: "old", URL: "https://h", CAFile: "absent.pem"})
	require.ErrorContains(t, err, "CA file")
}

func TestPingSaysWhatIsWrong(t *testing.T) {
	require.NoError(t, serve(t, func(w http.ResponseWriter, r *http.Request) {}).Ping(t.Context()))

	err := serve(t, func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }).Ping(t.Context())
	require.ErrorContains(t, err, "no registry answers there")
	require.False(t, IsTemporary(err))

	err = serve(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusBadGateway) }).Ping(t.Context())
	require.True(t, IsTemporary(err), "%v", err)

	closed := httptest.NewServer(nil)
	closed.Close()
	err = client(t, Options{Name: "old", URL: closed.URL}).Ping(t.Context())
	require.True(t, IsTemporary(err), "%v", err)
	require.ErrorContains(t, err, "connection refused")
	require.ErrorContains(t, err, "backend old")
}

func TestBasicAuthentication(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, _ := r.BasicAuth(); u != "mover" || p != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			refuse(w, http.StatusUnauthorized, "UNAUTHORIZED")
			return
		}
		_, _ = w.Write([]byte(`{"repositories":["a"]}`))
	}))
	defer s.Close()
	good := client(t, Options{Name: "old", URL: s.URL, Username: "mover", Password: "secret"})
	require.NoError(t, good.Ping(t.Context()))
	names, err := good.Repositories(t.Context(), "")
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, names)

	err = client(t, Options{Name: "old", URL: s.URL}).Ping(t.Context())
	require.ErrorContains(t, err, "none are configured")
	err = client(t, Options{Name: "old", URL: s.URL, Username: "mover", Password: "wr0ng"}).Ping(t.Context())
	require.ErrorContains(t, err, "refuses the configured credentials")
	require.NotContains(t, err.Error(), "wr0ng")
	require.False(t, IsTemporary(err))
}

func TestTokenAuthenticationAsksForEachScope(t *testing.T) {
	var scopes []string
	var s *httptest.Server
	s = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			scopes = append(scopes, strings.Join(r.URL.Query()["scope"], " "))
			_ = json.NewEncoder(w).Encode(map[string]string{"token": "t:" + strings.Join(r.URL.Query()["scope"], " ")})
			return
		}
		if !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer t:") {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="x"`, s.URL))
			refuse(w, http.StatusUnauthorized, "UNAUTHORIZED")
			return
		}
		_, _ = w.Write([]byte(`{"tags":["b","a"]}`))
	}))
	defer s.Close()
	r := client(t, Options{Name: "old", URL: s.URL, Username: "mover", Password: "secret"})
	for range 3 {
		tags, err := r.Tags(t.Context(), "x/y")
		require.NoError(t, err)
		require.Equal(t, []string{"a", "b"}, tags)
	}
	_ = r.DeleteManifest(t.Context(), "x/y", emptyBlob)
	require.Equal(t, []string{"repository:x/y:pull", "repository:x/y:delete,pull"}, scopes)
}

func TestHTTPSIsNeverDowngraded(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	defer s.Close()
	err := client(t, Options{Name: "old", URL: s.URL}).Ping(t.Context())
	require.ErrorContains(t, err, "certificate")
	require.False(t, IsTemporary(err))

	ca := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600))
	require.NoError(t, client(t, Options{Name: "old", URL: s.URL, CAFile: ca}).Ping(t.Context()))

	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { t.Error("asked over http") }))
	defer plain.Close()
	err = client(t, Options{Name: "old", URL: strings.Replace(plain.URL, "http:", "https:", 1)}).Ping(t.Context())
	require.Error(t, err)
}

func TestGuardRefusesTheOtherScheme(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	defer s.Close()
	host := strings.TrimPrefix(s.URL, "http://")
	for scheme, want := range map[string]error{"https": errScheme, "http": nil} {
		_, err := (&http.Client{Transport: &guard{inner: http.DefaultTransport, host: host, scheme: scheme}}).Get(s.URL)
		require.ErrorIs(t, err, want)
	}
}

// catalog serves names in pages, in the order given, as Distribution does: "last" is a position in that order.
func catalog(names []string, most int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		n := 0
		if _, err := fmt.Sscan(r.URL.Query().Get("n"), &n); err != nil {
			n = most
		}
		if n > most {
			refuse(w, http.StatusBadRequest, "PAGINATION_NUMBER_INVALID")
			return
		}
		rest := names[slices.Index(names, r.URL.Query().Get("last"))+1:]
		if len(rest) > n {
			rest = rest[:n]
			w.Header().Set("Link", fmt.Sprintf(`</v2/_catalog?n=%d&last=%s>; rel="next"`, n, rest[n-1]))
		}
		_ = json.NewEncoder(w).Encode(map[string][]string{"repositories": rest})
	}
}

func TestRepositoriesReadsEveryPage(t *testing.T) {
	var names, want []string
	for i := range 2500 {
		names = append(names, fmt.Sprintf("a/b%d", i), fmt.Sprintf("a-b/%d", i), fmt.Sprintf("a.b/%d", i))
		want = append(want, fmt.Sprintf("a/b%d", i))
	}
	names, want = append(names, "a", "ab"), append(want, "a") // what belongs to the prefix may come last
	slices.Sort(want)
	for _, most := range []int{7, 100, 1000, 5000} {
		got, err := serve(t, catalog(names, most)).Repositories(t.Context(), "a")
		require.NoError(t, err)
		require.Equal(t, want, got, most)
	}
	all, err := serve(t, catalog(names, 1000)).Repositories(t.Context(), "")
	require.NoError(t, err)
	require.Len(t, all, len(names))
}

func TestPagesThatLoopAreAnError(t *testing.T) {
	_, err := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", `</v2/_catalog?last=x>; rel="next"`)
		_, _ = w.Write([]byte(`{"repositories":["x"]}`))
	}).Repositories(t.Context(), "")
	require.ErrorContains(t, err, "read already")
}

func TestPagesWithoutLinkAreContinued(t *testing.T) {
	got, err := serve(t, func(w http.ResponseWriter, r *http.Request) {
		tags := []string{}
		if r.URL.Query().Get("last") == "" {
			for i := range pageSize {
				tags = append(tags, fmt.Sprintf("t%04d", i))
			}
		} else if r.URL.Query().Get("last") == "t0999" {
			tags = append(tags, "u")
		}
		_ = json.NewEncoder(w).Encode(map[string][]string{"tags": tags})
	}).Tags(t.Context(), "a")
	require.NoError(t, err)
	require.Len(t, got, pageSize+1)
}

func TestTagsOfNoRepository(t *testing.T) {
	tags, err := newFake(t, "old").Tags(t.Context(), "nobody/here")
	require.NoError(t, err)
	require.Nil(t, tags)
}

func TestDeleteManifest(t *testing.T) {
	f := newFake(t, "old")
	img, _ := f.image(repo, "", randomBytes(5))
	require.NoError(t, f.DeleteManifest(t.Context(), repo, img.Digest))
	require.ErrorIs(t, f.DeleteManifest(t.Context(), repo, img.Digest), ErrNotFound)
	f.setFault(once(1, http.StatusMethodNotAllowed, "DELETE", ""))
	err := f.DeleteManifest(t.Context(), repo, img.Digest)
	require.ErrorIs(t, err, ErrUnsupported)
	require.False(t, IsTemporary(err))
}

func TestResolveWithoutDigestHeaderReads(t *testing.T) {
	f := newFake(t, "old")
	img, _ := f.image(repo, "v1", randomBytes(5))
	f.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodHead {
			return false
		}
		w.Header().Set("Content-Type", string(types.OCIManifestSchema1))
		w.Header().Set("Content-Length", "5")
		return true
	})
	d, err := f.Resolve(t.Context(), repo, "v1")
	require.NoError(t, err)
	require.Equal(t, img, d)
	_, err = f.Resolve(t.Context(), repo, emptyBlob.String())
	require.ErrorIs(t, err, ErrNotFound)
}

func TestBlobIsVerifiedWhileRead(t *testing.T) {
	f := newFake(t, "old")
	good := f.putBlob(repo, types.OCILayer, randomBytes(5000))
	b, err := f.Blob(t.Context(), repo, good.Digest)
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, b)
	require.NoError(t, err)
	require.NoError(t, b.Close())

	f.setFault(serveBlob(good.Digest, 5000, randomBytes(5000)))
	b, err = f.Blob(t.Context(), repo, good.Digest)
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, b)
	var p *Problem
	require.ErrorAs(t, err, &p)
	require.Equal(t, Corrupt, p.Kind)
	require.NoError(t, b.Close())
	f.setFault(nil)
	_, err = f.Blob(t.Context(), repo, emptyBlob)
	require.ErrorIs(t, err, ErrNotFound)
}
