package mirror

import (
	"context"
	"slices"

	"github.com/opencontainers/go-digest"

	"transship/internal/distribution"
	"transship/internal/registry"
)

// lateManifest is a manifest that refers to others: an index, or one that has a subject. Its content is at the target already; its link comes after theirs.
type lateManifest struct {
	digest digest.Digest
	parts  []digest.Digest
	// subject may be missing: the specification allows that.
	subject digest.Digest
}

func late(d digest.Digest, m distribution.Manifest) lateManifest {
	l := lateManifest{digest: d, subject: m.Subject}
	for _, part := range m.Manifests {
		l.parts = append(l.parts, part.Digest)
	}
	return l
}

// carryLate links the manifests that refer to others, in the order of their references. One goroutine at a time does that for a repository, so that what was
// recorded before the call is linked, or broken, when it returns.
func (r *repository) carryLate(ctx context.Context) error {
	r.lateTurn.Lock()
	defer r.lateTurn.Unlock()
	return r.linkAllLate(ctx)
}

func (r *repository) linkAllLate(ctx context.Context) error {
	r.mu.Lock()
	waiting := r.late
	r.late = nil
	r.mu.Unlock()
	for len(waiting) > 0 {
		pending := map[digest.Digest]bool{}
		for _, l := range waiting {
			pending[l.digest] = true
		}
		var next []lateManifest
		for _, l := range waiting {
			if pending[l.subject] || slices.ContainsFunc(l.parts, func(d digest.Digest) bool { return pending[d] }) {
				next = append(next, l)
				continue
			}
			if err := r.linkLate(ctx, l); err != nil {
				return err
			}
			delete(pending, l.digest)
		}
		waiting = next // it shrinks: digests cannot refer to each other in a circle
	}
	return nil
}

func (r *repository) linkLate(ctx context.Context, l lateManifest) error {
	for _, part := range l.parts {
		there, err := r.hasPart(ctx, part, l.digest)
		if err != nil || !there {
			return err
		}
	}
	if l.subject != "" {
		if _, err := r.bringPart(ctx, l.subject); err != nil {
			return err
		}
	}
	return r.linkRevision(ctx, l.digest)
}

// hasPart reports whether the target has a link to a manifest of an index; where not, the index is broken for the same reason. An index may name manifests that
// were never pushed, or were deleted: the source serves nothing for those platforms either, but what it does not hold must not be referred to at the target.
func (r *repository) hasPart(ctx context.Context, part, whole digest.Digest) (bool, error) {
	there, err := r.bringPart(ctx, part)
	if err != nil || there {
		return there, err
	}
	if !r.breaks(part, whole) {
		r.blame(part, &badContent{registry.Missing, "the repository has no manifest of this digest, although index " + whole.String() + " names it"})
		r.breaks(part, whole)
	}
	return false, nil
}

// bringPart reports whether the target has a link to a manifest, after bringing it when the source has it although it was not listed.
func (r *repository) bringPart(ctx context.Context, part digest.Digest) (bool, error) {
	if r.linked.has(part) {
		return true, nil
	}
	if r.isBroken(part) {
		return false, nil
	}
	path := distribution.Path{Kind: distribution.Revision, Repository: r.name, Digest: part}
	there, err := r.linkedAtTarget(ctx, path)
	if err != nil || there {
		return there, err
	}
	if there, err = r.linkedAtSource(ctx, path); err != nil || !there {
		return false, err
	}
	if err := r.carryRevision(ctx, path, distribution.LinkMD5(part)); err != nil {
		return false, err
	}
	if err := r.linkAllLate(ctx); err != nil {
		return false, err
	}
	return !r.isBroken(part), nil
}
