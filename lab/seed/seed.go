// Package seed fills registries with images for tests and benchmarks: many small ones, few large ones, and what simple copies forget.
package seed

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"
)

// Set is what a registry is filled with.
type Set struct {
	Prefix string
	// Repositories, each with Tags tags. Every tag has Layers layers of its own of LayerSize bytes, on one base layer of BaseSize bytes that a repository's tags share with
	// those of every third other.
	Repositories, Tags, Layers, LayerSize, BaseSize int
	// Special adds an index, an image without a tag, and an artifact that refers to an image, to every repository.
	Special bool
	// Large adds a repository "large" with one tag for each layer of so many bytes.
	Large []int
	// Seed makes the content different from that of other sets.
	Seed uint64
}

// Repository is the name of the i-th repository.
func (s Set) Repository(i int) string { return fmt.Sprintf("%s/app-%03d", s.Prefix, i) }

// Names are all repositories.
func (s Set) Names() []string {
	var names []string
	for i := range s.Repositories {
		names = append(names, s.Repository(i))
	}
	if len(s.Large) > 0 {
		names = append(names, s.Prefix+"/large")
	}
	return names
}

// layer is a tar file of noise, which gzip makes no smaller.
func (s Set) layer(size int, of ...int) (v1.Layer, error) {
	seed := s.Seed
	for _, n := range of {
		seed = seed*1_000_003 + uint64(n) + 1 //nolint:gosec // a seed
	}
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	var packed bytes.Buffer
	packed.Grow(size + size/1000 + 4096) // else growing takes several times the size, of which there are layers of a gigabyte
	zipped, err := gzip.NewWriterLevel(&packed, gzip.NoCompression)
	if err != nil {
		return nil, err
	}
	archive := tar.NewWriter(zipped)
	if err := archive.WriteHeader(&tar.Header{Name: "noise", Mode: 0o644, Size: int64(size)}); err != nil {
		return nil, err
	}
	if _, err := io.CopyN(archive, rand.NewChaCha8(key), int64(size)); err != nil {
		return nil, err
	}
	if err := errors.Join(archive.Close(), zipped.Close()); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(packed.Bytes())), nil }, tarball.WithMediaType(types.OCILayer))
}

// Push pushes the set to the registry at host, jobs images at once.
func (s Set) Push(ctx context.Context, host string, jobs int) error {
	pusher, err := remote.NewPusher(remote.WithContext(ctx), remote.WithJobs(4))
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(jobs)
	push := func(repository, reference string, what remote.Taggable) error {
		separator := ":"
		if len(reference) > 7 && reference[:7] == "sha256:" {
			separator = "@"
		}
		ref, err := name.ParseReference(host+"/"+repository+separator+reference, name.Insecure)
		if err != nil {
			return err
		}
		if err := pusher.Push(ctx, ref, what); err != nil {
			return fmt.Errorf("push %s: %w", ref, err)
		}
		return nil
	}
	for i := range s.Repositories {
		base, err := s.layer(s.BaseSize, -2, i%3)
		if err != nil {
			return err
		}
		for tag := range s.Tags {
			group.Go(func() error {
				img, err := s.image(base, i, tag)
				if err != nil {
					return err
				}
				return push(s.Repository(i), fmt.Sprintf("v%d", tag), img)
			})
		}
		if s.Special {
			group.Go(func() error { return s.special(base, i, push) })
		}
	}
	for i, size := range s.Large {
		group.Go(func() error {
			layer, err := s.layer(size, -3, i)
			if err != nil {
				return err
			}
			img, err := mutate.AppendLayers(oci(), layer)
			if err != nil {
				return err
			}
			return push(s.Prefix+"/large", fmt.Sprintf("v%d", i), img)
		})
	}
	return group.Wait()
}

func oci() v1.Image {
	return mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
}

func (s Set) image(base v1.Layer, of ...int) (v1.Image, error) {
	layers := []v1.Layer{base}
	for i := range s.Layers {
		layer, err := s.layer(s.LayerSize, append(of, i)...)
		if err != nil {
			return nil, err
		}
		layers = append(layers, layer)
	}
	return mutate.AppendLayers(oci(), layers...)
}

// forPlatform says in the config what an image is for.
func forPlatform(img v1.Image, architecture string) (v1.Image, error) {
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", architecture
	return mutate.ConfigFile(img, config)
}

// One is an image that no other Seed makes.
func (s Set) One() (v1.Image, error) {
	base, err := s.layer(s.BaseSize, -4)
	if err != nil {
		return nil, err
	}
	return s.image(base, -40)
}

func (s Set) special(base v1.Layer, i int, push func(string, string, remote.Taggable) error) error {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for n, architecture := range []string{"amd64", "arm64"} {
		img, err := s.image(base, i, -10-n)
		if err != nil {
			return err
		}
		if img, err = forPlatform(img, architecture); err != nil {
			return err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: architecture}}})
	}
	if err := push(s.Repository(i), "multi", index); err != nil {
		return err
	}
	untagged, err := s.image(base, i, -20)
	if err != nil {
		return err
	}
	digest, err := untagged.Digest()
	if err != nil {
		return err
	}
	if err := push(s.Repository(i), digest.String(), untagged); err != nil {
		return err
	}
	subject, err := partial.Descriptor(untagged)
	if err != nil {
		return err
	}
	plain, err := s.image(base, i, -30)
	if err != nil {
		return err
	}
	signature := mutate.Subject(plain, *subject).(v1.Image)
	return push(s.Repository(i), "signature", signature)
}
