package objectstore

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// operations are all that a store is asked; each fails unless the store holds what held says.
var operations = map[string]func(context.Context, Store) error{
	"stat": func(ctx context.Context, s Store) error {
		_, err := s.Stat(ctx, "x", ReadOptions{})
		return err
	},
	"get": func(ctx context.Context, s Store) error {
		body, _, err := s.Get(ctx, "x", ReadOptions{})
		if err != nil {
			return err
		}
		defer func() { _ = body.Close() }()
		content, err := io.ReadAll(body)
		if err == nil && string(content) != "hello" {
			err = fmt.Errorf("got %q", content)
		}
		return err
	},
	"put": func(ctx context.Context, s Store) error {
		_, err := s.Put(ctx, "x", strings.NewReader("hello"), 5, PutOptions{})
		return err
	},
	"delete": func(ctx context.Context, s Store) error { return s.Delete(ctx, "x") },
	"list": func(ctx context.Context, s Store) error {
		n := 0
		for _, err := range s.List(ctx, ListOptions{}) {
			if err != nil {
				return err
			}
			n++
		}
		if n != 1 {
			return fmt.Errorf("%d objects", n)
		}
		return nil
	},
	"directories": func(ctx context.Context, s Store) error {
		for _, err := range s.Directories(ctx, "") {
			if err != nil {
				return err
			}
		}
		return nil
	},
}

func TestWhatPassesIsTriedAgain(t *testing.T) {
	faults := map[string]func(http.ResponseWriter, *http.Request){
		"429": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) },
		"498": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(498) },
		"500": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"503": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
		"cut": func(w http.ResponseWriter, _ *http.Request) { cut(w) },
		"cut in the answer": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1000")
			w.Header().Set("ETag", "5d41402abc4b2a76b9719d911017c592")
			_, _ = w.Write([]byte("<ListBucketResult>[")) // of no use to anybody
			_ = http.NewResponseController(w).Flush()
			cut(w)
		},
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for op, operation := range operations {
				if name == "cut in the answer" && op != "list" && op != "directories" {
					continue // Get has its own test; the others look at headers only
				}
				var asked atomic.Int64
				f := newFake(t, func(w http.ResponseWriter, r *http.Request) {
					if asked.Add(1) <= 2 {
						fault(w, r)
						return
					}
					held(w, r)
				})
				for kind, store := range f.stores(t, time.Minute) {
					asked.Store(0)
					require.NoError(t, operation(t.Context(), store), "%s of %s", op, kind)
					assert.GreaterOrEqual(t, asked.Load(), int64(3), "%s of %s", op, kind)
				}
			}
		})
	}
}

func TestPatienceEnds(t *testing.T) {
	f := newFake(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	for kind, store := range f.stores(t, 300*time.Millisecond) {
		for op, operation := range operations {
			begun := time.Now()
			err := operation(t.Context(), store)
			var status *StatusError
			require.ErrorAs(t, err, &status, "%s of %s", op, kind)
			assert.Equal(t, http.StatusServiceUnavailable, status.Status)
			assert.False(t, IsFinal(err), "%s of %s", op, kind)
			assert.Less(t, time.Since(begun), 2*time.Second)
		}
	}
}

func TestPausesEndWithTheContext(t *testing.T) {
	f := newFake(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	for kind, store := range f.stores(t, 2*time.Hour) {
		for op, operation := range operations {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			begun := time.Now()
			err := operation(ctx, store)
			cancel()
			require.ErrorIs(t, err, context.DeadlineExceeded, "%s of %s", op, kind)
			assert.Less(t, time.Since(begun), 2*time.Second, "%s of %s", op, kind)
		}
	}
}

func TestRetryAfterIsWaited(t *testing.T) {
	var asked atomic.Int64
	f := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) == 1 {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		held(w, r)
	})
	for kind, store := range f.stores(t, time.Minute) {
		asked.Store(0)
		begun := time.Now()
		require.NoError(t, operations["stat"](t.Context(), store), kind)
		assert.GreaterOrEqual(t, time.Since(begun), time.Second, kind)
	}
	assert.Equal(t, time.Duration(0), retryAfter(http.Header{}))
	date := http.Header{"Retry-After": {time.Now().Add(time.Minute).UTC().Format(http.TimeFormat)}}
	assert.InDelta(t, time.Minute, retryAfter(date), float64(2*time.Second))
}

func TestRefusalsAreFinal(t *testing.T) {
	var asked atomic.Int64
	for _, code := range []int{http.StatusForbidden, http.StatusNotFound} {
		f := newFake(t, func(w http.ResponseWriter, _ *http.Request) { asked.Add(1); w.WriteHeader(code) })
		for kind, store := range f.stores(t, time.Minute) {
			for _, op := range []string{"list", "put", "directories"} {
				asked.Store(0)
				err := operations[op](t.Context(), store)
				assert.True(t, IsFinal(err), "%d, %s of %s: %v", code, op, kind, err)
				require.NotErrorIs(t, err, ErrNotExist)
				assert.Equal(t, int64(1), asked.Load(), "%d, %s of %s", code, op, kind)
			}
		}
	}
}

func TestCertificates(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Storage-Url", "https://"+r.Host+"/v1/a")
		w.Header().Set("X-Auth-Token", "t")
		held(w, r)
	}))
	t.Cleanup(server.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600))
	for _, file := range []string{"", ca} {
		s3, err := NewS3(t.Context(), S3Options{Endpoint: server.URL, Bucket: "c", AccessKey: "a", SecretKey: "s", CAFile: file})
		require.NoError(t, err)
		swift, err := NewSwift(t.Context(), SwiftOptions{AuthURL: server.URL + "/auth/v1.0", Container: "c", CAFile: file})
		require.NoError(t, err)
		for _, store := range []Store{s3, swift} {
			err := operations["stat"](t.Context(), store)
			assert.Equal(t, file == "", IsFinal(err), "%s: %v", store, err)
			assert.Equal(t, file == "", err != nil)
		}
	}
	_, err := NewS3(t.Context(), S3Options{Endpoint: server.URL, Bucket: "c", AccessKey: "a", SecretKey: "s", CAFile: ca + "x"})
	require.Error(t, err)
}

func TestAnExpiredTokenIsRenewedOnce(t *testing.T) {
	var good atomic.Value
	good.Store("token-1")
	f := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Auth-Token") != good.Load() {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		held(w, r)
	})
	store := f.stores(t, time.Minute)["swift"]
	require.NoError(t, operations["put"](t.Context(), store))
	good.Store("token-2")
	var wait sync.WaitGroup
	for range 20 {
		wait.Go(func() { assert.NoError(t, operations["put"](t.Context(), store)) })
	}
	wait.Wait()
	assert.Equal(t, int64(2), f.signIns.Load(), "all who met the old token share the new one")

	good.Store("never")
	err := operations["get"](t.Context(), store)
	assert.True(t, IsFinal(err), "%v", err)
	assert.Equal(t, int64(3), f.signIns.Load())
}

func TestBadCredentialsAreFinal(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }))
	t.Cleanup(server.Close)
	store, err := NewSwift(t.Context(), SwiftOptions{AuthURL: server.URL + "/auth/v1.0", Container: "c"})
	require.NoError(t, err)
	for op, operation := range operations {
		err := operation(t.Context(), store)
		assert.True(t, IsFinal(err), "%s: %v", op, err)
		assert.NotErrorIs(t, err, ErrNotExist)
	}
}

func TestTheNewestIsAskedFor(t *testing.T) {
	var newest atomic.Int64
	f := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Newest") == "true" {
			newest.Add(1)
		}
		held(w, r)
	})
	store := f.stores(t, time.Minute)["swift"]
	for _, o := range []ReadOptions{{Newest: true}, {}} {
		_, err := store.Stat(t.Context(), "x", o)
		require.NoError(t, err)
		body, _, err := store.Get(t.Context(), "x", o)
		require.NoError(t, err)
		require.NoError(t, body.Close())
	}
	assert.Equal(t, int64(2), newest.Load())
}
