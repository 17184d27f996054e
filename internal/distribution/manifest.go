package distribution

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
)

// MaxManifest is the size in bytes above which nothing is read as a manifest: what Distribution accepts at most.
const MaxManifest = 4 << 20

// Reference is something that a manifest needs.
type Reference struct {
	Digest digest.Digest
	// Size in bytes; -1 where the manifest does not say it (schema 1).
	Size int64
}

// Manifest is what a manifest refers to.
type Manifest struct {
	// Blobs are config and layers, each digest once, without layers that registries do not keep.
	Blobs []Reference
	// Manifests are those of an index.
	Manifests []Reference
	// Subject is the manifest that this one is about, which need not exist; empty when there is none.
	Subject digest.Digest
}

// descriptor has its digest unparsed: go-containerregistry's knows no sha512.
type descriptor struct {
	MediaType types.MediaType `json:"mediaType"`
	Digest    digest.Digest   `json:"digest"`
	Size      int64           `json:"size"`
	URLs      []string        `json:"urls"`
}

// foreign reports whether registries keep only a reference to the blob
// (https://github.com/opencontainers/image-spec/blob/v1.0.2/layer.md#non-distributable-layers).
func (d descriptor) foreign() bool { return len(d.URLs) > 0 || !d.MediaType.IsDistributable() }

// ParseManifest reads what a manifest of any kind refers to: OCI and Docker manifests, indexes, artifacts, and Docker schema 1, signed or not.
func ParseManifest(raw []byte) (Manifest, error) {
	var parsed struct {
		SchemaVersion int          `json:"schemaVersion"`
		Config        *descriptor  `json:"config"`
		Layers        []descriptor `json:"layers"`
		Blobs         []descriptor `json:"blobs"`
		Manifests     []descriptor `json:"manifests"`
		About         *descriptor  `json:"subject"`
		FSLayers      []struct {
			BlobSum digest.Digest `json:"blobSum"`
		} `json:"fsLayers"`
	}
	if err := json.Unmarshal(raw, &parsed); err != nil {
		return Manifest{}, fmt.Errorf("no manifest: %w", err)
	}
	if parsed.SchemaVersion == 0 && parsed.Config == nil && parsed.Manifests == nil && parsed.Blobs == nil {
		return Manifest{}, errors.New("no manifest: it has no schemaVersion, config, layers or manifests")
	}
	var m Manifest
	seen := map[digest.Digest]bool{}
	add := func(to *[]Reference, d digest.Digest, size int64) error {
		if err := d.Validate(); err != nil {
			return fmt.Errorf("no manifest: it refers to %q: %w", d, err)
		}
		if !seen[d] {
			seen[d] = true
			*to = append(*to, Reference{Digest: d, Size: size})
		}
		return nil
	}
	if parsed.Config != nil {
		if err := add(&m.Blobs, parsed.Config.Digest, parsed.Config.Size); err != nil {
			return m, err
		}
	}
	for _, d := range append(parsed.Layers, parsed.Blobs...) {
		if d.foreign() {
			continue
		}
		if err := add(&m.Blobs, d.Digest, d.Size); err != nil {
			return m, err
		}
	}
	for _, l := range parsed.FSLayers {
		if err := add(&m.Blobs, l.BlobSum, -1); err != nil {
			return m, err
		}
	}
	for _, d := range parsed.Manifests {
		if err := add(&m.Manifests, d.Digest, d.Size); err != nil {
			return m, err
		}
	}
	if parsed.About != nil && parsed.About.Digest.Validate() == nil {
		m.Subject = parsed.About.Digest
	}
	return m, nil
}
