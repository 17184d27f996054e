// Package audit looks whether an object store holds what the registry on it needs: every link, every manifest, every blob, in the right size and, when asked,
// with the right bytes. Each fault is named with the tags that it affects and how to cure it, and can be healed from a good copy elsewhere.
//
// The faults are those that were seen on Swift under Docker Distribution: blobs of the right length with other bytes, of zero bytes, or with segments gone; and
// what crashes between two writes leave behind.
package audit

import (
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Category says what is wrong.
type Category string

// The categories.
const (
	// BlobMissing: something refers to a blob that the store does not have.
	BlobMissing Category = "blob-missing"
	// BlobEmpty: a blob of zero bytes.
	BlobEmpty Category = "blob-empty"
	// BlobShort and BlobLong: another size than the manifests say.
	BlobShort Category = "blob-short"
	BlobLong  Category = "blob-long"
	// BlobCorrupt: its bytes do not hash to its name. Blobs of layers are read when the audit is deep, manifests always.
	BlobCorrupt Category = "blob-corrupt"
	// SegmentsMissing: a large object of Swift that lacks segments. One that is still listed shows only when the audit is deep.
	SegmentsMissing Category = "segments-missing"
	// LinkMissing: a tag has a history, and no current link.
	LinkMissing Category = "link-missing"
	// LinkEmpty, LinkBad and LinkWrong: a link of zero bytes; one that says no digest; one that says another digest than its path.
	LinkEmpty Category = "link-empty"
	LinkBad   Category = "link-not-a-digest"
	LinkWrong Category = "link-other-digest"
	// LayerLinkMissing: a manifest uses a layer that the repository has no link to, so that pulls of it fail.
	LayerLinkMissing Category = "layer-link-missing"
	// TagManifestMissing: a tag refers to a manifest that the repository does not have.
	TagManifestMissing Category = "tag-manifest-missing"
	// ManifestPartMissing: a manifest needs a layer, a config or a manifest that is missing.
	ManifestPartMissing Category = "manifest-part-missing"
	// ManifestBad: what is linked as a manifest is none.
	ManifestBad Category = "manifest-unreadable"
	// ListedGone: the store lists an object and says that it does not exist.
	ListedGone Category = "listed-but-gone"
	// NotListed: the store has an object and does not list it.
	NotListed Category = "not-listed"
	// Unexpected: a key that Docker Distribution does not write.
	Unexpected Category = "unexpected-key"
)

// Breaks reports whether something of the category cannot be served as it should be.
func (c Category) Breaks() bool { return c != Unexpected && c != NotListed }

// cures are what to do, by category.
var cures = map[Category]string{
	BlobMissing:         "copy it from another backend (--heal), or push the image again",
	BlobEmpty:           "copy it from another backend (--heal), or push the image again",
	BlobShort:           "copy it from another backend (--heal), or push the image again",
	BlobLong:            "copy it from another backend (--heal), or push the image again",
	BlobCorrupt:         "copy it from another backend (--heal), or push the image again",
	SegmentsMissing:     "copy the blob from another backend (--heal), or push the image again",
	LinkMissing:         "push the tag again, or copy it from another backend (--heal)",
	LinkEmpty:           "write the link again from another backend (--heal), or push again",
	LinkBad:             "write the link again from another backend (--heal), or push again",
	LinkWrong:           "write the link again from another backend (--heal), or push again",
	LayerLinkMissing:    "write the link again from another backend (--heal), or push the image again",
	TagManifestMissing:  "copy the manifest from another backend (--heal), or delete the tag",
	ManifestPartMissing: "heal what it needs; or delete its tags",
	ManifestBad:         "delete its tags and push again",
	ListedGone:          "wait for the store's own repair and audit again; copy it from another backend (--heal) if it stays",
	NotListed:           "wait for the store's listing to catch up and audit again; the object itself is there",
	Unexpected:          "find out who wrote it; transship leaves it where it is",
}

// Finding is one fault.
type Finding struct {
	Category Category `json:"category"`
	// Path is the key of the object.
	Path       string        `json:"path"`
	Repository string        `json:"repository,omitempty"`
	Digest     digest.Digest `json:"digest,omitempty"`
	// Tags are those of the repository that it affects, sorted.
	Tags   []string `json:"tags,omitempty"`
	Detail string   `json:"detail,omitempty"`
	Cure   string   `json:"cure"`
	// Derived says that another finding is the cause of this one.
	Derived bool `json:"derived,omitempty"`
	// Healed says that it was made good; Unhealed why not, when that was tried.
	Healed   bool   `json:"healed,omitempty"`
	Unhealed string `json:"unhealed,omitempty"`
}

func (f Finding) String() string {
	s := fmt.Sprintf("%s %s", f.Category, f.Path)
	if f.Detail != "" {
		s += ": " + f.Detail
	}
	if len(f.Tags) > 0 {
		s += " (tags " + strings.Join(f.Tags, ", ") + ")"
	}
	return s
}

// Counts is what an audit has looked at.
type Counts struct {
	Repositories int64 `json:"repositories"`
	Tags         int64 `json:"tags"`
	Manifests    int64 `json:"manifests"`
	Blobs        int64 `json:"blobs"`
	Links        int64 `json:"links"`
	// Bytes are those of the blobs, as the store says, or, in a deep audit, as read and hashed.
	Bytes int64 `json:"bytes"`
	// Transient counts what was bad at first sight and good when the newest copy was read.
	Transient int64 `json:"transient"`
}

// Add sums up two counts.
func (c Counts) Add(o Counts) Counts {
	return Counts{
		Repositories: c.Repositories + o.Repositories, Tags: c.Tags + o.Tags, Manifests: c.Manifests + o.Manifests, Blobs: c.Blobs + o.Blobs,
		Links: c.Links + o.Links, Bytes: c.Bytes + o.Bytes, Transient: c.Transient + o.Transient,
	}
}

// sorted puts findings into an order that does not depend on which was found first.
func sorted(findings []Finding) []Finding {
	slices.SortFunc(findings, func(a, b Finding) int {
		if c := strings.Compare(a.Repository, b.Repository); c != 0 {
			return c
		}
		if c := strings.Compare(string(a.Category), string(b.Category)); c != 0 {
			return c
		}
		return strings.Compare(a.Path, b.Path)
	})
	return findings
}

// First are the findings at the beginning of a list that are no more than most, and take about so many bytes at most.
func First(list []Finding, most, bytes int) []Finding {
	for i, f := range list[:min(most, len(list))] {
		bytes -= 200 + 2*len(f.Path) + len(f.Repository) + len(f.Detail) + len(f.Cure)
		for _, tag := range f.Tags {
			bytes -= len(tag) + 3
		}
		if bytes < 0 {
			return list[:i]
		}
	}
	return list[:min(most, len(list))]
}
