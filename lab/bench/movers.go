package main

import (
	"context"

	"golang.org/x/sync/errgroup"

	"transship/lab/seed"
)

// movers compares one mover with two, each with half of the shards, where the stores are far away: every request takes a while, as it does between data centres.
func (b *benchmark) movers(ctx context.Context) error {
	p, stop, err := b.onSwift(ctx, seed.Set{Prefix: "restricted", Repositories: 8, Tags: 25, Layers: 2, LayerSize: 8 << 10, BaseSize: 64 << 10})
	if err != nil {
		return err
	}
	defer stop()
	if err := b.lay(ctx, p); err != nil {
		return err
	}
	b.report.text("## Movers\n\n200 tags in 8 repositories, cold; every mover makes 4 requests at once, as one that is far from its stores would.\n\n| movers | seconds, each run |\n|---|---|")
	for _, n := range []int{1, 2} {
		s := &series{}
		for range b.rounds {
			p, stop, err := b.target(ctx, p)
			if err != nil {
				return err
			}
			group, inner := errgroup.WithContext(ctx)
			took := make([]float64, n)
			for i := range n {
				group.Go(func() error {
					j := b.job("mirror", p)
					j.Shards, j.Shard, j.Jobs = n, i, 4
					o, err := measure(inner, j)
					took[i] = o.Wall
					return err
				})
			}
			err = group.Wait()
			stop()
			if err != nil {
				return err
			}
			longest := 0.0
			for _, t := range took {
				longest = max(longest, t)
			}
			s.times = append(s.times, longest)
			b.say("%d movers: %.2f s", n, longest)
		}
		b.report.texts[len(b.report.texts)-1] += "\n| " + map[int]string{1: "1", 2: "2"}[n] + " | " + s.String() + " |"
	}
	return nil
}
