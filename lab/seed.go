package lab

import (
	"context"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Amount is how much a seed pushes.
type Amount struct {
	// Repositories, each with Tags tags on shared base layers.
	Repositories, Tags int
	// Huge is the size of one large layer in bytes; 0 is none.
	Huge int
	// Special pushes an index with two platforms and an artifact that refers to an image.
	Special bool
}

// Realistic is what the demo moves: 6 repositories with 66 tags and more, shared base layers, one layer of 200 MB.
var Realistic = Amount{Repositories: 6, Tags: 11, Huge: 200 << 20, Special: true}

// Small is enough to watch a migration.
var Small = Amount{Repositories: 2, Tags: 4, Special: true}

// Seed pushes images through the edge.
func (c *Clients) Seed(ctx context.Context, a Amount) error {
	bases := []v1.Layer{Layer(2 << 20), Layer(512 << 10)}
	var last v1.Image
	for r := range a.Repositories {
		base := With(mutate.MediaType(empty.Image, types.OCIManifestSchema1), bases[r%len(bases)])
		for t := range a.Tags {
			last = With(base, Layer(8<<10+r*1024+t*512))
			if err := c.PushImage(ctx, fmt.Sprintf("%s/app-%d:v%d", c.prefix, r, t), last); err != nil {
				return err
			}
		}
	}
	if a.Special {
		if err := c.special(ctx, last); err != nil {
			return err
		}
	}
	if a.Huge > 0 {
		return c.PushImage(ctx, c.prefix+"/app-0:huge", With(last, Layer(a.Huge)))
	}
	return nil
}

// special pushes what simple copies forget: an index with platforms, and an artifact that refers to an image.
func (c *Clients) special(ctx context.Context, img v1.Image) error {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, architecture := range []string{"amd64", "arm64"} {
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: Image(2, 64<<10), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: architecture}},
		})
	}
	if err := c.PushIndex(ctx, c.prefix+"/app-1:multi", index); err != nil {
		return err
	}
	repository := c.prefix + "/app-1"
	if err := c.PushImage(ctx, repository+":signed", img); err != nil {
		return err
	}
	subject, err := partial.Descriptor(img)
	if err != nil {
		return err
	}
	signature := mutate.Subject(mutate.MediaType(Image(1, 512), types.OCIManifestSchema1), *subject).(v1.Image)
	digest, err := signature.Digest()
	if err != nil {
		return err
	}
	// Distribution 2.8 has no referrers API: go-containerregistry keeps the list of referrers under a tag made of the subject's digest.
	return c.PushImage(ctx, repository+":signature-"+digest.Hex[:12], signature)
}
