//go:build lab

package servers_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/crane"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"transship/lab/servers"
	"transship/lab/servers/shared"
)

func TestMain(m *testing.M) { shared.Main(m) }

// serves pushes an image through a registry and pulls it back.
func serves(t *testing.T, r *servers.Registry) string {
	t.Helper()
	img, err := random.Image(1<<20, 3)
	require.NoError(t, err)
	name := strings.TrimPrefix(r.URL, "http://") + "/restricted/app:v1"
	require.NoError(t, crane.Push(img, name, crane.Insecure))
	back, err := crane.Pull(name, crane.Insecure)
	require.NoError(t, err)
	layers, err := back.Layers()
	require.NoError(t, err)
	for _, layer := range layers {
		content, err := layer.Compressed()
		require.NoError(t, err)
		require.NoError(t, content.Close())
	}
	digest, err := img.Digest()
	require.NoError(t, err)
	return digest.Hex
}

func TestRegistriesServeFromTheSharedStores(t *testing.T) {
	stores := shared.Shared(t)
	container, bucket := stores.NewContainer(t), stores.NewBucket(t)
	digest := serves(t, stores.SwiftRegistry(t, container))
	serves(t, stores.CephRegistry(t, bucket))

	files, err := stores.Swift.ObjectFiles(container, "files/docker/registry/v2/repositories/restricted/app/_manifests/tags/v1/current/link")
	require.NoError(t, err)
	raw, err := os.ReadFile(files[0])
	require.NoError(t, err)
	assert.Equal(t, "sha256:"+digest, string(raw), "a test finds on disk what Swift stores")
	_, err = stores.Swift.ObjectFiles(container, "unknown")
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestSwiftSurvivesKillsAndLeavesNothing(t *testing.T) {
	before := outside(t)
	dir := filepath.Join(t.TempDir(), "swift")
	s, err := servers.StartSwift(t.Context(), dir)
	require.NoError(t, err)
	t.Cleanup(s.Stop)
	require.NoError(t, s.CreateContainer(t.Context(), "registry"))
	for _, p := range []*servers.Process{s.Proxy, s.Account, s.ContainerServer, s.Object, s.Updater, s.Memcached} {
		group := p.PID()
		p.Kill()
		assert.Empty(t, members(group), "%s left children", p.Name)
		require.NoError(t, p.Start(t.Context()), p.Name)
	}
	require.NoError(t, s.CreateContainer(t.Context(), "after"))
	r, err := servers.StartRegistry(t.Context(), t.TempDir(), "old", servers.RegistryOptions{Swift: s, Container: "after"})
	require.NoError(t, err)
	t.Cleanup(r.Stop)
	serves(t, r)
	r.Stop()
	ends(t, &s.Group, dir)
	assert.Equal(t, before, outside(t), "nothing is written outside the folder")
}

func TestCephSurvivesKillsAndLeavesNothing(t *testing.T) {
	before := outside(t)
	dir := filepath.Join(t.TempDir(), "ceph")
	c, err := servers.StartCeph(t.Context(), dir)
	require.NoError(t, err)
	t.Cleanup(c.Stop)
	require.NoError(t, c.CreateBucket(t.Context(), "registry"))
	for _, p := range []*servers.Process{c.Gateway, c.OSD, c.Mgr, c.Mon} {
		began := time.Now()
		p.Kill()
		require.NoError(t, p.Start(t.Context()), p.Name)
		t.Logf("%s was back after %s", p.Name, time.Since(began))
	}
	require.Eventually(t, func() bool { return c.CreateBucket(t.Context(), "after") == nil }, time.Minute, time.Second)
	metrics, err := c.EnableMetrics(t.Context())
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		resp, err := http.Get("http://" + metrics + "/metrics")
		return err == nil && resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
	}, 30*time.Second, 200*time.Millisecond)
	ends(t, &c.Group, dir)
	assert.Equal(t, before, outside(t), "nothing is written outside the folder")
}

// ends stops a group and looks for what it may have left. While it runs, no process of it may have a file outside dir open for writing.
func ends(t *testing.T, g *servers.Group, dir string) {
	t.Helper()
	running := g.Running()
	require.NotEmpty(t, running)
	for _, r := range running {
		require.NotEmpty(t, members(r.PID), r.Name)
		for _, pid := range members(r.PID) {
			for _, path := range writes(t, pid) {
				assert.True(t, strings.HasPrefix(path, dir), "%s (%d) writes %s", r.Name, pid, path)
			}
		}
	}
	g.Stop()
	for _, r := range running {
		assert.ErrorIs(t, syscall.Kill(r.PID, 0), syscall.ESRCH, r.Name)
		assert.Empty(t, members(r.PID), r.Name)
	}
}

// members are the processes of a process group (field 5 of /proc/PID/stat).
func members(group int) (pids []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
		if fields[0] != "Z" && fields[2] == strconv.Itoa(group) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// writes are the regular files that a process has open for writing.
func writes(t *testing.T, pid int) (paths []string) {
	t.Helper()
	fds, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/fd/*")
	require.NoError(t, err)
	for _, fd := range fds {
		path, err := os.Readlink(fd)
		info, statErr := os.Stat(fd)
		link, lstatErr := os.Lstat(fd)
		file := filepath.IsAbs(path) && !strings.HasPrefix(path, "/memfd:") // anonymous inodes look like files
		if err == nil && statErr == nil && lstatErr == nil && file && info.Mode().IsRegular() && link.Mode().Perm()&0o200 != 0 {
			paths = append(paths, path)
		}
	}
	return paths
}

// outside lists what lies where these services keep their files when nobody tells them otherwise.
func outside(t *testing.T) (paths []string) {
	t.Helper()
	for _, dir := range []string{"/etc/swift", "/etc/ceph", "/var/lib/swift", "/var/lib/ceph", "/var/cache/swift", "/var/log/swift", "/var/log/ceph", "/run/swift", "/run/ceph", "/srv", "/usr/share/ceph"} {
		_ = filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
			if err == nil {
				paths = append(paths, path)
			}
			return nil
		})
	}
	return paths
}
