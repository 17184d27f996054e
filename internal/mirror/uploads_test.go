package mirror

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"transship/internal/objectstore"
	"transship/internal/routing"
)

func TestOpenUploadsAreThoseAtWorkSinceAMoment(t *testing.T) {
	w := newWorld()
	w.source.Tag("restricted/a", "v1", w.source.Image("restricted/a", nil, "layer"))
	w.source.Tag("restricted/b", "v1", w.source.Image("restricted/b", nil, "layer"))
	put := func(key string) {
		_, err := w.from.Put(t.Context(), key, strings.NewReader("x"), 1, objectstore.PutOptions{})
		require.NoError(t, err)
	}
	put("repositories/restricted/a/_uploads/abandoned/startedat")
	time.Sleep(20 * time.Millisecond)
	since := time.Now()
	time.Sleep(20 * time.Millisecond)
	put("repositories/restricted/a/_uploads/u1/startedat")
	put("repositories/restricted/a/_uploads/u1/data")
	put("repositories/restricted/b/_uploads/u2/data")
	put("repositories/other/c/_uploads/u3/data")
	open, err := OpenUploads(t.Context(), w.from, "restricted", since)
	require.NoError(t, err)
	require.Equal(t, []routing.Upload{{Repository: "restricted/a", Session: "u1"}, {Repository: "restricted/b", Session: "u2"}}, open)
}
