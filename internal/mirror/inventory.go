package mirror

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/opencontainers/go-digest"

	"transship/internal/distribution"
	"transship/internal/objectstore"
)

// Tag is what a tag refers to.
type Tag struct {
	Repository string        `json:"repository"`
	Name       string        `json:"tag"`
	Digest     digest.Digest `json:"digest"`
}

// Inventory yields every tag of a prefix with its digest, in the order of the keys, from the listing alone: the digest of a tag is the one in its history whose
// link has the MD5 of the current one. Only a tag whose history the listing does not show is read. A tag whose link is bad, or gone when it is read, is left out:
// the audit names it.
func Inventory(ctx context.Context, store objectstore.Store, prefix string) iter.Seq2[Tag, error] {
	return func(yield func(Tag, error) bool) {
		var now Tag
		var current string // MD5 of the current link; empty when now is done
		settle := func() (Tag, error) {
			d, err := ReadLink(ctx, store, distribution.Path{Kind: distribution.TagCurrent, Repository: now.Repository, Tag: now.Name}.Key())
			if errors.Is(err, objectstore.ErrNotExist) || asBad(err) != nil {
				return Tag{}, nil
			}
			return Tag{now.Repository, now.Name, d}, err
		}
		// end yields the tag whose keys have gone by without an answer.
		end := func() bool {
			if current == "" {
				return true
			}
			current = ""
			t, err := settle()
			return err == nil && t == Tag{} || yield(t, err) && err == nil
		}
		for o, err := range store.List(ctx, objectstore.ListOptions{Prefix: distribution.Under(prefix)}) {
			if err != nil {
				yield(Tag{}, fmt.Errorf("list the tags of %s: %w", prefix, err))
				return
			}
			path := distribution.Parse(o.Key)
			switch {
			case path.Kind == distribution.TagCurrent:
				if !end() {
					return
				}
				now, current = Tag{Repository: strings.Clone(path.Repository), Name: strings.Clone(path.Tag)}, o.MD5
			case path.Kind == distribution.TagIndex && current != "" && path.Tag == now.Name && path.Repository == now.Repository &&
				distribution.LinkMD5(path.Digest) == current:
				now.Digest, current = path.Digest, ""
				if !yield(now, nil) {
					return
				}
			}
		}
		end()
	}
}
