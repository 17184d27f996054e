package objectstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Headers of Swift that say what an object is.
const (
	markHeader     = "X-Object-Meta-Transship-Mark"
	manifestHeader = "X-Object-Manifest"
	staticHeader   = "X-Static-Large-Object"
)

// described reads an answer's headers. size is that of the whole object.
func described(key string, h http.Header, size int64) Object {
	o := Object{Key: key, Size: size, ETag: strings.Trim(h.Get("Etag"), `"`), Mark: h.Get(markHeader)}
	switch {
	case h.Get(manifestHeader) != "":
		o.Parts = Dynamic
	case h.Get(staticHeader) != "":
		o.Parts = Static
	default:
		o.MD5 = o.ETag
	}
	if o.Modified = seconds(h.Get("X-Timestamp")); o.Modified.IsZero() {
		o.Modified, _ = time.Parse(http.TimeFormat, h.Get("Last-Modified"))
	}
	return o
}

// reading are the headers of a request to read.
func reading(o ReadOptions) map[string]string {
	if o.Newest {
		return map[string]string{"X-Newest": "true"}
	}
	return map[string]string{}
}

// missing turns the answer that there is no object into ErrNotExist.
func missing(err error, op, key string, store Store) error {
	var status *StatusError
	if errors.As(err, &status) && status.Status == http.StatusNotFound {
		return fmt.Errorf("%s of %q in %s: %w", op, key, store, ErrNotExist)
	}
	return err
}

// Stat implements Store.
func (s *Swift) Stat(ctx context.Context, key string, o ReadOptions) (Object, error) {
	h, err := s.head(ctx, key, o)
	if err != nil {
		return Object{}, err
	}
	size, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64)
	object := described(key, h, size)
	if err != nil && object.Parts == Dynamic {
		// With more segments than one listing shows, Swift gives no size.
		segments, err := s.dynamicSegments(ctx, key, h.Get(manifestHeader))
		if err != nil {
			return Object{}, err
		}
		for _, segment := range segments {
			object.Size += segment.Size
		}
	}
	return object, nil
}

func (s *Swift) head(ctx context.Context, key string, o ReadOptions) (http.Header, error) {
	h, err := s.do(ctx, request{op: "stat", method: http.MethodHead, container: s.o.Container, key: s.o.Root + key, header: reading(o)})
	return h, missing(err, "stat", key, s)
}

// Get implements Store. Of a large object whose segments are gone, the store may answer with an error at once, or with less than it announced:
// both are io.ErrUnexpectedEOF.
func (s *Swift) Get(ctx context.Context, key string, o ReadOptions) (io.ReadCloser, Object, error) {
	var object Object
	open := func(ctx context.Context, offset int64) (io.ReadCloser, int64, error) {
		r := request{op: "get", method: http.MethodGet, container: s.o.Container, key: s.o.Root + key, header: reading(o)}
		if value := span(o, offset); value != "" {
			r.header["Range"] = value
		}
		if object.ETag != "" {
			r.header["If-Match"] = `"` + object.ETag + `"`
		}
		var resp *http.Response
		broken := 0
		err := s.patience.try(ctx, func() (err error) {
			resp, err = s.once(ctx, r)
			var status *StatusError
			if !errors.As(err, &status) {
				return err
			}
			if status.Status == http.StatusInternalServerError {
				broken++
			}
			// Swift says 409 when the first segment wanted is gone, and 500 when it comes upon that before it has sent anything.
			if status.Status == http.StatusConflict || broken == fruitlessLimit && s.incomplete(ctx, key) {
				return fmt.Errorf("%s: %w", status.Error(), io.ErrUnexpectedEOF)
			}
			return err
		})
		if err != nil {
			return nil, 0, missing(err, "get", key, s)
		}
		if object.ETag == "" {
			object = described(key, resp.Header, whole(resp.Header.Get("Content-Range"), resp.ContentLength))
		}
		return resp.Body, resp.ContentLength, nil
	}
	return resume(ctx, s, key, o, &object, open)
}

// Put implements Store. What is larger than one part is written as segments: so that what was sent is not sent again when a connection breaks
// or this process dies, and because a single object of Swift ends at 5 GB.
func (s *Swift) Put(ctx context.Context, key string, body io.Reader, size int64, o PutOptions) (Object, error) {
	from := &source{key: key, body: body, size: size}
	if size > partSize {
		return s.putLarge(ctx, from, o)
	}
	return putWhole(ctx, s.buffers, from, func(content []byte, sum string) (Object, error) {
		return s.put(ctx, s.o.Container, s.o.Root+key, content, sum, o.Mark)
	})
}

// put stores one piece. The ETag of the request makes Swift refuse what was damaged on its way.
func (s *Swift) put(ctx context.Context, container, key string, content []byte, sum, mark string) (Object, error) {
	r := request{op: "put", method: http.MethodPut, container: container, key: key, body: content,
		header: map[string]string{"Etag": sum, "Content-Type": "application/octet-stream"}}
	if mark != "" {
		r.header[markHeader] = mark
	}
	var stored Object
	err := s.patience.verified(ctx, func() error {
		h, err := s.do(ctx, r)
		var status *StatusError
		if errors.As(err, &status) && status.Status == http.StatusUnprocessableEntity {
			return &ChecksumError{Key: key, Sent: sum, Held: "something else (422)"}
		}
		if err != nil {
			return err
		}
		if held := strings.Trim(h.Get("Etag"), `"`); held != sum {
			return &ChecksumError{Key: key, Sent: sum, Held: held}
		}
		modified, _ := time.Parse(http.TimeFormat, h.Get("Last-Modified"))
		stored = Object{Key: strings.TrimPrefix(key, s.o.Root), Size: int64(len(content)), MD5: sum, ETag: sum, Mark: mark, Modified: modified}
		return nil
	})
	return stored, err
}

// Delete implements Store. The manifest of a large object goes first, so that nobody meets one whose segments are gone.
func (s *Swift) Delete(ctx context.Context, key string) error {
	h, err := s.head(ctx, key, ReadOptions{})
	if errors.Is(err, ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	segments, err := s.segments(ctx, key, h)
	if err != nil && !errors.Is(err, ErrNotExist) {
		return err
	}
	if err := s.remove(ctx, s.o.Container, s.o.Root+key); err != nil {
		return err
	}
	return s.removeSegments(ctx, segments)
}

// remove deletes one object as it is: of a large object its manifest. What is gone already is no error.
func (s *Swift) remove(ctx context.Context, container, key string) error {
	_, err := s.do(ctx, request{op: "delete", method: http.MethodDelete, container: container, key: key, query: url.Values{}})
	if err = missing(err, "delete", key, s); errors.Is(err, ErrNotExist) {
		return nil
	}
	return err
}
