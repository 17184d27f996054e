//go:build lab

package lab

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"transship/internal/report"
	"transship/workflows"
)

// upload is a blob that a client sends in its own time, each request through an edge of its choice. It repeats nothing.
type upload struct {
	t          *testing.T
	s          *Stack
	repository string
	size       int64
	digest     digest.Digest
	// location is where the registry said to go on, without the host.
	location string
}

// content is the same each time it is read.
func (u *upload) content() io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte([]byte(fmt.Sprintf("%-32s", u.repository)))), u.size)
}

func (s *Stack) upload(t *testing.T, repository string, size int64) *upload {
	u := &upload{t: t, s: s, repository: repository, size: size}
	var err error
	u.digest, err = digest.FromReader(u.content())
	require.NoError(t, err)
	return u
}

func (u *upload) send(edge int, method, path string, body io.Reader, length int64, headers map[string]string) *http.Response {
	u.t.Helper()
	req, err := http.NewRequest(method, u.s.Edges[edge].URL+path, body)
	require.NoError(u.t, err)
	req.ContentLength = length
	req.SetBasicAuth(PushUser, Password)
	for k, v := range headers {
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	require.NoError(u.t, err)
	defer resp.Body.Close()
	answer, _ := io.ReadAll(resp.Body)
	require.Less(u.t, resp.StatusCode, 300, "%s %s through edge%d: %s", method, path, edge+1, answer)
	if at, err := resp.Location(); err == nil {
		u.location = at.RequestURI()
	}
	return resp
}

func (u *upload) open(edge int) {
	u.t.Helper()
	u.send(edge, http.MethodPost, "/v2/"+u.repository+"/blobs/uploads/", nil, 0, nil)
}

// tag pushes a manifest with the blob as its only layer, which must be where the manifest goes.
func (u *upload) tag(ctx context.Context, edge int, tag string) v1.Hash {
	u.t.Helper()
	config := `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`
	c := &upload{t: u.t, s: u.s, repository: u.repository, digest: digest.FromString(config)}
	c.open(edge)
	c.send(edge, http.MethodPut, commit(c.location, c.digest.String()), strings.NewReader(config), int64(len(config)), nil)
	raw := string(manifest(blob{Digest: c.digest.String(), Size: int64(len(config))}, blob{Digest: u.digest.String(), Size: u.size}))
	u.send(edge, http.MethodPut, "/v2/"+u.repository+"/manifests/"+tag, strings.NewReader(raw), int64(len(raw)), map[string]string{"Content-Type": manifestType})
	sum, _, err := v1.SHA256(strings.NewReader(raw))
	require.NoError(u.t, err)
	return sum
}

// holds checks that a backend serves the tag, with every byte of the blob.
func (u *upload) holds(ctx context.Context, backend, tag string, manifest v1.Hash) {
	u.t.Helper()
	ref, err := name.NewTag(strings.TrimPrefix(backend, "http://")+"/"+u.repository+":"+tag, name.Insecure)
	require.NoError(u.t, err)
	img, err := remote.Image(ref, remote.WithContext(ctx))
	require.NoError(u.t, err)
	got, err := img.Digest()
	require.NoError(u.t, err)
	assert.Equal(u.t, manifest, got)
	layers, err := img.Layers()
	require.NoError(u.t, err)
	for _, l := range layers {
		require.NoError(u.t, read(l))
	}
}

// slowly gives the first part of a body at once, and the rest when it may.
func slowly(body io.Reader, first int64, may <-chan struct{}) io.Reader {
	return io.MultiReader(io.LimitReader(body, first), &wait{may: may}, body)
}

type wait struct{ may <-chan struct{} }

func (w *wait) Read([]byte) (int, error) { <-w.may; return 0, io.EOF }

// Promises 1 and 7: uploads of a gigabyte that span the whole cutover, in chunks through one edge after the other and in a single request, end well, and do not
// prolong the freeze. Then the same on the way back. A single request that began before the prefix was watched, and a blob that no image referred to before the flip, are
// there for the manifests that need them.
func TestUploadsOfAGigabyteOutlastTheCutoverAndTheRollback(t *testing.T) {
	s := Start(t, SecondEdge, Adapt(func(s *Settings) { s.Soak, s.Finalize, s.Jobs, s.SessionIdle = time.Hour, "ask", 8, time.Minute }))
	c, stop := atWork(t, s, Small)
	ctx := within(t, 10*time.Minute)
	found, early := s.upload(t, "restricted/found", 1<<20), s.upload(t, "restricted/early", 64<<20)
	found.open(0)
	found.send(0, http.MethodPut, commit(found.location, found.digest.String()), found.content(), found.size, nil)
	early.open(0)
	mayEnd, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		early.send(0, http.MethodPut, commit(early.location, early.digest.String()), slowly(early.content(), early.size/3, mayEnd), early.size, nil)
	}()
	pause(ctx, time.Second)
	s.must(t, "migrate", "restricted")
	_, err := s.Await(ctx, "restricted", Phase(workflows.Approval))
	require.NoError(t, err)

	// span starts both uploads before a cutover, and ends them after it.
	span := func(name string, size int64, cutover func()) (tags map[*upload]v1.Hash) {
		part := size / 3
		chunked, single := s.upload(t, "restricted/chunked-"+name, size), s.upload(t, "restricted/single-"+name, size)
		content := chunked.content()
		chunk := func(edge int, from, length int64) {
			chunked.send(edge, http.MethodPatch, chunked.location, io.LimitReader(content, length), length, map[string]string{
				"Content-Type": "application/octet-stream", "Content-Range": fmt.Sprintf("%d-%d", from, from+length-1),
			})
		}
		chunked.open(0)
		chunk(0, 0, part)
		single.open(0)
		may, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			single.send(0, http.MethodPut, commit(single.location, single.digest.String()), slowly(single.content(), part, may), size, map[string]string{"Content-Type": "application/octet-stream"})
		}()
		pause(ctx, time.Second)
		cutover()
		chunk(1, part, part)
		close(may)
		tags = map[*upload]v1.Hash{}
		<-done
		tags[single] = single.tag(ctx, 1, "v1") // through the edge that did not see the upload
		chunk(0, 2*part, size-2*part)
		chunked.send(1, http.MethodPut, commit(chunked.location, chunked.digest.String()), nil, 0, nil)
		tags[chunked] = chunked.tag(ctx, 0, "v1")
		return tags
	}
	uploaded := span("there", 1<<30, func() {
		s.must(t, "approve", "restricted")
		_, err = s.Await(ctx, "restricted", Phase(workflows.Soak))
		require.NoError(t, err)
	})
	close(mayEnd)
	<-ended
	for _, u := range []*upload{found, early} {
		uploaded[u] = u.tag(ctx, 1, "v1")
	}
	for u, manifest := range uploaded {
		u.holds(ctx, s.Addresses.New, "v1", manifest)
	}
	status, err := s.Status(ctx, "restricted")
	require.NoError(t, err)
	lasted, longest := status.Report.Freeze()
	t.Logf("writes were held for %s, one of them for %s", lasted, longest)
	assert.Less(t, lasted, 3*time.Second)

	back := span("back", 128<<20, func() {
		s.must(t, "rollback", "restricted")
		require.Eventually(t, func() bool {
			now, err := s.Status(ctx, "restricted")
			return err == nil && now.Serving == "old"
		}, time.Minute, 50*time.Millisecond)
	})
	r, err := s.Outcome(ctx, "restricted")
	stop()
	require.NoError(t, err)
	assert.Equal(t, report.RolledBack, r.Outcome)
	for _, tags := range []map[*upload]v1.Hash{uploaded, back} {
		for u, manifest := range tags {
			u.holds(ctx, s.Addresses.Old, "v1", manifest)
		}
	}
	assert.Empty(t, c.Failures())
	nothingLost(t, c, s.Addresses.Old)
}
