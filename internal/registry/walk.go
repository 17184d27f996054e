package registry

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Check counts what a comparison or an audit has looked at, and holds the differences it found. Manifests and Blobs are distinct
// per repository; Bytes are theirs: as the registry states them, or, when deep, as read and hashed.
type Check struct {
	Repositories int64        `json:"repositories"`
	Tags         int64        `json:"tags"`
	Manifests    int64        `json:"manifests"`
	Blobs        int64        `json:"blobs"`
	Bytes        int64        `json:"bytes"`
	Differences  []Difference `json:"differences,omitempty"`
}

// Checked remembers blobs whose every byte was hashed, so that calls for several repositories hash shared layers once. Share one among the
// deep checks of one registry. It rests on registries storing a blob once, whatever repositories link to it. The zero value is ready.
type Checked struct{ blobs flights[v1.Hash] }

// walker follows references at one registry, in one repository, and finds what is missing or bad. Each manifest and blob is looked at once.
type walker struct {
	reg        *Registry
	repository string
	deep       bool
	slots      chan struct{}
	checked    *Checked
	observe    func(Check)

	nodes flights[[]Problem] // manifests: the problems of each, and of all below it
	leafs flights[[]Problem] // blobs

	tags, manifests, blobs, bytes atomic.Int64
	observed                      sync.Mutex
}

func newWalker(reg *Registry, repository string, deep bool, jobs int, checked *Checked, observe func(Check)) *walker {
	if jobs <= 0 {
		jobs = defaultJobs
	}
	if checked == nil {
		checked = &Checked{}
	}
	return &walker{reg: reg, repository: repository, deep: deep, slots: make(chan struct{}, jobs), checked: checked, observe: observe}
}

func (w *walker) check() Check {
	return Check{Repositories: 1, Tags: w.tags.Load(), Manifests: w.manifests.Load(), Blobs: w.blobs.Load(), Bytes: w.bytes.Load()}
}

func (w *walker) tell() {
	if w.observe == nil {
		return
	}
	w.observed.Lock()
	defer w.observed.Unlock()
	w.observe(w.check())
}

// watched keeps Observe informed each second until stop is called.
func (w *walker) watched() (stop func()) {
	if w.observe == nil {
		return func() {}
	}
	return eachSecond(w.tell)
}

// within runs a request in one of the walker's slots.
func (w *walker) within(ctx context.Context, work func() error) error {
	select {
	case w.slots <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-w.slots }()
	return work()
}

// manifest gives the problems of a manifest and of everything that it needs.
func (w *walker) manifest(ctx context.Context, d v1.Descriptor) ([]Problem, error) {
	return w.nodes.do(ctx, d.Digest.String(), func() ([]Problem, error) {
		var m *Manifest
		err := w.within(ctx, func() (err error) {
			m, err = w.reg.Manifest(ctx, w.repository, d.Digest.String())
			return err
		})
		var bad *Problem
		switch {
		case errors.As(err, &bad):
			return []Problem{*bad}, nil
		case errors.Is(err, ErrNotFound) && !knownManifest(d):
			return w.blob(ctx, d)
		case errors.Is(err, ErrNotFound):
			return []Problem{*w.reg.problem(Missing, w.repository, d.Digest, "the manifest is not there")}, nil
		case err != nil:
			return nil, err
		}
		w.manifests.Add(1)
		w.bytes.Add(int64(len(m.Raw)))
		w.tell()
		if d.Size > 0 && d.Size != int64(len(m.Raw)) {
			return []Problem{*w.reg.wrongSize(w.repository, d, int64(len(m.Raw)))}, nil
		}
		return w.below(ctx, m)
	})
}

// below gathers the problems of children and blobs.
func (w *walker) below(ctx context.Context, m *Manifest) ([]Problem, error) {
	var (
		mu    sync.Mutex
		found problems
		tasks []func(context.Context) error
	)
	look := func(at func(context.Context, v1.Descriptor) ([]Problem, error), d v1.Descriptor) {
		tasks = append(tasks, func(ctx context.Context) error {
			bad, err := at(ctx, d)
			mu.Lock()
			defer mu.Unlock()
			for _, p := range bad {
				found.add(p)
			}
			return err
		})
	}
	for _, d := range m.Children {
		look(w.manifest, d)
	}
	for _, d := range m.Blobs {
		look(w.blob, d)
	}
	err := all(ctx, tasks)
	return found.list(), err
}

// blob gives the problems of a blob: none, or one.
func (w *walker) blob(ctx context.Context, d v1.Descriptor) ([]Problem, error) {
	return w.leafs.do(ctx, d.Digest.String(), func() ([]Problem, error) {
		var bad *Problem
		err := w.within(ctx, func() error {
			size, ok, err := w.reg.HasBlob(ctx, w.repository, d.Digest)
			switch {
			case err != nil:
				return err
			case !ok && foreign(d):
				return nil
			case !ok:
				return w.reg.problem(Missing, w.repository, d.Digest, "the blob is not there")
			case d.Size >= 0 && size >= 0 && size != d.Size:
				return w.reg.wrongSize(w.repository, d, size)
			}
			w.blobs.Add(1)
			if w.deep {
				return w.hash(ctx, d)
			}
			w.bytes.Add(max(size, 0))
			return nil
		})
		w.tell()
		if errors.As(err, &bad) {
			return []Problem{*bad}, nil
		}
		return nil, err
	})
}

// hash reads a whole blob, unless some repository's check has done so.
func (w *walker) hash(ctx context.Context, d v1.Descriptor) error {
	_, err := w.checked.blobs.do(ctx, d.Digest.String(), func() (v1.Hash, error) {
		var cuts []int64
		wait := w.reg.retryWait
		for try := 1; ; try++ {
			n, err := w.readAll(ctx, d)
			if err == nil {
				return d.Digest, nil
			}
			if errors.Is(err, io.ErrUnexpectedEOF) {
				cuts = append(cuts, n)
			}
			if try == tries && sameCut(cuts) {
				return d.Digest, w.reg.problem(Short, w.repository, d.Digest, "each of %d tries ended after %d bytes: %v", tries, n, err)
			}
			if !IsTemporary(err) || try == tries || !sleep(ctx, jitter(wait)) {
				return d.Digest, err
			}
			wait *= 3
		}
	})
	var bad *Problem
	if errors.As(err, &bad) && bad.Repository != w.repository {
		here := *bad // found by the check of another repository
		here.Repository = w.repository
		return &here
	}
	return err
}

// readAll reads a blob to its end; n is how far it got.
func (w *walker) readAll(ctx context.Context, d v1.Descriptor) (n int64, err error) {
	b, err := w.reg.open(ctx, w.repository, d)
	if err != nil {
		return 0, err
	}
	defer b.Close()
	if _, err = io.Copy(io.Discard, &meter{ctx: ctx, from: b, total: &w.bytes}); err != nil {
		n, _ = b.state()
		w.bytes.Add(-n)
	}
	return n, err
}

// Add sums up two checks.
func (c Check) Add(o Check) Check {
	return Check{
		Repositories: c.Repositories + o.Repositories, Tags: c.Tags + o.Tags, Manifests: c.Manifests + o.Manifests,
		Blobs: c.Blobs + o.Blobs, Bytes: c.Bytes + o.Bytes, Differences: append(slices.Clip(c.Differences), o.Differences...),
	}
}
