package mirror

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"transship/internal/distribution"
	"transship/internal/objectstore"
	"transship/internal/registry"
)

// Planned is what a mirror of a prefix would come to.
type Planned struct {
	Repositories, Tags, TagsPresent, Manifests int64
	// Objects are all links and blobs of the prefix; ObjectsPresent those that the target has.
	Objects, ObjectsPresent int64
	// Blobs and Bytes are what the prefix refers to, manifests included.
	Blobs, Bytes               int64
	BlobsPresent, BytesPresent int64
	// BytesShared are those that other prefixes of the source refer to as well.
	BytesShared int64
	// Changed and Extra name tags (repository:tag) that the target has with another digest, or that only it has.
	Changed, Extra []string
	Problems       []registry.Problem
	Unexpected     []string
	// Takes is how long the copy is estimated to take, from reading Sample blobs of the source as the mirror would; 0 when there is nothing to copy.
	Takes  time.Duration
	Sample int
}

// planned blobs are known by their digest.
type blobPlan struct {
	size            int64
	present, shared bool
}

// Plan finds out what Run would do for a prefix, and how long that may take. It writes nothing. It costs both listings, the listing of the other prefixes at the
// source, reading the manifests, and a short sample of blobs. Its memory grows with the number of blobs of the prefix, about 200 bytes for each.
func (m *Mirror) Plan(ctx context.Context, prefix string) (Planned, error) {
	m.init()
	p := &planning{Mirror: m, blobs: map[digest.Digest]*blobPlan{}}
	for _, step := range []func(context.Context, string) error{p.list, p.confirm, p.size, p.present, p.others, p.sample} {
		if err := step(ctx, prefix); err != nil {
			return p.Planned, fmt.Errorf("plan %s: %w", prefix, err)
		}
	}
	for _, b := range p.blobs {
		p.Blobs++
		p.Objects++
		p.Bytes += b.size
		if b.present {
			p.BlobsPresent++
			p.ObjectsPresent++
			p.BytesPresent += b.size
		}
		if b.shared {
			p.BytesShared += b.size
		}
	}
	return p.Planned, nil
}

type planning struct {
	*Mirror
	Planned
	blobs     map[digest.Digest]*blobPlan
	manifests []Tag // Digest of each manifest, with one repository that has it
}

// list joins both listings.
func (p *planning) list(ctx context.Context, prefix string) error {
	last := ""
	for pair, err := range join(ctx, p.From.Store, p.To.Store, objectstore.ListOptions{Prefix: distribution.Under(prefix)}) {
		if err != nil {
			return err
		}
		path := distribution.Parse(pair.key)
		if path.Kind == distribution.Upload {
			continue
		}
		if path.Kind == distribution.Unknown {
			if len(p.Unexpected) < named {
				p.Unexpected = append(p.Unexpected, pair.key)
			}
			continue
		}
		if path.Kind == distribution.TagCurrent {
			p.tag(path, &pair)
		}
		if !pair.atFrom() {
			continue
		}
		if path.Repository != last {
			last = path.Repository
			p.Repositories++
		}
		p.Objects++
		if pair.same() {
			p.ObjectsPresent++
		}
		switch path.Kind {
		case distribution.Layer, distribution.Revision, distribution.Signature:
			if p.blobs[path.Digest] == nil {
				p.blobs[path.Digest] = &blobPlan{size: -1}
				if path.Kind == distribution.Revision {
					p.manifests = append(p.manifests, Tag{Repository: path.Repository, Digest: path.Digest})
				}
			}
		}
	}
	p.Manifests = int64(len(p.manifests))
	return nil
}

func (p *planning) tag(path distribution.Path, pair *pair) {
	name := path.Repository + ":" + path.Tag
	switch {
	case !pair.atFrom():
		p.Extra = append(p.Extra, name)
		return
	case pair.same():
		p.TagsPresent++
	case pair.atTo():
		p.Changed = append(p.Changed, name)
	}
	p.Tags++
}

// confirm asks the source for each tag that only the target seems to have: its listing may not show yet what clients pushed, or an earlier migration carried back, and extra tags
// stop a migration.
func (p *planning) confirm(ctx context.Context, _ string) error {
	there := make([]bool, len(p.Extra))
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(p.Jobs)
	for i, name := range p.Extra {
		repository, tag, _ := strings.Cut(name, ":")
		key := distribution.Path{Kind: distribution.TagCurrent, Repository: repository, Tag: tag}.Key()
		group.Go(func() (err error) { there[i], err = exists(inner, p.From.Store, key); return err })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	var extra []string
	for i, name := range p.Extra {
		if !there[i] {
			extra = append(extra, name)
		}
	}
	p.Extra = extra
	return nil
}

// size reads the manifests, which say how large everything is; what none of them names is asked for.
func (p *planning) size(ctx context.Context, _ string) error {
	sizes := make([]map[digest.Digest]int64, len(p.manifests))
	bad := make([]*registry.Problem, len(p.manifests))
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(p.Jobs)
	for i, of := range p.manifests {
		group.Go(func() error {
			raw, err := p.readManifest(inner, of.Digest)
			var manifest distribution.Manifest
			if err == nil {
				if manifest, err = distribution.ParseManifest(raw); err != nil {
					err = &badContent{registry.Corrupt, err.Error()}
				}
			}
			if b := asBad(err); b != nil {
				bad[i] = &registry.Problem{Kind: b.kind, Backend: p.From.Backend, Repository: of.Repository, Digest: of.Digest.String(), Detail: b.detail}
				return nil
			}
			sizes[i] = map[digest.Digest]int64{of.Digest: int64(len(raw))}
			for _, blob := range manifest.Blobs {
				sizes[i][blob.Digest] = blob.Size
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for i := range p.manifests {
		for d, size := range sizes[i] {
			if b := p.blobs[d]; b != nil {
				b.size = max(b.size, size)
			}
		}
		if bad[i] != nil {
			p.Problems = append(p.Problems, *bad[i])
		}
	}
	return p.ask(ctx)
}

// ask asks the source for the sizes that no manifest says.
func (p *planning) ask(ctx context.Context) error {
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(p.Jobs)
	for d, b := range p.blobs {
		if b.size >= 0 {
			continue
		}
		group.Go(func() error {
			object, err := p.From.Store.Stat(inner, distribution.BlobKey(d), objectstore.ReadOptions{})
			b.size = object.Size
			if errors.Is(err, objectstore.ErrNotExist) {
				b.size = 0 // the audit names it
				return nil
			}
			return err
		})
	}
	return group.Wait()
}

// present finds out which blobs the target has.
func (p *planning) present(ctx context.Context, _ string) error {
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(p.Jobs)
	for d, b := range p.blobs {
		group.Go(func() (err error) {
			b.present, err = p.Known.presence.held(inner, d)
			return err
		})
	}
	return group.Wait()
}

// others finds out what other prefixes refer to as well.
func (p *planning) others(ctx context.Context, prefix string) error {
	own := distribution.Under(prefix)
	for _, o := range []objectstore.ListOptions{
		{Prefix: distribution.Under(""), Before: own},
		{Prefix: distribution.Under(""), After: own + "\U0010FFFF"}, // past every key below it, and UTF-8, which Swift insists on
	} {
		for object, err := range p.From.Store.List(ctx, o) {
			if err != nil {
				return err
			}
			path := distribution.Parse(object.Key)
			if path.Kind != distribution.Layer && path.Kind != distribution.Revision {
				continue
			}
			if b := p.blobs[path.Digest]; b != nil {
				b.shared = true
			}
		}
	}
	return nil
}

const (
	// sampleSize is how many blobs are read, and sampleTime how long at most, to find out how fast the source is.
	sampleSize = 48
	sampleTime = 10 * time.Second
)

// sample reads some of the blobs that the target lacks, the small ones and then the large, as many at once as the mirror would. The two times give what
// a request costs and what a byte does.
func (p *planning) sample(ctx context.Context, _ string) error {
	var missing []digest.Digest
	var bytes int64
	for d, b := range p.blobs {
		if !b.present {
			missing = append(missing, d)
			bytes += b.size
		}
	}
	if len(missing) == 0 {
		return nil
	}
	all := len(missing)
	missing = p.some(missing)
	half := (len(missing) + 1) / 2
	n1, s1, t1, err := p.read(ctx, missing[:half])
	if err != nil {
		return err
	}
	n2, s2, t2, err := p.read(ctx, missing[half:])
	if err != nil {
		return err
	}
	p.Sample = int(n1 + n2)
	p.Takes = estimate([2]float64{n1, n2}, [2]float64{s1, s2}, [2]float64{t1, t2}, float64(all), float64(bytes))
	return nil
}

// some are a sample, the small ones first. The largest is always among them: where a few blobs have most of the bytes, what a byte costs shows in no other.
func (p *planning) some(missing []digest.Digest) []digest.Digest {
	size := func(a, b digest.Digest) int { return cmp.Compare(p.blobs[a].size, p.blobs[b].size) }
	slices.Sort(missing)
	largest := slices.MaxFunc(missing, size)
	rand.New(rand.NewPCG(1, uint64(len(missing)))).Shuffle(len(missing), func(i, j int) { missing[i], missing[j] = missing[j], missing[i] }) //nolint:gosec // no secret
	sample := missing[:min(len(missing), sampleSize)]
	if !slices.Contains(sample, largest) {
		sample[len(sample)-1] = largest
	}
	slices.SortFunc(sample, size)
	return sample
}

// estimate solves n·a + s·b = t for what a request (a) and a byte (b) cost, from two measurements, and says what all objects and bytes cost then. Where the two do not tell
// them apart, all is put down to the requests, or to the bytes, whichever is more.
func estimate(n, s, t [2]float64, objects, bytes float64) time.Duration {
	sumN, sumS, sumT := n[0]+n[1], s[0]+s[1], t[0]+t[1]
	takes := max(sumT/max(sumN, 1)*objects, sumT/max(sumS, 1)*bytes)
	if determinant := n[0]*s[1] - n[1]*s[0]; determinant > 0 {
		a := (t[0]*s[1] - t[1]*s[0]) / determinant
		b := (n[0]*t[1] - n[1]*t[0]) / determinant
		if a >= 0 && b >= 0 {
			takes = a*objects + b*bytes
		}
	}
	return time.Duration(takes * float64(time.Second))
}

// read reads blobs, and says how many, how many bytes, and how many seconds that took.
func (p *planning) read(ctx context.Context, blobs []digest.Digest) (n, bytes, seconds float64, err error) {
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, sampleTime/2)
	defer cancel()
	done := make([]int64, len(blobs))
	group, inner := errgroup.WithContext(limited)
	group.SetLimit(p.Jobs)
	for i, d := range blobs {
		group.Go(func() error {
			body, _, err := p.From.Store.Get(inner, distribution.BlobKey(d), objectstore.ReadOptions{})
			if err == nil {
				defer body.Close()
				done[i], err = io.Copy(io.Discard, body)
			}
			if errors.Is(err, objectstore.ErrNotExist) || errors.Is(err, io.ErrUnexpectedEOF) {
				return nil // the audit names it
			}
			return err
		})
	}
	if err = group.Wait(); err != nil && limited.Err() != nil && ctx.Err() == nil {
		err = nil // time is up: what came until then tells enough
	}
	for i, d := range blobs {
		if size := p.blobs[d].size; size > 0 {
			n += float64(done[i]) / float64(size)
		} else {
			n++
		}
		bytes += float64(done[i])
	}
	return n, bytes, time.Since(began).Seconds(), err
}
