// Package distribution knows how Docker Distribution keeps a registry in an object store: which key means what, and what manifests refer to.
// Keys are relative to the registry's root, the folder that holds "blobs" and "repositories". The layout is that of
// https://github.com/distribution/distribution/blob/v2.8.2/registry/storage/paths.go.
package distribution

import (
	"crypto/md5" //nolint:gosec // the checksum that object stores list, not a secret
	"encoding/hex"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Kind is what a key means.
type Kind int

// The kinds of keys.
const (
	// Unknown: nothing that Distribution writes.
	Unknown Kind = iota
	// Blob: the content of a layer, a config or a manifest.
	Blob
	// Layer: the link that makes a blob part of a repository.
	Layer
	// Revision: the link that makes a manifest part of a repository.
	Revision
	// Signature: the link to a signature of a schema 1 manifest.
	Signature
	// TagCurrent: the link to the manifest that a tag refers to.
	TagCurrent
	// TagIndex: the link to a manifest that a tag refers to, or once did.
	TagIndex
	// Upload: part of an upload session that has not ended.
	Upload
)

// Path is a key with its meaning.
type Path struct {
	Kind Kind
	// Repository that the key belongs to; empty for blobs.
	Repository string
	// Digest that the key names. For a Signature it is that of the signature, and Of that of its manifest. Empty for TagCurrent and Upload.
	Digest digest.Digest
	Of     digest.Digest
	// Tag of TagCurrent and TagIndex.
	Tag string
}

const repositories = "repositories/"

// Blobs is what the keys of all blobs begin with.
const Blobs = "blobs/"

// Under returns the prefix of the keys of every repository whose name begins with the path components of name; of every repository
// when it is empty.
func Under(name string) string {
	if name == "" {
		return repositories
	}
	return repositories + name + "/"
}

// Of returns the prefix of the keys that belong to a repository itself, and to none below it: those begin with a letter or digit, which repository
// names may, and "_" may not.
func Of(repository string) string { return repositories + repository + "/_" }

// Past returns the first key after all those that begin with Of(repository).
func Past(repository string) string { return repositories + repository + "/`" } // "`" follows "_"

// Key returns the key of a path; the inverse of Parse.
func (p Path) Key() string {
	hashed := func(d digest.Digest) string { return string(d.Algorithm()) + "/" + d.Encoded() }
	switch at := repositories + p.Repository; p.Kind {
	case Blob:
		return Blobs + string(p.Digest.Algorithm()) + "/" + p.Digest.Encoded()[:2] + "/" + p.Digest.Encoded() + "/data"
	case Layer:
		return at + "/_layers/" + hashed(p.Digest) + "/link"
	case Revision:
		return at + "/_manifests/revisions/" + hashed(p.Digest) + "/link"
	case Signature:
		return at + "/_manifests/revisions/" + hashed(p.Of) + "/signatures/" + hashed(p.Digest) + "/link"
	case TagCurrent:
		return at + "/_manifests/tags/" + p.Tag + "/current/link"
	case TagIndex:
		return at + "/_manifests/tags/" + p.Tag + "/index/" + hashed(p.Digest) + "/link"
	}
	return ""
}

// BlobKey returns where the content of a digest is.
func BlobKey(d digest.Digest) string { return Path{Kind: Blob, Digest: d}.Key() }

// Parse says what a key means. What Distribution does not write is Unknown, with the repository where one can be told.
func Parse(key string) Path {
	if rest, ok := strings.CutPrefix(key, Blobs); ok {
		return parseBlob(rest)
	}
	rest, ok := strings.CutPrefix(key, repositories)
	if !ok {
		return Path{}
	}
	repository, rest, ok := strings.Cut(rest, "/_")
	if !ok {
		return Path{}
	}
	p := parseOwn(strings.Split(rest, "/"))
	p.Repository = repository
	return p
}

// parseOwn parses what follows "/_" in a repository's keys.
func parseOwn(at []string) Path {
	link := at[len(at)-1] == "link"
	switch {
	case len(at) > 1 && at[0] == "uploads":
		return Path{Kind: Upload}
	case len(at) == 4 && at[0] == "layers" && link:
		return hashed(Path{Kind: Layer}, at[1], at[2])
	case len(at) < 3 || at[0] != "manifests" || !link:
		return Path{}
	case at[1] == "revisions" && len(at) == 5:
		return hashed(Path{Kind: Revision}, at[2], at[3])
	case at[1] == "revisions" && len(at) == 8 && at[4] == "signatures":
		of := hashed(Path{Kind: Signature}, at[2], at[3])
		if of.Kind == Unknown {
			return Path{}
		}
		return hashed(Path{Kind: Signature, Of: of.Digest}, at[5], at[6])
	case at[1] == "tags" && len(at) == 5 && at[3] == "current":
		return Path{Kind: TagCurrent, Tag: at[2]}
	case at[1] == "tags" && len(at) == 7 && at[3] == "index":
		return hashed(Path{Kind: TagIndex, Tag: at[2]}, at[4], at[5])
	}
	return Path{}
}

func parseBlob(rest string) Path {
	at := strings.Split(rest, "/")
	if len(at) != 4 || at[3] != "data" || len(at[2]) < 2 || at[1] != at[2][:2] {
		return Path{}
	}
	return hashed(Path{Kind: Blob}, at[0], at[2])
}

// hashed gives a path its digest, or makes it Unknown when there is no such digest.
func hashed(p Path, algorithm, encoded string) Path {
	if !isHash(digest.Algorithm(algorithm), encoded) {
		return Path{}
	}
	p.Digest = digest.NewDigestFromEncoded(digest.Algorithm(algorithm), encoded)
	return p
}

// isHash is digest.Digest.Validate without its regular expressions, which took most of the time of a listing's join.
func isHash(algorithm digest.Algorithm, encoded string) bool {
	if !algorithm.Available() || len(encoded) != 2*algorithm.Size() {
		return false
	}
	for i := range len(encoded) {
		if c := encoded[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// LinkMD5 returns the MD5 of the content of a link to d, in hexadecimal, as listings show it: what a link says is known without reading it.
func LinkMD5(d digest.Digest) string {
	sum := md5.Sum([]byte(d)) //nolint:gosec // see the import
	return hex.EncodeToString(sum[:])
}

// Tags returns the prefix of the keys of all tags of a repository.
func Tags(repository string) string { return repositories + repository + "/_manifests/tags/" }

// TagHistory returns the prefix of the keys of every manifest that a tag refers to, or once did.
func TagHistory(repository, tag string) string { return Tags(repository) + tag + "/index/" }

// Revisions returns the prefix of the keys of all manifests of a repository.
func Revisions(repository string) string { return repositories + repository + "/_manifests/revisions/" }

// Layers returns the prefix of the keys of all layers of a repository.
func Layers(repository string) string { return repositories + repository + "/_layers/" }
