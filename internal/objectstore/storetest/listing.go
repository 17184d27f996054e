package storetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"transship/internal/objectstore"
)

// names are keys whose order as bytes is not that of folders, of locales or of percent-encoding.
var names = []string{"a-b", "a.b", "a/b", "a/c/d", "a/c-d", "ab", "b/_layers/x", "b/_manifests/y", "b/Upper", "b/\u00fc", "b/\u65e5\u672c", "b/\U0001f433", "c d+e%2Ff&g<h>'\"", "z~"}

func (s suite) list(t *testing.T) {
	store := s.newStore(t)
	there := slices.Clone(names)
	if !folders(store) {
		there = append(there, "a")
	}
	slices.Sort(there)
	begun := time.Now()
	for _, key := range there {
		put(t, store, key, []byte(key))
	}
	for _, object := range all(t, store.List(t.Context(), objectstore.ListOptions{})) {
		assert.Equal(t, int64(len(object.Key)), object.Size, object.Key)
		assert.Equal(t, sum([]byte(object.Key)), object.MD5, object.Key)
		assert.NotEmpty(t, object.ETag, object.Key)
		assert.WithinDuration(t, begun, object.Modified, time.Minute, object.Key)
		assert.Empty(t, object.Mark)
		assert.Equal(t, objectstore.Whole, object.Parts)
	}
	for _, o := range combinations(there) {
		require.Equal(t, expected(there, o), keys(t, store.List(t.Context(), o)), "%+v", o)
	}
	for range store.List(t.Context(), objectstore.ListOptions{}) {
		break // whoever stops early gets no more
	}
}

func combinations(there []string) (all []objectstore.ListOptions) {
	marks := append([]string{"", "a/", "a/c", "b0", "zz"}, there[1], there[4], there[len(there)-1])
	for _, prefix := range []string{"", "a", "a/", "a/c", "b/_", "nothing/", "z"} {
		for _, after := range marks {
			for _, before := range marks {
				all = append(all, objectstore.ListOptions{Prefix: prefix, After: after, Before: before, Limit: len(all) % 4})
			}
		}
	}
	return all
}

func expected(there []string, o objectstore.ListOptions) []string {
	found := []string{}
	for _, key := range there {
		if strings.HasPrefix(key, o.Prefix) && key > o.After && (o.Before == "" || key < o.Before) && (o.Limit == 0 || len(found) < o.Limit) {
			found = append(found, key)
		}
	}
	return found
}

func (s suite) directories(t *testing.T) {
	store := s.newStore(t)
	assert.Empty(t, all(t, store.Directories(t.Context(), "")))
	for _, key := range []string{"a-b/x", "a/x", "a/y/z", "a.b/x", "b", "c/d/e/f", "c/d/g", "c/h", "c/i/j", "c/zzz/y"} {
		put(t, store, key, []byte("x"))
	}
	for i := range 20 {
		put(t, store, fmt.Sprintf("many/%02d/a", i), nil)
		put(t, store, fmt.Sprintf("many/%02d/~", i), nil)
	}
	for prefix, below := range map[string][]string{
		"": {"a-b/", "a.b/", "a/", "c/", "many/"}, "a/": {"a/y/"}, "c/": {"c/d/", "c/i/", "c/zzz/"}, "c/d/": {"c/d/e/"}, "b": {}, "nothing/": {}, "a-b/": {},
	} {
		assert.Equal(t, below, all(t, store.Directories(t.Context(), prefix)), prefix)
	}
	assert.Len(t, all(t, store.Directories(t.Context(), "many/")), 20)
	require.NoError(t, store.Delete(t.Context(), "c/i/j"))
	assert.Equal(t, []string{"c/d/", "c/zzz/"}, all(t, store.Directories(t.Context(), "c/")), "a directory that holds nothing any more")
}

// pages has numbers of objects around multiples of any page size.
func (s suite) pages(t *testing.T) {
	store := s.newStore(t)
	var there []string
	for i := range 31 {
		there = append(there, fmt.Sprintf("k/%03d", i))
		put(t, store, there[i], nil)
		if i > 10 {
			require.Equal(t, there, keys(t, store.List(t.Context(), objectstore.ListOptions{Prefix: "k/"})))
		}
	}
	for limit := 1; limit < 33; limit++ {
		require.Equal(t, there[:min(limit, 31)], keys(t, store.List(t.Context(), objectstore.ListOptions{Limit: limit})))
	}
}
