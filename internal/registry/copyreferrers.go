package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

func (w *run) sourceReferrers(ctx context.Context, digest v1.Hash) ([]v1.Descriptor, bool, error) {
	release, err := w.slot(ctx)
	if err != nil {
		return nil, false, err
	}
	defer release()
	return w.From.referrersByAPI(ctx, w.repository, digest)
}

// referrers carries over everything that refers to the manifest, and what refers to that, and so on; with children, also to the
// manifests that it lists, for signatures are attached to either. Each manifest is looked at once in a run, so circles end. Problems
// are recorded with the tags and do not keep the image itself back, which does not need its referrers; broken tells of them.
func (w *run) referrers(ctx context.Context, of v1.Descriptor, children bool, tags ...string) (broken bool, err error) {
	queue := []v1.Descriptor{of}
	for len(queue) > 0 && !w.referrersAreTags() {
		next := queue[0]
		queue = queue[1:]
		w.mu.Lock()
		seen := w.visited[next.Digest]
		w.visited[next.Digest] = true
		w.mu.Unlock()
		if seen {
			continue
		}
		list, bad, err := w.referrersOf(ctx, next.Digest, tags)
		if err != nil {
			return broken, err
		}
		broken = broken || bad
		queue = append(queue, list...)
		if !next.MediaType.IsIndex() || !children {
			continue
		}
		index, err := w.read(ctx, next.Digest)
		if err != nil && problemsIn(err) == nil {
			return broken, err
		}
		if err == nil { // a bad index is reported by whoever needs it
			queue = append(queue, index.Children...)
		}
	}
	return broken, nil
}

// referrersAreTags: without the API, the tags of the repository are all lists of referrers that there are, and when the whole repository is
// being copied, all of them come as tags.
func (w *run) referrersAreTags() bool { return w.listed && w.From.lacksReferrers() }

// referrersOf copies the direct referrers of one manifest and lists those that are at the target now.
func (w *run) referrersOf(ctx context.Context, digest v1.Hash, tags []string) (good []v1.Descriptor, broken bool, err error) {
	list, api, err := w.sourceReferrers(ctx, digest)
	if err != nil {
		return nil, false, err
	}
	if !api {
		if w.listed {
			return nil, false, nil
		}
		return w.fallbackReferrers(ctx, digest, tags)
	}
	for _, d := range list {
		err := w.manifest(ctx, d.Digest)
		if problemsIn(err) != nil {
			w.record(err, tags...)
			broken = true
			continue
		}
		if err != nil {
			return nil, broken, err
		}
		good = append(good, d)
	}
	if len(good) > 0 {
		err = w.listAtTarget(ctx, digest, good)
	}
	return good, broken, err
}

// fallbackReferrers copies the fallback index of a manifest, which brings what it lists. When the target has the same index already
// there is nothing new, and nothing is listed.
func (w *run) fallbackReferrers(ctx context.Context, digest v1.Hash, tags []string) (good []v1.Descriptor, broken bool, err error) {
	tag := fallbackTag(digest)
	out, err := w.follow(ctx, tag)
	if problemsIn(err) != nil {
		w.record(err, append([]string{tag}, tags...)...)
		return nil, true, nil
	}
	if err != nil || out.vanished || out.unchanged {
		return nil, false, err
	}
	index, err := w.read(ctx, out.desc.Digest)
	if err != nil {
		return nil, false, err
	}
	return index.Children, false, nil
}

// listAtTarget makes the referrers known at a target without referrers API, where clients look for the fallback tag. Entries that the
// target lists already are kept.
func (w *run) listAtTarget(ctx context.Context, digest v1.Hash, add []v1.Descriptor) error {
	release, err := w.slot(ctx)
	if err != nil {
		return err
	}
	_, api, err := w.To.referrersByAPI(ctx, w.repository, digest)
	var old *Manifest
	if err == nil && !api {
		old, err = w.To.Manifest(ctx, w.repository, fallbackTag(digest))
	}
	release()
	if api || (err != nil && !errors.Is(err, ErrNotFound)) {
		return err
	}
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	if old != nil {
		index.Manifests = old.Children
	}
	changed := false
	for _, d := range add {
		if !slices.ContainsFunc(index.Manifests, func(have v1.Descriptor) bool { return have.Digest == d.Digest }) {
			index.Manifests = append(index.Manifests, d)
			changed = true
		}
	}
	if !changed {
		return nil
	}
	slices.SortFunc(index.Manifests, func(a, b v1.Descriptor) int { return strings.Compare(a.Digest.Hex, b.Digest.Hex) })
	raw, err := json.Marshal(index)
	if err != nil {
		return fmt.Errorf("writing the list of referrers of %s: %w", named(w.repository, digest.String()), err)
	}
	return w.put(ctx, fallbackTag(digest), &Manifest{Raw: raw, MediaType: types.OCIImageIndex})
}

// lacksReferrers reports whether the registry is known to have no referrers API.
func (r *Registry) lacksReferrers() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.referrers == unsupported
}
