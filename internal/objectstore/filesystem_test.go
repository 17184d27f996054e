package objectstore_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"transship/internal/objectstore"
	"transship/internal/objectstore/storetest"
)

func TestFilesystem(t *testing.T) {
	storetest.Run(t, func(t *testing.T) objectstore.Store {
		store, err := objectstore.NewFilesystem(objectstore.FilesystemOptions{Path: t.TempDir(), Root: "docker/registry/v2/"})
		require.NoError(t, err)
		return store
	})
}
