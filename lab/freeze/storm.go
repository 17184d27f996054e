package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"transship/internal/report"
	"transship/lab"
	"transship/lab/seed"
	"transship/workflows"
)

// flipMany migrates many prefixes at once, none of which nginx knows beforehand, so that each is a reload as well as a flip. Clients work on yet another one.
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
	var group errgroup.Group
	var mu sync.Mutex
	var held []time.Duration
	var flipped []time.Time
	begun := time.Now()
	for i := range n {
		group.Go(func() error {
			if _, err := s.Transship(ctx, "migrate", name(i), "--from", "old", "--to", "new"); err != nil {
				return err
			}
			there, err := s.Await(ctx, name(i), lab.Phase(workflows.Soak))
			if err != nil {
				return err
			}
			lasted, _ := there.Report.Freeze()
			at := slices.IndexFunc(there.Report.Steps, func(step report.Step) bool { return step.Name == workflows.Release })
			mu.Lock()
			defer mu.Unlock()
			held = append(held, lasted)
			if at >= 0 {
				flipped = append(flipped, there.Report.Steps[at].Ended)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	slices.Sort(held)
	slices.SortFunc(flipped, time.Time.Compare)
	seen := clients.Summary()
	fmt.Printf("\n## Many prefixes at once\n\n%d migrations begun at the same moment, each of a prefix that nginx did not know: all in their soak after %.0f s, all flips within %.0f s. "+
		"Writes of a prefix were held for %.2f s (median), %.2f s at most. Clients of another prefix meanwhile: slowest write %.2f s, %d of %d requests failed.\n",
		n, time.Since(begun).Seconds(), flipped[len(flipped)-1].Sub(flipped[0]).Seconds(), held[len(held)/2].Seconds(), held[len(held)-1].Seconds(), seen.Slowest.Seconds(), seen.Failed, seen.Requests)
	return nil
}
