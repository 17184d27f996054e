package storetest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"transship/internal/objectstore"
)

// largeSize is of several parts wherever large objects have parts.
func largeSize(store objectstore.Store) int64 {
	if store.String() == "memory" {
		return 5<<20 + 12345
	}
	return 100<<20 + 12345
}

func (s suite) large(t *testing.T) {
	store := s.newStore(t)
	size := largeSize(store)
	content := randomBytes(t, size, 3)
	stored, err := store.Put(t.Context(), "blobs/large", bytes.NewReader(content), size, objectstore.PutOptions{Mark: "m"})
	require.NoError(t, err)
	object, err := store.Stat(t.Context(), "blobs/large", objectstore.ReadOptions{Newest: true})
	require.NoError(t, err)
	for _, said := range []objectstore.Object{stored, object} {
		assert.Equal(t, size, said.Size)
		assert.Equal(t, stored.ETag, said.ETag)
		assert.Equal(t, stored.Parts, said.Parts)
		assert.Equal(t, "m", said.Mark)
	}
	require.True(t, bytes.Equal(content, get(t, store, "blobs/large", objectstore.ReadOptions{})))
	at, n := size/3-77, size/5 // across the borders of parts
	require.True(t, bytes.Equal(content[at:at+n], get(t, store, "blobs/large", objectstore.ReadOptions{Offset: at, Length: n})))
	listed := all(t, store.List(t.Context(), objectstore.ListOptions{}))
	require.Len(t, listed, 1)
	assert.Equal(t, stored.ETag, listed[0].ETag)
	if segmented, ok := store.(objectstore.Segmented); ok && stored.Parts == objectstore.Static {
		segments, err := segmented.Segments(t.Context(), "blobs/large")
		require.NoError(t, err)
		at, beside := int64(0), all(t, segmented.AllSegments(t.Context()))
		require.Len(t, beside, len(segments))
		for _, segment := range segments {
			assert.Equal(t, sum(content[at:at+segment.Size]), segment.MD5)
			at += segment.Size
		}
		assert.Equal(t, size, at)
	}
	require.NoError(t, store.Delete(t.Context(), "blobs/large"))
	nothing(t, store, "blobs/large")
}

// largeTogether has two workers store the same, as happens when one is taken for dead.
func (s suite) largeTogether(t *testing.T) {
	store := s.newStore(t)
	size := min(40<<20, largeSize(store))
	var wait sync.WaitGroup
	for range 3 {
		wait.Go(func() {
			stored, err := store.Put(t.Context(), "blob", random(size, 4), size, objectstore.PutOptions{Mark: "m"})
			assert.NoError(t, err)
			assert.Equal(t, size, stored.Size)
		})
	}
	wait.Wait()
	assert.Equal(t, sum(randomBytes(t, size, 4)), sum(get(t, store, "blob", objectstore.ReadOptions{})))
}

// largeAgain has a Put that was broken off, then the same once more with another mark, then something else over it.
func (s suite) largeAgain(t *testing.T) {
	store := s.newStore(t)
	size := largeSize(store)
	ctx, body := cancelledAfter(t.Context(), random(size, 5), size*2/3)
	_, err := store.Put(ctx, "blob", body, size, objectstore.PutOptions{Mark: "first"})
	require.ErrorIs(t, err, context.Canceled)
	_, err = store.Stat(t.Context(), "blob", objectstore.ReadOptions{})
	require.ErrorIs(t, err, objectstore.ErrNotExist, "nothing is visible before all is there")

	stored, err := store.Put(t.Context(), "blob", random(size, 5), size, objectstore.PutOptions{Mark: "second"})
	require.NoError(t, err)
	assert.Equal(t, "second", stored.Mark)
	want := sum(randomBytes(t, size, 5))
	assert.Equal(t, want, sum(get(t, store, "blob", objectstore.ReadOptions{})))
	object, err := store.Stat(t.Context(), "blob", objectstore.ReadOptions{})
	require.NoError(t, err)
	assert.Equal(t, "second", object.Mark)
	assert.Equal(t, stored.ETag, object.ETag)

	_, err = store.Put(t.Context(), "blob", random(20<<20, 6), 20<<20, objectstore.PutOptions{})
	require.NoError(t, err)
	assert.Equal(t, sum(randomBytes(t, 20<<20, 6)), sum(get(t, store, "blob", objectstore.ReadOptions{})))
	if segmented, ok := store.(objectstore.Segmented); ok {
		segments, err := segmented.Segments(t.Context(), "blob")
		require.NoError(t, err)
		assert.Len(t, all(t, segmented.AllSegments(t.Context())), len(segments), "what the object no longer consists of is gone")
	}
	put(t, store, "blob", []byte("small"))
	assert.Equal(t, "small", string(get(t, store, "blob", objectstore.ReadOptions{})))
}

// together has many do everything beside each other, in the same folders.
func (s suite) together(t *testing.T) {
	store := s.newStore(t)
	var wait sync.WaitGroup
	for i := range 16 {
		wait.Go(func() {
			for j := range 6 {
				key := fmt.Sprintf("dir/%d/%d/x", j, i)
				content := []byte(key)
				_, err := store.Put(t.Context(), key, bytes.NewReader(content), int64(len(content)), objectstore.PutOptions{})
				assert.NoError(t, err)
				_, err = store.Put(t.Context(), "same", bytes.NewReader([]byte("same")), 4, objectstore.PutOptions{})
				assert.NoError(t, err)
				body, _, err := store.Get(t.Context(), key, objectstore.ReadOptions{})
				if assert.NoError(t, err) {
					got, err := io.ReadAll(body)
					assert.NoError(t, err)
					assert.Equal(t, key, string(got))
					assert.NoError(t, body.Close())
				}
				for _, err := range store.List(t.Context(), objectstore.ListOptions{Prefix: "dir/", Limit: 10}) {
					assert.NoError(t, err)
				}
				if j%2 == 0 {
					assert.NoError(t, store.Delete(t.Context(), key))
				}
			}
		})
	}
	wait.Wait()
	assert.Len(t, keys(t, store.List(t.Context(), objectstore.ListOptions{Prefix: "dir/"})), 16*3)
}

func (s suite) cancelled(t *testing.T) {
	store := s.newStore(t)
	put(t, store, "x", randomBytes(t, 4<<20, 8))
	ctx, cancel := context.WithCancel(t.Context())
	body, _, err := store.Get(ctx, "x", objectstore.ReadOptions{})
	require.NoError(t, err)
	_, err = body.Read(make([]byte, 10))
	require.NoError(t, err)
	cancel()
	_, err = io.ReadAll(body)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, body.Close())

	_, err = store.Stat(ctx, "x", objectstore.ReadOptions{})
	require.ErrorIs(t, err, context.Canceled)
	_, _, err = store.Get(ctx, "x", objectstore.ReadOptions{})
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, store.Delete(ctx, "x"), context.Canceled)
	_, err = store.Put(ctx, "x", bytes.NewReader([]byte("y")), 1, objectstore.PutOptions{})
	require.ErrorIs(t, err, context.Canceled)
	_, err = store.Put(ctx, "x", random(40<<20, 1), 40<<20, objectstore.PutOptions{})
	require.ErrorIs(t, err, context.Canceled)
	n := 0
	for _, err := range store.List(ctx, objectstore.ListOptions{}) {
		require.ErrorIs(t, err, context.Canceled)
		n++
	}
	assert.Equal(t, 1, n, "an error ends a listing")
	assert.Len(t, get(t, store, "x", objectstore.ReadOptions{}), 4<<20)
}
