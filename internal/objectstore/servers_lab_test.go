//go:build lab

package objectstore_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"transship/internal/objectstore"
	"transship/internal/objectstore/storetest"
	"transship/lab/servers/shared"
)

func TestMain(m *testing.M) { shared.Main(m) }

func newSwift(t *testing.T, pageSize int) objectstore.Store {
	t.Helper()
	lab := shared.Shared(t)
	store, err := objectstore.NewSwift(t.Context(), objectstore.SwiftOptions{AuthURL: lab.Swift.AuthURL, Username: lab.Swift.Username, Password: lab.Swift.Password,
		Container: lab.NewContainer(t), Root: "files/docker/registry/v2/", PageSize: pageSize})
	require.NoError(t, err)
	return store
}

func newS3(t *testing.T, pageSize int) objectstore.Store {
	t.Helper()
	lab := shared.Shared(t)
	store, err := objectstore.NewS3(t.Context(), objectstore.S3Options{Endpoint: lab.Ceph.Endpoint, Region: lab.Ceph.Region, AccessKey: lab.Ceph.AccessKey, SecretKey: lab.Ceph.SecretKey,
		Bucket: lab.NewBucket(t), Root: "docker/registry/v2/", PageSize: pageSize})
	require.NoError(t, err)
	return store
}

func TestSwift(t *testing.T) {
	storetest.Run(t, func(t *testing.T) objectstore.Store { return newSwift(t, 7) })
}

func TestS3(t *testing.T) {
	storetest.Run(t, func(t *testing.T) objectstore.Store { return newS3(t, 7) })
}
