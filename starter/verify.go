package main

import (
	"cmp"
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
	"transship/internal/registry"
	"transship/workflows"
)

func (a *app) verifyCommand() *cobra.Command {
	var from, to string
	var deep bool
	var within time.Duration
	c := &cobra.Command{
		Use:   "verify PREFIX",
		Short: "compare both sides of a prefix; with --deep, hash every byte of the target",
		Long: `Compares both sides of a prefix, whoever serves it: every tag has the same digest, and the target has everything that its images need. With --deep
every byte of the target is read and hashed. What differs is looked at a second time, because pushes reach both sides one after the other. It changes nothing. The exit
code is 5 when something differs.`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completePrefix,
		RunE: func(c *cobra.Command, args []string) error {
			return a.verify(c.Context(), args[0], from, to, deep, within)
		},
	}
	a.backendFlags(c, &from, &to)
	c.Flags().BoolVar(&deep, "deep", false, "read and hash every byte of the target")
	c.Flags().DurationVar(&within, "within", 24*time.Hour, "wait no longer than this for the result")
	return c
}

func (a *app) verify(ctx context.Context, prefix, from, to string, deep bool, within time.Duration) error {
	operator, err := a.operator()
	if err != nil {
		return err
	}
	c, err := a.load(config.IgnoreSecrets)
	if err != nil {
		return err
	}
	move, err := c.Move(prefix, from, to)
	if err != nil {
		return badInput(err)
	}
	a.timeout = 30 * time.Second
	d, err := a.connect(ctx, c)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.worked(ctx); err != nil {
		return err
	}
	in := workflows.VerifyInput{
		Prefix: move.Prefix, From: move.From, To: move.To, Storage: c.Stored(move), Repositories: move.Repositories, Probe: move.Probe,
		Deep: deep, Policy: c.Policy, Operator: operator,
	}
	var result workflows.VerifyResult
	err = a.runToEnd(ctx, d, within, client.StartWorkflowOptions{
		ID: workflows.VerifyID(in.Prefix), StaticSummary: fmt.Sprintf("compare %s: %s and %s", in.Prefix, in.From, in.To),
	}, workflows.VerifyPrefix, in, &result)
	if err != nil {
		return err
	}
	err = a.print(result, func(w io.Writer) error {
		t := table{
			{"compared", fmt.Sprintf("%d repositories, %d tags, %d manifests, %d blobs, %s", result.Check.Repositories, result.Check.Tags, result.Check.Manifests, result.Check.Blobs, bytesOf(result.Check.Bytes))},
			{"how", map[bool]string{true: "every byte at " + move.To + " was read and hashed", false: "digests, sizes and references; --deep hashes every byte at " + move.To}[deep]},
			{"took", took(result.Took)},
			{"differences", fmt.Sprint(result.Found)},
		}
		if err := t.write(w); err != nil {
			return err
		}
		return writeDifferences(w, result)
	})
	if err != nil {
		return err
	}
	if result.Found > 0 {
		return trouble("%s and %s differ in %s under %s", move.From, move.To, counted(result.Found, "place"), move.Prefix)
	}
	return nil
}

// writeDifferences shows the first differences, those of tags before those that no tag is known for.
func writeDifferences(w io.Writer, r workflows.VerifyResult) error {
	list := slices.Clone(r.Check.Differences)
	slices.SortStableFunc(list, func(a, b registry.Difference) int {
		untagged := func(d registry.Difference) int { return map[bool]int{true: 1}[d.Tag == ""] }
		return cmp.Or(cmp.Compare(untagged(a), untagged(b)), strings.Compare(a.Repository, b.Repository), strings.Compare(a.Tag, b.Tag))
	})
	// A tag that is missing is enough said: its manifest is missing as well.
	list = slices.CompactFunc(list, func(a, b registry.Difference) bool {
		return a.Tag != "" && a.Repository == b.Repository && a.Tag == b.Tag && a.Want == b.Want && a.Have == b.Have && a.Detail == b.Detail
	})
	if len(list) > 0 {
		fmt.Fprintln(w)
	}
	for i, d := range list {
		if i == some {
			_, err := fmt.Fprintf(w, "  … and %d more; --output json has all\n", len(list)-some)
			return err
		}
		if _, err := fmt.Fprintln(w, "  "+oneLine(differenceLine(d))); err != nil {
			return err
		}
	}
	return nil
}

// differenceLine is a difference by what people know it by: its tag.
func differenceLine(d registry.Difference) string {
	of := d.Repository
	if d.Tag != "" {
		of += ":" + d.Tag
	}
	if d.Detail != "" {
		return fmt.Sprintf("%s  %s  %s: %s", d.Kind, of, orNothing(d.Want), d.Detail)
	}
	return fmt.Sprintf("%s  %s  want %s, have %s", d.Kind, of, orNothing(d.Want), orNothing(d.Have))
}

func orNothing(digest string) string {
	if digest == "" {
		return "nothing"
	}
	return digest
}

// worked reports it when nobody would do what is about to be asked.
func (d *desk) worked(ctx context.Context) error {
	polled, err := d.polled(ctx, workflows.Queue, enumspb.TASK_QUEUE_TYPE_WORKFLOW)
	if err == nil && !polled {
		err = unreachable("no worker polls the task queue %s; %s", workflows.Queue, cureWorkflows)
	}
	return err
}

// runToEnd runs a workflow and returns its result. Whoever stops waiting leaves it running.
func (a *app) runToEnd(ctx context.Context, d *desk, within time.Duration, o client.StartWorkflowOptions, workflow, in, result any) error {
	o.TaskQueue = workflows.Queue
	o.WorkflowIDConflictPolicy = enumspb.WORKFLOW_ID_CONFLICT_POLICY_FAIL
	o.WorkflowExecutionErrorWhenAlreadyStarted = true
	bounded, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	run, err := d.ExecuteWorkflow(bounded, o, workflow, in)
	var already *serviceerror.WorkflowExecutionAlreadyStarted
	if errors.As(err, &already) {
		return refused("%s runs already: wait for its end, or look at it in the Temporal UI", o.ID)
	}
	if err != nil {
		return fmt.Errorf("start %s: %w", o.ID, err)
	}
	if a.output == outputTable { // it may take hours: somebody wants to see how far it is
		if l := link(d.config, run.GetID(), run.GetRunID()); l != "" {
			fmt.Fprintf(a.stderr, "%s has begun: %s\n", o.ID, l)
		}
	}
	err = run.Get(bounded, result)
	var failed *temporal.ApplicationError
	switch {
	case err == nil:
		return nil
	case bounded.Err() != nil:
		return unreachable("%s is not over; it goes on, and its result will be in the Temporal UI", o.ID)
	case errors.As(err, &failed) && failed.Type() == workflows.KindNothing:
		return refused("%s", failed.Message())
	case errors.As(err, &failed):
		return trouble("%s: %s", o.ID, failed.Message())
	}
	return fmt.Errorf("%s: %w", o.ID, err)
}
