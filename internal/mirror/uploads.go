package mirror

import (
	"context"
	"fmt"
	"strings"
	"time"

	"transship/internal/distribution"
	"transship/internal/objectstore"
	"transship/internal/routing"
)

// OpenUploads are the upload sessions of a prefix that a store shows to have been at work since a moment: Distribution keeps what it has of each below
// REPOSITORY/_uploads/SESSION. Nobody else knows one whose last request was not through our edges, or is not over. Abandoned ones are many, and old.
func OpenUploads(ctx context.Context, store objectstore.Store, prefix string, since time.Time) (open []routing.Upload, err error) {
	err = Repositories(ctx, store, prefix, func(name string) error {
		folder := distribution.Of(name) + "uploads/"
		active := map[string]bool{}
		for object, err := range store.List(ctx, objectstore.ListOptions{Prefix: folder}) {
			if err != nil {
				return fmt.Errorf("list the uploads of %s: %w", name, err)
			}
			session, _, _ := strings.Cut(object.Key[len(folder):], "/")
			if !active[session] && object.Modified.After(since) {
				active[session] = true
				open = append(open, routing.Upload{Repository: name, Session: session})
			}
		}
		return nil
	})
	return open, err
}
