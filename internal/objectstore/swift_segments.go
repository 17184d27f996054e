package objectstore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/sync/errgroup"
)

// Segments implements Segmented.
func (s *Swift) Segments(ctx context.Context, key string) ([]Object, error) {
	h, err := s.head(ctx, key, ReadOptions{})
	if err != nil {
		return nil, err
	}
	return s.segments(ctx, key, h)
}

// AllSegments implements Segmented.
func (s *Swift) AllSegments(ctx context.Context) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		for segment, err := range s.list(ctx, s.o.Container, "", ListOptions{Prefix: s.segmentsRoot()}) {
			segment.Key = s.o.Container + "/" + segment.Key
			if !yield(segment, err) {
				return
			}
		}
	}
}

// segments are what an object consists of, by its headers; none for one that is whole.
func (s *Swift) segments(ctx context.Context, key string, h http.Header) ([]Object, error) {
	if prefix := h.Get(manifestHeader); prefix != "" {
		return s.dynamicSegments(ctx, key, prefix)
	}
	if h.Get(staticHeader) != "" {
		return s.staticSegments(ctx, key)
	}
	return nil, nil
}

// dynamicSegments lists what a manifest header ("container/prefix", percent-encoded) refers to.
func (s *Swift) dynamicSegments(ctx context.Context, key, manifest string) ([]Object, error) {
	decoded, err := url.PathUnescape(manifest)
	if err != nil {
		return nil, fmt.Errorf("the manifest of %q in %s is %q: %w", key, s, manifest, err)
	}
	container, prefix, _ := strings.Cut(strings.TrimPrefix(decoded, "/"), "/")
	if strings.Count(strings.TrimSuffix(prefix, "/"), "/") == 0 {
		// Who deletes by this would delete what belongs to others.
		return nil, fmt.Errorf("the manifest of %q in %s is %q, which is too much for one object: %w", key, s, manifest, errInvalid)
	}
	var segments []Object
	for segment, err := range s.list(ctx, container, "", ListOptions{Prefix: prefix}) {
		if err != nil {
			return nil, err
		}
		segment.Key = container + "/" + segment.Key
		segments = append(segments, segment)
	}
	return segments, nil
}

// staticSegments reads a manifest.
func (s *Swift) staticSegments(ctx context.Context, key string) ([]Object, error) {
	content, err := s.read(ctx, request{op: "segments", method: http.MethodGet, container: s.o.Container, key: s.o.Root + key,
		query: url.Values{"multipart-manifest": {"get"}}})
	if err != nil {
		return nil, missing(err, "segments", key, s)
	}
	entries, err := readEntries(content, mostSegments)
	if err != nil {
		return nil, fmt.Errorf("the manifest of %q in %s is unreadable: %w", key, s, err)
	}
	segments := make([]Object, len(entries))
	for i := range entries {
		segments[i] = entries[i].object(len("/"))
	}
	return segments, nil
}

// removeSegments deletes segments, whose keys are "container/key".
func (s *Swift) removeSegments(ctx context.Context, segments []Object) error {
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for _, segment := range segments {
		container, key, _ := strings.Cut(segment.Key, "/")
		group.Go(func() error { return s.remove(inner, container, key) })
	}
	return group.Wait()
}

// incomplete reports whether an object consists of segments of which one is gone although it is still listed.
func (s *Swift) incomplete(ctx context.Context, key string) bool {
	segments, err := s.Segments(ctx, key)
	if err != nil {
		return false
	}
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for _, segment := range segments {
		container, name, _ := strings.Cut(segment.Key, "/")
		group.Go(func() error {
			_, err := s.do(inner, request{op: "stat", method: http.MethodHead, container: container, key: name})
			return missing(err, "stat", name, s)
		})
	}
	return errors.Is(group.Wait(), ErrNotExist)
}
