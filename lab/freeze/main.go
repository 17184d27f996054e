// Command freeze measures what clients notice of a cutover: how long writes are held when a prefix is small and when it is large, with three edges; and what happens when
// many prefixes flip at once. It prints Markdown for BENCHMARKS.md.
//
//	freeze [-tags 200,2000,20000] [-rounds 5] [-storm 50]
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"transship/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "freeze:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	sizes := flag.String("tags", "200,2000,20000", "sizes of the prefix, in tags; empty measures none")
	rounds := flag.Int("rounds", 5, "how often each prefix goes there and back")
	storm := flag.Int("storm", 50, "how many prefixes flip at once; 0 measures none")
	bin := flag.String("bin", "bin", "folder with the programs")
	flag.Parse()
	programs, err := filepath.Abs(*bin)
	if err != nil {
		return err
	}
	if *sizes != "" {
		fmt.Printf("## The freeze\n\nThree edges, registries on local disk, a client that pushes and two that pull all the while; %d flips and as many rollbacks of each size.\n\n", *rounds)
		fmt.Println("| tags | writes held, median | at most | slowest write of a client | failed requests |\n|---|---|---|---|---|")
	}
	for size := range strings.SplitSeq(*sizes, ",") {
		if size == "" {
			continue
		}
		tags, err := strconv.Atoi(size)
		if err != nil {
			return err
		}
		if err := inStack(ctx, programs, func(s *lab.Stack) error { return measure(ctx, s, tags, *rounds) }); err != nil {
			return fmt.Errorf("%d tags: %w", tags, err)
		}
	}
	if *storm == 0 {
		return nil
	}
	patiently := func(s *lab.Settings) { s.ApprovalRequired, s.Interval = true, 10*time.Minute }
	return inStack(ctx, programs, func(s *lab.Stack) error { return flipMany(ctx, s, *storm) }, patiently)
}

// inStack does something with a stack of three edges.
func inStack(ctx context.Context, bin string, do func(*lab.Stack) error, adapt ...func(*lab.Settings)) error {
	dir, err := os.MkdirTemp("", "transship-freeze-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s, err := lab.Up(ctx, lab.Options{Dir: dir, Bin: bin, Edges: 3, Parts: lab.Parts{lab.Folders}, Adapt: func(s *lab.Settings) {
		s.ApprovalRequired, s.Soak, s.Interval, s.Finalize = false, time.Hour, 20*time.Second, "ask"
		for _, a := range adapt {
			a(s)
		}
	}})
	if err != nil {
		return err
	}
	defer s.Stop()
	return do(s)
}
