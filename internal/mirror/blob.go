package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"

	"transship/internal/distribution"
	"transship/internal/objectstore"
	"transship/internal/registry"
)

// badContent says that the source does not have what a name promises. It outlives a second reading of the newest copy.
type badContent struct {
	kind   registry.Kind
	detail string
}

func (b *badContent) Error() string { return string(b.kind) + ": " + b.detail }

func asBad(err error) *badContent {
	var bad *badContent
	if errors.As(err, &bad) {
		return bad
	}
	return nil
}

// maxObject is the most that S3 stores under one key
// (https://docs.aws.amazon.com/AmazonS3/latest/userguide/UploadingObjects.html).
const maxObject = 5 << 40

// ensure makes sure that the target holds a blob. It is looked for, and brought, once, however many repositories ask at the same time.
func (m *Mirror) ensure(ctx context.Context, d digest.Digest) error {
	if m.Known.presence.known(d) {
		m.counts.present.Add(1)
		return nil
	}
	_, err, _ := m.Known.flights.Do(d.String(), func() (any, error) {
		return nil, m.within(ctx, func() error {
			held, err := m.Known.presence.held(ctx, d)
			if err != nil {
				return err
			}
			if held {
				m.counts.present.Add(1)
				return nil
			}
			return m.copyBlob(ctx, d)
		})
	})
	return err
}

// Blob brings a blob whatever the target holds under its name. It is for healing.
func (m *Mirror) Blob(ctx context.Context, d digest.Digest) error {
	m.init()
	return m.copyBlob(ctx, d)
}

func (m *Mirror) copyBlob(ctx context.Context, d digest.Digest) error {
	err := m.reread(d, func(o objectstore.ReadOptions) error { return m.copyOnce(ctx, d, o) })
	if err == nil {
		m.counts.blobs.Add(1)
		m.Known.presence.add(d)
	}
	return err
}

// reread does something that reads content, and once more from the newest copy when that was bad: a store may have answered from an outdated replica.
func (m *Mirror) reread(d digest.Digest, read func(objectstore.ReadOptions) error) error {
	if known, ok := m.Known.bad.Load(d); ok {
		return known.(*badContent)
	}
	err := read(objectstore.ReadOptions{})
	if asBad(err) == nil {
		return err
	}
	if err = read(objectstore.ReadOptions{Newest: true}); err == nil {
		m.counts.healed.Add(1)
	}
	if bad := asBad(err); bad != nil {
		m.Known.bad.Store(d, bad)
	}
	return err
}

func (m *Mirror) copyOnce(ctx context.Context, d digest.Digest, o objectstore.ReadOptions) error {
	key := distribution.BlobKey(d)
	body, object, err := m.large.Open(ctx, m.From.Store, key, o)
	if err != nil {
		return explain(err, "read blob %s at %s", d, m.From.Backend)
	}
	defer body.Close()
	if object.Size > maxObject {
		return &badContent{registry.Refused, fmt.Sprintf("the blob has %d bytes: no store takes more than 5 TB in one object", object.Size)}
	}
	_, err = m.To.Store.Put(ctx, key, m.verified(body, d, object.Size), object.Size, objectstore.PutOptions{})
	if err != nil {
		return explain(err, "bring blob %s to %s", d, m.To.Backend)
	}
	return nil
}

// explain makes badContent of what a store says when it does not have what it should.
func explain(err error, doing string, args ...any) error {
	switch {
	case asBad(err) != nil:
		return err
	case errors.Is(err, objectstore.ErrNotExist):
		return &badContent{registry.Missing, "the store has no such object"}
	case errors.Is(err, io.ErrUnexpectedEOF):
		return &badContent{registry.Short, "the store gives fewer bytes than it announces"}
	}
	return fmt.Errorf(doing+": %w", append(args, err)...)
}

// verified passes a blob on, and ends with an error instead of io.EOF when it was not what its digest names.
func (m *Mirror) verified(body io.Reader, d digest.Digest, size int64) io.Reader {
	return &verifier{body: body, hash: d.Verifier(), size: size, sent: &m.counts.bytes}
}

type verifier struct {
	body io.Reader
	hash digest.Verifier
	// size is what the store announced, seen what it gave.
	size, seen int64
	sent       interface{ Add(int64) int64 }
}

func (v *verifier) Read(p []byte) (int, error) {
	n, err := v.body.Read(p)
	_, _ = v.hash.Write(p[:n]) // a hash never fails
	v.seen += int64(n)
	v.sent.Add(int64(n))
	if err == io.EOF && !v.hash.Verified() {
		switch {
		case v.seen == 0:
			err = &badContent{registry.Short, "it has no bytes"}
		case v.seen < v.size:
			err = &badContent{registry.Short, fmt.Sprintf("the store announces %d bytes and gives %d", v.size, v.seen)}
		default:
			err = &badContent{registry.Corrupt, fmt.Sprintf("its %d bytes do not hash to its name", v.seen)}
		}
	}
	return n, err
}

// ensureManifest reads a manifest at the source, makes sure that the target holds it, and says what it refers to.
func (m *Mirror) ensureManifest(ctx context.Context, d digest.Digest) (parsed distribution.Manifest, err error) {
	err = m.within(ctx, func() error {
		raw, err := m.readManifest(ctx, d)
		if err != nil {
			return err
		}
		if parsed, err = distribution.ParseManifest(raw); err != nil {
			return &badContent{registry.Corrupt, err.Error()}
		}
		held, err := m.Known.presence.held(ctx, d)
		if err != nil || held {
			return err
		}
		if _, err := m.To.Store.Put(ctx, distribution.BlobKey(d), bytes.NewReader(raw), int64(len(raw)), objectstore.PutOptions{}); err != nil {
			return fmt.Errorf("bring manifest %s to %s: %w", d, m.To.Backend, err)
		}
		m.counts.bytes.Add(int64(len(raw)))
		m.Known.presence.add(d)
		return nil
	})
	return parsed, err
}

func (m *Mirror) readManifest(ctx context.Context, d digest.Digest) (raw []byte, err error) {
	err = m.reread(d, func(o objectstore.ReadOptions) error {
		raw, err = ReadManifest(ctx, m.From, d, o)
		return err
	})
	return raw, err
}

// ReadManifest reads the content of a manifest and checks that it hashes to its name. Content that is missing or bad is an error for which IsBad
// is true.
func ReadManifest(ctx context.Context, side Side, d digest.Digest, o objectstore.ReadOptions) ([]byte, error) {
	body, object, err := side.Store.Get(ctx, distribution.BlobKey(d), o)
	if err != nil {
		return nil, explain(err, "read manifest %s at %s", d, side.Backend)
	}
	defer body.Close()
	raw, err := io.ReadAll(io.LimitReader(body, distribution.MaxManifest+1))
	switch {
	case err != nil:
		return nil, explain(err, "read manifest %s at %s", d, side.Backend)
	case len(raw) > distribution.MaxManifest:
		return nil, &badContent{registry.Refused, fmt.Sprintf("%d bytes are linked as a manifest: registries accept %d", object.Size, distribution.MaxManifest)}
	case len(raw) == 0:
		return nil, &badContent{registry.Short, "it has no bytes"}
	case d.Algorithm().FromBytes(raw) != d:
		return nil, &badContent{registry.Corrupt, fmt.Sprintf("its %d bytes do not hash to its name", len(raw))}
	}
	return raw, nil
}

// IsBad reports whether an error says that a store does not have the content that a name promises, and in which way.
func IsBad(err error) (kind registry.Kind, detail string, bad bool) {
	if b := asBad(err); b != nil {
		return b.kind, b.detail, true
	}
	return "", "", false
}
