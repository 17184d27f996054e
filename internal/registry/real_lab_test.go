//go:build lab

package registry

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/require"

	"transship/internal/routing"
)

// real is a docker-registry process of the Debian package, on local disk.
type real struct {
	*fake
	root string
}

// startReal starts one on a free port. That the program is not installed is a failure: a test that is skipped proves nothing.
func startReal(t *testing.T, name string, deletes bool) *real {
	t.Helper()
	program, err := exec.LookPath("docker-registry")
	require.NoError(t, err, "install the Debian package docker-registry")
	root := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := l.Addr().String()
	require.NoError(t, l.Close())
	config := filepath.Join(root, "config.yml")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, `version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: %s}
  delete: {enabled: %v}
  redirect: {disable: true}
http: {addr: %q, relativeurls: true, secret: lab}
`, root, deletes, addr), 0o600))
	cmd := exec.Command(program, "serve", config)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "AWS_CA_BUNDLE=") })
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			log := output.String() // its end: each 404 is an error there
			t.Logf("%s: %s", name, log[max(0, len(log)-2000):])
		}
	})
	r, err := New(Options{Name: name, URL: "http://" + addr})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return r.Ping(t.Context()) == nil }, 20*time.Second, 50*time.Millisecond)
	return &real{fake: &fake{Registry: r, t: t}, root: root}
}

// data is the file in which the registry keeps a blob.
func (r *real) data(digest v1.Hash) string {
	return filepath.Join(r.root, "docker/registry/v2/blobs/sha256", digest.Hex[:2], digest.Hex, "data")
}

// noUploads asserts that no upload session is left behind.
func (r *real) noUploads() {
	r.t.Helper()
	left, err := filepath.Glob(filepath.Join(r.root, "docker/registry/v2/repositories/restricted/*/_uploads/*"))
	require.NoError(r.t, err)
	require.Empty(r.t, left)
}

// same asserts by Compare, deep, that r has what the source has.
func (r *real) same(from *real, repository string) {
	r.t.Helper()
	check, err := Compare(r.t.Context(), from.Registry, r.Registry, repository, CompareOptions{Deep: true})
	require.NoError(r.t, err)
	require.Empty(r.t, check.Differences)
}

func TestRealCatalogLosesNothing(t *testing.T) {
	r := startReal(t, "old", true)
	var want []string
	for _, prefix := range []string{"a", "a-b", "a/b", "a.b", "a/b-c", "a/b/c", "a0", "ab"} {
		names := []string{prefix}
		for i := range 40 {
			names = append(names, fmt.Sprintf("%s/r%d", prefix, i), fmt.Sprintf("%s/r-%d/x", prefix, i))
		}
		for _, name := range names {
			r.image(name, "v1")
		}
		want = append(want, names...)
	}
	for _, size := range []int{pageSize, 100, 7} {
		r.pageSize = size
		for _, prefix := range []routing.Prefix{"", "a", "a/b", "a-b", "a.b", "a/b/c", "nobody"} {
			expected := slices.DeleteFunc(slices.Clone(want), func(s string) bool { return prefix != "" && !prefix.Contains(s) })
			slices.Sort(expected)
			got, err := r.Repositories(t.Context(), prefix)
			require.NoError(t, err)
			require.Len(t, got, len(expected), "prefix %q by %d", prefix, size)
			require.ElementsMatch(t, expected, got)
			require.True(t, slices.IsSorted(got))
		}
	}
	r.pageSize = 5000 // refused by Distribution, which allows 1000
	got, err := r.Repositories(t.Context(), "")
	require.NoError(t, err)
	require.Len(t, got, len(want))
}

func TestRealCopyAuditCompareDelete(t *testing.T) {
	from, to := startReal(t, "old", true), startReal(t, "new", true)
	base := randomBytes(30 << 20)
	amd, _ := from.image(repo, "", base, randomBytes(1000))
	arm, _ := from.image(repo, "", base, randomBytes(1001))
	index := from.index(repo, "v1", amd, arm)
	for i := range 20 {
		from.image(repo, fmt.Sprintf("t%d", i), base, randomBytes(100))
	}
	empty := from.putManifest(repo, "empty", types.OCIManifestSchema1, v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1,
		Config: from.putBlob(repo, types.OCIEmptyJSON, []byte("{}")), Layers: []v1.Descriptor{from.putBlob(repo, types.OCILayer, []byte{})}})
	sig := from.artifact(repo, index)
	sig2 := from.artifact(repo, sig)
	from.fallback(repo, index.Digest, sig)
	from.fallback(repo, sig.Digest, sig2)
	from.image("restricted/b", "v1", base)
	docker := v1.Manifest{SchemaVersion: 2, MediaType: types.DockerManifestSchema2,
		Config: from.putBlob("restricted/b", types.DockerConfigJSON, []byte(`{}`)), Layers: []v1.Descriptor{from.putBlob("restricted/b", types.DockerLayer, base)}}
	from.putManifest("restricted/b", "docker", docker.MediaType, docker)

	c := &Copier{From: from.Registry, To: to.Registry}
	got, err := c.Tag(t.Context(), repo, "v1")
	require.NoError(t, err)
	require.Equal(t, index.Digest, got)
	for _, subject := range []v1.Descriptor{index, sig} {
		list, err := to.Referrers(t.Context(), repo, subject.Digest)
		require.NoError(t, err)
		require.Len(t, list, 1)
	}
	begin := time.Now()
	for _, r := range []string{repo, "restricted/b"} {
		_, err := c.Repository(t.Context(), r, "")
		require.NoError(t, err)
		to.same(from, r)
	}
	t.Logf("copied and compared in %v: %+v", time.Since(begin), c.Progress())
	require.EqualValues(t, 2, c.Progress().BlobsMounted, "the base layer and the empty config")
	to.has(repo, "empty", empty.Digest)

	begin = time.Now()
	again := &Copier{From: from.Registry, To: to.Registry}
	res, err := again.Repository(t.Context(), repo, "")
	require.NoError(t, err)
	require.Equal(t, res.Tags, res.Unchanged)
	require.Zero(t, again.Progress().Bytes)
	t.Logf("nothing changed: %d tags in %v", res.Tags, time.Since(begin))

	from.noUploads()
	to.noUploads()

	require.NoError(t, to.DeleteManifest(t.Context(), repo, amd.Digest))
	require.ErrorIs(t, to.DeleteManifest(t.Context(), repo, amd.Digest), ErrNotFound)
	to.lacks(repo, amd.Digest.String())
	require.NoError(t, to.DeleteManifest(t.Context(), repo, index.Digest))
	to.lacks(repo, "v1")
	_, err = c.Tag(t.Context(), repo, "v1")
	require.NoError(t, err, "a deleted index and child come back")
	to.same(from, repo)
	tags, err := to.Tags(t.Context(), "restricted/nobody")
	require.NoError(t, err)
	require.Nil(t, tags)
}

func TestRealDeletesDisabled(t *testing.T) {
	r := startReal(t, "old", false)
	img, _ := r.image(repo, "v1", randomBytes(10))
	require.ErrorIs(t, r.DeleteManifest(t.Context(), repo, img.Digest), ErrUnsupported)
}

func TestRealBadBlobs(t *testing.T) {
	for name, spoil := range map[string]struct {
		kind Kind
		with func(t *testing.T, file string)
	}{
		"flipped bit": {Corrupt, func(t *testing.T, file string) {
			b, err := os.ReadFile(file)
			require.NoError(t, err)
			b[len(b)/2] ^= 4
			require.NoError(t, os.WriteFile(file, b, 0o600))
		}},
		"zero bytes": {Short, func(t *testing.T, file string) { require.NoError(t, os.Truncate(file, 0)) }},
		"cut short":  {Short, func(t *testing.T, file string) { require.NoError(t, os.Truncate(file, 4096)) }},
		"gone":       {Missing, func(t *testing.T, file string) { require.NoError(t, os.Remove(file)) }},
	} {
		t.Run(name, func(t *testing.T) {
			from, to := startReal(t, "old", true), startReal(t, "new", true)
			img, m := from.image(repo, "bad", randomBytes(3<<20))
			from.index(repo, "worse", img)
			from.image(repo, "good", randomBytes(1000))
			bad := m.Layers[0].Digest
			spoil.with(t, from.data(bad))
			c := &Copier{From: from.Registry, To: to.Registry, SkipBroken: true}
			res, err := c.Repository(t.Context(), repo, "")
			require.NoError(t, err)
			require.Len(t, res.Problems, 1)
			t.Log(res.Problems[0].Error())
			require.Equal(t, spoil.kind, res.Problems[0].Kind)
			require.Equal(t, []string{"bad", "worse"}, res.Problems[0].Tags)
			tags, err := to.Tags(t.Context(), repo)
			require.NoError(t, err)
			require.Equal(t, []string{"good"}, tags)
			require.NoFileExists(t, to.data(bad))
			found, _, err := Audit(t.Context(), from.Registry, repo, AuditOptions{Deep: true})
			require.NoError(t, err)
			require.Equal(t, res.Problems[0].Kind, found[0].Kind)
		})
	}
}

func TestRealCancelInTheMiddleOf200MB(t *testing.T) {
	from, to := startReal(t, "old", true), startReal(t, "new", true)
	from.image(repo, "big", make([]byte, 200<<20))
	ctx, cancel := context.WithCancel(t.Context())
	var at time.Time
	c := &Copier{From: from.Registry, To: to.Registry, Limiter: slow{}}
	go func() {
		for c.Progress().Bytes < 20<<20 {
			time.Sleep(time.Millisecond)
		}
		at = time.Now()
		cancel()
	}()
	_, err := c.Repository(ctx, repo, "")
	require.ErrorIs(t, err, context.Canceled)
	require.Less(t, time.Since(at), time.Second)
	t.Logf("stopped after %v", time.Since(at))
	begin := time.Now()
	c = &Copier{From: from.Registry, To: to.Registry}
	_, err = c.Repository(t.Context(), repo, "")
	require.NoError(t, err)
	t.Logf("200 MiB in %v", time.Since(begin))
	to.same(from, repo)
}

// slow lets about 100 MB/s through.
type slow struct{}

func (slow) WaitN(ctx context.Context, n int) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Duration(n) * 10 * time.Nanosecond):
		return nil
	}
}
