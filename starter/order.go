package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"transship/internal/routing"
	"transship/workflows"
)

// orderCommands are the verbs that tell a running migration what to do. Each is an Update of the same name, which the migration obeys or
// refuses; nothing is decided here.
func (a *app) orderCommands() []*cobra.Command {
	var commands []*cobra.Command
	for _, verb := range []struct{ update, short, long string }{
		{workflows.UpdateApprove, "let the flip of a prefix begin", "Approves the flip. The migration must be waiting for approval, you must be among policy.approval.approvers where there are any, and the window must be open."},
		{workflows.UpdatePause, "pause a migration", "Pauses a migration between two steps or inside a long copy. A freeze is given up first, so that writes never wait for a pause; a flip under way is completed first. It answers when the pause has taken effect, and says which."},
		{workflows.UpdateResume, "go on with a paused migration", "Goes on with a paused migration, from where it was."},
		{workflows.UpdateRollback, "return a prefix to the backend it came from", "Returns a prefix to the backend it came from: before the flip by giving up, after it by the same cutover the other way round, which carries back what was pushed to the new backend since. Possible until finalize."},
		{workflows.UpdateAbort, "end a migration before its flip", "Ends a migration before its flip. The prefix stays where it is; what was copied stays at the target, and a later migration needs not copy it again."},
		{workflows.UpdateFinalize, "end the soak: the prefix stays on its new backend", "Ends the soak. The old backend is no longer kept current, and there is no rollback from here."},
	} {
		var order workflows.Command
		c := &cobra.Command{
			Use: verb.update + " PREFIX", Short: verb.short, Long: verb.long,
			Args: cobra.ExactArgs(1), ValidArgsFunction: a.completePrefix,
			RunE: func(c *cobra.Command, args []string) error {
				return a.order(c.Context(), verb.update, args[0], order)
			},
		}
		c.Flags().StringVar(&order.Reason, "reason", "", "why, for the record")
		if verb.update == workflows.UpdateRollback {
			c.Flags().BoolVar(&order.AcceptLoss, "accept-loss", false, "go back even if the new backend cannot give back what was pushed to it; the report names what was left behind")
		}
		if verb.update == workflows.UpdateRollback || verb.update == workflows.UpdateResume {
			c.Flags().StringSliceVar(&order.Without, "without-edge", nil, withoutEdge)
		}
		commands = append(commands, a.waitsForAnswers(c))
	}
	return commands
}

const withoutEdge = "go on without this edge, which is down: you vouch that it serves nobody; it refuses writes when it returns, until it has the present table"

// answered is what a migration said to an order.
type answered struct {
	workflows.Answer
	Workflow string `json:"workflow"`
	By       string `json:"by"`
}

func (a *app) order(ctx context.Context, update, prefix string, order workflows.Command) error {
	p, err := routing.ParsePrefix(prefix)
	if err != nil {
		return badInput(err)
	}
	if order.By, err = a.operator(); err != nil {
		return err
	}
	d, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	answer, err := d.tell(ctx, p, update, order)
	if err != nil {
		return err
	}
	said := answered{Answer: answer, Workflow: workflows.MigrateID(p), By: order.By}
	return a.print(said, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s: %s\n", p, answer.Message)
		return err
	})
}

// tell sends an Update and waits for what came of it.
func (d *desk) tell(ctx context.Context, p routing.Prefix, update string, order workflows.Command) (workflows.Answer, error) {
	var answer workflows.Answer
	id := workflows.MigrateID(p)
	bounded, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	handle, err := d.UpdateWorkflow(bounded, client.UpdateWorkflowOptions{
		WorkflowID: id, UpdateName: update, Args: []any{order}, WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	if err == nil {
		err = handle.Get(bounded, &answer)
	}
	var refusal *temporal.ApplicationError
	switch {
	case err == nil:
		return answer, nil
	case errors.As(err, &refusal):
		return answer, refused("%s refused: %s", update, refusal.Message())
	case absent(err):
		return answer, d.nothingRuns(ctx, p, update)
	case late(err) && ctx.Err() == nil:
		return answer, d.silent(ctx, fmt.Sprintf("%s %s is not confirmed and may yet take effect", update, p))
	}
	return answer, fmt.Errorf("%s %s: %w", update, p, err)
}

// nothingRuns says how the last migration of a prefix ended, to somebody who wants to tell it something.
func (d *desk) nothingRuns(ctx context.Context, p routing.Prefix, update string) error {
	answer, err := d.DescribeWorkflowExecution(ctx, workflows.MigrateID(p), "")
	if err != nil {
		return refused("%s refused: no migration of %s runs; `transship status` lists those that do", update, p)
	}
	last := d.entry(answer.GetWorkflowExecutionInfo())
	return refused("%s refused: no migration of %s runs; the last one ended at %s: %s", update, p, clock(last.Ended), last.Outcome)
}
