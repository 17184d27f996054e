package storetest

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"transship/internal/objectstore"
)

// Memory is a store in memory for the unit tests of what uses stores: the listings, errors and checksums of a real one, and means to break it.
// The zero value is ready. It is safe for concurrent use; its fields are set before it is used.
type Memory struct {
	// Name is what String says; "memory" when empty.
	Name string
	// Fault, when set, is asked before each operation ("list", "directories", "stat", "get", "put", "delete", "segments") with its key or prefix;
	// an error is that operation's outcome. "list" is asked once for each object as well, with its key, before that object is yielded.
	Fault func(op, key string) error
	// Now is the clock of the store; time.Now when nil.
	Now func() time.Time

	mu      sync.Mutex
	objects map[string]held
	counts  map[string]int
}

type held struct {
	object  objectstore.Object
	content []byte
	parts   []objectstore.Object
}

var (
	_ objectstore.Store     = (*Memory)(nil)
	_ objectstore.Segmented = (*Memory)(nil)
)

// String names the store.
func (m *Memory) String() string {
	if m.Name == "" {
		return "memory"
	}
	return m.Name
}

// Counts says how often each operation was begun since the last Reset.
func (m *Memory) Counts() map[string]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.counts)
}

// Reset forgets the counts.
func (m *Memory) Reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts = nil
}

// Keys are all keys, in byte order.
func (m *Memory) Keys() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.objects))
}

// Content is what a key holds, and whether it is there at all.
func (m *Memory) Content(key string) ([]byte, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h, ok := m.objects[key]
	return slices.Clone(h.content), ok
}

// PutString stores content under key, as another client would: neither counted nor asked of Fault.
func (m *Memory) PutString(key, content string) objectstore.Object {
	return m.keep(key, []byte(content), "")
}

// PutSegmented stores an object of several parts, as Distribution's driver for Swift leaves them (Dynamic) or as transship writes them (Static). A
// listing shows a Dynamic one as 0 bytes with the MD5 of nothing, and nothing of its being one; a Static one as it is. Segments name their keys ("container/key") and sizes; their content is content.
func (m *Memory) PutSegmented(key, content string, parts objectstore.Parts, segments []objectstore.Object) objectstore.Object {
	m.keep(key, []byte(content), "")
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.objects[key]
	h.object.Parts, h.object.MD5, h.parts = parts, "", segments
	m.objects[key] = h
	return h.object
}

// Truncate makes a key's content shorter than its size says: what Get announces does not come.
func (m *Memory) Truncate(key string, size int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.objects[key]
	h.content = h.content[:size]
	m.objects[key] = h
}

func (m *Memory) keep(key string, content []byte, mark string) objectstore.Object {
	now := time.Now
	if m.Now != nil {
		now = m.Now
	}
	sum := md5.Sum(content)
	etag := hex.EncodeToString(sum[:])
	o := objectstore.Object{Key: key, Size: int64(len(content)), MD5: etag, ETag: etag, Modified: now(), Mark: mark}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.objects == nil {
		m.objects = map[string]held{}
	}
	m.objects[key] = held{object: o, content: content}
	return o
}

func (m *Memory) begin(ctx context.Context, op, key string) error {
	m.mu.Lock()
	if m.counts == nil {
		m.counts = map[string]int{}
	}
	m.counts[op]++
	m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s of %q in %s: %w", op, key, m, context.Cause(ctx))
	}
	return m.fault(op, key)
}

func (m *Memory) fault(op, key string) error {
	if m.Fault == nil {
		return nil
	}
	if err := m.Fault(op, key); err != nil {
		return fmt.Errorf("%s of %q in %s: %w", op, key, m, err)
	}
	return nil
}

func (m *Memory) find(op, key string) (held, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h, ok := m.objects[key]
	if !ok {
		return held{}, fmt.Errorf("%s of %q in %s: %w", op, key, m, objectstore.ErrNotExist)
	}
	return h, nil
}

// Stat implements objectstore.Store.
func (m *Memory) Stat(ctx context.Context, key string, _ objectstore.ReadOptions) (objectstore.Object, error) {
	if err := m.begin(ctx, "stat", key); err != nil {
		return objectstore.Object{}, err
	}
	h, err := m.find("stat", key)
	return h.object, err
}

// Get implements objectstore.Store.
func (m *Memory) Get(ctx context.Context, key string, o objectstore.ReadOptions) (io.ReadCloser, objectstore.Object, error) {
	if err := m.begin(ctx, "get", key); err != nil {
		return nil, objectstore.Object{}, err
	}
	h, err := m.find("get", key)
	if err != nil {
		return nil, objectstore.Object{}, err
	}
	end := h.object.Size
	if o.Length > 0 {
		end = min(end, o.Offset+o.Length)
	}
	held := int64(len(h.content))
	r := &reader{ctx: ctx, content: bytes.NewReader(h.content[min(o.Offset, held):min(end, held)]), end: io.EOF}
	if end > held {
		r.end = io.ErrUnexpectedEOF
	}
	return io.NopCloser(r), h.object, nil
}

// reader gives content and then end, unless its context is over.
type reader struct {
	ctx     context.Context
	content *bytes.Reader
	end     error
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	switch {
	case r.ctx.Err() != nil:
		return 0, context.Cause(r.ctx)
	case r.content.Len() == 0:
		return 0, r.end
	}
	return r.content.Read(p)
}

// Put implements objectstore.Store.
func (m *Memory) Put(ctx context.Context, key string, body io.Reader, size int64, o objectstore.PutOptions) (objectstore.Object, error) {
	if err := m.begin(ctx, "put", key); err != nil {
		return objectstore.Object{}, err
	}
	content, err := io.ReadAll(io.LimitReader(body, size+1))
	switch {
	case err != nil:
		return objectstore.Object{}, fmt.Errorf("reading what to put as %q in %s: %w", key, m, err)
	case int64(len(content)) != size:
		return objectstore.Object{}, fmt.Errorf("putting %q in %s: %w", key, m, &objectstore.SizeError{Key: key, Announced: size, Read: int64(len(content))})
	case ctx.Err() != nil:
		return objectstore.Object{}, fmt.Errorf("putting %q in %s: %w", key, m, context.Cause(ctx))
	}
	return m.keep(key, content, o.Mark), nil
}

// Delete implements objectstore.Store.
func (m *Memory) Delete(ctx context.Context, key string) error {
	if err := m.begin(ctx, "delete", key); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.objects, key)
	return nil
}
