//go:build lab

package objectstore

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"transship/lab/servers/shared"
)

func labSwift(t *testing.T) *Swift {
	t.Helper()
	lab := shared.Shared(t)
	s, err := NewSwift(t.Context(), SwiftOptions{AuthURL: lab.Swift.AuthURL, Username: lab.Swift.Username, Password: lab.Swift.Password,
		Container: lab.NewContainer(t), Root: "files/docker/registry/v2/"})
	require.NoError(t, err)
	return s
}

func labS3(t *testing.T) *S3 {
	t.Helper()
	lab := shared.Shared(t)
	s, err := NewS3(t.Context(), S3Options{Endpoint: lab.Ceph.Endpoint, Region: lab.Ceph.Region, AccessKey: lab.Ceph.AccessKey, SecretKey: lab.Ceph.SecretKey,
		Bucket: lab.NewBucket(t), Root: "docker/registry/v2/"})
	require.NoError(t, err)
	return s
}

// line stands between a store and its client: it counts what is sent, and loses answers.
type line struct {
	next http.RoundTripper
	sent atomic.Int64
	lose func(*http.Request) bool
}

var errLost = errors.New("the answer got lost")

func (l *line) RoundTrip(r *http.Request) (*http.Response, error) {
	l.sent.Add(max(r.ContentLength, 0))
	resp, err := l.next.RoundTrip(r)
	if err == nil && l.lose != nil && l.lose(r) {
		finish(resp.Body)
		return nil, errLost
	}
	return resp, err
}

// withLines gives a store of each kind, and the line to it.
func withLines(t *testing.T) map[*line]Store {
	swift, s3 := labSwift(t), labS3(t)
	client := s3.client.Options().HTTPClient.(*http.Client)
	a, b := &line{next: swift.client.Transport}, &line{next: client.Transport}
	swift.client.Transport, client.Transport = a, b
	return map[*line]Store{a: swift, b: s3}
}

func chacha(size int64, seed byte) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{seed}), size)
}

// dying is a body whose reader is killed after n bytes.
func dying(t *testing.T, body io.Reader, n int64) (context.Context, io.Reader) {
	ctx, cancel := context.WithCancel(t.Context())
	return ctx, io.MultiReader(io.LimitReader(body, n), &dead{cancel})
}

type dead struct{ kill func() }

func (d *dead) Read([]byte) (int, error) {
	time.Sleep(500 * time.Millisecond) // the parts under way arrive
	d.kill()
	return 0, context.Canceled
}

func TestWhatWasSentIsNotSentAgain(t *testing.T) {
	const size = 200 << 20
	for line, store := range withLines(t) {
		ctx, body := dying(t, chacha(size, 1), 150<<20)
		_, err := store.Put(ctx, "blob", body, size, PutOptions{Mark: "first"})
		require.ErrorIs(t, err, context.Canceled, store)
		line.sent.Store(0)
		stored, err := store.Put(t.Context(), "blob", chacha(size, 1), size, PutOptions{Mark: "second"})
		require.NoError(t, err, store)
		assert.Equal(t, int64(size), stored.Size)
		assert.Equal(t, "second", stored.Mark)
		assert.Less(t, line.sent.Load(), int64(120<<20), store)
		assert.Greater(t, line.sent.Load(), int64(40<<20), store)

		// Another content under the same key does not go on with what is there.
		ctx, body = dying(t, chacha(size, 1), 100<<20)
		_, err = store.Put(ctx, "other", body, size, PutOptions{})
		require.ErrorIs(t, err, context.Canceled, store)
		line.sent.Store(0)
		_, err = store.Put(t.Context(), "other", chacha(size, 2), size, PutOptions{})
		require.NoError(t, err, store)
		assert.GreaterOrEqual(t, line.sent.Load(), int64(size), store)
	}
}

func TestLostAnswersAreNoFailures(t *testing.T) {
	const size = 40 << 20
	for line, store := range withLines(t) {
		for _, op := range []string{"PUT", "POST", "DELETE"} {
			var lost sync.Map
			line.lose = func(r *http.Request) bool {
				_, again := lost.LoadOrStore(r.URL.RequestURI(), true)
				return r.Method == op && !again
			}
			for key, size := range map[string]int64{"small": 100, "large": size} {
				var body io.Reader = chacha(size, 1)
				stored, err := store.Put(t.Context(), key, body, size, PutOptions{Mark: "m"})
				require.NoError(t, err, "%s to %s", op, store)
				object, err := store.Stat(t.Context(), key, ReadOptions{})
				require.NoError(t, err)
				assert.Equal(t, stored.ETag, object.ETag)
				require.NoError(t, store.Delete(t.Context(), key))
			}
		}
	}
}

func TestAnExpiredTokenOfARealSwift(t *testing.T) {
	s := labSwift(t)
	_, err := s.Put(t.Context(), "x", strings.NewReader("hello"), 5, PutOptions{})
	require.NoError(t, err)
	s.session.token = "AUTH_tk0123456789abcdef0123456789abcdef" // as one that memcached forgot
	body, _, err := s.Get(t.Context(), "x", ReadOptions{})
	require.NoError(t, err)
	content, err := io.ReadAll(body)
	require.NoError(t, err)
	assert.Equal(t, "hello", string(content))
}

// dynamic stores a Dynamic Large Object as Distribution's driver does.
func dynamic(t *testing.T, s *Swift, key, folder string, segments ...string) {
	t.Helper()
	for i, content := range segments {
		_, err := s.put(t.Context(), s.o.Container, folder+"/000000000000000"+string(rune('1'+i)), []byte(content), md5hex([]byte(content)), "")
		require.NoError(t, err)
	}
	_, err := s.do(t.Context(), request{op: "put", method: http.MethodPut, container: s.o.Container, key: s.o.Root + key, header: map[string]string{manifestHeader: s.o.Container + "/" + folder}})
	require.NoError(t, err)
}

func TestDynamicLargeObjects(t *testing.T) {
	s := labSwift(t)
	dynamic(t, s, "blobs/a/data", "segments/abc/def", "hello ", "large ", "world")
	dynamic(t, s, "blobs/b/data", "segments/abc/xyz", "another")
	object, err := s.Stat(t.Context(), "blobs/a/data", ReadOptions{Newest: true})
	require.NoError(t, err)
	assert.Equal(t, int64(17), object.Size)
	assert.Equal(t, Dynamic, object.Parts)
	assert.Empty(t, object.MD5)
	for o, err := range s.List(t.Context(), ListOptions{Limit: 1}) {
		require.NoError(t, err)
		assert.Equal(t, int64(0), o.Size)
		assert.Equal(t, md5hex(nil), o.MD5)
	}
	for o, want := range map[ReadOptions]string{{}: "hello large world", {Offset: 4, Length: 5}: "o lar", {Offset: 12}: "world"} {
		body, opened, err := s.Get(t.Context(), "blobs/a/data", o)
		require.NoError(t, err)
		content, err := io.ReadAll(body)
		require.NoError(t, err)
		assert.Equal(t, want, string(content))
		assert.Equal(t, object.ETag, opened.ETag)
		assert.Equal(t, int64(17), opened.Size)
	}
	segments, err := s.Segments(t.Context(), "blobs/a/data")
	require.NoError(t, err)
	require.Len(t, segments, 3)
	assert.Equal(t, s.o.Container+"/segments/abc/def/0000000000000001", segments[0].Key)
	assert.Equal(t, int64(6), segments[0].Size)

	require.NoError(t, s.Delete(t.Context(), "blobs/a/data"))
	var left []string
	for segment, err := range s.AllSegments(t.Context()) {
		require.NoError(t, err)
		left = append(left, segment.Key)
	}
	assert.Equal(t, []string{s.o.Container + "/segments/abc/xyz/0000000000000001"}, left, "only its own")

	dynamic(t, s, "blobs/bad/data", "segments", "too much")
	require.ErrorContains(t, s.Delete(t.Context(), "blobs/bad/data"), "too much")
	_, err = s.Stat(t.Context(), "blobs/b/data", ReadOptions{})
	require.NoError(t, err)
}

// TestSegmentsThatAreGone takes a segment's file from the disk, as a store does that lost it; its listing still shows it.
func TestSegmentsThatAreGone(t *testing.T) {
	s := labSwift(t)
	dynamic(t, s, "dynamic", "segments/abc/def", strings.Repeat("a", 1000), strings.Repeat("b", 1000))
	_, err := s.Put(t.Context(), "static", chacha(40<<20, 1), 40<<20, PutOptions{})
	require.NoError(t, err)
	for _, key := range []string{"dynamic", "static"} {
		segments, err := s.Segments(t.Context(), key)
		require.NoError(t, err)
		for i := len(segments) - 1; i >= 0; i-- { // from the last to the first
			container, name, _ := strings.Cut(segments[i].Key, "/")
			files, err := shared.Shared(t).Swift.ObjectFiles(container, name)
			require.NoError(t, err)
			require.NoError(t, os.Remove(files[0]))
			begun := time.Now()
			body, _, err := s.Get(t.Context(), key, ReadOptions{})
			if err == nil {
				var content bytes.Buffer
				_, err = io.Copy(&content, body)
				assert.LessOrEqual(t, int64(content.Len()), int64(i)*segments[0].Size)
				require.NoError(t, body.Close())
			}
			require.ErrorIs(t, err, io.ErrUnexpectedEOF, "%s without segment %d", key, i)
			assert.Less(t, time.Since(begun), 30*time.Second)
		}
	}
}
