package mirror

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Promise 6: a cursor is behind whatever failed. It was once moved past a repository whose last link could not be written, between the end of that work and the news of its failure: the
// tag stayed away until the next listing of everything.
func TestTheCursorStaysBehindWhatFailed(t *testing.T) {
	refused := errors.New("refused")
	for range 500 {
		w := newWorld()
		for _, repository := range []string{"restricted/a", "restricted/b"} {
			w.source.Tag(repository, "v1", w.source.Image(repository, nil, "layer"))
		}
		w.to.Fault = func(op, key string) error {
			if op == "put" && strings.HasPrefix(key, "repositories/restricted/a/_manifests/tags/v1/current") {
				return refused
			}
			return nil
		}
		at, err := w.mirror().Run(t.Context(), everything, Cursor{})
		require.ErrorIs(t, err, refused)
		require.Empty(t, at.After)
	}
}
