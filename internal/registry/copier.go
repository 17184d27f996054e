package registry

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Limiter throttles bytes. golang.org/x/time/rate.Limiter is one, if its burst is at least 64 KiB.
type Limiter interface {
	// WaitN blocks until n bytes (at most 65536) may pass, or fails when ctx ends.
	WaitN(ctx context.Context, n int) error
}

// Copier carries images of one registry to another. In the target nothing ever refers to what is not there: blobs are put before the
// manifest that needs them, children before their index, a subject before what refers to it, and the tag last of all. So a tag
// whose digest the target has already needs no further look, and a copy may be interrupted anywhere and begun again.
//
// Set the fields before the first call, and leave them alone afterwards. All methods may be called concurrently; they share Jobs.
type Copier struct {
	From, To *Registry
	// Jobs is how many blobs and manifests are under way at once, over all calls; 0 means 8.
	Jobs int
	// Limiter throttles the bytes read from the source; nil means no limit.
	Limiter Limiter
	// Observe is told the progress after each finished thing, and every second while there is anything to do. Calls do not overlap.
	Observe func(Progress)
	// TagDone is told of each tag that Repository has done with, in the order of the tags, so that passing the last one it was told as
	// "after" goes on from there. It stops before the first tag that has a problem, for that one is not done. Calls do not overlap.
	TagDone func(repository, tag string)
	// SkipBroken makes problems of the content part of Repository's Result instead of an error.
	SkipBroken bool
	// Holders is shared by the Copiers that fill the same target, so that what one has brought another can mount. Nil means by itself.
	Holders *Holders

	once     sync.Once
	slots    chan struct{}
	blobs    flights[struct{}] // by repository@digest
	present  memory            // repository@digest of blobs known to be in the target
	counts   counts
	observed sync.Mutex
}

// Progress is what a Copier has done so far.
type Progress struct {
	Repositories  int64 `json:"repositories"`
	Tags          int64 `json:"tags"`           // tags brought up to date, including TagsUnchanged
	TagsUnchanged int64 `json:"tags_unchanged"` // tags that were the same already
	Manifests     int64 `json:"manifests"`      // manifests put
	Blobs         int64 `json:"blobs"`          // blobs sent
	BlobsPresent  int64 `json:"blobs_present"`  // blobs that the target had in that repository
	BlobsMounted  int64 `json:"blobs_mounted"`  // blobs that the target took from another of its repositories
	Bytes         int64 `json:"bytes"`          // bytes of blobs and manifests sent, of blobs still under way as well
}

// Add sums up two counts, such as those of two attempts at the same copy.
func (p Progress) Add(o Progress) Progress {
	return Progress{
		Repositories: p.Repositories + o.Repositories, Tags: p.Tags + o.Tags, TagsUnchanged: p.TagsUnchanged + o.TagsUnchanged,
		Manifests: p.Manifests + o.Manifests, Blobs: p.Blobs + o.Blobs, BlobsPresent: p.BlobsPresent + o.BlobsPresent,
		BlobsMounted: p.BlobsMounted + o.BlobsMounted, Bytes: p.Bytes + o.Bytes,
	}
}

type counts struct {
	repositories, tags, unchanged, manifests, blobs, present, mounted, bytes atomic.Int64
}

// Result is what Repository did.
type Result struct {
	Repository string `json:"repository"`
	// Tags were looked at; Unchanged of them were the same already; Vanished were deleted at the source meanwhile.
	Tags      int64 `json:"tags"`
	Unchanged int64 `json:"unchanged"`
	Vanished  int64 `json:"vanished"`
	// Foreign counts layers that the source does not have because clients fetch them from elsewhere.
	Foreign int64 `json:"foreign"`
	// Problems lists what could not be copied, each with the tags it affects.
	Problems []Problem `json:"problems,omitempty"`
}

// memoryLimit is how many blobs are remembered.
const memoryLimit = 200_000

// Holders remembers which repository of a target holds a blob, and knows which blobs are just being brought. It may be shared by concurrent Copiers.
type Holders struct {
	memory                   // digest → repository
	coming flights[struct{}] // by digest
}

// NewHolders makes an empty memory.
func NewHolders() *Holders {
	return &Holders{memory: memory{limit: memoryLimit}, coming: flights[struct{}]{forget: true}}
}

// defaultJobs suits two registries on one network; a mover's configuration knows better.
const defaultJobs = 8

func (c *Copier) init() {
	c.once.Do(func() {
		if c.Jobs <= 0 {
			c.Jobs = defaultJobs
		}
		c.slots = make(chan struct{}, c.Jobs)
		c.blobs.forget = true
		c.present.limit = memoryLimit
		if c.Holders == nil {
			c.Holders = NewHolders()
		}
	})
}

// Progress gives the counts so far.
func (c *Copier) Progress() Progress {
	n := &c.counts
	return Progress{
		Repositories: n.repositories.Load(), Tags: n.tags.Load(), TagsUnchanged: n.unchanged.Load(), Manifests: n.manifests.Load(),
		Blobs: n.blobs.Load(), BlobsPresent: n.present.Load(), BlobsMounted: n.mounted.Load(), Bytes: n.bytes.Load(),
	}
}

// count adds to a counter and tells Observe.
func (c *Copier) count(counter *atomic.Int64) {
	counter.Add(1)
	c.observe()
}

func (c *Copier) observe() {
	if c.Observe == nil {
		return
	}
	c.observed.Lock()
	defer c.observed.Unlock()
	c.Observe(c.Progress())
}

// watched keeps Observe informed each second until stop is called: large blobs, slow registries and retries must not look like death.
func (c *Copier) watched() (stop func()) {
	c.init()
	if c.Observe == nil {
		return func() {}
	}
	return eachSecond(c.observe)
}

// eachSecond calls tell every second until stop is called, which returns when no call is under way any more.
func eachSecond(tell func()) (stop func()) {
	ended, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ended:
				return
			case <-tick.C:
				tell()
			}
		}
	}()
	return func() { close(ended); <-gone }
}

// slot waits for one of the Jobs. The holder must not wait for another slot.
func (c *Copier) slot(ctx context.Context) (release func(), err error) {
	select {
	case c.slots <- struct{}{}:
		return func() { <-c.slots }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Tag carries over what a tag refers to now, with its referrers, and returns the digest. ErrNotFound when the source has no such tag;
// *BrokenError when it needs something that is bad.
func (c *Copier) Tag(ctx context.Context, repository, tag string) (v1.Hash, error) {
	defer c.watched()()
	run := c.newRun(repository)
	out, err := run.tag(ctx, tag)
	if err != nil {
		return v1.Hash{}, err
	}
	if out.vanished {
		return v1.Hash{}, fmt.Errorf("backend %s: tag %s: %w", c.From.Name(), named(repository, tag), ErrNotFound)
	}
	return out.desc.Digest, run.broken()
}

// ManifestByDigest carries over a manifest that may have no tag, with all it refers to and its referrers.
// ErrNotFound when the source does not have it; *BrokenError when it needs something that is bad.
func (c *Copier) ManifestByDigest(ctx context.Context, repository string, digest v1.Hash) error {
	defer c.watched()()
	run := c.newRun(repository)
	of, err := run.resolve(ctx, c.From, digest.String())
	if err != nil {
		return err
	}
	err = run.manifest(ctx, digest)
	var p *Problem
	switch {
	case errors.As(err, &p) && p.Kind == Missing && p.Digest == digest.String():
		return fmt.Errorf("backend %s: manifest %s: %w", c.From.Name(), named(repository, digest.String()), ErrNotFound)
	case problemsIn(err) != nil:
		run.record(err)
		return run.broken()
	case err != nil:
		return err
	}
	if _, err := run.referrers(ctx, of, true); err != nil {
		return err
	}
	return run.broken()
}

// BlobByDigest carries over a blob that no manifest may refer to yet, such as one of an unfinished push. When the target has it, there is
// nothing to do. ErrNotFound when the source does not have it; *BrokenError when it is bad.
func (c *Copier) BlobByDigest(ctx context.Context, repository string, digest v1.Hash) error {
	defer c.watched()()
	err := c.newRun(repository).blob(ctx, v1.Descriptor{Digest: digest, Size: -1})
	var p *Problem
	switch {
	case errors.As(err, &p) && p.Kind == Missing:
		return fmt.Errorf("backend %s: blob %s: %w", c.From.Name(), named(repository, digest.String()), ErrNotFound)
	case problemsIn(err) != nil:
		return &BrokenError{Problems: problemsIn(err)}
	}
	return err
}
