package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"transship/internal/report"
	"transship/internal/routing"
	"transship/workflows"
)

func (a *app) historyCommand() *cobra.Command {
	var run string
	var limit int
	c := &cobra.Command{
		Use:   "history [PREFIX]",
		Short: "which migrations there were, and what happened in one",
		Long: `Without PREFIX: all migrations that Temporal still has, the newest first. With PREFIX: those of this prefix, and the steps and decisions of
the latest, or of the one that --run names, in the order in which they happened.`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completePrefix,
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case limit < 1:
				return badInput(fmt.Errorf("--limit is %d; write 1 or more", limit))
			case len(args) == 0 && run != "":
				return badInput(fmt.Errorf("--run needs the PREFIX that the run is of"))
			case len(args) == 0:
				return a.historyOfAll(c.Context(), limit)
			}
			return a.historyOf(c.Context(), args[0], run, limit)
		},
	}
	c.Flags().StringVar(&run, "run", "", "`ID` of the run to show, from the list")
	c.Flags().IntVar(&limit, "limit", 50, "how many migrations to list")
	return a.waitsForAnswers(c)
}

func (a *app) historyOfAll(ctx context.Context, limit int) error {
	d, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	all, err := d.list(ctx, ofMigrations, limit)
	if err != nil {
		return err
	}
	return a.print(orEmpty(all), func(w io.Writer) error { return writeEntries(w, all) })
}

func writeEntries(w io.Writer, all []entry) error {
	t := table{{"PREFIX", "OUTCOME", "PHASE", "FROM", "TO", "OPERATOR", "BEGAN", "TOOK", "RUN"}}
	for _, e := range all {
		end := e.Ended
		if end.IsZero() {
			end = time.Now()
		}
		t.row(e.Prefix.String(), e.Outcome, e.Phase, e.From, e.To, e.Operator, clock(e.Began), took(end.Sub(e.Began)), e.Run)
	}
	return t.write(w)
}

// moment is something that happened in a migration.
type moment struct {
	At   time.Time `json:"at"`
	Took string    `json:"took,omitempty"`
	// Step, or By and What of a decision.
	Step  string `json:"step,omitempty"`
	By    string `json:"by,omitempty"`
	What  string `json:"what,omitempty"`
	Error string `json:"error,omitempty"`
}

// story is a prefix's migrations, and one of them told.
type story struct {
	Migrations []entry        `json:"migrations"`
	Run        string         `json:"run"`
	Outcome    report.Outcome `json:"outcome"`
	Reason     string         `json:"reason,omitempty"`
	Moments    []moment       `json:"moments"`
}

func (a *app) historyOf(ctx context.Context, prefix, run string, limit int) error {
	p, err := routing.ParsePrefix(prefix)
	if err != nil {
		return badInput(err)
	}
	d, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	// A prefix has no quotes, so it cannot end the query's string.
	all, err := d.list(ctx, fmt.Sprintf("%s AND WorkflowId = %q", ofMigrations, workflows.MigrateID(p)), limit)
	if err != nil {
		return err
	}
	v, err := d.look(ctx, workflows.MigrateID(p), run, nil)
	if err != nil {
		return err
	}
	s := story{Migrations: orEmpty(all), Run: v.Run, Outcome: v.Report.Outcome, Reason: v.Report.Reason, Moments: moments(v.Report)}
	if err := a.print(s, s.write); err != nil {
		return err
	}
	if v.Trouble != "" {
		return unreachable("%s", v.Trouble)
	}
	return nil
}

// moments puts steps and decisions in the order in which they happened.
func moments(r report.Report) []moment {
	all := []moment{}
	for _, s := range r.Steps {
		all = append(all, moment{At: s.Began, Took: stepTook(s), Step: s.Name, What: s.Note, Error: s.Error})
	}
	for _, d := range r.Decisions {
		what := d.What
		if d.Reason != "" {
			what += ": " + d.Reason
		}
		all = append(all, moment{At: d.At, By: d.By, What: what})
	}
	if !r.Ended.IsZero() {
		all = append(all, moment{At: r.Ended, Step: "end", What: string(r.Outcome) + " after " + took(r.Ended.Sub(r.Began))})
	}
	slices.SortStableFunc(all, func(a, b moment) int { return a.At.Compare(b.At) })
	return all
}

func (s story) write(w io.Writer) error {
	if err := writeEntries(w, s.Migrations); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nrun %s: %s %s\n\n", s.Run, s.Outcome, oneLine(s.Reason))
	t := table{{"WHEN", "TOOK", "STEP OR PERSON", "WHAT"}}
	for _, m := range s.Moments {
		what := m.What
		if m.Error != "" {
			what += " FAILED: " + m.Error
		}
		who := m.Step
		if m.By != "" {
			who = m.By
		}
		t.row(m.At.Local().Format("2006-01-02 15:04:05.000"), m.Took, who, what)
	}
	return t.write(w)
}
