package audit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"transship/internal/distribution"
	"transship/internal/journal"
	"transship/internal/mirror"
	"transship/internal/objectstore"
	"transship/internal/registry"
)

// Healer makes good what an audit found, with verified copies from another backend, and only with those.
type Healer struct {
	// Good is where the copies come from, Bad what they heal.
	Good, Bad mirror.Side
	Jobs      int
	// Mark is kept with the links that are written.
	Mark string
}

// Heal heals findings, root causes first, and says in each what became of it. An error means that one could not be tried.
func (h *Healer) Heal(ctx context.Context, findings []Finding) ([]Finding, error) {
	m := &mirror.Mirror{From: h.Good, To: h.Bad, Jobs: h.Jobs, Mark: h.Mark, Untagging: time.Second}
	healed := append([]Finding(nil), findings...)
	blobs := map[string]error{} // those of several repositories are found in each
	for turn := range neverHealed {
		for i := range healed {
			f := &healed[i]
			if f.Healed || f.Derived || f.turn() != turn {
				continue
			}
			err, tried := blobs[f.Path]
			if !tried {
				err = h.one(ctx, m, *f)
			}
			if distribution.Parse(f.Path).Kind == distribution.Blob {
				blobs[f.Path] = err
			}
			var not notGood
			switch {
			case err == nil:
				f.Healed, f.Unhealed = true, ""
			case errors.As(err, &not):
				f.Unhealed = string(not)
			default:
				return healed, fmt.Errorf("heal %s at %s: %w", f.Path, h.Bad.Backend, err)
			}
		}
	}
	return healed, nil
}

// neverHealed is the turn of what a copy does not heal.
const neverHealed = 3

// turn is when a finding is healed: blobs come before links to them, links before manifests and tags that need them.
func (f Finding) turn() int {
	switch f.Category {
	case BlobMissing, BlobEmpty, BlobShort, BlobLong, BlobCorrupt, SegmentsMissing:
		return 0
	case ListedGone:
		if distribution.Parse(f.Path).Kind == distribution.Blob {
			return 0
		}
		return 1
	case LinkEmpty, LinkBad, LinkWrong, LayerLinkMissing, LinkMissing:
		return 1
	case ManifestPartMissing, TagManifestMissing:
		return 2
	}
	return neverHealed
}

// CausesFirst orders findings as they must be healed, for whoever heals them a few at a time.
func CausesFirst(a, b Finding) int { return a.turn() - b.turn() }

// notGood says why a finding cannot be healed from here.
type notGood string

func (n notGood) Error() string { return string(n) }

func (h *Healer) one(ctx context.Context, m *mirror.Mirror, f Finding) error {
	path := distribution.Parse(f.Path)
	switch {
	case f.Category == ManifestPartMissing || f.Category == TagManifestMissing:
		return h.manifest(ctx, m, f)
	case path.Kind == distribution.Blob:
		err := m.Blob(ctx, path.Digest)
		if _, detail, bad := mirror.IsBad(err); bad {
			return notGood(fmt.Sprintf("%s has no good copy: %s", h.Good.Backend, detail))
		}
		return err
	}
	return h.link(ctx, path)
}

// manifest brings a manifest, or those that an index lacks.
func (h *Healer) manifest(ctx context.Context, m *mirror.Mirror, f Finding) error {
	wanted := []digest.Digest{f.Digest}
	if f.Category == ManifestPartMissing {
		raw, err := mirror.ReadManifest(ctx, h.Bad, f.Digest, objectstore.ReadOptions{Newest: true})
		if err != nil {
			return err
		}
		index, err := distribution.ParseManifest(raw)
		if err != nil {
			return notGood(err.Error())
		}
		wanted = nil
		for _, part := range index.Manifests {
			wanted = append(wanted, part.Digest)
		}
	}
	var changes []journal.Change
	for _, d := range wanted {
		changes = append(changes, journal.Change{Kind: journal.Manifest, Repository: f.Repository, Reference: d.String()})
	}
	_, err := m.Apply(ctx, changes)
	var broken *registry.BrokenError
	if errors.As(err, &broken) {
		return notGood(fmt.Sprintf("%s has no good copy: %s", h.Good.Backend, broken))
	}
	if err != nil {
		return err
	}
	for _, d := range wanted {
		there, err := h.has(ctx, distribution.Path{Kind: distribution.Revision, Repository: f.Repository, Digest: d}.Key())
		if err != nil {
			return err
		}
		if !there {
			return notGood(fmt.Sprintf("%s does not have manifest %s either", h.Good.Backend, d))
		}
	}
	return nil
}

// has reports whether the backend that is healed has an object.
func (h *Healer) has(ctx context.Context, key string) (bool, error) {
	_, err := h.Bad.Store.Stat(ctx, key, objectstore.ReadOptions{Newest: true})
	if errors.Is(err, objectstore.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// link writes a link as the other backend has it, if what it leads to is there.
func (h *Healer) link(ctx context.Context, path distribution.Path) error {
	said, err := mirror.ReadLink(ctx, h.Good.Store, path.Key())
	_, detail, bad := mirror.IsBad(err)
	switch {
	case errors.Is(err, objectstore.ErrNotExist):
		return notGood(h.Good.Backend + " does not have the link either")
	case bad:
		return notGood(h.Good.Backend + " has no good copy: " + detail)
	case err != nil:
		return err
	case path.Digest != "" && said != path.Digest:
		return notGood(fmt.Sprintf("%s has no good copy: it says %s", h.Good.Backend, said))
	}
	leadsTo := distribution.BlobKey(said)
	if path.Kind == distribution.TagCurrent {
		leadsTo = distribution.Path{Kind: distribution.Revision, Repository: path.Repository, Digest: said}.Key()
	}
	there, err := h.has(ctx, leadsTo)
	if err != nil {
		return err
	}
	if !there && path.Kind != distribution.TagIndex {
		return notGood("it would lead to " + leadsTo + ", which is missing")
	}
	_, err = h.Bad.Store.Put(ctx, path.Key(), strings.NewReader(said.String()), int64(len(said)), objectstore.PutOptions{Mark: h.Mark})
	return err
}
