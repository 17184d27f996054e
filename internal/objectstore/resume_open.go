package objectstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// resume gives the reader of Get. open reads from offset on, fills object at its first call, and refuses when the object is another meanwhile.
func resume(ctx context.Context, s Store, key string, o ReadOptions, object *Object, open func(context.Context, int64) (io.ReadCloser, int64, error)) (io.ReadCloser, Object, error) {
	body, left, err := open(ctx, o.Offset)
	var status *StatusError
	if errors.As(err, &status) && status.Status == http.StatusRequestedRangeNotSatisfiable {
		// Nothing lies behind the offset.
		there, err := s.Stat(ctx, key, o)
		return io.NopCloser(strings.NewReader("")), there, err
	}
	if err != nil {
		return nil, Object{}, err
	}
	name := fmt.Sprintf("%q in %s", key, s)
	again := func(ctx context.Context, offset int64) (io.ReadCloser, error) {
		body, _, err := open(ctx, offset)
		if errors.As(err, &status) && status.Status == http.StatusPreconditionFailed {
			return nil, fmt.Errorf("%s was replaced while it was read: %w", name, err)
		}
		return body, err
	}
	return &resuming{ctx: ctx, name: name, open: again, body: body, offset: o.Offset, left: left}, *object, nil
}

// span is the value of the Range header; empty when all is wanted. offset is where the reader is by now.
func span(o ReadOptions, offset int64) string {
	switch {
	case o.Length > 0:
		return fmt.Sprintf("bytes=%d-%d", offset, o.Offset+o.Length-1)
	case offset > 0:
		return fmt.Sprintf("bytes=%d-", offset)
	}
	return ""
}

// whole is the size of an object by the headers of an answer that may hold a part of it ("bytes 5-9/100").
func whole(contentRange string, length int64) int64 {
	if _, total, ranged := strings.Cut(contentRange, "/"); ranged {
		if size, err := strconv.ParseInt(total, 10, 64); err == nil {
			return size
		}
	}
	return length
}
