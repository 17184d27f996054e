package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/ncw/swift/v2"

	"transship/internal/journal"
	"transship/lab/seed"
)

// lay fills the container of a place.
func (b *benchmark) lay(ctx context.Context, p place) error {
	s := b.stores.Swift
	return p.Lay(ctx, &swift.Connection{AuthUrl: s.AuthURL, UserName: s.Username, ApiKey: s.Password}, p.container, swiftRoot)
}

// laid is a place with so many tags that the target has already.
func (b *benchmark) laid(ctx context.Context, tags int) (p place, stop func(), err error) {
	p, stopFrom, err := b.onSwift(ctx, seed.Set{Prefix: "restricted", Repositories: max(1, tags/100), Tags: min(100, tags), Layers: 2, LayerSize: 200, BaseSize: 2 << 10})
	if err != nil {
		return p, nil, err
	}
	p, stopTo, err := b.target(ctx, p)
	if err != nil {
		stopFrom()
		return p, nil, err
	}
	stop = func() { stopFrom(); stopTo() }
	b.say("laying %d tags into Swift", tags)
	if err := b.lay(ctx, p); err != nil {
		stop()
		return p, nil, err
	}
	o, err := measure(ctx, b.job("mirror", p))
	if err != nil {
		stop()
		return p, nil, err
	}
	b.say("mirrored %d tags, %d blobs in %.1f s", o.Cursor.Progress.Tags, o.Cursor.Progress.Blobs, o.Wall)
	return p, stop, nil
}

// unchanged has all tools look at 2,000 tags of which none changed.
func (b *benchmark) unchanged(ctx context.Context) error {
	p, stop, err := b.laid(ctx, 2000)
	if err != nil {
		return err
	}
	defer stop()
	const name = "2,000 tags"
	var lists, inside []float64
	for range 5 {
		o, err := measure(ctx, b.job("list", p))
		if err != nil {
			return err
		}
		m, err := measure(ctx, b.job("mirror", p))
		if err != nil {
			return err
		}
		if m.Cursor.Progress.Tags != m.Cursor.Progress.TagsUnchanged {
			return fmt.Errorf("something had changed: %+v", m.Cursor)
		}
		lists, inside = append(lists, o.Seconds), append(inside, m.Seconds)
		b.report.add(name, "again", "both listings, nothing else", o.Wall)
		b.say("listings %.3f s, mirror %.3f s", o.Seconds, m.Seconds)
	}
	slices.Sort(lists)
	slices.Sort(inside)
	b.report.text("At 2,000 tags, without the start of the process: both listings alone %.0f ms, the mirror that finds nothing to do %.0f ms (medians of 5, by turns): %.2f times.",
		lists[2]*1000, inside[2]*1000, inside[2]/lists[2])
	for _, t := range b.racers() {
		if t.slow {
			continue // it is not the best, and takes minutes
		}
		took, err := t.copy(b, ctx, p)
		if err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
		b.report.add(name, "again", t.name, took)
		b.say("%s: %s %.2f s", name, t.name, took)
	}
	return nil
}

// oneTag pushes one tag among many, and brings it by listing and by journal.
func (b *benchmark) oneTag(ctx context.Context) error {
	b.report.text("## One tag pushed\n\n| tags before | both listings, s | mirror by listing, s | delta by journal, s |\n|---|---|---|---|")
	for _, tags := range []int{200, 2000} {
		p, stop, err := b.laid(ctx, tags)
		if err != nil {
			return err
		}
		err = b.one(ctx, p, tags)
		stop()
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *benchmark) one(ctx context.Context, p place, tags int) error {
	var lists, mirrors, deltas []float64
	for i := range 5 {
		repository := p.Repository(0)
		for _, by := range []string{"mirror", "delta"} {
			tag := fmt.Sprintf("new-%s-%d", by, i)
			if err := push(ctx, p.from, repository, tag, uint64(i)*2+uint64(len(by))); err != nil {
				return err
			}
			j := b.job(by, p)
			j.Changes = []journal.Change{{Kind: journal.Manifest, Repository: repository, Reference: tag}}
			o, err := measure(ctx, j)
			if err != nil {
				return err
			}
			if err := has(ctx, p.to, repository, tag); err != nil {
				return err
			}
			if by == "mirror" {
				mirrors = append(mirrors, o.Seconds)
			} else {
				deltas = append(deltas, o.Seconds)
			}
		}
		o, err := measure(ctx, b.job("list", p))
		if err != nil {
			return err
		}
		lists = append(lists, o.Seconds)
	}
	median := func(times []float64) float64 { slices.Sort(times); return times[len(times)/2] }
	b.report.texts[len(b.report.texts)-1] += fmt.Sprintf("\n| %d | %.3f | %.3f | %.3f |", tags, median(lists), median(mirrors), median(deltas))
	b.say("%d tags: listings %.3f, by listing %.3f, by journal %.3f", tags, median(lists), median(mirrors), median(deltas))
	return nil
}

func push(ctx context.Context, host, repository, tag string, with uint64) error {
	set := seed.Set{Layers: 2, LayerSize: 8 << 10, BaseSize: 1 << 10, Seed: with + 1000}
	img, err := set.One()
	if err != nil {
		return err
	}
	ref, err := name.NewTag(host+"/"+repository+":"+tag, name.Insecure)
	if err != nil {
		return err
	}
	return remote.Write(ref, img, remote.WithContext(ctx))
}

func has(ctx context.Context, host, repository, tag string) error {
	ref, err := name.NewTag(host+"/"+repository+":"+tag, name.Insecure)
	if err != nil {
		return err
	}
	if _, err := remote.Head(ref, remote.WithContext(ctx)); err != nil {
		return fmt.Errorf("%s was not brought: %w", ref, err)
	}
	return nil
}
