package seed

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/ncw/swift/v2"
	"golang.org/x/sync/errgroup"

	"transship/internal/distribution"
	"transship/internal/distribution/distributiontest"
)

// Lay writes the repositories of a set into a Swift container as Distribution's driver leaves them, with manifests and links whole, and layers and configs as Dynamic Large
// Objects: pushing thousands of tags through a registry on Swift takes hours. Special and Large of the set are not looked at.
func (s Set) Lay(ctx context.Context, c *swift.Connection, container, root string) error {
	if err := c.Authenticate(ctx); err != nil {
		return fmt.Errorf("lay images into %s: %w", container, err)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	put := func(key, content string, headers swift.Headers) {
		group.Go(func() error {
			var err error
			for try := range 5 { // a Swift with one container server answers 503 when it has too much to do
				time.Sleep(time.Duration(try) * time.Second)
				if _, err = c.ObjectPut(ctx, container, key, strings.NewReader(content), headers == nil, "", "", headers); err == nil {
					return nil
				}
			}
			return fmt.Errorf("lay %s into %s: %w", key, container, err)
		})
	}
	laid := map[string]bool{} // base layers come up again
	segmented := distributiontest.Tree{Put: func(key, content string) {
		switch {
		case laid[key]:
			return
		case distribution.Parse(key).Kind != distribution.Blob:
			put(root+key, content, nil)
		default:
			random := make([]byte, 20)
			_, _ = rand.Read(random) // never fails
			segments := "segments/" + hex.EncodeToString(random)[:3] + "/" + hex.EncodeToString(random)[3:]
			put(segments+"/0000000000000001", content, nil)
			put(root+key, "", swift.Headers{"X-Object-Manifest": container + "/" + segments})
		}
		laid[key] = true
	}}
	whole := distributiontest.Tree{Put: func(key, content string) { put(root+key, content, nil) }}
	if err := s.lay(segmented, whole); err != nil {
		return err
	}
	return group.Wait()
}

// LayFiles writes the repositories of a set below a folder as Distribution's filesystem driver leaves them.
func (s Set) LayFiles(root string) error {
	var failed error
	laid := map[string]bool{} // folders
	tree := distributiontest.Tree{Put: func(key, content string) {
		path := filepath.Join(root, key)
		if dir := filepath.Dir(path); !laid[dir] {
			laid[dir] = true
			failed = errors.Join(failed, os.MkdirAll(dir, 0o755))
		}
		failed = errors.Join(failed, os.WriteFile(path, []byte(content), 0o644))
	}}
	if err := s.lay(tree, tree); err != nil {
		return err
	}
	return failed
}

// lay gives the blobs of all images to one tree, and their manifests and links to another.
func (s Set) lay(blobs, whole distributiontest.Tree) error {
	for i := range s.Repositories {
		base, err := s.layer(s.BaseSize, -2, i%3)
		if err != nil {
			return err
		}
		for tag := range s.Tags {
			img, err := s.image(base, i, tag)
			if err != nil {
				return err
			}
			if err := layImage(blobs, whole, s.Repository(i), fmt.Sprintf("v%d", tag), img); err != nil {
				return err
			}
		}
	}
	return nil
}

func layImage(segmented, whole distributiontest.Tree, repository, tag string, img v1.Image) error {
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for _, layer := range layers {
		content, err := layer.Compressed()
		if err != nil {
			return err
		}
		raw, err := io.ReadAll(content)
		if err != nil {
			return err
		}
		segmented.Blob(repository, string(raw))
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	segmented.Blob(repository, string(config))
	manifest, err := img.RawManifest()
	if err != nil {
		return err
	}
	whole.Tag(repository, tag, whole.RawManifest(repository, manifest))
	return nil
}
