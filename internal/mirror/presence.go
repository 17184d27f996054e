package mirror

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/opencontainers/go-digest"

	"transship/internal/distribution"
	"transship/internal/objectstore"
)

// presence knows which blobs the target holds. It asks for each one, until so many were asked for that listing a small target is cheaper; a target with
// more blobs than fit goes on being asked.
type presence struct {
	store objectstore.Store

	mu    sync.Mutex
	holds map[fingerprint]struct{}
	// doubtful are blobs whose size the listing does not tell.
	doubtful map[fingerprint]struct{}
	asked    int
	// all says that every blob of the target is in holds or doubtful.
	all bool
	// asks has each blob asked for, however many they are.
	asks bool
}

const (
	// listAfter is how many blobs are asked for before the target's are listed.
	listAfter = 32
	// listAtMost bounds that listing, in objects: 20 pages of S3.
	listAtMost = 20_000
	// rememberedBlobs bounds what is remembered: about 50 bytes each.
	rememberedBlobs = 500_000
)

// empty is the digest of no bytes, which is the only blob that may have none.
const empty = digest.Digest("sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")

func (p *presence) init(store objectstore.Store) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.store == nil {
		p.store, p.holds, p.doubtful = store, map[fingerprint]struct{}{}, map[fingerprint]struct{}{}
	}
}

// onlyAsks keeps what a delta costs apart from how much the target holds.
func (p *presence) onlyAsks() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asks = true
}

func (p *presence) known(d digest.Digest) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.holds[fingerprintOf(d)]
	return ok
}

func (p *presence) add(d digest.Digest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.holds) < rememberedBlobs {
		p.holds[fingerprintOf(d)] = struct{}{}
	}
	delete(p.doubtful, fingerprintOf(d))
}

// held reports whether the target holds a blob. Under its name nothing but its content was ever stored; what a crash may leave, no bytes at all, does
// not count.
func (p *presence) held(ctx context.Context, d digest.Digest) (bool, error) {
	held, settled, err := p.look(ctx, d)
	if err != nil || settled {
		return held, err
	}
	object, err := p.store.Stat(ctx, distribution.BlobKey(d), objectstore.ReadOptions{})
	if errors.Is(err, objectstore.ErrNotExist) {
		return false, nil
	}
	if err != nil || object.Size == 0 && d != empty {
		return false, err
	}
	p.add(d)
	return true, nil
}

// look says what is known without asking for this one blob.
func (p *presence) look(ctx context.Context, d digest.Digest) (held, settled bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asked++; p.asked == listAfter && !p.asks {
		if err := p.list(ctx); err != nil {
			p.asked-- // the next one tries again
			return false, false, err
		}
	}
	f := fingerprintOf(d)
	if _, held = p.holds[f]; held {
		return true, true, nil
	}
	_, doubtful := p.doubtful[f]
	return false, p.all && !doubtful, nil
}

// list takes in the blobs of a target that has few.
func (p *presence) list(ctx context.Context) error {
	n := 0
	for o, err := range p.store.List(ctx, objectstore.ListOptions{Prefix: distribution.Blobs}) {
		if err != nil {
			return fmt.Errorf("list blobs: %w", err)
		}
		if n++; n > listAtMost {
			return nil
		}
		path := distribution.Parse(o.Key)
		switch {
		case path.Kind != distribution.Blob:
		case o.Size == 0 && path.Digest != empty:
			p.doubtful[fingerprintOf(path.Digest)] = struct{}{}
		default:
			p.holds[fingerprintOf(path.Digest)] = struct{}{}
		}
	}
	p.all = true
	return nil
}
