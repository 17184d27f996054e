// Command bench measures the mirror of the storage plane against tools that people would use otherwise, on the same data, Swift to Ceph on this machine, and
// writes what it finds to a Markdown file. Runs of all tools are interleaved, so that what else the machine does falls on all alike.
//
//	bench [-rounds N] [-only cold,unchanged,one,memory] [-out BENCHMARKS.md]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"transship/lab/servers/shared"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if job := os.Getenv(jobVariable); job != "" {
		err = runJob(ctx, job) // we are the process that is measured
	} else {
		err = bench(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

// part is one question that the benchmark answers.
type part struct {
	name string
	run  func(*benchmark, context.Context) error
}

var parts = []part{{"cold", (*benchmark).cold}, {"unchanged", (*benchmark).unchanged}, {"one", (*benchmark).oneTag}, {"movers", (*benchmark).movers}, {"memory", (*benchmark).memory}}

type benchmark struct {
	dir, bin string
	rounds   int
	// set and tool are what names must have in them.
	set, tool string
	stores    *shared.Stores
	report    report
	began     time.Time
}

func bench(ctx context.Context) error {
	rounds := flag.Int("rounds", 2, "how often each tool runs on each set")
	only := flag.String("only", "", "which parts, separated by commas: cold, unchanged, one, movers, memory; all when empty")
	out := flag.String("out", "BENCHMARKS.md", "where the figures go")
	tools := flag.String("tools", "bin/bench-tools", "folder with crane and regsync")
	sets := flag.String("set", "", "only the cold sets whose name has this in it")
	who := flag.String("tool", "", "only the tools whose name has this in it")
	flag.Parse()
	dir, err := os.MkdirTemp("", "transship-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &benchmark{dir: dir, rounds: *rounds, began: time.Now(), set: *sets, tool: *who}
	if b.bin, err = filepath.Abs(*tools); err != nil {
		return err
	}
	if err := b.havePeers(); err != nil {
		return err
	}
	if b.stores, err = shared.Start(ctx, filepath.Join(dir, "stores")); err != nil {
		return err
	}
	defer b.stores.Stop()
	var failed error
	for _, p := range parts {
		if *only != "" && !strings.Contains(","+*only+",", ","+p.name+",") {
			continue
		}
		if err := p.run(b, ctx); err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", p.name, err))
			break
		}
		// What is known is written at once: the rest may take an hour.
		if err := os.WriteFile(*out, []byte(b.report.markdown()), 0o644); err != nil {
			return err
		}
	}
	return failed
}

func (b *benchmark) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%7.1fs  %s\n", time.Since(b.began).Seconds(), fmt.Sprintf(format, args...))
}
