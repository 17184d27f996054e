package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"transship/internal/report"
	"transship/lab"
	"transship/lab/seed"
	"transship/workflows"
)

const prefix = "restricted"

// measure takes a prefix there and back again and again, with clients at work.
func measure(ctx context.Context, s *lab.Stack, tags, rounds int) error {
	set := seed.Set{Prefix: prefix, Repositories: max(1, tags/100), Tags: min(100, tags), Layers: 1, LayerSize: 100, BaseSize: 100}
	if err := set.LayFiles(filepath.Join(s.Dir, "old/docker/registry/v2")); err != nil {
		return err
	}
	clients := lab.NewClientsOf(s.Addresses.Edges, prefix)
	working, stop := context.WithCancel(ctx)
	var wait sync.WaitGroup
	wait.Go(func() { clients.Run(working, 2) })
	defer func() { stop(); wait.Wait() }()
	var held []time.Duration
	steps := parts{}
	for range rounds {
		if _, err := s.Transship(ctx, "migrate", prefix); err != nil {
			return err
		}
		there, err := s.Await(ctx, prefix, lab.Phase(workflows.Soak))
		if err != nil {
			return err
		}
		if _, err := s.Transship(ctx, "rollback", prefix); err != nil {
			return err
		}
		back, err := s.Outcome(ctx, prefix)
		if err != nil {
			return err
		}
		if back.Outcome != report.RolledBack {
			return fmt.Errorf("ended as %s: %s", back.Outcome, back.Reason)
		}
		for _, r := range []report.Report{there.Report, back} {
			lasted, _ := r.Freeze()
			held = append(held, lasted)
			steps.add(r)
		}
	}
	fmt.Fprintf(os.Stderr, "%d tags: %s\n", tags, steps)
	slices.Sort(held)
	seen := clients.Summary()
	fmt.Printf("| %d | %.2f s | %.2f s | %.2f s | %d of %d |\n", tags, held[len(held)/2].Seconds(), held[len(held)-1].Seconds(), seen.Slowest.Seconds(), seen.Failed, seen.Requests)
	return nil
}

// parts has how long each step of the freezes took.
type parts map[string][]time.Duration

func (p parts) add(r report.Report) {
	seen := map[string]time.Duration{}
	for _, s := range r.Steps {
		name := strings.TrimPrefix(s.Name, workflows.Rollback+": ")
		if slices.Contains(frozen, name) {
			seen[name] = s.Took() // the last attempt counts
		}
	}
	for name, took := range seen {
		p[name] = append(p[name], took)
	}
}

var frozen = []string{workflows.Freeze, workflows.Drain, workflows.LastDelta, workflows.VerifyLast, workflows.Flip, workflows.Release}

// String has the median of each step.
func (p parts) String() string {
	var b strings.Builder
	for _, name := range frozen {
		slices.Sort(p[name])
		if n := len(p[name]); n > 0 {
			fmt.Fprintf(&b, "%s %d ms, ", name, p[name][n/2].Milliseconds())
		}
	}
	return strings.TrimSuffix(b.String(), ", ")
}
