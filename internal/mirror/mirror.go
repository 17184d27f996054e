// Package mirror carries the images of a prefix from one object store to another, below the registries. It lists both sides, compares path and
// MD5 in one streaming merge-join, and brings what differs: blobs hashed while they stream and confirmed by the target's checksum, then links, then
// tags, so that the target never refers to something it does not hold. When nothing changed, it costs the two listings.
//
// The layout that it relies on is Docker Distribution's (internal/distribution). What links contain is never read: it follows from their path, and the
// MD5 in the listing confirms it.
package mirror

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"

	"transship/internal/objectstore"
	"transship/internal/registry"
)

// Side is one end of a mirror.
type Side struct {
	// Backend is the name of the backend, for people.
	Backend string
	Store   objectstore.Store
}

// Mirror carries from one side to the other. Set the fields before the first call. Its methods may be called concurrently.
type Mirror struct {
	From, To Side
	// Mark is kept with every link that is written: it names the migration, and says what is its to delete.
	Mark string
	// Jobs is how many requests are under way at once; 0 means 32.
	Jobs int
	// Deletes follows deletions of tags and manifests at the source, for links that carry our Mark. Blobs are never deleted.
	Deletes bool
	// SkipBroken leaves out what the source cannot serve whole, instead of failing when everything else is done.
	SkipBroken bool
	// Known is shared by the Mirrors of one migration that fill the same target at the same time, so that a blob of several shards comes once. Nil means
	// by itself. It must not outlive them: it is not told when something else removes a blob.
	Known *Known
	// Observe is told how far Run has come, every second. Calls do not overlap.
	Observe func(Cursor)
	// Untagging is how long a tag may refer to a manifest that is not there before that counts; 0 means DefaultUntagging.
	Untagging time.Duration

	once    sync.Once
	slots   *semaphore.Weighted
	entries *semaphore.Weighted
	large   Large
	counts  struct{ manifests, blobs, present, links, bytes, healed atomic.Int64 }
}

// Known is what was learned of blobs: which ones the target holds, which are just being brought, and which are bad at the source.
type Known struct {
	presence presence
	flights  singleflight.Group
	bad      sync.Map // digest.Digest → *badContent, so that what is bad is not read again for each repository
}

const (
	// defaultJobs is what the first trials used; more were not measured.
	defaultJobs = 32
	// outstanding bounds the differences that are being worked on, and so the memory.
	outstanding = 4096
)

// DefaultUntagging is how long a registry is given from deleting a manifest to deleting its tags. Distribution looks for them one by one, among all tags of the repository.
const DefaultUntagging = 10 * time.Second

func (m *Mirror) init() {
	m.once.Do(func() {
		if m.Jobs <= 0 {
			m.Jobs = defaultJobs
		}
		if m.Untagging <= 0 {
			m.Untagging = DefaultUntagging
		}
		m.slots = semaphore.NewWeighted(int64(m.Jobs))
		m.entries = semaphore.NewWeighted(outstanding)
		m.large = NewLarge()
		if m.Known == nil {
			m.Known = &Known{}
		}
		m.Known.presence.init(m.To.Store)
	})
}

// Cursor is how far a Run has come, to go on from.
type Cursor struct {
	// After is the key up to which everything is done; empty at the beginning.
	After    string            `json:"after,omitempty"`
	Progress registry.Progress `json:"progress"`
	// Links written, Deleted links, and Reread blobs, whose first reading was bad and whose second was good.
	Links   int64 `json:"links,omitempty"`
	Deleted int64 `json:"deleted,omitempty"`
	Reread  int64 `json:"reread,omitempty"`
	// Problems are what could not be carried, with the tags that each affects.
	Problems []registry.Problem `json:"problems,omitempty"`
	// Unexpected names keys that Distribution does not write; UnexpectedCount counts them all.
	Unexpected      []string `json:"unexpected,omitempty"`
	UnexpectedCount int64    `json:"unexpected_count,omitempty"`
	// NotDeleted names tags (repository:tag) and manifests (repository@digest) that only the target has and that are not ours to delete.
	NotDeleted      []string `json:"not_deleted,omitempty"`
	NotDeletedCount int64    `json:"not_deleted_count,omitempty"`
}

// named bounds the lists in a Cursor: it travels in heartbeats.
const named = 200

// add sums up what a repository came to.
func (c *Cursor) add(r *repository) {
	c.Progress.Repositories++
	c.Progress.Tags += r.tags
	c.Progress.TagsUnchanged += r.unchanged
	c.Deleted += r.deleted
	c.Problems = append(c.Problems, r.problems()...)
	c.note(r.unexpected)
	c.keep(r.kept)
}

func (c *Cursor) note(keys []string) {
	c.UnexpectedCount += int64(len(keys))
	c.Unexpected = append(c.Unexpected, keys[:min(len(keys), max(0, named-len(c.Unexpected)))]...)
}

func (c *Cursor) keep(names []string) {
	c.NotDeletedCount += int64(len(names))
	c.NotDeleted = append(c.NotDeleted, names[:min(len(names), max(0, named-len(c.NotDeleted)))]...)
}

// Run brings everything in a shard to the target, going on from a cursor. The cursor that it returns is valid with an error as well. What the
// source cannot serve whole makes it fail with a *registry.BrokenError when everything else is done, unless SkipBroken.
func (m *Mirror) Run(ctx context.Context, shard Shard, from Cursor) (Cursor, error) {
	m.init()
	inner, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	group, inner := errgroup.WithContext(inner)
	w := &walk{Mirror: m, group: group, fail: fail, cursor: from, base: m.counted()}
	stop := w.observed()
	err := w.all(inner, shard)
	if err != nil {
		group.Go(func() error { return err }) // the others end soon
	}
	if group.Wait() != nil {
		err = context.Cause(inner) // the first: the others may only say that it ended them
	}
	stop()
	at := w.now()
	switch {
	case ctx.Err() != nil:
		return at, ctx.Err()
	case err != nil:
		return at, fmt.Errorf("mirror %s to %s: %w", m.From.Backend, m.To.Backend, err)
	case len(at.Problems) > 0 && !m.SkipBroken:
		return at, &registry.BrokenError{Problems: at.Problems}
	}
	return at, nil
}

// counted is what all calls have sent so far.
func (m *Mirror) counted() Cursor {
	return Cursor{
		Progress: registry.Progress{
			Manifests: m.counts.manifests.Load(), Blobs: m.counts.blobs.Load(), BlobsPresent: m.counts.present.Load(), Bytes: m.counts.bytes.Load(),
		},
		Links: m.counts.links.Load(), Reread: m.counts.healed.Load(),
	}
}

// within does something in one of the slots.
func (m *Mirror) within(ctx context.Context, do func() error) error {
	if err := m.slots.Acquire(ctx, 1); err != nil {
		return err
	}
	defer m.slots.Release(1)
	return do()
}

// fingerprint stands for a digest in sets: a quarter of its size in memory.
type fingerprint [32]byte

func fingerprintOf(d digest.Digest) (f fingerprint) {
	encoded := d.Encoded()
	for i := range f {
		if 2*i+1 >= len(encoded) {
			break
		}
		f[i] = nibble(encoded[2*i])<<4 | nibble(encoded[2*i+1])
	}
	return f
}

func nibble(c byte) byte {
	if c >= 'a' {
		return c - 'a' + 10
	}
	return c - '0'
}

// remembered bounds the sets of a repository; what does not fit is asked for.
const remembered = 100_000

// digests is a bounded set that is safe for concurrent use. Its zero value is ready.
type digests struct {
	mu  sync.Mutex
	set map[fingerprint]struct{}
}

func (s *digests) add(d digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.set == nil {
		s.set = map[fingerprint]struct{}{}
	}
	if len(s.set) < remembered {
		s.set[fingerprintOf(d)] = struct{}{}
	}
}

func (s *digests) has(d digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.set[fingerprintOf(d)]
	return ok
}

// observed keeps Observe informed until stop is called.
func (w *walk) observed() (stop func()) {
	if w.Observe == nil {
		return func() {}
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				w.Observe(w.now())
			}
		}
	}()
	return func() { close(done); <-ended }
}
