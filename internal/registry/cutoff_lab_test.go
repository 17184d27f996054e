//go:build lab

package registry

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A registry on a disk that is killed while it writes a link leaves an empty one, and answers 500 from then on to who asks for it (found by chaos: a rollback to it waited for ever). What it had not
// acknowledged is pushed again by the client, or by us.
func TestRealLinksThatWereCutOffAreWrittenAgain(t *testing.T) {
	from := startReal(t, "old", true)
	d, image := from.image("restricted/a", "v1", randomBytes(1000))
	links := map[string]string{
		"layer":    "_layers/sha256/" + image.Layers[0].Digest.Hex,
		"revision": "_manifests/revisions/sha256/" + d.Digest.Hex,
		"tag":      "_manifests/tags/v1/current",
	}
	for name, path := range links {
		t.Run(name, func(t *testing.T) {
			to := startReal(t, "new", true)
			_, err := (&Copier{From: from.Registry, To: to.Registry}).Repository(t.Context(), "restricted/a", "")
			require.NoError(t, err)
			link := filepath.Join(to.root, "docker/registry/v2/repositories/restricted/a", path, "link")
			require.NoError(t, os.Truncate(link, 0))
			if name != "tag" { // the tag comes last
				require.NoError(t, os.RemoveAll(filepath.Join(to.root, "docker/registry/v2/repositories/restricted/a/_manifests/tags")))
			}
			if name == "layer" {
				require.NoError(t, os.RemoveAll(filepath.Join(to.root, "docker/registry/v2/repositories/restricted/a/_manifests")))
			}
			_, err = (&Copier{From: from.Registry, To: to.Registry}).Repository(t.Context(), "restricted/a", "")
			require.NoError(t, err)
			to.same(from, "restricted/a")
		})
	}
}
