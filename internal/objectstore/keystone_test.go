package objectstore

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// keystone answers as Keystone v2 and v3 do, with a storage address in each of two regions.
func keystone(t *testing.T) (url string, signIns *atomic.Int64) {
	t.Helper()
	signIns = &atomic.Int64{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		base, expires := "http://"+r.Host, time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
		body, _ := io.ReadAll(r.Body)
		switch {
		case strings.HasSuffix(r.URL.Path, "/tokens"):
			assert.Contains(t, string(body), `"project"`, "the project's name")
			signIns.Add(1)
		case strings.HasPrefix(r.URL.Path, "/two/"):
			assert.Equal(t, "token", r.Header.Get("X-Auth-Token"))
			held(w, r)
			return
		default:
			w.WriteHeader(http.StatusForbidden)
			return
		}
		if strings.HasPrefix(r.URL.Path, "/v3") {
			assert.Contains(t, string(body), `"domain"`)
			w.Header().Set("X-Subject-Token", "token")
			w.WriteHeader(http.StatusCreated)
			_, _ = fmt.Fprintf(w, `{"token":{"expires_at":%q,"catalog":[{"type":"object-store","endpoints":[
				{"interface":"public","region":"one","region_id":"one","url":"%s/one"},{"interface":"public","region":"two","region_id":"two","url":"%s/two"}]}]}}`, expires, base, base)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"access": map[string]any{
			"token": map[string]any{"id": "token", "expires": expires},
			"serviceCatalog": []any{map[string]any{"type": "object-store", "endpoints": []any{
				map[string]any{"region": "one", "publicURL": base + "/one"}, map[string]any{"region": "two", "publicURL": base + "/two"}}}},
		}})
	}))
	t.Cleanup(server.Close)
	return server.URL, signIns
}

func TestKeystone(t *testing.T) {
	for _, version := range []string{"/v2.0", "/v3"} {
		url, signIns := keystone(t)
		o := SwiftOptions{AuthURL: url + version, Username: "u", Password: "p", Project: "project", Domain: "domain", Region: "two", Container: "c", Root: "r/"}
		store, err := NewSwift(t.Context(), o)
		require.NoError(t, err)
		require.NoError(t, operations["get"](t.Context(), store), version)
		require.NoError(t, operations["put"](t.Context(), store), version)
		assert.Equal(t, int64(1), signIns.Load(), "%s: one token for all requests", version)
		store.account.Expires = time.Now().Add(30 * time.Second)
		require.NoError(t, operations["put"](t.Context(), store), version)
		assert.Equal(t, int64(2), signIns.Load(), "%s: a token is renewed before it expires", version)

		o.Region = "three"
		store, err = NewSwift(t.Context(), o)
		require.NoError(t, err)
		err = operations["put"](t.Context(), store)
		assert.True(t, IsFinal(err), "%s: %v", version, err)
	}
	_, err := NewSwift(t.Context(), SwiftOptions{AuthURL: "http://keystone.example:5000", Container: "c"})
	require.ErrorContains(t, err, "version")
}
