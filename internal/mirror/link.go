package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"

	"transship/internal/distribution"
	"transship/internal/objectstore"
	"transship/internal/registry"
)

// maxLink is more than any link has: "sha512:" and 128 hexadecimal digits.
const maxLink = 256

// ReadLink reads what a link says. Content that is no digest is an error for which IsBad is true; a link that is not there is objectstore.ErrNotExist.
func ReadLink(ctx context.Context, store objectstore.Store, key string) (digest.Digest, error) {
	body, _, err := store.Get(ctx, key, objectstore.ReadOptions{Newest: true})
	if err != nil {
		return "", fmt.Errorf("read link %s: %w", key, err)
	}
	defer body.Close()
	raw, err := io.ReadAll(io.LimitReader(body, maxLink))
	if err != nil {
		return "", fmt.Errorf("read link %s: %w", key, err)
	}
	said := strings.TrimSpace(string(raw))
	if said == "" {
		return "", &badContent{registry.Corrupt, "the link " + key + " is empty"}
	}
	d, err := digest.Parse(said)
	if err != nil {
		return "", &badContent{registry.Corrupt, fmt.Sprintf("the link %s says %q, which is no digest", key, said)}
	}
	return d, nil
}

// errVanished says that a link was listed and is gone: it was deleted meanwhile.
var errVanished = errors.New("deleted meanwhile")

// readable looks whether a link says what its path says. The listing's MD5 mostly settles it.
func (m *Mirror) readable(ctx context.Context, path distribution.Path, md5 string) error {
	if md5 == distribution.LinkMD5(path.Digest) {
		return nil
	}
	return m.within(ctx, func() error {
		said, err := ReadLink(ctx, m.From.Store, path.Key())
		switch {
		case errors.Is(err, objectstore.ErrNotExist):
			return errVanished
		case err != nil:
			return err
		case said != path.Digest:
			return &badContent{registry.Corrupt, fmt.Sprintf("the link %s says %s", path.Key(), said)}
		}
		return nil
	})
}

// link writes a link to the target, marked as ours.
func (m *Mirror) link(ctx context.Context, key string, d digest.Digest) error {
	return m.within(ctx, func() error {
		if _, err := m.To.Store.Put(ctx, key, strings.NewReader(d.String()), int64(len(d)), objectstore.PutOptions{Mark: m.Mark}); err != nil {
			return fmt.Errorf("link %s at %s: %w", key, m.To.Backend, err)
		}
		m.counts.links.Add(1)
		return nil
	})
}

// linkedAtSource reports whether the source has a link, whatever its listing shows, or the link says.
func (m *Mirror) linkedAtSource(ctx context.Context, path distribution.Path) (there bool, err error) {
	err = m.within(ctx, func() error {
		there, err = exists(ctx, m.From.Store, path.Key())
		return err
	})
	return there, err
}

// linkedAtTarget reports whether the target has a link that says what its path says, whatever its listing shows. An empty one does not count: a registry that is killed while it writes a link to
// a disk leaves that (Distribution's filesystem driver, PutContent).
func (m *Mirror) linkedAtTarget(ctx context.Context, path distribution.Path) (there bool, err error) {
	err = m.within(ctx, func() error {
		object, err := m.To.Store.Stat(ctx, path.Key(), objectstore.ReadOptions{Newest: true})
		if errors.Is(err, objectstore.ErrNotExist) {
			return nil
		}
		there = err == nil && (object.MD5 == "" || object.MD5 == distribution.LinkMD5(path.Digest))
		return err
	})
	return there, err
}

func exists(ctx context.Context, store objectstore.Store, key string) (bool, error) {
	_, err := store.Stat(ctx, key, objectstore.ReadOptions{Newest: true})
	if errors.Is(err, objectstore.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
