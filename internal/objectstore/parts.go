package objectstore

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"

	"golang.org/x/sync/errgroup"
)

const (
	// partSize is how much of a large object is sent at once, and so what is sent again when a connection breaks. It is no round number, so that
	// transship knows its own unfinished uploads from those of a registry, whose driver uploads to the same keys in parts of whole mebibytes.
	partSize = 16<<20 + 64<<10
	// partsAtOnce is how many parts of one object are under way.
	partsAtOnce = 4
)

// partFor is the size of the parts of an object that may have most of them.
func partFor(size int64, most int64) int64 {
	const step = 64 << 10
	needed := (size + most - 1) / most
	return max(partSize, (needed+step-1)/step*step)
}

// part is a piece of a large object.
type part struct {
	number int // from 0
	size   int64
	md5    string
}

// inParts reads a body, to its good end, in parts of the given size, and has each of them stored. They are stored in any
// order, several at a time.
func inParts(ctx context.Context, b *buffers, from *source, size int64, store func(ctx context.Context, p part, content []byte) error) ([]part, error) {
	parts := make([]part, (from.size+size-1)/size)
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(partsAtOnce)
	one := func(n int) error {
		held, err := b.lend(inner, min(size, from.size-int64(n)*size))
		if err != nil {
			return err
		}
		if err := held.fill(from); err != nil {
			held.back()
			return err
		}
		group.Go(func() error {
			defer held.back()
			parts[n] = part{number: n, size: int64(len(held.bytes)), md5: held.md5()}
			return store(inner, parts[n], held.bytes)
		})
		return nil
	}
	var failed error
	for n := 0; n < len(parts) && failed == nil && inner.Err() == nil; n++ {
		failed = one(n)
	}
	if failed == nil && inner.Err() == nil {
		failed = from.end()
	}
	err := group.Wait()
	switch {
	case failed != nil && from.failed():
		return nil, failed
	case err != nil:
		return nil, err
	case ctx.Err() != nil:
		return nil, fmt.Errorf("storing the parts of %s: %w", from.key, context.Cause(ctx))
	}
	return parts, failed
}

// partsETag is what stores give as the checksum of an object of several parts: the MD5 of the parts' MD5s, whose form differs.
func partsETag(parts []part, form func(md5 string) []byte) string {
	h := md5.New()
	for _, p := range parts {
		h.Write(form(p.md5))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// bare is a checksum as bytes.
func bare(sum string) []byte {
	b, _ := hex.DecodeString(sum)
	return b
}
