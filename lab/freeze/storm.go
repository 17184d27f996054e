package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"transship/lab"
	"transship/lab/seed"
	"transship/workflows"
)

// flipMany has many prefixes flip at once, none of which nginx knew beforehand, so that each was a reload as well. Clients work on yet another one.
func flipMany(ctx context.Context, s *lab.Stack, n int) error {
	folder := filepath.Join(s.Dir, "old/docker/registry/v2")
	name := func(i int) string { return fmt.Sprintf("team-%03d", i) }
	for i := range n {
		if err := (seed.Set{Prefix: name(i), Repositories: 1, Tags: 2, Layers: 1, LayerSize: 100, BaseSize: 100, Seed: uint64(i)}).LayFiles(folder); err != nil {
			return err
		}
	}
	clients := lab.NewClientsOf(s.Addresses.Edges, "platform")
	working, stop := context.WithCancel(ctx)
	var wait sync.WaitGroup
	wait.Go(func() { clients.Run(working, 2) })
	defer func() { stop(); wait.Wait() }()
	// What comes before a flip takes its time, and is not what is measured: all wait for their approval first.
	var before errgroup.Group
	before.SetLimit(4)
	for i := range n {
		before.Go(func() error {
			if _, err := s.Transship(ctx, "migrate", name(i), "--from", "old", "--to", "new"); err != nil {
				return err
			}
			_, err := s.Await(ctx, name(i), lab.Phase(workflows.Approval))
			return err
		})
	}
	if err := before.Wait(); err != nil {
		return err
	}
	begun := time.Now()
	var approving errgroup.Group
	for i := range n {
		approving.Go(func() error {
			_, err := s.Transship(ctx, "--as", "releng", "approve", name(i))
			return err
		})
	}
	if err := approving.Wait(); err != nil {
		return err
	}
	var held []time.Duration
	var flipped []time.Time
	attempts := 0
	for i := range n {
		there, err := s.Await(ctx, name(i), lab.Phase(workflows.Soak))
		if err != nil {
			return err
		}
		lasted, _ := there.Report.Freeze()
		held = append(held, lasted)
		attempts += there.Report.Attempts
		for _, step := range there.Report.Steps {
			if step.Name == workflows.Release {
				flipped = append(flipped, step.Ended)
			}
		}
	}
	slices.Sort(held)
	slices.SortFunc(flipped, time.Time.Compare)
	seen := clients.Summary()
	for _, failure := range clients.Failures() {
		fmt.Fprintln(os.Stderr, failure)
	}
	inAMinute := 0
	for _, at := range flipped {
		if at.Before(begun.Add(time.Minute)) {
			inAMinute++
		}
	}
	fmt.Printf("\n## Many prefixes at once\n\n%d migrations, each of a prefix that nginx had not known, approved at the same moment: %d flips within a minute, the last after %.0f s, %d attempts. "+
		"Writes of a prefix were held for %.2f s (median), %.2f s at most. Clients of another prefix meanwhile: slowest write %.2f s, %d of %d requests failed.\n",
		n, inAMinute, flipped[len(flipped)-1].Sub(begun).Seconds(), attempts, held[len(held)/2].Seconds(), held[len(held)-1].Seconds(), seen.Slowest.Seconds(), seen.Failed, seen.Requests)
	return nil
}
