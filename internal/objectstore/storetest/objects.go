package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"transship/internal/objectstore"
)

func (s suite) roundTrip(t *testing.T) {
	store := s.newStore(t)
	assert.NotEmpty(t, store.String())
	for i, size := range []int64{0, 1, 71, 4096, 4097, 70_000, 1<<20 + 1, 9 << 20} {
		key, content := fmt.Sprintf("blobs/%s-%d", names[i], size), randomBytes(t, size, byte(i))
		stored, err := store.Put(t.Context(), key, bytes.NewReader(content), size, objectstore.PutOptions{Mark: "run-1/a_b.c:d"})
		require.NoError(t, err, key)
		assert.Equal(t, sum(content), stored.MD5, key)
		for _, newest := range []bool{false, true} {
			object, err := store.Stat(t.Context(), key, objectstore.ReadOptions{Newest: newest})
			require.NoError(t, err, key)
			body, opened, err := store.Get(t.Context(), key, objectstore.ReadOptions{Newest: newest})
			require.NoError(t, err, key)
			got, err := io.ReadAll(body)
			require.NoError(t, err, key)
			require.NoError(t, body.Close())
			require.True(t, bytes.Equal(content, got), key)
			for _, said := range []objectstore.Object{stored, object, opened} {
				assert.Equal(t, key, said.Key)
				assert.Equal(t, size, said.Size, key)
				assert.Equal(t, stored.ETag, said.ETag, key)
				assert.Contains(t, []string{"run-1/a_b.c:d"}, said.Mark, key)
			}
			assert.WithinDuration(t, time.Now(), object.Modified, time.Minute)
			if !folders(store) || size <= 4096 {
				assert.Equal(t, stored.MD5, object.MD5, key)
			}
		}
	}
}

func (s suite) absent(t *testing.T) {
	store := s.newStore(t)
	put(t, store, "a/b", []byte("x"))
	for _, key := range []string{"nothing", "a", "a/b/c", "a/c"} {
		_, err := store.Stat(t.Context(), key, objectstore.ReadOptions{})
		require.ErrorIs(t, err, objectstore.ErrNotExist, key)
		assert.False(t, objectstore.IsFinal(err))
		_, _, err = store.Get(t.Context(), key, objectstore.ReadOptions{Newest: true})
		require.ErrorIs(t, err, objectstore.ErrNotExist, key)
		require.NoError(t, store.Delete(t.Context(), key), key)
	}
	assert.Equal(t, []string{"a/b"}, keys(t, store.List(t.Context(), objectstore.ListOptions{})))
	require.NoError(t, store.Delete(t.Context(), "a/b"))
	_, err := store.Stat(t.Context(), "a/b", objectstore.ReadOptions{})
	require.ErrorIs(t, err, objectstore.ErrNotExist)
	assert.Empty(t, keys(t, store.List(t.Context(), objectstore.ListOptions{})))
}

func (s suite) overwrite(t *testing.T) {
	store := s.newStore(t)
	_, err := store.Put(t.Context(), "tag", bytes.NewReader([]byte("one")), 3, objectstore.PutOptions{Mark: "mark"})
	require.NoError(t, err)
	put(t, store, "tag", []byte("three"))
	assert.Equal(t, "three", string(get(t, store, "tag", objectstore.ReadOptions{Newest: true})))
	object, err := store.Stat(t.Context(), "tag", objectstore.ReadOptions{})
	require.NoError(t, err)
	assert.Empty(t, object.Mark, "the mark of what was replaced")
	assert.Equal(t, int64(5), object.Size)
}

func (s suite) ranges(t *testing.T) {
	store := s.newStore(t)
	content := randomBytes(t, 100_000, 1)
	put(t, store, "x", content)
	for _, r := range []struct{ offset, length, from, to int64 }{
		{0, 0, 0, 100_000}, {0, 1, 0, 1}, {1, 0, 1, 100_000}, {99_999, 0, 99_999, 100_000}, {500, 1000, 500, 1500}, {99_000, 5000, 99_000, 100_000}, {100_000, 0, 0, 0}, {200_000, 5, 0, 0},
	} {
		o := objectstore.ReadOptions{Offset: r.offset, Length: r.length}
		body, object, err := store.Get(t.Context(), "x", o)
		require.NoError(t, err, "%+v", r)
		got, err := io.ReadAll(body)
		require.NoError(t, err, "%+v", r)
		require.NoError(t, body.Close())
		assert.True(t, bytes.Equal(content[r.from:r.to], got), "%+v", r)
		assert.Equal(t, int64(100_000), object.Size, "the whole size, %+v", r)
	}
}

var errBody = errors.New("the digest does not match")

// badBodies are those that a store must not take, for an announced size.
func badBodies(size int64) map[string]func() io.Reader {
	whole := func() io.Reader { return random(size, 7) }
	failing := iotest.ErrReader(errBody)
	return map[string]func() io.Reader{
		"short":                         func() io.Reader { return random(size-1, 7) },
		"long":                          func() io.Reader { return random(size+1, 7) },
		"much longer":                   func() io.Reader { return random(3*size, 7) },
		"empty":                         func() io.Reader { return random(0, 7) },
		"error at once":                 func() io.Reader { return failing },
		"error in the middle":           func() io.Reader { return io.MultiReader(random(size/2, 7), failing) },
		"error after the last byte":     func() io.Reader { return io.MultiReader(whole(), failing) },
		"error with the last byte":      func() io.Reader { return iotest.DataErrReader(io.MultiReader(whole(), failing)) },
		"error once, with the last":     func() io.Reader { return forgetful(size) },
		"timeout that the body reports": func() io.Reader { return iotest.TimeoutReader(whole()) },
	}
}

// forgetful gives all bytes and an error at once, and then claims to have ended well.
func forgetful(size int64) io.Reader {
	inner, left := random(size, 7), size
	return readerFunc(func(p []byte) (int, error) {
		if left == 0 {
			return 0, io.EOF
		}
		n, _ := inner.Read(p)
		if left -= int64(n); left == 0 {
			return n, errBody
		}
		return n, nil
	})
}

func (s suite) badBodies(t *testing.T) { refuses(t, s.newStore(t), 5000) }

func (s suite) badLargeBodies(t *testing.T) {
	store := s.newStore(t)
	refuses(t, store, min(20<<20, largeSize(store)))
}

func refuses(t *testing.T, store objectstore.Store, size int64) {
	for name, body := range badBodies(size) {
		_, err := store.Put(t.Context(), "new", body(), size, objectstore.PutOptions{})
		require.Error(t, err, name)
		assert.False(t, objectstore.IsFinal(err), name)
		nothing(t, store, "new")
	}
	put(t, store, "x", []byte("what was there"))
	for name, body := range badBodies(size) {
		_, err := store.Put(t.Context(), "x", body(), size, objectstore.PutOptions{})
		require.Error(t, err, name)
		var short *objectstore.SizeError
		if !errors.As(err, &short) && !errors.Is(err, iotest.ErrTimeout) {
			require.ErrorIs(t, err, errBody, name)
		}
		require.Equal(t, "what was there", string(get(t, store, "x", objectstore.ReadOptions{})), name)
	}
}
