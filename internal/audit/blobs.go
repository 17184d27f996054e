package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"transship/internal/distribution"
	"transship/internal/objectstore"
)

// lookAtBlobs looks at every blob that a manifest needs or a layer link names.
func (r *repository) lookAtBlobs(ctx context.Context) error {
	sizes := map[digest.Digest]int64{}
	for d := range r.layers {
		sizes[d] = -1
	}
	users := map[digest.Digest][]digest.Digest{}
	for of, manifest := range r.parts {
		for _, blob := range manifest.Blobs {
			sizes[blob.Digest] = max(blob.Size, -1)
			users[blob.Digest] = append(users[blob.Digest], of)
		}
	}
	list := make([]digest.Digest, 0, len(sizes))
	for d := range sizes {
		if !r.manifests[d] { // those are looked at as manifests
			list = append(list, d)
		}
	}
	slices.Sort(list)
	return each(ctx, r.Jobs, list, func(ctx context.Context, d digest.Digest) error {
		f, err := r.blob(ctx, d, sizes[d])
		if err != nil || f.Category == "" {
			return err
		}
		f.Repository = r.name
		r.add(f)
		if f.Category != BlobMissing {
			return nil
		}
		for _, of := range users[d] {
			part := found(ManifestPartMissing, distribution.Path{Kind: distribution.Revision, Repository: r.name, Digest: of}.Key(), r.name, of, "its blob %s is missing", d)
			part.Derived = true
			r.add(part)
		}
		return nil
	})
}

// blob looks at one blob, whose size the manifests say unless want is -1. Each is looked at once, whatever repositories need it.
func (a *Audit) blob(ctx context.Context, d digest.Digest, want int64) (Finding, error) {
	size, bad, known := a.blobs.get(d)
	switch {
	case known && bad != nil:
		return *bad, nil
	case known:
		return sized(d, size, want), nil
	}
	f, err := a.twice(func(o objectstore.ReadOptions) (f Finding, err error) {
		f, size, err = a.look(ctx, d, want, o)
		return f, err
	})
	if err != nil {
		return f, err
	}
	if f.Category == BlobMissing {
		if f, err = a.listed(ctx, f); err != nil {
			return f, err
		}
	}
	a.counts.blobs.Add(1)
	a.blobs.put(d, size, f)
	return f, nil
}

func sized(d digest.Digest, size, want int64) Finding {
	switch {
	case want >= 0 && size < want:
		return found(BlobShort, distribution.BlobKey(d), "", d, "it has %d bytes, its manifests say %d", size, want)
	case want >= 0 && size > want:
		return found(BlobLong, distribution.BlobKey(d), "", d, "it has %d bytes, its manifests say %d", size, want)
	}
	return Finding{}
}

func (a *Audit) look(ctx context.Context, d digest.Digest, want int64, o objectstore.ReadOptions) (Finding, int64, error) {
	key := distribution.BlobKey(d)
	object, err := a.Store.Stat(ctx, key, o)
	switch {
	case errors.Is(err, objectstore.ErrNotExist):
		return found(BlobMissing, key, "", d, "the store has no such object"), 0, nil
	case err != nil:
		return Finding{}, 0, err
	}
	gap, err := a.gap(ctx, object, want)
	if err != nil {
		return Finding{}, object.Size, err
	}
	switch {
	case gap != "":
		return found(SegmentsMissing, key, "", d, "%s", gap), object.Size, nil
	case object.Size == 0 && d.Algorithm().FromBytes(nil) != d:
		return found(BlobEmpty, key, "", d, "it has no bytes"), 0, nil
	}
	if f := sized(d, object.Size, want); f.Category != "" || !a.Deep {
		a.counts.bytes.Add(object.Size)
		return f, object.Size, nil
	}
	f, err := a.hash(ctx, d, object, o)
	return f, object.Size, err
}

// gap says what a segmented object lacks; "" when nothing can be told to be missing. Distribution numbers the segments of a Dynamic Large Object from 1 on
// (https://github.com/distribution/distribution/blob/v2.8.2/registry/storage/driver/swift/swift.go, getSegmentPath).
func (a *Audit) gap(ctx context.Context, object objectstore.Object, want int64) (string, error) {
	store, ok := a.Store.(objectstore.Segmented)
	if !ok || object.Parts != objectstore.Dynamic && object.Parts != objectstore.Static || want >= 0 && object.Size == want && !a.Deep {
		return "", nil
	}
	segments, err := store.Segments(ctx, object.Key)
	if err != nil {
		return "", fmt.Errorf("segments of %s: %w", object.Key, err)
	}
	if object.Parts == objectstore.Static {
		return "", nil // its manifest says what it consists of, and reading it fails without
	}
	for i, segment := range segments {
		name := segment.Key[strings.LastIndexByte(segment.Key, '/')+1:]
		if number := fmt.Sprintf("%016d", i+1); len(name) == len(number) && name != number {
			return fmt.Sprintf("segment %s is missing: the next one that is there is %s", number, name), nil
		}
	}
	switch {
	case len(segments) == 0:
		return "none of its segments is there", nil
	case want >= 0 && object.Size < want:
		return fmt.Sprintf("its %d segments have %d bytes together, its manifests say %d: those after segment %d are missing", len(segments), object.Size, want, len(segments)), nil
	}
	return "", nil
}

// hash reads a blob.
func (a *Audit) hash(ctx context.Context, d digest.Digest, object objectstore.Object, o objectstore.ReadOptions) (Finding, error) {
	key := distribution.BlobKey(d)
	verifier, n := d.Verifier(), int64(0)
	body, _, err := a.large.Open(ctx, a.Store, key, o)
	if err == nil {
		n, err = io.Copy(verifier, body)
		body.Close()
	}
	a.counts.bytes.Add(n)
	switch {
	case errors.Is(err, objectstore.ErrNotExist):
		return found(BlobMissing, key, "", d, "the store has no such object"), nil
	case errors.Is(err, io.ErrUnexpectedEOF):
		return a.cutOff(ctx, d, object, n)
	case err != nil:
		return Finding{}, err
	case !verifier.Verified():
		return found(BlobCorrupt, key, "", d, "its %d bytes do not hash to its name", n), nil
	}
	return Finding{}, nil
}

// cutOff says why a blob ends after n bytes: a segment that is listed may be gone all the same.
func (a *Audit) cutOff(ctx context.Context, d digest.Digest, object objectstore.Object, n int64) (Finding, error) {
	short := found(BlobShort, object.Key, "", d, "it ends after %d bytes, the store announces %d", n, object.Size)
	store, ok := a.Store.(objectstore.Segmented)
	if !ok || object.Parts != objectstore.Dynamic && object.Parts != objectstore.Static {
		return short, nil
	}
	segments, err := store.Segments(ctx, object.Key)
	if err != nil {
		return short, fmt.Errorf("segments of %s: %w", object.Key, err)
	}
	end := int64(0)
	for _, segment := range segments {
		if end += segment.Size; end > n {
			name := segment.Key[strings.LastIndexByte(segment.Key, '/')+1:]
			return found(SegmentsMissing, object.Key, "", d, "segment %s is listed and cannot be read: %d of %d bytes came", name, n, object.Size), nil
		}
	}
	return short, nil
}

// listed tells what is missing from what the store lists all the same.
func (a *Audit) listed(ctx context.Context, f Finding) (Finding, error) {
	there, err := a.isListed(ctx, f.Path)
	if err == nil && there {
		f.Category, f.Cure = ListedGone, cures[ListedGone]
		f.Detail = "the blob is in the listing, and the store says that it does not exist"
	}
	return f, err
}

func (a *Audit) isListed(ctx context.Context, key string) (bool, error) {
	for o, err := range a.Store.List(ctx, objectstore.ListOptions{Prefix: key, Limit: 1}) {
		if err != nil {
			return false, err
		}
		return o.Key == key, nil
	}
	return false, nil
}
