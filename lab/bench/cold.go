package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/google/uuid"

	"transship/internal/objectstore"
	"transship/lab/seed"
	"transship/lab/servers"
)

const swiftRoot, s3Root = "files/docker/registry/v2/", "docker/registry/v2/"

// job is one of ours on a place.
func (b *benchmark) job(do string, p place) job {
	s, c := b.stores.Swift, b.stores.Ceph
	return job{
		Do: do, Prefix: p.Prefix,
		Swift: objectstore.SwiftOptions{AuthURL: s.AuthURL, Username: s.Username, Password: s.Password, Container: p.container, Root: swiftRoot},
		S3:    objectstore.S3Options{Endpoint: c.Endpoint, Region: c.Region, AccessKey: c.AccessKey, SecretKey: c.SecretKey, Bucket: p.bucket, Root: s3Root},
	}
}

// onSwift makes a container, with a registry on it until stop is called.
func (b *benchmark) onSwift(ctx context.Context, set seed.Set) (p place, stop func(), err error) {
	p = place{Set: set, container: "c" + uuid.NewString()}
	if err := b.stores.Swift.CreateContainer(ctx, p.container); err != nil {
		return p, nil, err
	}
	r, err := servers.StartRegistry(ctx, filepath.Join(b.dir, p.container), "swift", servers.RegistryOptions{Swift: b.stores.Swift, Container: p.container})
	if err != nil {
		return p, nil, err
	}
	p.from = host(r.URL)
	return p, r.Stop, nil
}

// target gives a place an empty bucket, with a registry on it until stop is called.
func (b *benchmark) target(ctx context.Context, p place) (place, func(), error) {
	p.bucket = "b" + uuid.NewString()
	if err := b.stores.Ceph.CreateBucket(ctx, p.bucket); err != nil {
		return p, nil, err
	}
	r, err := servers.StartRegistry(ctx, filepath.Join(b.dir, p.bucket), "ceph", servers.RegistryOptions{Ceph: b.stores.Ceph, Bucket: p.bucket})
	if err != nil {
		return p, nil, err
	}
	p.to = host(r.URL)
	return p, r.Stop, nil
}

var sets = []struct {
	name string
	seed.Set
}{
	{"many tags, small layers", seed.Set{Prefix: "restricted", Repositories: 5, Tags: 12, Layers: 2, LayerSize: 8 << 10, BaseSize: 1 << 20, Seed: 1}},
	{"mixed", seed.Set{Prefix: "restricted", Repositories: 4, Tags: 5, Layers: 2, LayerSize: 256 << 10, BaseSize: 8 << 20, Large: []int{64 << 20}, Seed: 2}},
	{"few tags, large layers", seed.Set{Prefix: "restricted", Large: []int{192 << 20, 96 << 20, 96 << 20}, Seed: 3}},
}

// cold copies each set into an empty target, and then again with nothing changed.
func (b *benchmark) cold(ctx context.Context) error {
	for _, set := range sets {
		if !strings.Contains(set.name, b.set) {
			continue
		}
		p, stop, err := b.onSwift(ctx, set.Set)
		if err != nil {
			return err
		}
		b.say("%s: pushing through the registry on Swift", set.name)
		if err := set.Push(ctx, p.from, 4); err != nil {
			stop()
			return err
		}
		err = b.race(ctx, set.name, p)
		stop()
		if err != nil {
			return err
		}
	}
	b.report.versions = b.versions(ctx)
	return nil
}

// race has all tools copy a set, by turns.
func (b *benchmark) race(ctx context.Context, name string, p place) error {
	for round := range b.rounds {
		for _, t := range b.racers() {
			if t.slow && round > 0 {
				continue
			}
			if err := b.turn(ctx, name, t, p, round); err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
		}
		if err := b.bareLoop(ctx, name, p); err != nil {
			return err
		}
	}
	return nil
}

func (b *benchmark) turn(ctx context.Context, name string, t tool, p place, round int) error {
	p, stop, err := b.target(ctx, p)
	if err != nil {
		return err
	}
	defer stop()
	took, err := t.copy(b, ctx, p)
	if err != nil {
		return err
	}
	again, err := t.copy(b, ctx, p)
	if err != nil {
		return err
	}
	b.report.add(name, "cold", t.name, took)
	b.report.add(name, "again", t.name, again)
	b.say("%s: round %d: %s %.2f s, again %.3f s", name, round+1, t.name, took, again)
	return nil
}

func (b *benchmark) bareLoop(ctx context.Context, name string, p place) error {
	p, stop, err := b.target(ctx, p)
	if err != nil {
		return err
	}
	defer stop()
	o, err := measure(ctx, b.job("loop", p))
	if err != nil {
		return err
	}
	b.report.add(name, "cold", bare, o.Wall)
	b.say("%s: %s %.2f s", name, bare, o.Wall)
	return nil
}

const bare = "bare loop over the blobs"
