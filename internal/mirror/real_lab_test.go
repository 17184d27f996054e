//go:build lab

package mirror_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"transship/internal/mirror"
	"transship/internal/objectstore"
	"transship/lab/seed"
	"transship/lab/servers"
	"transship/lab/servers/shared"
)

func TestMain(m *testing.M) { shared.Main(m) }

func swiftStore(t testing.TB, container string) objectstore.Store {
	t.Helper()
	s := shared.Shared(t).Swift
	store, err := objectstore.NewSwift(t.Context(), objectstore.SwiftOptions{
		AuthURL: s.AuthURL, Username: s.Username, Password: s.Password, Container: container, Root: "files/docker/registry/v2/",
	})
	require.NoError(t, err)
	return store
}

func cephStore(t testing.TB, bucket string) objectstore.Store {
	t.Helper()
	c := shared.Shared(t).Ceph
	store, err := objectstore.NewS3(t.Context(), objectstore.S3Options{
		Endpoint: c.Endpoint, Region: c.Region, AccessKey: c.AccessKey, SecretKey: c.SecretKey, Bucket: bucket, Root: "docker/registry/v2/",
	})
	require.NoError(t, err)
	return store
}

// source is a registry on Swift that was filled with a set, and its store.
func source(t testing.TB, s seed.Set) (*servers.Registry, objectstore.Store) {
	t.Helper()
	lab := shared.Shared(t)
	container := lab.NewContainer(t)
	r := lab.SwiftRegistry(t, container)
	began := time.Now()
	require.NoError(t, s.Push(t.Context(), strings.TrimPrefix(r.URL, "http://"), 8))
	t.Logf("pushed in %.1f s", time.Since(began).Seconds())
	return r, swiftStore(t, container)
}

func TestScratch(t *testing.T) {
	set := seed.Set{Prefix: "restricted", Repositories: 5, Tags: 20, Layers: 2, LayerSize: 8 << 10, BaseSize: 2 << 20}
	_, from := source(t, set)
	for range 3 {
		bucket := shared.Shared(t).NewBucket(t)
		to := cephStore(t, bucket)
		for range 2 {
			m := &mirror.Mirror{From: mirror.Side{Backend: "old", Store: from}, To: mirror.Side{Backend: "new", Store: to}, Mark: "x"}
			began := time.Now()
			at, err := m.Run(t.Context(), mirror.Shard{Prefix: "restricted"}, mirror.Cursor{})
			require.NoError(t, err)
			t.Logf("%.3f s %+v", time.Since(began).Seconds(), at)
		}
	}
}
