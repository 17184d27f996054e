package storetest

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/binary"
	"encoding/hex"
	"io"
	"iter"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"transship/internal/objectstore"
)

// Run is the conformance suite: what every store does alike. newStore gives an empty store at each call; one with small pages is best, for then every
// listing has several.
func Run(t *testing.T, newStore func(t *testing.T) objectstore.Store) {
	s := suite{newStore}
	t.Run("List", s.list)
	t.Run("Directories", s.directories)
	t.Run("Pages", s.pages)
	t.Run("RoundTrip", s.roundTrip)
	t.Run("Absent", s.absent)
	t.Run("Overwrite", s.overwrite)
	t.Run("Ranges", s.ranges)
	t.Run("BadBodies", s.badBodies)
	t.Run("BadLargeBodies", s.badLargeBodies)
	t.Run("Large", s.large)
	t.Run("LargeTogether", s.largeTogether)
	t.Run("LargeAgain", s.largeAgain)
	t.Run("Together", s.together)
	t.Run("Cancelled", s.cancelled)
}

type suite struct {
	newStore func(t *testing.T) objectstore.Store
}

// folders reports whether a store cannot hold both "a" and "a/b".
func folders(store objectstore.Store) bool {
	_, is := store.(*objectstore.Filesystem)
	return is
}

// random is content that is the same for the same size and seed, and no two mebibytes of which are alike.
func random(size int64, seed byte) io.Reader {
	return io.LimitReader(&blocks{block: block(seed)}, size)
}

// blocks repeats a block, with its number at its beginning: as good as random for what is tested, and no work even for the race detector.
type blocks struct {
	block  []byte
	number uint64
	rest   []byte
}

// Read implements io.Reader.
func (b *blocks) Read(p []byte) (int, error) {
	if len(b.rest) == 0 {
		binary.LittleEndian.PutUint64(b.block, b.number)
		b.number++
		b.rest = b.block
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

func block(seed byte) []byte {
	content := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(content) // never fails
	return content
}

func randomBytes(t *testing.T, size int64, seed byte) []byte {
	t.Helper()
	content := make([]byte, size)
	_, err := io.ReadFull(random(size, seed), content)
	require.NoError(t, err)
	return content
}

func sum(content []byte) string {
	s := md5.Sum(content)
	return hex.EncodeToString(s[:])
}

func put(t *testing.T, store objectstore.Store, key string, content []byte) objectstore.Object {
	t.Helper()
	object, err := store.Put(t.Context(), key, bytes.NewReader(content), int64(len(content)), objectstore.PutOptions{})
	require.NoError(t, err, key)
	return object
}

func get(t *testing.T, store objectstore.Store, key string, o objectstore.ReadOptions) []byte {
	t.Helper()
	body, _, err := store.Get(t.Context(), key, o)
	require.NoError(t, err, key)
	content, err := io.ReadAll(body)
	require.NoError(t, err, key)
	require.NoError(t, body.Close(), key)
	return content
}

func all[T any](t *testing.T, listing iter.Seq2[T, error]) []T {
	t.Helper()
	found := []T{}
	for item, err := range listing {
		require.NoError(t, err)
		found = append(found, item)
	}
	return found
}

func keys(t *testing.T, listing iter.Seq2[objectstore.Object, error]) []string {
	t.Helper()
	found := []string{}
	for _, object := range all(t, listing) {
		found = append(found, object.Key)
	}
	return found
}

// nothing checks that a failed Put left nothing: neither under its key nor of what large objects consist of.
func nothing(t *testing.T, store objectstore.Store, key string) {
	t.Helper()
	_, err := store.Stat(t.Context(), key, objectstore.ReadOptions{})
	require.ErrorIs(t, err, objectstore.ErrNotExist)
	assert.Empty(t, keys(t, store.List(t.Context(), objectstore.ListOptions{})))
	if s, ok := store.(objectstore.Segmented); ok {
		assert.Empty(t, keys(t, s.AllSegments(t.Context())), "segments")
	}
}

// cancelledAfter gives a context and a body that ends it when so many bytes were read.
func cancelledAfter(ctx context.Context, body io.Reader, n int64) (context.Context, io.Reader) {
	ctx, cancel := context.WithCancel(ctx)
	return ctx, io.MultiReader(io.LimitReader(body, n), readerFunc(func([]byte) (int, error) {
		cancel()
		return 0, ctx.Err()
	}))
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
