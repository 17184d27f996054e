//go:build lab

package mirror_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/ncw/swift/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"transship/internal/audit"
	"transship/internal/mirror"
	"transship/internal/objectstore"
	"transship/lab/seed"
	"transship/lab/servers"
	"transship/lab/servers/shared"
)

const (
	swiftRoot = "files/docker/registry/v2/"
	cephRoot  = "docker/registry/v2/"
)

func TestMain(m *testing.M) {
	if job := os.Getenv(moverVariable); job != "" {
		os.Exit(mover(job)) // we are the process that is to be killed
	}
	shared.Main(m)
}

func onSwift(t testing.TB, s *servers.Swift, authURL, container string) mirror.Side {
	t.Helper()
	store, err := objectstore.NewSwift(t.Context(), objectstore.SwiftOptions{AuthURL: authURL, Username: s.Username, Password: s.Password, Container: container, Root: swiftRoot})
	require.NoError(t, err)
	return mirror.Side{Backend: "swift", Store: store}
}

func onCeph(t testing.TB, c *servers.Ceph, endpoint, bucket string) mirror.Side {
	t.Helper()
	store, err := objectstore.NewS3(t.Context(), objectstore.S3Options{
		Endpoint: endpoint, Region: c.Region, AccessKey: c.AccessKey, SecretKey: c.SecretKey, Bucket: bucket, Root: cephRoot,
	})
	require.NoError(t, err)
	return mirror.Side{Backend: "ceph", Store: store}
}

func host(r *servers.Registry) string { return strings.TrimPrefix(r.URL, "http://") }

var whole = mirror.Shard{Prefix: "restricted"}

func run(t testing.TB, from, to mirror.Side) mirror.Cursor {
	t.Helper()
	at, err := (&mirror.Mirror{From: from, To: to, Mark: "test", Deletes: true}).Run(t.Context(), whole, mirror.Cursor{})
	require.NoError(t, err)
	return at
}

// verified compares both sides, and reads every byte of the target.
func verified(t testing.TB, from, to mirror.Side) {
	t.Helper()
	check, err := (&mirror.Mirror{From: from, To: to}).Compare(t.Context(), whole, mirror.CompareOptions{})
	require.NoError(t, err)
	assert.Empty(t, check.Differences)
	findings, _, err := (&audit.Audit{Side: to, Deep: true}).Run(t.Context(), whole)
	require.NoError(t, err)
	assert.Empty(t, findings)
}

// served has a registry of its own serve what is in a store: it pulls every tag with skopeo, and has go-containerregistry (as `crane validate` does) check every layer of each.
// It returns how many tags there are.
func served(t testing.TB, o servers.RegistryOptions, repositories []string) int {
	t.Helper()
	o.Cached = true // each blob is read several times, and but for this a read is one request for its content and six more
	r, err := servers.StartRegistry(t.Context(), t.TempDir(), "serving", o)
	require.NoError(t, err)
	t.Cleanup(r.Stop)
	registry := host(r)
	policy := filepath.Join(t.TempDir(), "policy.json")
	require.NoError(t, os.WriteFile(policy, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o600))
	var tags atomic.Int64
	pulls, ctx := errgroup.WithContext(t.Context())
	for _, repository := range repositories {
		pulled := filepath.Join(t.TempDir(), "pulled")
		pulls.Go(func() error {
			list, err := validated(ctx, registry+"/"+repository)
			if err != nil {
				return err
			}
			tags.Add(int64(list))
			pull := exec.CommandContext(ctx, "skopeo", "--policy", policy, "sync", "--all", "--src-tls-verify=false", "--src", "docker", "--dest", "dir",
				registry+"/"+repository, pulled)
			// What skopeo learns of blobs it notes in one database below /var/lib/containers, which it opens, locks, syncs and closes several times for each blob; one that finds it
			// locked sleeps 50 ms. With several at once that was a second for each tag. For whom the database cannot be made, the notes stay in memory.
			pull.Env = append(os.Environ(), "_CONTAINERS_ROOTLESS_UID=65534", "XDG_DATA_HOME=/dev/null")
			out, err := pull.CombinedOutput()
			if err != nil {
				return fmt.Errorf("pull %s: %w: %s", repository, err, out)
			}
			images, err := filepath.Glob(filepath.Join(pulled, "*", "manifest.json"))
			if err == nil && len(images) != list {
				err = fmt.Errorf("skopeo pulled %d tags of %s, which has %d", len(images), repository, list)
			}
			return errors.Join(err, os.RemoveAll(pulled))
		})
	}
	require.NoError(t, pulls.Wait())
	return int(tags.Load())
}

// validated checks every tag of a repository, and says how many there are.
func validated(ctx context.Context, repository string) (int, error) {
	ref, err := name.NewRepository(repository, name.Insecure)
	if err != nil {
		return 0, err
	}
	list, err := remote.List(ref, remote.WithContext(ctx))
	if err != nil {
		return 0, err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(2)
	for _, tag := range list {
		group.Go(func() error { return valid(ctx, ref.Tag(tag)) })
	}
	return len(list), group.Wait()
}

func valid(ctx context.Context, ref name.Reference) error {
	d, err := remote.Get(ref, remote.WithContext(ctx))
	if err != nil {
		return fmt.Errorf("%s: %w", ref, err)
	}
	if d.MediaType.IsIndex() {
		index, err := d.ImageIndex()
		if err != nil {
			return err
		}
		return validate.Index(index)
	}
	img, err := d.Image()
	if err != nil {
		return err
	}
	if err := validate.Image(img); err != nil {
		return fmt.Errorf("%s: %w", ref, err)
	}
	return nil
}

// A prefix of 500 tags, with indexes, referrers, images without a tag and a layer of 1.2 GB, goes from Swift to Ceph, and back to an empty container. Promises 3, 7, 8.
func TestRealPrefixGoesFromSwiftToCephAndBack(t *testing.T) {
	lab := shared.Shared(t)
	container, bucket, back := lab.NewContainer(t), lab.NewBucket(t), lab.NewContainer(t)
	old := lab.SwiftRegistry(t, container)
	pushed := seed.Set{Prefix: "restricted", Repositories: 3, Tags: 8, Layers: 2, LayerSize: 20 << 10, BaseSize: 1 << 20, Special: true, Large: []int{1_200_000_000}}
	require.NoError(t, pushed.Push(t.Context(), host(old), 4))
	laid := seed.Set{Prefix: "restricted/laid", Repositories: 5, Tags: 94, Layers: 2, LayerSize: 2 << 10, BaseSize: 64 << 10, Seed: 1}
	connection := &swift.Connection{AuthUrl: lab.Swift.AuthURL, UserName: lab.Swift.Username, ApiKey: lab.Swift.Password}
	require.NoError(t, laid.Lay(t.Context(), connection, container, swiftRoot))
	repositories := append(pushed.Names(), laid.Names()...)
	const tags = 504 // 500 and one large; clients keep the list of what refers to an image under a tag in each of the three repositories that have such

	from, to := onSwift(t, lab.Swift, lab.Swift.AuthURL, container), onCeph(t, lab.Ceph, lab.Ceph.Endpoint, bucket)
	at := run(t, from, to)
	assert.EqualValues(t, tags, at.Progress.Tags)
	verified(t, from, to)
	assert.Equal(t, tags, served(t, servers.RegistryOptions{Ceph: lab.Ceph, Bucket: bucket}, repositories))
	again := run(t, from, to)
	assert.Zero(t, again.Links)
	assert.Zero(t, again.Progress.Bytes)

	home := onSwift(t, lab.Swift, lab.Swift.AuthURL, back)
	run(t, to, home)
	verified(t, to, home)
	assert.Equal(t, tags, served(t, servers.RegistryOptions{Swift: lab.Swift, Container: back}, repositories))
	again = run(t, to, home)
	assert.Zero(t, again.Links)
}
