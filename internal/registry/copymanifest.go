package registry

import (
	"context"
	"errors"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"transship/internal/distribution"
)

// manifest makes sure that the target has a manifest by its digest, with all it needs. The waits among concurrent calls follow the
// references (index to child, referrer to subject), which are hashes and so can never form a circle.
func (w *run) manifest(ctx context.Context, digest v1.Hash) error {
	_, err := w.done.do(ctx, digest.String(), func() (struct{}, error) {
		_, there, err := w.held(ctx, digest.String())
		if err != nil || there {
			return struct{}{}, err
		}
		m, err := w.read(ctx, digest)
		if err != nil {
			return struct{}{}, err
		}
		return struct{}{}, w.complete(ctx, digest.String(), m)
	})
	return err
}

// complete copies what the manifest needs and then puts it under the reference.
func (w *run) complete(ctx context.Context, reference string, m *Manifest) error {
	if err := w.needs(ctx, m); err != nil {
		return err
	}
	err := w.put(ctx, reference, m)
	if refusal(err) {
		// The target may have lost what we knew it to have: a garbage collection, a manifest deleted and pushed again.
		// Look at everything anew, once.
		w.forget(m)
		if err := w.needs(ctx, m); err != nil {
			return err
		}
		err = w.put(ctx, reference, m)
	}
	if refusal(err) {
		return w.To.problem(Refused, w.repository, m.Digest, "the target does not take this %s: %v", m.MediaType, err)
	}
	return err
}

// needs copies subject, children and blobs of a manifest, all at once.
func (w *run) needs(ctx context.Context, m *Manifest) error {
	var tasks []func(context.Context) error
	if m.Subject != nil {
		tasks = append(tasks, func(ctx context.Context) error { return w.subject(ctx, m.Subject.Digest) })
	}
	for _, child := range m.Children {
		tasks = append(tasks, func(ctx context.Context) error { return w.child(ctx, child) })
	}
	for _, b := range m.Blobs {
		tasks = append(tasks, func(ctx context.Context) error { return w.blob(ctx, b) })
	}
	return all(ctx, tasks)
}

// subject copies the manifest that another is about. That the source does not have it is allowed: subjects may be pushed later, or be
// deleted before what refers to them.
func (w *run) subject(ctx context.Context, digest v1.Hash) error {
	err := w.manifest(ctx, digest)
	var p *Problem
	if errors.As(err, &p) && p.Kind == Missing && p.Digest == digest.String() {
		return nil
	}
	return err
}

// child copies an entry of an index. Entries are manifests, but an index may list any content: what is no manifest may be a blob.
func (w *run) child(ctx context.Context, d v1.Descriptor) error {
	err := w.manifest(ctx, d.Digest)
	var p *Problem
	if errors.As(err, &p) && p.Kind == Missing && p.Digest == d.Digest.String() && !knownManifest(d) {
		return w.blob(ctx, d)
	}
	return err
}

func knownManifest(d v1.Descriptor) bool {
	return d.MediaType == "" || strings.Contains(distribution.Accept, string(d.MediaType))
}

// forget drops what is remembered about the needs of a manifest.
func (w *run) forget(m *Manifest) {
	for _, child := range m.Children {
		w.done.drop(child.Digest.String())
	}
	for _, b := range m.Blobs {
		w.needed.drop(b.Digest.String())
		w.present.drop(named(w.repository, b.Digest.String()))
		w.Holders.drop(b.Digest.String())
	}
}

// refusal reports whether a registry refuses this manifest, rather than us: 401, 403 and 405 would concern every manifest.
func refusal(err error) bool {
	var e *Error
	if !errors.As(err, &e) || e.Temporary || e.Status < 400 || e.Status >= 500 {
		return false
	}
	return e.has("MANIFEST_BLOB_UNKNOWN", "MANIFEST_INVALID", "MANIFEST_UNVERIFIED", "MANIFEST_UNKNOWN", "BLOB_UNKNOWN", "DIGEST_INVALID", "TAG_INVALID") ||
		e.Status == 400 || e.Status == 413 || e.Status == 415 || e.Status == 422
}
