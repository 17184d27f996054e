// Package distributiontest writes registries into stores as Docker Distribution does, for tests that need a tree and no registry.
package distributiontest

import (
	"encoding/json"
	"fmt"

	"github.com/opencontainers/go-digest"

	"transship/internal/distribution"
)

// Media types of what a Tree holds.
const (
	ManifestType = "application/vnd.oci.image.manifest.v1+json"
	IndexType    = "application/vnd.oci.image.index.v1+json"
	LayerType    = "application/vnd.oci.image.layer.v1.tar+gzip"
	ConfigType   = "application/vnd.oci.image.config.v1+json"
)

// Tree is a registry's tree. Put stores content under a key.
type Tree struct {
	Put func(key, content string)
}

// Descriptor is how a manifest names something.
type Descriptor struct {
	MediaType string        `json:"mediaType"`
	Digest    digest.Digest `json:"digest"`
	Size      int           `json:"size"`
}

// Blob stores content in a repository, with its link.
func (t Tree) Blob(repository, content string) digest.Digest {
	d := digest.FromString(content)
	t.Put(distribution.BlobKey(d), content)
	t.Link(distribution.Path{Kind: distribution.Layer, Repository: repository, Digest: d})
	return d
}

// Link writes a link to the digest of a path.
func (t Tree) Link(p distribution.Path) { t.Put(p.Key(), p.Digest.String()) }

// Manifest stores a manifest of any kind, with its link.
func (t Tree) Manifest(repository string, of any) digest.Digest {
	raw, err := json.Marshal(of)
	if err != nil {
		panic(err) // a test's own mistake
	}
	return t.RawManifest(repository, raw)
}

// RawManifest stores the text of a manifest, with its link.
func (t Tree) RawManifest(repository string, raw []byte) digest.Digest {
	d := digest.FromBytes(raw)
	t.Put(distribution.BlobKey(d), string(raw))
	t.Link(distribution.Path{Kind: distribution.Revision, Repository: repository, Digest: d})
	return d
}

// Image stores an image with a config and layers of the given content. More fields of the manifest, such as a subject, are taken from more.
func (t Tree) Image(repository string, more map[string]any, layers ...string) digest.Digest {
	config := fmt.Sprintf(`{"of":%q,"layers":%d}`, repository, len(layers))
	of := map[string]any{
		"schemaVersion": 2, "mediaType": ManifestType,
		"config": Descriptor{ConfigType, t.Blob(repository, config), len(config)},
	}
	var list []Descriptor
	for _, layer := range layers {
		list = append(list, Descriptor{LayerType, t.Blob(repository, layer), len(layer)})
	}
	of["layers"] = list
	for key, value := range more {
		of[key] = value
	}
	return t.Manifest(repository, of)
}

// Index stores an index of manifests.
func (t Tree) Index(repository string, manifests ...digest.Digest) digest.Digest {
	var list []Descriptor
	for _, d := range manifests {
		list = append(list, Descriptor{ManifestType, d, 1})
	}
	return t.Manifest(repository, map[string]any{"schemaVersion": 2, "mediaType": IndexType, "manifests": list})
}

// Tag has a tag refer to a manifest, in addition to those that it referred to before.
func (t Tree) Tag(repository, tag string, d digest.Digest) {
	t.Link(distribution.Path{Kind: distribution.TagIndex, Repository: repository, Tag: tag, Digest: d})
	t.Put(distribution.Path{Kind: distribution.TagCurrent, Repository: repository, Tag: tag}.Key(), d.String())
}
