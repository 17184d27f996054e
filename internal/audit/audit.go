package audit

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"transship/internal/distribution"
	"transship/internal/mirror"
	"transship/internal/objectstore"
)

// Audit looks at one backend. Set the fields before the first call.
type Audit struct {
	mirror.Side
	// Deep reads and hashes every byte, and asks for every link.
	Deep bool
	// Jobs is how many requests are under way at once; 0 means 16.
	Jobs int
	// Untagging is how long a tag may refer to a manifest that is not there before that counts: somebody may be deleting the image. 0 means mirror.DefaultUntagging.
	Untagging time.Duration
	// RepositoryDone is told after each repository what has been looked at so far, and what was found in this one; After is the cursor to go on from.
	RepositoryDone func(after string, counts Counts, found []Finding)

	// began is when the listing was asked for.
	began  time.Time
	blobs  blobMemory
	large  mirror.Large
	counts struct{ repositories, tags, manifests, blobs, links, bytes, transient atomic.Int64 }
}

const defaultJobs = 16

// Run looks at every repository of a shard, one after the other, and returns what it found. An error means that it could not look.
func (a *Audit) Run(ctx context.Context, shard mirror.Shard) ([]Finding, Counts, error) {
	if a.Jobs <= 0 {
		a.Jobs = defaultJobs
	}
	if a.Untagging <= 0 {
		a.Untagging = mirror.DefaultUntagging
	}
	a.large = mirror.NewLarge()
	a.began = time.Now()
	var all []Finding
	var r *repository
	end := func() error {
		if r == nil {
			return nil
		}
		found, err := r.audit(ctx)
		if err != nil {
			return fmt.Errorf("audit %s at %s: %w", r.name, a.Backend, err)
		}
		all = append(all, found...)
		if a.RepositoryDone != nil {
			a.RepositoryDone(distribution.Past(r.name), a.Counted(), found)
		}
		return nil
	}
	for o, err := range a.Store.List(ctx, shard.Listing()) {
		if err != nil {
			return all, a.Counted(), fmt.Errorf("list %s: %w", a.Backend, err)
		}
		path := distribution.Parse(o.Key)
		if path.Repository == "" {
			all = append(all, found(Unexpected, o.Key, "", "", ""))
			continue
		}
		if r == nil || r.name != path.Repository {
			if err := end(); err != nil {
				return all, a.Counted(), err
			}
			r = newRepository(a, strings.Clone(path.Repository))
		}
		r.see(path, o)
	}
	if err := end(); err != nil {
		return all, a.Counted(), err
	}
	return all, a.Counted(), nil
}

// Counted is what was looked at so far.
func (a *Audit) Counted() Counts {
	return Counts{
		Repositories: a.counts.repositories.Load(), Tags: a.counts.tags.Load(), Manifests: a.counts.manifests.Load(), Blobs: a.counts.blobs.Load(),
		Links: a.counts.links.Load(), Bytes: a.counts.bytes.Load(), Transient: a.counts.transient.Load(),
	}
}

func found(c Category, path, repository string, d digest.Digest, detail string, args ...any) Finding {
	return Finding{Category: c, Path: path, Repository: repository, Digest: d, Detail: fmt.Sprintf(detail, args...), Cure: cures[c]}
}

// each does something for every element, a.Jobs at once.
func each[T any](ctx context.Context, jobs int, list []T, do func(context.Context, T) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(jobs)
	for _, x := range list {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error { return do(ctx, x) })
	}
	return group.Wait()
}

// twice looks at something, and again at the newest copy when it seemed bad: what an outdated replica says is no fault. It counts those.
func (a *Audit) twice(look func(objectstore.ReadOptions) (Finding, error)) (Finding, error) {
	f, err := look(objectstore.ReadOptions{})
	if err != nil || f.Category == "" {
		return f, err
	}
	f, err = look(objectstore.ReadOptions{Newest: true})
	if err == nil && f.Category == "" {
		a.counts.transient.Add(1)
	}
	return f, err
}

// blobMemory remembers the blobs that were looked at: those of base layers are in many repositories.
type blobMemory struct {
	mu   sync.Mutex
	good map[digest.Digest]int64
	bad  map[digest.Digest]Finding
}

// rememberedBlobs bounds it; a blob that does not fit is looked at again.
const rememberedBlobs = 200_000

func (m *blobMemory) get(d digest.Digest) (size int64, bad *Finding, known bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f, ok := m.bad[d]; ok {
		return 0, &f, true
	}
	size, known = m.good[d]
	return size, nil, known
}

func (m *blobMemory) put(d digest.Digest, size int64, f Finding) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.good == nil {
		m.good, m.bad = map[digest.Digest]int64{}, map[digest.Digest]Finding{}
	}
	switch {
	case f.Category != "":
		m.bad[d] = f
	case len(m.good) < rememberedBlobs:
		m.good[d] = size
	}
}
