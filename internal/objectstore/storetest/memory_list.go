package storetest

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"

	"transship/internal/objectstore"
)

// List implements objectstore.Store. What is listed is what was there when it began.
func (m *Memory) List(ctx context.Context, o objectstore.ListOptions) iter.Seq2[objectstore.Object, error] {
	return func(yield func(objectstore.Object, error) bool) {
		if err := m.begin(ctx, "list", o.Prefix); err != nil {
			yield(objectstore.Object{}, err)
			return
		}
		n := 0
		for _, object := range m.listed(o) {
			if o.Limit > 0 && n == o.Limit {
				return
			}
			err := m.fault("list", object.Key)
			if err == nil && ctx.Err() != nil {
				err = fmt.Errorf("listing %s: %w", m, context.Cause(ctx))
			}
			if err != nil {
				yield(objectstore.Object{}, err)
				return
			}
			if n++; !yield(object, nil) {
				return
			}
		}
	}
}

func (m *Memory) listed(o objectstore.ListOptions) []objectstore.Object {
	m.mu.Lock()
	defer m.mu.Unlock()
	var found []objectstore.Object
	for key, h := range m.objects {
		if strings.HasPrefix(key, o.Prefix) && key > o.After && (o.Before == "" || key < o.Before) {
			object := h.object
			if object.Parts == objectstore.Dynamic {
				object.Size, object.MD5, object.ETag, object.Parts = 0, emptyMD5, emptyMD5, objectstore.Whole
			}
			object.Mark = ""
			found = append(found, object)
		}
	}
	slices.SortFunc(found, func(a, b objectstore.Object) int { return strings.Compare(a.Key, b.Key) })
	return found
}

// emptyMD5 is the MD5 of nothing.
const emptyMD5 = "d41d8cd98f00b204e9800998ecf8427e"

// Directories implements objectstore.Store.
func (m *Memory) Directories(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		if err := m.begin(ctx, "directories", prefix); err != nil {
			yield("", err)
			return
		}
		last := ""
		for _, object := range m.listed(objectstore.ListOptions{Prefix: prefix}) {
			name, _, below := strings.Cut(strings.TrimPrefix(object.Key, prefix), "/")
			if directory := prefix + name + "/"; below && directory != last {
				if last = directory; !yield(directory, nil) {
					return
				}
			}
		}
	}
}

// Segments implements objectstore.Segmented.
func (m *Memory) Segments(ctx context.Context, key string) ([]objectstore.Object, error) {
	if err := m.begin(ctx, "segments", key); err != nil {
		return nil, err
	}
	h, err := m.find("segments", key)
	return slices.Clone(h.parts), err
}

// AllSegments implements objectstore.Segmented.
func (m *Memory) AllSegments(ctx context.Context) iter.Seq2[objectstore.Object, error] {
	return func(yield func(objectstore.Object, error) bool) {
		if err := m.begin(ctx, "segments", ""); err != nil {
			yield(objectstore.Object{}, err)
			return
		}
		m.mu.Lock()
		var all []objectstore.Object
		for _, h := range m.objects {
			all = append(all, h.parts...)
		}
		m.mu.Unlock()
		slices.SortFunc(all, func(a, b objectstore.Object) int { return strings.Compare(a.Key, b.Key) })
		for _, segment := range all {
			if !yield(segment, nil) {
				return
			}
		}
	}
}
