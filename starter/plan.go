package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"transship/internal/report"
	"transship/workflows"
)

func (a *app) planCommand() *cobra.Command {
	var from, to string
	var files bool
	var within time.Duration
	c := &cobra.Command{
		Use:   "plan PREFIX",
		Short: "what a migration would do, and what stands in its way; changes nothing",
		Long: `Looks at everything that a migration rests on: what would be copied and how many bytes, what differs or is broken already, what the edges' files
would become, and what blocks it. It changes nothing, but for small blobs that it pushes to the repository for probes and deletes again. The exit code is 5 when the migration is blocked.`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completePrefix,
		RunE: func(c *cobra.Command, args []string) error {
			return a.plan(c.Context(), args[0], from, to, within, files)
		},
	}
	a.backendFlags(c, &from, &to)
	c.Flags().BoolVar(&files, "files", false, "show the edges' files as they would be after the flip")
	c.Flags().DurationVar(&within, "within", time.Hour, "give up after this; a large prefix takes long to list")
	return c
}

func (a *app) plan(ctx context.Context, prefix, from, to string, within time.Duration, files bool) error {
	operator, err := a.operator()
	if err != nil {
		return err
	}
	a.timeout = within
	d, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	move, err := d.config.Move(prefix, from, to)
	if err != nil {
		return badInput(err)
	}
	polled, err := d.polled(ctx, workflows.Queue, enumspb.TASK_QUEUE_TYPE_WORKFLOW)
	if err != nil {
		return err
	}
	if !polled {
		return unreachable("no worker polls the task queue %s; %s", workflows.Queue, cureWorkflows)
	}
	result, err := d.dryRun(ctx, migrateInput(d.config, move, operator), within)
	if err != nil {
		return err
	}
	if err := a.print(result, func(w io.Writer) error { return writePlan(w, result, move.From, move.To, files) }); err != nil {
		return err
	}
	if n := len(result.Plan.Blockers); n > 0 {
		return trouble("the migration of %s is blocked: %d things to mend", move.Prefix, n)
	}
	return nil
}

// dryRun runs a DryRun in place of one that may run already: both only look.
func (d *desk) dryRun(ctx context.Context, in workflows.MigrateInput, within time.Duration) (workflows.DryRunResult, error) {
	var result workflows.DryRunResult
	bounded, cancel := context.WithTimeout(ctx, within+5*time.Second)
	defer cancel()
	run, err := d.ExecuteWorkflow(bounded, client.StartWorkflowOptions{
		ID: workflows.PlanID(in.Prefix), TaskQueue: workflows.Queue, WorkflowExecutionTimeout: within,
		WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING,
		StaticSummary:            fmt.Sprintf("plan of %s: %s → %s", in.Prefix, in.From, in.To),
	}, workflows.DryRun, in)
	if err != nil {
		return result, fmt.Errorf("plan of %s: %w", in.Prefix, err)
	}
	err = run.Get(bounded, &result)
	if ctx.Err() != nil {
		// Nobody waits for it any more.
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = d.CancelWorkflow(end, run.GetID(), run.GetRunID())
		return result, ctx.Err()
	}
	var late *temporal.TimeoutError
	if errors.As(err, &late) {
		return result, unreachable("the plan of %s was not ready within %s: is a mover running? --within waits longer", in.Prefix, within)
	}
	if err != nil {
		return result, fmt.Errorf("plan of %s: %w", in.Prefix, err)
	}
	return result, nil
}

// some is how many names of a list are shown.
const some = 20

func writePlan(w io.Writer, r workflows.DryRunResult, from, to string, files bool) error {
	p := r.Plan
	t := table{
		{"repositories", fmt.Sprint(p.Repositories)},
		{"tags", fmt.Sprintf("%d, of which %s has %d already", p.Tags, to, p.TagsPresent)},
		{"manifests", fmt.Sprint(p.Manifests)},
		{"blobs", fmt.Sprintf("%d, %s; of which %s has %d, %s", p.Blobs, bytesOf(p.Bytes), to, p.BlobsPresent, bytesOf(p.BytesPresent))},
		{"to copy", bytesOf(p.Missing()) + " at most"},
	}
	if p.Plane == report.Storage {
		t.row("of these bytes", fmt.Sprintf("%s only this prefix needs, %s other prefixes of %s share", bytesOf(p.Bytes-p.BytesShared), bytesOf(p.BytesShared), from))
		t.row("objects", fmt.Sprintf("%d in the store, of which %s has %d", p.Objects, to, p.ObjectsPresent))
		t.row("moves", "from store to store, below the registries")
	} else {
		t.row("moves", "through the registries")
	}
	if p.Takes > 0 {
		t.row("takes", fmt.Sprintf("about %s, from reading %d blobs of %s with as many requests at once as the mirror makes; writing may be what takes longer", took(p.Takes.Round(time.Second)), p.Sample, from))
	}
	for _, e := range r.Edges {
		what := "its nginx knows the prefix: no reload"
		if e.Changes {
			what = "its nginx gets new files, and is reloaded once"
		}
		t.row("edge "+e.Edge, what)
	}
	if err := t.write(w); err != nil {
		return err
	}
	for _, list := range []struct {
		title string
		names []string
	}{
		{"tags that " + to + " has with another digest, which the mirror replaces", p.Changed},
		{"tags that only " + to + " has", p.Extra},
		{"images that " + from + " cannot serve whole", p.Broken},
		{"keys in the store of " + from + " that no registry writes; they stay where they are", p.Unexpected},
		{"worth knowing before it begins", p.Warnings},
		{"BLOCKED", p.Blockers},
	} {
		if len(list.names) == 0 {
			continue
		}
		fmt.Fprintf(w, "\n%s: %d\n", list.title, len(list.names))
		for i, name := range list.names {
			if i == some && list.title != "BLOCKED" {
				fmt.Fprintf(w, "  … and %d more; --output json has all\n", len(list.names)-some)
				break
			}
			fmt.Fprintln(w, "  "+oneLine(name))
		}
	}
	if !files {
		return nil
	}
	for _, e := range r.Edges {
		for _, name := range slices.Sorted(maps.Keys(e.Files)) {
			fmt.Fprintf(w, "\n--- edge %s: %s\n%s\n", e.Edge, name, strings.TrimRight(e.Files[name], "\n"))
		}
	}
	return nil
}
