package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/require"
)

type faulty = func(w http.ResponseWriter, r *http.Request) bool

// serveBlob answers GETs of one blob with other content; the announced length is the true one of want.
func serveBlob(digest v1.Hash, announce int, content []byte) faulty {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, "/blobs/"+digest.String()) {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(announce))
		w.WriteHeader(http.StatusOK)
		_, _ = w.Write(content)
		if len(content) < announce {
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		return true
	}
}

func TestBadBlobIsReportedAndNeverCopied(t *testing.T) {
	layer := randomBytes(100_000)
	wrong := append([]byte{}, layer...)
	wrong[70_000] ^= 1
	for name, c := range map[string]struct {
		kind  Kind
		fault func(d v1.Hash) faulty
	}{
		"corrupt": {Corrupt, func(d v1.Hash) faulty { return serveBlob(d, len(layer), wrong) }},
		"corrupt at end": {Corrupt, func(d v1.Hash) faulty {
			return serveBlob(d, len(layer), append(layer[:len(layer)-1:len(layer)-1], ^layer[len(layer)-1]))
		}},
		"empty":            {Short, func(d v1.Hash) faulty { return serveBlob(d, 0, nil) }},
		"short":            {Short, func(d v1.Hash) faulty { return serveBlob(d, 500, layer[:500]) }},
		"long":             {Long, func(d v1.Hash) faulty { return serveBlob(d, len(layer)+1, append(layer[:len(layer):len(layer)], 0)) }},
		"segment missing":  {Short, func(d v1.Hash) faulty { return serveBlob(d, len(layer), layer[:65_536]) }},
		"listed but gone":  {Missing, nil},
		"manifest corrupt": {Corrupt, nil},
	} {
		t.Run(name, func(t *testing.T) {
			from, to := newFake(t, "old"), newFake(t, "new")
			img, m := from.image(repo, "bad1", layer)
			raw, err := from.Manifest(t.Context(), repo, "bad1")
			require.NoError(t, err)
			require.NoError(t, from.PutManifest(t.Context(), repo, "bad2", string(raw.MediaType), raw.Raw))
			from.index(repo, "bad3", img)
			good, _ := from.image(repo, "good", randomBytes(1000))
			bad := m.Layers[0].Digest
			switch {
			case c.fault != nil:
				from.setFault(c.fault(bad))
			case c.kind == Missing:
				from.unlink(repo, bad)
			default:
				bad = img.Digest
				from.setFault(func(w http.ResponseWriter, r *http.Request) bool {
					if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, img.Digest.String()) {
						return false
					}
					w.Header().Set("Content-Type", string(img.MediaType))
					w.Header().Set("Docker-Content-Digest", img.Digest.String())
					_, _ = w.Write(append(raw.Raw, ' '))
					return true
				})
			}
			cp := &Copier{From: from.Registry, To: to.Registry}
			res, err := cp.Repository(t.Context(), repo, "")
			var broken *BrokenError
			require.ErrorAs(t, err, &broken)
			require.Equal(t, res.Problems, broken.Problems)
			require.Len(t, broken.Problems, 1)
			p := broken.Problems[0]
			require.Equal(t, c.kind, p.Kind, p.Detail)
			require.Equal(t, bad.String(), p.Digest)
			require.Equal(t, []string{"bad1", "bad2", "bad3"}, p.Tags)
			require.False(t, IsTemporary(err))
			for _, tag := range p.Tags {
				to.lacks(repo, tag)
			}
			to.lacks(repo, img.Digest.String())
			require.False(t, to.linked(repo, m.Layers[0].Digest.String()) && c.fault != nil)
			to.has(repo, "good", good.Digest)

			check, err := Compare(t.Context(), from.Registry, to.Registry, repo, CompareOptions{Skip: map[string]bool{"bad1": true, "bad2": true, "bad3": true}})
			require.NoError(t, err)
			require.Empty(t, check.Differences)

			found, _, err := Audit(t.Context(), from.Registry, repo, AuditOptions{Deep: true})
			require.NoError(t, err)
			require.Len(t, found, 1)
			require.Equal(t, []string{"bad1", "bad2", "bad3"}, found[0].Tags)
			require.Equal(t, c.kind, found[0].Kind, found[0].Detail)
		})
	}
}

func TestAllProblemsOfARepositoryAreListed(t *testing.T) {
	from, to := newFake(t, "old"), newFake(t, "new")
	for _, tag := range []string{"a", "b", "c"} {
		_, m := from.image(repo, tag, randomBytes(10), randomBytes(20))
		from.unlink(repo, m.Layers[0].Digest)
		from.unlink(repo, m.Layers[1].Digest)
	}
	_, err := (&Copier{From: from.Registry, To: to.Registry}).Repository(t.Context(), repo, "")
	var broken *BrokenError
	require.ErrorAs(t, err, &broken)
	require.Len(t, broken.Problems, 6)
}

// once answers the first n matching requests with a status.
func once(n int64, status int, method, part string) faulty {
	var left atomic.Int64
	left.Store(n)
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != method || !strings.Contains(r.URL.Path, part) || left.Add(-1) < 0 {
			return false
		}
		w.Header().Set("Retry-After", "0")
		refuse(w, status, "UNKNOWN")
		return true
	}
}

func TestTransientFailuresAreRetried(t *testing.T) {
	for _, method := range []string{"GET", "HEAD", "POST", "PUT"} {
		for _, part := range []string{"/blobs/", "/manifests/"} {
			for _, status := range []int{429, 500, 503} {
				from, to := newFake(t, "old"), newFake(t, "new")
				from.image(repo, "v1", randomBytes(200_000))
				from.setFault(once(2, status, method, part))
				to.setFault(once(2, status, method, part))
				c := &Copier{From: from.Registry, To: to.Registry, Jobs: 1}
				_, err := c.Repository(t.Context(), repo, "")
				require.NoError(t, err, "%s %s %d", method, part, status)
				same(t, from, to, repo)
				require.Less(t, c.Progress().Bytes, int64(210_000), "failed tries are not counted")
			}
		}
	}
}

func TestLastingFailuresAreTemporaryErrors(t *testing.T) {
	from, to := newFake(t, "old"), newFake(t, "new")
	from.image(repo, "v1", randomBytes(10))
	to.setFault(once(1000, 503, "PUT", "/manifests/"))
	_, err := (&Copier{From: from.Registry, To: to.Registry}).Repository(t.Context(), repo, "")
	require.True(t, IsTemporary(err), "%v", err)
	require.Contains(t, err.Error(), "backend new: putting manifest restricted/a:v1")
	require.Equal(t, tries, to.requests("PUT", "/manifests/"))

	to.setFault(once(1000, 403, "PUT", "/manifests/"))
	_, err = (&Copier{From: from.Registry, To: to.Registry}).Repository(t.Context(), repo, "")
	require.Error(t, err)
	require.False(t, IsTemporary(err))
	require.Nil(t, problemsIn(err), "being refused everything is no problem of one image")

	to.server.Close()
	_, err = (&Copier{From: from.Registry, To: to.Registry}).Repository(t.Context(), repo, "")
	require.True(t, IsTemporary(err), "%v", err)
}

func TestConnectionCutInTheMiddleOfABlobIsRetried(t *testing.T) {
	from, to := newFake(t, "old"), newFake(t, "new")
	layer := randomBytes(500_000)
	_, m := from.image(repo, "v1", layer)
	var n atomic.Int64
	from.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if n.Load() >= 2 || !strings.HasSuffix(r.URL.Path, m.Layers[0].Digest.String()) {
			return false
		}
		return serveBlob(m.Layers[0].Digest, len(layer), layer[:100_000*n.Add(1)])(w, r)
	})
	c := &Copier{From: from.Registry, To: to.Registry}
	_, err := c.Repository(t.Context(), repo, "")
	require.NoError(t, err)
	same(t, from, to, repo)
	require.EqualValues(t, 2, n.Load())
}

func TestTargetWithAnotherSizeIsAProblemOfTheTarget(t *testing.T) {
	from, to := newFake(t, "old"), newFake(t, "new")
	_, m := from.image(repo, "v1", randomBytes(1000))
	to.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodHead || !strings.HasSuffix(r.URL.Path, m.Layers[0].Digest.String()) {
			return false
		}
		w.Header().Set("Content-Length", "0")
		w.WriteHeader(http.StatusOK)
		return true
	})
	_, err := (&Copier{From: from.Registry, To: to.Registry}).Tag(t.Context(), repo, "v1")
	var broken *BrokenError
	require.ErrorAs(t, err, &broken)
	require.Equal(t, "new", broken.Problems[0].Backend)
	require.Equal(t, Short, broken.Problems[0].Kind)
	to.lacks(repo, "v1")
}

func TestForeignLayersAreLeftOutWhereTheSourceHasNone(t *testing.T) {
	from, to := newFake(t, "old"), newFake(t, "new")
	m := v1.Manifest{SchemaVersion: 2, MediaType: types.DockerManifestSchema2, Config: from.putBlob(repo, types.DockerConfigJSON, []byte("{}"))}
	kept := from.putBlob(repo, types.DockerForeignLayer, randomBytes(100))
	kept.URLs = []string{"https://example.com/kept"}
	gone, err := hashOf("sha256", []byte("elsewhere"))
	require.NoError(t, err)
	m.Layers = []v1.Descriptor{kept, {MediaType: types.DockerForeignLayer, Digest: gone, Size: 9, URLs: []string{"https://example.com/gone"}}}
	from.putManifest(repo, "windows", m.MediaType, m)
	res, err := (&Copier{From: from.Registry, To: to.Registry}).Repository(t.Context(), repo, "")
	require.NoError(t, err)
	require.EqualValues(t, 1, res.Foreign)
	require.True(t, to.linked(repo, kept.Digest.String()))
	same(t, from, to, repo)
}

func TestCancelStopsInTheMiddleOfALargeBlob(t *testing.T) {
	from, to := newFake(t, "old"), newFake(t, "new")
	_, m := from.image(repo, "v1", randomBytes(100))
	first := make(chan struct{})
	var told sync.Once
	from.setFault(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, m.Layers[0].Digest.String()) {
			return false
		}
		w.WriteHeader(http.StatusOK)
		for r.Context().Err() == nil { // never ends by itself
			if _, err := w.Write(make([]byte, 32<<10)); err != nil {
				return true
			}
			told.Do(func() { close(first) })
			time.Sleep(time.Millisecond)
		}
		return true
	})
	m.Layers[0].Size = 200 << 20
	from.putManifest(repo, "v1", m.MediaType, m)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-first; time.Sleep(50 * time.Millisecond); cancel() }()
	var last atomic.Int64
	c := &Copier{From: from.Registry, To: to.Registry, Observe: func(p Progress) { last.Store(p.Bytes) }}
	_, err := c.Repository(ctx, repo, "")
	require.ErrorIs(t, err, context.Canceled)
	require.False(t, IsTemporary(err))
	require.Nil(t, problemsIn(err))
}

type countingLimiter struct{ bytes atomic.Int64 }

func (l *countingLimiter) WaitN(ctx context.Context, n int) error {
	if n > 65536 {
		return errors.New("too much at once")
	}
	l.bytes.Add(int64(n))
	return ctx.Err()
}

func TestLimiterSeesEveryByte(t *testing.T) {
	from, to := newFake(t, "old"), newFake(t, "new")
	from.image(repo, "v1", randomBytes(300_000))
	l := &countingLimiter{}
	c := &Copier{From: from.Registry, To: to.Registry, Limiter: l}
	_, err := c.Repository(t.Context(), repo, "")
	require.NoError(t, err)
	require.Greater(t, l.bytes.Load(), int64(300_000))
	require.Equal(t, c.Progress().Bytes, l.bytes.Load())
}
