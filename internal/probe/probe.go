// Package probe pushes a small synthetic image through an edge, as a client would, pulls it back and checks every byte.
package probe

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"transship/internal/registry"
)

// Tag is the tag that every probe pushes to, over the one before.
const Tag = "probe"

// layerSize is enough to notice truncation at any buffer size in between, and little enough to push every few seconds.
const layerSize = 256 << 10

// Result is a probe that succeeded.
type Result struct {
	Digest string        `json:"digest"`
	Push   time.Duration `json:"push_ns"`
	Pull   time.Duration `json:"pull_ns"`
}

// Run probes one edge: through pushes to the repository and pulls from it; direct, which may be nil, is the backend that must hold what was
// pushed.
func Run(ctx context.Context, through, direct *registry.Registry, repository string) (Result, error) {
	layer := make([]byte, layerSize)
	if _, err := rand.Read(layer); err != nil {
		return Result{}, err
	}
	config := fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"created":%q}`, time.Now().UTC().Format(time.RFC3339Nano))
	begin := time.Now()
	raw, digest, err := push(ctx, through, repository, config, layer)
	if err != nil {
		return Result{}, fmt.Errorf("probe: push to %s through %s: %w", repository, through.Name(), err)
	}
	result := Result{Digest: digest.String(), Push: time.Since(begin)}
	begin = time.Now()
	m, err := through.Manifest(ctx, repository, Tag)
	if err != nil {
		return Result{}, fmt.Errorf("probe: pull %s:%s through %s: %w", repository, Tag, through.Name(), err)
	}
	if !bytes.Equal(m.Raw, raw) {
		return Result{}, fmt.Errorf("probe: %s:%s through %s is %s just after %s was pushed", repository, Tag, through.Name(), m.Digest, digest)
	}
	for _, part := range []struct {
		name    string
		content []byte
	}{{"config", config}, {"layer", layer}} {
		if err := pull(ctx, through, repository, part.content); err != nil {
			return Result{}, fmt.Errorf("probe: pull the %s of %s:%s through %s: %w", part.name, repository, Tag, through.Name(), err)
		}
	}
	result.Pull = time.Since(begin)
	if direct != nil {
		if _, err := direct.Resolve(ctx, repository, digest.String()); err != nil {
			return Result{}, fmt.Errorf("probe: what was pushed through %s is not at backend %s, which should serve it: %w", through.Name(), direct.Name(), err)
		}
	}
	return result, nil
}

func push(ctx context.Context, r *registry.Registry, repository string, config, layer []byte) ([]byte, v1.Hash, error) {
	manifest := v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1}
	for _, content := range [][]byte{config, layer} {
		digest, err := r.PutBlob(ctx, repository, content)
		if err != nil {
			return nil, v1.Hash{}, err
		}
		d := v1.Descriptor{MediaType: types.OCIUncompressedLayer, Digest: digest, Size: int64(len(content))}
		if len(manifest.Config.Digest.Hex) == 0 {
			d.MediaType = types.OCIConfigJSON
			manifest.Config = d
		} else {
			manifest.Layers = append(manifest.Layers, d)
		}
	}
	raw, err := json.Marshal(manifest)
	if err != nil {
		return nil, v1.Hash{}, err
	}
	digest, _, err := v1.SHA256(bytes.NewReader(raw))
	if err != nil {
		return nil, v1.Hash{}, err
	}
	return raw, digest, r.PutManifest(ctx, repository, Tag, string(manifest.MediaType), raw)
}

func pull(ctx context.Context, r *registry.Registry, repository string, want []byte) error {
	digest, _, err := v1.SHA256(bytes.NewReader(want))
	if err != nil {
		return err
	}
	blob, err := r.Blob(ctx, repository, digest)
	if err != nil {
		return err
	}
	defer blob.Close()
	have, err := io.ReadAll(blob)
	if err != nil {
		return err
	}
	if !bytes.Equal(have, want) {
		return fmt.Errorf("%d bytes came back that are not the %d that were pushed", len(have), len(want))
	}
	return nil
}
