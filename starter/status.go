package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"transship/internal/report"
	"transship/internal/routing"
	"transship/workflows"
)

func (a *app) statusCommand() *cobra.Command {
	var watch bool
	c := &cobra.Command{
		Use:   "status [PREFIX]",
		Short: "what migrations are at, and what they wait for",
		Long: `Without PREFIX: the migrations that run. With PREFIX: its latest migration, running or not: phase, what it waits for and how to
give it, progress of the copy, what is being retried, steps and decisions.`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completePrefix,
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case len(args) == 0 && watch:
				return badInput(fmt.Errorf("--watch needs a PREFIX: name the migration to follow"))
			case len(args) == 0:
				return a.statusOfAll(c.Context())
			}
			return a.statusOf(c.Context(), args[0], watch)
		},
	}
	c.Flags().BoolVarP(&watch, "watch", "w", false, "follow the migration until it ends; the exit code says how")
	return a.waitsForAnswers(c)
}

func (a *app) statusOf(ctx context.Context, prefix string, watch bool) error {
	p, err := routing.ParsePrefix(prefix)
	if err != nil {
		return badInput(err)
	}
	d, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	if watch {
		return a.watch(ctx, d, workflows.MigrateID(p), "")
	}
	v, err := d.look(ctx, workflows.MigrateID(p), "", &estimator{})
	if err != nil {
		return err
	}
	if err := a.print(v, v.write); err != nil {
		return err
	}
	if v.Trouble != "" && !v.Over {
		return unreachable("%s", v.Trouble)
	}
	return nil
}

// statusOfAll lists the migrations that run, with what each says it waits for.
func (a *app) statusOfAll(ctx context.Context) error {
	d, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	all, err := d.list(ctx, ofMigrations+running, 1000)
	if err != nil {
		return err
	}
	// They are asked at the same time, and not for long: a list must not hang because one of them is asleep.
	d.timeout = min(d.timeout, 5*time.Second)
	var wait sync.WaitGroup
	slots := make(chan struct{}, 8)
	for i := range all {
		wait.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			v, err := d.look(ctx, all[i].Workflow, all[i].Run, nil)
			switch {
			case err != nil:
				all[i].Waits = "not known: " + err.Error()
			case v.Trouble != "":
				all[i].Waits = v.Trouble
			default:
				all[i].Phase, all[i].Waits = v.Phase, v.Waits
			}
		})
	}
	wait.Wait()
	return a.print(orEmpty(all), func(w io.Writer) error {
		if len(all) == 0 {
			_, err := fmt.Fprintln(w, "no migration is running; transship history lists those that ended")
			return err
		}
		t := table{{"PREFIX", "PHASE", "FROM", "TO", "OPERATOR", "STARTED", "WAITS FOR"}}
		for _, e := range all {
			t.row(e.Prefix.String(), e.Phase, e.From, e.To, e.Operator, clock(e.Began), orDash(e.Waits))
		}
		return t.write(w)
	})
}

// orEmpty makes no entries an empty list for programs, not null.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// write shows a migration to people.
func (v view) write(w io.Writer) error {
	r := v.Report
	t := table{{"migration", fmt.Sprintf("%s: %s → %s, asked for by %s at %s", r.Prefix, r.From, r.To, r.Operator, clock(r.Began))}}
	phase := v.Phase
	if v.Over {
		phase = fmt.Sprintf("over: %s", r.Outcome)
	} else if v.Paused {
		phase += " (paused)"
	}
	t.row("phase", phase)
	t.row("served by", orDash(v.Serving))
	for _, line := range []struct{ what, text string }{{"waits for", v.Waits}, {"reason", r.Reason}, {"trouble", v.Trouble}, {"look at it", v.Link}, {"report", r.File}} {
		if line.text != "" {
			t.row(line.what, line.text)
		}
	}
	if v.Copy != nil {
		t.row("copied", v.Copy.String())
	}
	if lasted, longest := r.Freeze(); lasted > 0 {
		t.row("writes held", fmt.Sprintf("%s, the longest wait of one was %s", took(lasted), took(longest)))
	}
	if c := r.Checks; c.Rounds > 0 || c.Probes > 0 {
		t.row("checks", fmt.Sprintf("%d rounds, %d failed; %d probes, %d failed", c.Rounds, c.RoundsFailed, c.Probes, c.ProbesFailed))
		for _, seen := range c.Last {
			t.row("", seen)
		}
	}
	for _, p := range v.Activities {
		t.row(p.describe())
	}
	if err := t.write(w); err != nil {
		return err
	}
	return writeSteps(w, r)
}

// describe is an activity under way in one line, louder when it is in trouble.
func (p pending) describe() (what, text string) {
	switch {
	case p.Attempt > 1 && !p.Next.IsZero():
		return "retrying", fmt.Sprintf("%s: attempt %d at %s; the last: %s", p.Type, p.Attempt, p.Next.Local().Format("15:04:05"), p.Failure)
	case p.Attempt > 1:
		return "retrying", fmt.Sprintf("%s: attempt %d for %s; the last: %s", p.Type, p.Attempt, took(time.Since(p.Since)), p.Failure)
	case !p.Started:
		return "at work", fmt.Sprintf("%s: no worker has taken it for %s", p.Type, took(time.Since(p.Since)))
	}
	return "at work", fmt.Sprintf("%s for %s", p.Type, took(time.Since(p.Since)))
}

func writeSteps(w io.Writer, r report.Report) error {
	if len(r.Steps) == 0 {
		return nil
	}
	t := table{{""}, {"STEP", "BEGAN", "TOOK", "NOTE"}}
	for _, s := range r.Steps {
		t.row(s.Name, s.Began.Local().Format("15:04:05"), stepTook(s), s.Note+failed(s))
	}
	return t.write(w)
}

func stepTook(s report.Step) string {
	if s.Ended.IsZero() {
		return "…"
	}
	return took(s.Took())
}

func failed(s report.Step) string {
	if s.Error == "" {
		return ""
	}
	return " FAILED: " + s.Error
}
