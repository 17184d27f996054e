package objectstore

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// fake answers as a Swift does that signs in anybody and holds nothing; handler answers the rest. signIns counts.
type fake struct {
	*httptest.Server
	signIns atomic.Int64
}

func newFake(t *testing.T, handler http.HandlerFunc) *fake {
	t.Helper()
	f := &fake{}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, "/auth/v1.0"):
			w.Header().Set("X-Storage-Url", "http://"+r.Host+"/v1/AUTH_a")
			w.Header().Set("X-Auth-Token", fmt.Sprint("token-", f.signIns.Add(1)))
		case r.URL.Path == "/info":
			w.WriteHeader(http.StatusForbidden)
		default:
			handler(w, r)
		}
	}))
	t.Cleanup(f.Close)
	return f
}

// stores are clients of the same fake: what one protocol must survive, the other must as well.
func (f *fake) stores(t *testing.T, patience time.Duration) map[string]Store {
	t.Helper()
	swift, err := NewSwift(t.Context(), SwiftOptions{AuthURL: f.URL + "/auth/v1.0", Username: "u", Password: "p", Container: "c", Root: "r/", Patience: patience})
	require.NoError(t, err)
	s3, err := NewS3(t.Context(), S3Options{Endpoint: f.URL, Bucket: "c", Root: "r/", AccessKey: "a", SecretKey: "s", Patience: patience})
	require.NoError(t, err)
	return map[string]Store{"swift": swift, "s3": s3}
}

// held answers as both kinds of stores do that hold "hello" under every key.
func held(w http.ResponseWriter, r *http.Request) {
	const hello = "5d41402abc4b2a76b9719d911017c592"
	w.Header().Set("ETag", `"`+hello+`"`)
	w.Header().Set("Last-Modified", time.Unix(1700000000, 0).UTC().Format(http.TimeFormat))
	switch query := r.URL.Query(); {
	case query.Has("format"):
		w.Header().Del("ETag")
		_, _ = fmt.Fprintf(w, `[{"bytes": 5, "hash": %q, "name": "r/x", "last_modified": "2023-11-14T22:13:20.000000"}]`, hello)
	case query.Has("list-type"):
		w.Header().Del("ETag")
		_, _ = fmt.Fprintf(w, `<?xml version="1.0"?><ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>r/x</Key><LastModified>2023-11-14T22:13:20.000Z</LastModified><ETag>&quot;%s&quot;</ETag><Size>5</Size></Contents></ListBucketResult>`, hello)
	case r.Method == http.MethodPut:
		w.WriteHeader(http.StatusCreated)
	case r.Method == http.MethodDelete:
		w.WriteHeader(http.StatusNoContent)
	default:
		w.Header().Set("Content-Length", "5")
		if r.Method == http.MethodGet {
			_, _ = w.Write([]byte("hello"))
		}
	}
}

// cut breaks the connection.
func cut(w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		_ = conn.Close()
	}
}
