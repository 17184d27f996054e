// Package objectstore reads and writes the object stores under registries: Swift, S3 (Ceph's RADOS Gateway among them) and a local
// filesystem. It knows nothing of registries. All three behave alike: the same conformance tests run against each, on real servers.
package objectstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"
)

// Store is one container, bucket or folder, seen from its root: keys are relative to it, so that a registry's tree has the same keys in
// every store. A Store is safe for concurrent use. Its methods try again by themselves what a store may do better next time (429, 5xx, broken
// connections, expired tokens), with growing pauses; an error that they return has outlived that.
type Store interface {
	// String names the store for people: kind, container, root. Never a secret.
	String() string

	// List yields the objects whose keys begin with o.Prefix, in byte order. The listing is read page by page while it is consumed, the
	// next page being fetched while one is consumed.
	List(ctx context.Context, o ListOptions) iter.Seq2[Object, error]

	// Directories yields the distinct keys, up to and with the next "/", that begin with prefix (which ends in "/" or is empty) and hold
	// something, in byte order.
	Directories(ctx context.Context, prefix string) iter.Seq2[string, error]

	// Stat returns what the store says of one object. ErrNotExist when there is none.
	Stat(ctx context.Context, key string, o ReadOptions) (Object, error)

	// Get opens an object for reading. The reader goes on by itself, from where it was, when the connection breaks; it fails when the object was
	// replaced meanwhile. It ends with io.ErrUnexpectedEOF when the store gives fewer bytes than it announced. ErrNotExist when there is none.
	Get(ctx context.Context, key string, o ReadOptions) (io.ReadCloser, Object, error)

	// Put stores size bytes of body under key, replacing what is there, and returns what the store says that it stored, which was checked against what
	// was sent. Body is read once, and memory is bounded whatever the size. When body fails, or ends early or late, nothing is stored under key and what
	// is there stays.
	Put(ctx context.Context, key string, body io.Reader, size int64, o PutOptions) (Object, error)

	// Delete removes an object, and what it consists of. No error when there is none.
	Delete(ctx context.Context, key string) error
}

// ListOptions say what to list.
type ListOptions struct {
	// Prefix is what every key begins with.
	Prefix string
	// After is the key to go on after; empty begins at the first.
	After string
	// Before is the key to end before; empty goes on to the last.
	Before string
	// Limit is how many objects are wanted at most; 0 is all.
	Limit int
}

// PutOptions say how to store.
type PutOptions struct {
	// Mark is kept with the object as metadata, and returned by Stat and Get (not by listings), until something else replaces the object: it tells
	// who wrote it. Letters, digits and -_./: only. A filesystem that keeps no extended attributes drops it.
	Mark string
}

// ReadOptions say how to read.
type ReadOptions struct {
	// Newest asks every replica and takes the newest answer, where a store may answer from an outdated one (Swift's X-Newest). It costs more.
	Newest bool
	// Offset is the first byte wanted; Length how many, 0 for all that follow. Only for Get.
	Offset, Length int64
}

// Object is what a listing, or an answer to a request, says of an object.
type Object struct {
	Key string
	// Size in bytes. Listings of Swift show 0 for the manifest of a large object.
	Size int64
	// MD5 of the content in hexadecimal; empty where the store does not say it (objects of several parts).
	MD5 string
	// ETag is the store's own version of the content, without quotes.
	ETag string
	// Modified by the store's clock.
	Modified time.Time
	// Mark is what PutOptions said when it was stored; unknown in listings.
	Mark string
	// Parts says how the object is composed; unknown in listings of Swift.
	Parts Parts
}

// Parts is how an object is composed.
type Parts string

// How objects are composed.
const (
	Whole   Parts = ""        // one piece
	Dynamic Parts = "dynamic" // Swift's Dynamic Large Object: whatever a listing shows now
	Static  Parts = "static"  // Swift's Static Large Object: segments with checksums
	Multi   Parts = "multi"   // S3's multipart upload; the parts cannot be missing
)

// Segmented is a Store that shows the segments that large objects consist of.
type Segmented interface {
	// Segments lists what a Dynamic or Static object consists of, in order; those of a Dynamic object as the listing shows them now. Keys are
	// "container/key", as the store writes them.
	Segments(ctx context.Context, key string) ([]Object, error)
	// AllSegments yields every segment beside the root (what registries keep under "segments/"), in byte order, with keys as Segments has them.
	AllSegments(ctx context.Context) iter.Seq2[Object, error]
}

// ErrNotExist says that there is no such object.
var ErrNotExist = errors.New("no such object")

// ChecksumError says that a store holds something else than what was sent.
type ChecksumError struct {
	Key        string
	Sent, Held string
}

func (e *ChecksumError) Error() string {
	return fmt.Sprintf("%s: the store says it holds %s, sent was %s", e.Key, e.Held, e.Sent)
}
