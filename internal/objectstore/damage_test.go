package objectstore

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestWhatAStoreHoldsIsCheckedAgainstWhatWasSent(t *testing.T) {
	var asked, wrong atomic.Int64
	answers := map[string]func(http.ResponseWriter, *http.Request){
		"another ETag": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("ETag", `"00000000000000000000000000000000"`)
		},
		"no ETag": func(http.ResponseWriter, *http.Request) {},
		"refusal": func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/v1/") {
				w.WriteHeader(http.StatusUnprocessableEntity)
				return
			}
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `<?xml version="1.0"?><Error><Code>BadDigest</Code></Error>`)
		},
	}
	for name, answer := range answers {
		f := newFake(t, func(w http.ResponseWriter, r *http.Request) {
			sent, _ := io.ReadAll(r.Body)
			sum := md5.Sum(sent)
			said := r.Header.Get("Etag") == hex.EncodeToString(sum[:]) || r.Header.Get("Content-Md5") == base64.StdEncoding.EncodeToString(sum[:])
			assert.True(t, said, "the store is told the checksum beforehand")
			assert.Empty(t, r.Header.Get("Expect"))
			if asked.Add(1) <= wrong.Load() {
				answer(w, r)
				return
			}
			held(w, r)
		})
		for kind, store := range f.stores(t, time.Minute) {
			asked.Store(0)
			wrong.Store(2)
			require.NoError(t, operations["put"](t.Context(), store), "damage that passes: %s, %s", name, kind)
			asked.Store(0)
			wrong.Store(1000)
			var checksum *ChecksumError
			require.ErrorAs(t, operations["put"](t.Context(), store), &checksum, "%s, %s", name, kind)
			assert.Equal(t, int64(checksumTries), asked.Load(), "%s, %s", name, kind)
		}
	}
}

// broken serves content in pieces that end before their time; a request for a range goes on from there.
func broken(content []byte, piece int, etag func() string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		first, last := 0, len(content)-1
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last); err == nil || first > 0 {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, len(content)))
		}
		if want := r.Header.Get("If-Match"); want != "" && want != etag() {
			w.WriteHeader(http.StatusPreconditionFailed)
			return
		}
		w.Header().Set("ETag", etag())
		w.Header().Set("Content-Length", fmt.Sprint(last+1-first))
		if first > 0 {
			w.WriteHeader(http.StatusPartialContent)
		}
		_, _ = w.Write(content[first:min(first+piece, last+1)])
		_ = http.NewResponseController(w).Flush()
		if first+piece <= last {
			cut(w)
		}
	}
}

func TestABrokenGetGoesOnWhereItWas(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789"), 100_000)
	tag := func() string { return `"00000000000000000000000000000001"` }
	f := newFake(t, broken(content, 300_000, tag))
	for kind, store := range f.stores(t, time.Minute) {
		for _, o := range []ReadOptions{{}, {Offset: 17}, {Offset: 5, Length: 900_000}} {
			body, object, err := store.Get(t.Context(), "x", o)
			require.NoError(t, err, kind)
			got, err := io.ReadAll(body)
			require.NoError(t, err, kind)
			end := int64(len(content))
			if o.Length > 0 {
				end = o.Offset + o.Length
			}
			assert.True(t, bytes.Equal(content[o.Offset:end], got), "%s %+v", kind, o)
			assert.Equal(t, int64(len(content)), object.Size)
			require.NoError(t, body.Close())
		}
	}
}

func TestAnObjectThatWasReplacedIsNotMixed(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789"), 100_000)
	var version atomic.Int64
	f := newFake(t, broken(content, 300_000, func() string { return fmt.Sprintf(`"%032d"`, version.Add(1)) }))
	for kind, store := range f.stores(t, time.Minute) {
		body, _, err := store.Get(t.Context(), "x", ReadOptions{})
		require.NoError(t, err, kind)
		got, err := io.ReadAll(body)
		require.ErrorContains(t, err, "replaced", kind)
		assert.Len(t, got, 300_000)
		assert.False(t, IsFinal(err))
	}
}

func TestBytesThatNeverComeEndSoon(t *testing.T) {
	f := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.Header.Get("Range"), "bytes=10-") {
			w.Header().Set("Content-Range", "bytes 10-999/1000")
			w.WriteHeader(http.StatusPartialContent)
			_ = http.NewResponseController(w).Flush()
			cut(w)
			return
		}
		broken(make([]byte, 1000), 10, func() string { return `"x"` })(w, r)
	})
	for kind, store := range f.stores(t, time.Hour) {
		begun := time.Now()
		body, _, err := store.Get(t.Context(), "x", ReadOptions{})
		require.NoError(t, err, kind)
		got, err := io.ReadAll(body)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF, kind)
		assert.Len(t, got, 10)
		assert.Less(t, time.Since(begun), 10*time.Second)
	}
}

func TestStalledConnectionsAreBroken(t *testing.T) {
	release := make(chan struct{})
	f := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		_, _ = w.Write([]byte("hello"))
		_ = http.NewResponseController(w).Flush()
		if r.URL.Query().Has("slow") {
			time.Sleep(300 * time.Millisecond)
			_, _ = w.Write([]byte("world"))
			return
		}
		<-release
	})
	defer close(release)
	client := &http.Client{Transport: watched{http.DefaultTransport, 200 * time.Millisecond}}
	get := func(ctx context.Context, query string, pause time.Duration) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.URL+"/x?"+query, nil)
		require.NoError(t, err)
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		_, err = io.ReadFull(resp.Body, make([]byte, 5))
		require.NoError(t, err)
		time.Sleep(pause)
		_, err = io.ReadFull(resp.Body, make([]byte, 5))
		return err
	}
	require.ErrorIs(t, get(t.Context(), "", 0), errStalled)
	require.NoError(t, get(t.Context(), "slow", 400*time.Millisecond), "a reader that takes its time")
	require.NoError(t, get(patiently(t.Context(), time.Minute), "slow", 0))
	require.ErrorIs(t, get(t.Context(), "slow", 0), errStalled)
}

func TestALentBodyIsNotReadAfterItsTime(t *testing.T) {
	body := lend([]byte("hello"))
	_, err := body.Read(make([]byte, 2))
	require.NoError(t, err)
	body.revoke()
	_, err = body.Read(make([]byte, 2))
	require.ErrorIs(t, err, errRevoked)
	over := lend(nil)
	over.revoke()
	_, err = over.Read(make([]byte, 2))
	require.ErrorIs(t, err, io.EOF, "what was read wholly ends well")
}

func TestPartsFitWhateverTheSize(t *testing.T) {
	assert.NotZero(t, partSize%(1<<20), "no registry's parts have this size")
	for _, size := range []int64{partSize + 1, 1 << 30, 100 << 30, 4 << 40} {
		for _, most := range []int64{mostParts, mostSegments} {
			part := partFor(size, most)
			assert.LessOrEqual(t, (size+part-1)/part, most, size)
			assert.LessOrEqual(t, part, int64(5<<30))
		}
	}
}

func TestIsFinal(t *testing.T) {
	assert.False(t, IsFinal(nil))
	assert.False(t, IsFinal(errors.New("anything")))
	assert.False(t, IsFinal(fmt.Errorf("x: %w", context.Canceled)))
	assert.False(t, IsFinal(&StatusError{Status: 403, Code: "RequestTimeTooSkewed"}))
	assert.True(t, IsFinal(fmt.Errorf("x: %w", &StatusError{Status: 403})))
	assert.False(t, IsFinal(&StatusError{Status: 503}))
}
