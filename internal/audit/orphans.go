package audit

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"transship/internal/distribution"
	"transship/internal/objectstore"
)

// Orphans are what nothing in a store refers to. They are only counted: what looks like an orphan may be a push that has just begun, and only the registry's own garbage
// collection, with pushes stopped, may delete them.
type Orphans struct {
	Blobs        int64 `json:"blobs"`
	Bytes        int64 `json:"bytes"`
	Segments     int64 `json:"segments"`
	SegmentBytes int64 `json:"segment_bytes"`
}

// set has 32 bytes for each name.
type set map[[sha256.Size]byte]struct{}

func (s set) add(name string)      { s[sha256.Sum256([]byte(name))] = struct{}{} }
func (s set) has(name string) bool { _, ok := s[sha256.Sum256([]byte(name))]; return ok }

// CountOrphans goes through everything in a store: the links of all repositories, all blobs, and all segments where it has those. It takes about 50 bytes of memory for each
// blob, and a request for each segmented one.
func CountOrphans(ctx context.Context, store objectstore.Store) (Orphans, error) {
	linked, uploads, err := links(ctx, store)
	if err != nil {
		return Orphans{}, err
	}
	var o Orphans
	segmented := uploads
	for object, err := range store.List(ctx, objectstore.ListOptions{Prefix: distribution.Blobs}) {
		if err != nil {
			return o, fmt.Errorf("list the blobs of %s: %w", store, err)
		}
		p := distribution.Parse(object.Key)
		if p.Kind != distribution.Blob {
			continue
		}
		if !linked.has(p.Digest.String()) {
			o.Blobs++
			o.Bytes += object.Size
		}
		if object.Size == 0 || object.Parts == objectstore.Static || object.Parts == objectstore.Dynamic {
			segmented = append(segmented, object.Key)
		}
	}
	if s, ok := store.(objectstore.Segmented); ok {
		err = o.segments(ctx, s, segmented)
	}
	return o, err
}

// links are the digests that any repository refers to, and the keys of open uploads.
func links(ctx context.Context, store objectstore.Store) (linked set, uploads []string, err error) {
	linked = set{}
	for object, err := range store.List(ctx, objectstore.ListOptions{Prefix: distribution.Under("")}) {
		if err != nil {
			return nil, nil, fmt.Errorf("list the links of %s: %w", store, err)
		}
		switch p := distribution.Parse(object.Key); p.Kind {
		case distribution.Layer, distribution.Revision, distribution.Signature, distribution.TagIndex:
			linked.add(p.Digest.String())
		case distribution.Upload:
			if strings.HasSuffix(object.Key, "/data") {
				uploads = append(uploads, object.Key)
			}
		}
	}
	return linked, uploads, nil
}

func (o *Orphans) segments(ctx context.Context, store objectstore.Segmented, keys []string) error {
	var mu sync.Mutex
	used := set{}
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(defaultJobs)
	for _, key := range keys {
		group.Go(func() error {
			segments, err := store.Segments(inner, key)
			mu.Lock()
			defer mu.Unlock()
			for _, segment := range segments {
				used.add(segment.Key)
			}
			if err != nil {
				return fmt.Errorf("segments of %s: %w", key, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for segment, err := range store.AllSegments(ctx) {
		if err != nil {
			return fmt.Errorf("list segments: %w", err)
		}
		if !used.has(segment.Key) {
			o.Segments++
			o.SegmentBytes += segment.Size
		}
	}
	return nil
}
