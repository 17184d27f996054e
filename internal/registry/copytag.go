package registry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// run is one call of a Copier's method: what it has seen in its repository so far. What a Copier knows for longer is only about blobs,
// which nobody deletes; a manifest may be deleted and pushed again between two calls.
type run struct {
	*Copier
	repository string
	// listed: all tags of the repository are being copied, not one.
	listed  bool
	needed  flights[struct{}] // blobs, by digest; with their problems
	done    flights[struct{}] // manifests, by digest
	foreign atomic.Int64

	mu       sync.Mutex
	visited  map[v1.Hash]bool // manifests whose referrers were looked at
	problems problems
}

func (c *Copier) newRun(repository string) *run {
	c.init()
	return &run{Copier: c, repository: repository, visited: map[v1.Hash]bool{}}
}

// record notes the problems in err, with the tags they affect.
func (w *run) record(err error, tags ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range problemsIn(err) {
		w.problems.add(p, tags...)
	}
}

func (w *run) found() []Problem {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.problems.list()
}

// broken is nil, or the error that holds all problems.
func (w *run) broken() error {
	if all := w.found(); len(all) > 0 {
		return &BrokenError{Problems: all}
	}
	return nil
}

// tag carries over one tag. A problem of the content is recorded, not returned.
func (w *run) tag(ctx context.Context, tag string) (tagged, error) {
	out, err := w.follow(ctx, tag)
	if problemsIn(err) != nil {
		w.record(err, tag)
		out.broken = true
		w.observe()
		return out, nil
	}
	if err != nil || out.vanished {
		return out, err
	}
	if out.unchanged {
		w.counts.unchanged.Add(1)
		// The lists of the children of an index cost a request each. Where referrers are tags, a new one is a write of its own.
		if out.broken, err = w.referrers(ctx, out.desc, !w.From.lacksReferrers(), tag); err != nil {
			return out, err
		}
	}
	w.count(&w.counts.tags)
	return out, nil
}

// follow copies what the tag refers to. The registry is live: when the tag moves while we work, the new manifest is copied.
func (w *run) follow(ctx context.Context, tag string) (tagged, error) {
	var bad error // what is wrong with the digest of
	var of v1.Hash
	for range 10 {
		want, err := w.resolve(ctx, w.From, tag)
		if errors.Is(err, ErrNotFound) {
			return tagged{vanished: true}, nil
		}
		if err != nil {
			return tagged{}, err
		}
		if bad != nil && want.Digest == of {
			return tagged{}, bad
		}
		have, there, err := w.held(ctx, tag)
		if err != nil {
			return tagged{}, err
		}
		if there && have.Digest == want.Digest {
			return tagged{desc: want, unchanged: true}, nil
		}
		m, err := w.read(ctx, want.Digest)
		var broken bool
		if err == nil {
			broken, err = w.putTag(ctx, tag, m)
		}
		if problemsIn(err) != nil { // it counts if the tag is still there: a client may be deleting the image
			bad, of = err, want.Digest
			continue
		}
		if err != nil {
			return tagged{}, err
		}
		return tagged{desc: m.Descriptor(), broken: broken}, nil
	}
	return tagged{}, &Error{Backend: w.From.name, Doing: "copying " + named(w.repository, tag), Temporary: true,
		Err: errors.New("the tag moved each time it was looked at")}
}

// putTag copies all that the manifest needs, then its referrers, then tags it: the tag says that everything else is there.
// broken tells that a referrer has a problem, which is recorded.
func (w *run) putTag(ctx context.Context, tag string, m *Manifest) (broken bool, err error) {
	if w.listed {
		// Learn early whether the source has the referrers API, since without it things are simpler. This asks once per registry.
		if _, _, err := w.sourceReferrers(ctx, m.Digest); err != nil {
			return false, err
		}
	}
	if _, list := fallbackSubject(tag); !list && !w.referrersAreTags() {
		// A referrer needs its subject at the target, before the tag that completes the image.
		if err := w.manifest(ctx, m.Digest); err != nil {
			return false, err
		}
		if broken, err = w.referrers(ctx, m.Descriptor(), true, tag); err != nil {
			return broken, err
		}
		return broken, w.put(ctx, tag, m)
	}
	_, there, err := w.held(ctx, m.Digest.String())
	if err != nil {
		return false, err
	}
	if !there {
		return false, w.complete(ctx, tag, m)
	}
	return false, w.put(ctx, tag, m)
}

// held says what the target has under a reference. What it cannot read counts as absent, and is put again.
func (w *run) held(ctx context.Context, reference string) (have v1.Descriptor, there bool, err error) {
	have, err = w.resolve(ctx, w.To, reference)
	if errors.Is(err, ErrNotFound) || unreadable(err) {
		return v1.Descriptor{}, false, nil
	}
	return have, err == nil, err
}

// unreadable reports whether a registry answered 500 each time. Distribution does for a link that is empty, because the registry was killed while it wrote that to a disk, until it is written
// again (filesystem driver, PutContent).
func unreadable(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == http.StatusInternalServerError
}

func (w *run) resolve(ctx context.Context, r *Registry, reference string) (v1.Descriptor, error) {
	release, err := w.slot(ctx)
	if err != nil {
		return v1.Descriptor{}, err
	}
	defer release()
	return r.Resolve(ctx, w.repository, reference)
}

// read gets a manifest of the source; that there is none is a *Problem.
func (w *run) read(ctx context.Context, digest v1.Hash) (*Manifest, error) {
	release, err := w.slot(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	m, err := w.From.Manifest(ctx, w.repository, digest.String())
	var p *Problem
	if errors.Is(err, ErrNotFound) && !errors.As(err, &p) {
		return nil, w.From.problem(Missing, w.repository, digest, "the manifest is not there")
	}
	return m, err
}

// put stores a manifest whose needs are met, under a tag or its digest.
func (w *run) put(ctx context.Context, reference string, m *Manifest) error {
	release, err := w.slot(ctx)
	if err != nil {
		return err
	}
	defer release()
	if w.Limiter != nil {
		if err := throttle(ctx, w.Limiter, len(m.Raw)); err != nil {
			return err
		}
	}
	if err := w.To.PutManifest(ctx, w.repository, reference, string(m.MediaType), m.Raw); err != nil {
		return err
	}
	w.counts.bytes.Add(int64(len(m.Raw)))
	w.count(&w.counts.manifests)
	return nil
}

// all runs the tasks at once and waits for every one, so that all problems are found. Another error wins over problems.
func all(ctx context.Context, tasks []func(context.Context) error) error {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		other error
		bad   = map[string]Problem{}
	)
	for _, task := range tasks {
		wg.Go(func() {
			err := task(inner)
			if err == nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if ps := problemsIn(err); ps != nil {
				for _, p := range ps {
					bad[string(p.Kind)+p.Backend+p.Digest] = p
				}
				return
			}
			if other == nil {
				other = err
				cancel()
			}
		})
	}
	wg.Wait()
	if other != nil {
		return other
	}
	if len(bad) == 0 {
		return nil
	}
	return &BrokenError{Problems: slices.Collect(maps.Values(bad))}
}

// throttle asks the limiter in portions that any of them grants.
func throttle(ctx context.Context, l Limiter, n int) error {
	const portion = 64 << 10
	for ; n > 0; n -= portion {
		if err := l.WaitN(ctx, min(n, portion)); err != nil {
			return fmt.Errorf("waiting for bandwidth: %w", err)
		}
	}
	return nil
}
