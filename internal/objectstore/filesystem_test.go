package objectstore_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"transship/internal/objectstore"
	"transship/internal/objectstore/storetest"
)

func newFolder(t *testing.T) (*objectstore.Filesystem, string) {
	t.Helper()
	path := t.TempDir()
	store, err := objectstore.NewFilesystem(objectstore.FilesystemOptions{Path: path, Root: "docker/registry/v2/"})
	require.NoError(t, err)
	return store, filepath.Join(path, "docker/registry/v2")
}

func TestFilesystem(t *testing.T) {
	storetest.Run(t, func(t *testing.T) objectstore.Store {
		store, _ := newFolder(t)
		return store
	})
}

func TestEmptyFoldersGo(t *testing.T) {
	store, root := newFolder(t)
	_, err := store.Put(t.Context(), "a/b/c/d", strings.NewReader("x"), 1, objectstore.PutOptions{})
	require.NoError(t, err)
	_, err = store.Put(t.Context(), "a/e", strings.NewReader("x"), 1, objectstore.PutOptions{})
	require.NoError(t, err)
	require.NoError(t, store.Delete(t.Context(), "a/b/c/d"))
	assert.NoDirExists(t, filepath.Join(root, "a/b"))
	require.NoError(t, store.Delete(t.Context(), "a"), "a folder is no object")
	assert.FileExists(t, filepath.Join(root, "a/e"))
	require.NoError(t, store.Delete(t.Context(), "a/e"))
	assert.DirExists(t, root)
}

func TestUnfinishedFilesAreNotListed(t *testing.T) {
	store, root := newFolder(t)
	reader, writer := io.Pipe()
	var wait sync.WaitGroup
	wait.Go(func() {
		_, err := store.Put(t.Context(), "a", reader, 10, objectstore.PutOptions{})
		assert.Error(t, err)
	})
	_, err := writer.Write([]byte("hello"))
	require.NoError(t, err)
	for o, err := range store.List(t.Context(), objectstore.ListOptions{}) {
		t.Errorf("listed: %v %v", o, err)
	}
	for d, err := range store.Directories(t.Context(), "") {
		t.Errorf("listed: %v %v", d, err)
	}
	require.NoError(t, writer.Close())
	wait.Wait()

	left := filepath.Join(root, ".transship-tmp", "put-of-a-killed-process")
	require.NoError(t, os.WriteFile(left, nil, 0o600))
	require.NoError(t, os.Chtimes(left, time.Time{}, time.Now().Add(-72*time.Hour)))
	again, err := objectstore.NewFilesystem(objectstore.FilesystemOptions{Path: root})
	require.NoError(t, err)
	_, err = again.Put(t.Context(), "b", strings.NewReader(""), 0, objectstore.PutOptions{})
	require.NoError(t, err)
	assert.NoFileExists(t, left, "what is old is nobody's")
}

// TestSiblingsComeAndGo has a folder vanish and come back as often as it can.
func TestSiblingsComeAndGo(t *testing.T) {
	store, _ := newFolder(t)
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() {
			for range 200 {
				key := fmt.Sprintf("a/b/c/%d", i)
				_, err := store.Put(t.Context(), key, strings.NewReader("x"), 1, objectstore.PutOptions{})
				assert.NoError(t, err)
				assert.NoError(t, store.Delete(t.Context(), key))
			}
		})
	}
	wait.Wait()
}

func TestKeysStayInTheFolder(t *testing.T) {
	store, _ := newFolder(t)
	for _, key := range []string{"", ".", "..", "../x", "a/../../x", "/x", "a//b", "a/", "a/./b", "a\x00b", ".transship-tmp/x"} {
		_, err := store.Put(t.Context(), key, strings.NewReader("x"), 1, objectstore.PutOptions{})
		assert.True(t, objectstore.IsFinal(err), "%q: %v", key, err)
		assert.Error(t, store.Delete(t.Context(), key), key)
		_, err = store.Stat(t.Context(), key, objectstore.ReadOptions{})
		assert.Error(t, err, key)
	}
}

func TestLinkedFoldersAreFollowed(t *testing.T) {
	store, root := newFolder(t)
	other := t.TempDir()
	require.NoError(t, os.MkdirAll(root, 0o755))
	require.NoError(t, os.Symlink(other, filepath.Join(root, "blobs")))
	require.NoError(t, os.WriteFile(filepath.Join(other, "x"), []byte("hello"), 0o600))
	var keys []string
	for o, err := range store.List(t.Context(), objectstore.ListOptions{}) {
		require.NoError(t, err)
		keys = append(keys, o.Key)
	}
	assert.Equal(t, []string{"blobs/x"}, keys)
}
