package seed

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/ncw/swift/v2"
	"golang.org/x/sync/errgroup"

	"transship/internal/distribution"
	"transship/internal/distribution/distributiontest"
)

// Lay writes the repositories of a set into a Swift container as Distribution's driver leaves them, with manifests and links whole, and layers and configs as Dynamic Large
// Objects: pushing thousands of tags through a registry on Swift takes hours. Layers are a few bytes; sizes, Special and Large of the set are not looked at.
func (s Set) Lay(ctx context.Context, c *swift.Connection, container, root string) error {
	if err := c.Authenticate(ctx); err != nil {
		return fmt.Errorf("lay images into %s: %w", container, err)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	put := func(key, content string, headers swift.Headers) {
		group.Go(func() error {
			if _, err := c.ObjectPut(ctx, container, key, strings.NewReader(content), headers == nil, "", "", headers); err != nil {
				return fmt.Errorf("lay %s into %s: %w", key, container, err)
			}
			return nil
		})
	}
	laid := map[string]bool{} // base layers and configs come up again
	tree := distributiontest.Tree{Put: func(key, content string) {
		if path := distribution.Parse(key); path.Kind != distribution.TagCurrent && laid[key] {
			return
		}
		laid[key] = true
		if distribution.Parse(key).Kind != distribution.Blob || strings.HasPrefix(content, `{"config"`) { // a manifest
			put(root+key, content, nil)
			return
		}
		random := make([]byte, 20)
		_, _ = rand.Read(random) // never fails
		segments := "segments/" + hex.EncodeToString(random)[:3] + "/" + hex.EncodeToString(random)[3:]
		put(segments+"/0000000000000001", content, nil)
		put(root+key, "", swift.Headers{"X-Object-Manifest": container + "/" + segments})
	}}
	for i := range s.Repositories {
		for tag := range s.Tags {
			d := tree.Image(s.Repository(i), nil, "base layer", fmt.Sprintf("layer %d of %d", tag, i), fmt.Sprintf("another layer %d of %d", tag, i))
			tree.Tag(s.Repository(i), fmt.Sprintf("v%d", tag), d)
		}
	}
	return group.Wait()
}
