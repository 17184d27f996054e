package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"transship/config"
	"transship/internal/report"
	"transship/internal/routing"
	"transship/workflows"
)

func (a *app) migrateCommand() *cobra.Command {
	var from, to string
	var without []string
	var wait bool
	c := &cobra.Command{
		Use:   "migrate PREFIX",
		Short: "begin to move a prefix to another backend",
		Long: `Begins to move a prefix from one backend to another, as workflows/migrate.go lists the steps. From and to are those of the
configuration, unless they are given here. The migration goes on by itself; where it needs a person, status says so.`,
		Example:           "  transship migrate restricted\n  transship migrate team/app --from old --to new --wait",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completePrefix,
		RunE: func(c *cobra.Command, args []string) error {
			return a.migrate(c.Context(), args[0], from, to, without, wait)
		},
	}
	a.backendFlags(c, &from, &to)
	c.Flags().StringSliceVar(&without, "without-edge", nil, withoutEdge)
	c.Flags().BoolVar(&wait, "wait", false, "follow it until it ends, as status --watch does")
	c.Flags().BoolVar(&wait, "watch", false, "the same as --wait")
	return a.waitsForAnswers(c)
}

// started is what migrate says when the migration has begun.
type started struct {
	Workflow string         `json:"workflow"`
	Run      string         `json:"run"`
	Link     string         `json:"link,omitempty"`
	Prefix   routing.Prefix `json:"prefix"`
	From     string         `json:"from"`
	To       string         `json:"to"`
	Operator string         `json:"operator"`
}

func (a *app) migrate(ctx context.Context, prefix, from, to string, without []string, wait bool) error {
	c, err := a.load(config.IgnoreSecrets)
	if err != nil {
		return err
	}
	operator, err := a.operator()
	if err != nil {
		return err
	}
	move, err := c.Move(prefix, from, to)
	if err != nil {
		return badInput(err)
	}
	for _, name := range without {
		if !slices.Contains(c.EdgeNames(), name) {
			return badInput(fmt.Errorf("--without-edge %q is not in the configuration; the edges are %s", name, strings.Join(c.EdgeNames(), ", ")))
		}
	}
	if len(without) >= len(c.EdgeNames()) {
		return badInput(errors.New("--without-edge leaves no edge: one at least must serve"))
	}
	d, err := a.connect(ctx, c)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.free(ctx, move); err != nil {
		return err
	}
	in := migrateInput(c, move, operator)
	in.Without = without
	run, err := d.start(ctx, in)
	if err != nil {
		return err
	}
	s := started{
		Workflow: run.GetID(), Run: run.GetRunID(), Link: link(c, run.GetID(), run.GetRunID()),
		Prefix: in.Prefix, From: in.From, To: in.To, Operator: operator,
	}
	if !wait || a.output == outputTable {
		if err := a.print(s, s.write); err != nil {
			return err
		}
	}
	if polled, err := d.polled(ctx, workflows.Queue, enumspb.TASK_QUEUE_TYPE_WORKFLOW); err == nil && !polled {
		fmt.Fprintf(a.stderr, "transship: no worker polls the task queue %s yet: the migration begins when one does; %s\n", workflows.Queue, cureWorkflows)
	}
	if wait {
		return a.watch(ctx, d, s.Workflow, s.Run)
	}
	return nil
}

// migrateInput is the migration that the configuration describes.
func migrateInput(c *config.Config, move config.Move, operator string) workflows.MigrateInput {
	in := workflows.MigrateInput{
		Prefix: move.Prefix, From: move.From, To: move.To, Storage: c.Stored(move), Repositories: move.Repositories, Probe: move.Probe,
		Default: c.DefaultBackend, Edges: c.EdgeNames(), Policy: c.Policy, Operator: operator,
		Link: link(c, workflows.MigrateID(move.Prefix), ""),
	}
	if store := c.Backends[move.From].Store; store.Set() && store.Kind != "swift" {
		in.Policy.Mirror.ListingLag = 0 // the others list at once what they acknowledged
	}
	for _, n := range c.Notifications {
		in.Notify = append(in.Notify, n.Name)
	}
	return in
}

// start begins the migration, unless one with its ID runs: then Temporal refuses, however close together the two came.
func (d *desk) start(ctx context.Context, in workflows.MigrateInput) (client.WorkflowRun, error) {
	id := workflows.MigrateID(in.Prefix)
	bounded, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	run, err := d.ExecuteWorkflow(bounded, client.StartWorkflowOptions{
		ID: id, TaskQueue: workflows.Queue,
		WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
		WorkflowIDReusePolicy:    enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		// Without it the SDK would hand out the running one as if it were ours.
		WorkflowExecutionErrorWhenAlreadyStarted: true,
		StaticSummary:                            fmt.Sprintf("%s: %s → %s", in.Prefix, in.From, in.To),
		StaticDetails: fmt.Sprintf("Moves the repositories under `%s` from backend **%s** to **%s**, asked for by **%s**. It is told what to do with "+
			"`transship approve|pause|resume|rollback|abort|finalize %s`.", in.Prefix, in.From, in.To, in.Operator, in.Prefix),
		Memo: map[string]any{
			"prefix": in.Prefix, "from": in.From, "to": in.To, "operator": in.Operator, memoBegan: time.Now().UTC().Format(time.RFC3339Nano),
		},
		TypedSearchAttributes: temporal.NewSearchAttributes(
			workflows.AttrPrefix.ValueSet(in.Prefix.String()), workflows.AttrPhase.ValueSet(workflows.Plan),
			workflows.AttrFrom.ValueSet(in.From), workflows.AttrTo.ValueSet(in.To),
			workflows.AttrOperator.ValueSet(in.Operator), workflows.AttrOutcome.ValueSet(string(report.Running)),
		),
	}, workflows.Migrate, in)
	var already *serviceerror.WorkflowExecutionAlreadyStarted
	var invalid *serviceerror.InvalidArgument
	switch {
	case errors.As(err, &already):
		return nil, d.taken(ctx, in.Prefix, id)
	case errors.As(err, &invalid):
		return nil, badInput(fmt.Errorf("the migration of %s is not accepted by Temporal: %w: `transship doctor` checks the namespace and its search attributes", in.Prefix, err))
	case err != nil:
		return nil, fmt.Errorf("start the migration of %s: %w", in.Prefix, err)
	}
	return run, nil
}

func (s started) write(w io.Writer) error {
	t := table{
		{"migration", fmt.Sprintf("%s: %s → %s, asked for by %s", s.Prefix, s.From, s.To, s.Operator)},
		{"workflow", s.Workflow}, {"run", s.Run},
	}
	if s.Link != "" {
		t.row("look at it", s.Link)
	}
	t.row("follow it", fmt.Sprintf("transship status %s --watch", s.Prefix))
	t.row("approve the flip", fmt.Sprintf("transship approve %s", s.Prefix))
	t.row("go back", fmt.Sprintf("transship rollback %s (abort, before the flip)", s.Prefix))
	return t.write(w)
}
