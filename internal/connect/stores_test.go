package connect_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"transship/config"
	"transship/internal/connect"
	"transship/internal/objectstore"
)

func TestStores(t *testing.T) {
	t.Setenv("SECRET", "s")
	secret := config.Secret{Env: "SECRET"}
	c := &config.Config{Backends: map[string]config.Backend{
		"none":   {},
		"swift":  {Store: config.Store{Kind: "swift", AuthURL: "http://swift/auth/v1.0", Username: "u", Password: secret, Container: "registry", Root: "files/docker/registry/v2/", Bandwidth: 1}},
		"ceph":   {Store: config.Store{Kind: "s3", Endpoint: "http://ceph", Bucket: "registry", Root: "docker/registry/v2/", AccessKey: secret, SecretKey: secret, Requests: 1}},
		"folder": {Store: config.Store{Kind: "filesystem", Path: "/srv/registry"}},
	}}
	stores, err := connect.Stores(t.Context(), c)
	require.NoError(t, err)
	names := map[string]string{}
	for name, store := range stores {
		names[name] = store.String()
	}
	assert.Equal(t, map[string]string{"swift": "swift registry/files/docker/registry/v2/", "ceph": "s3 registry/docker/registry/v2/", "folder": "folder /srv/registry"}, names)
	assert.Implements(t, (*objectstore.Segmented)(nil), stores["swift"], "bounds do not hide what a store can")

	for name, wrong := range map[string]config.Store{
		"password": {Kind: "swift", AuthURL: "http://swift/auth/v1.0", Container: "c", Password: config.Secret{Env: "UNSET_BY_ANYBODY"}},
		"ca":       {Kind: "s3", Endpoint: "http://ceph", Bucket: "b", AccessKey: secret, SecretKey: secret, CAFile: "/nonexistent"},
		"kind":     {Kind: "tape"},
	} {
		_, err := connect.Stores(t.Context(), &config.Config{Backends: map[string]config.Backend{"x": {Store: wrong}}})
		assert.ErrorContains(t, err, "backends.x.store", name)
	}
}
