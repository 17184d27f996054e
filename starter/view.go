package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/sdk/temporal"

	"transship/internal/report"
	"transship/workflows"
)

// view is a migration as it is now.
type view struct {
	Workflow string `json:"workflow"`
	Run      string `json:"run"`
	Link     string `json:"link,omitempty"`
	workflows.Status
	// Copy is how far the copy has come, while it runs.
	Copy *progress `json:"copy,omitempty"`
	// Activities are under way, or wait for their next try.
	Activities []pending `json:"activities,omitempty"`
	// Trouble is why parts of this may be old.
	Trouble string `json:"trouble,omitempty"`
	// Over says that the migration has ended.
	Over bool `json:"over"`
}

// pending is an activity under way.
type pending struct {
	ID      string    `json:"id"`
	Type    string    `json:"type"`
	Since   time.Time `json:"since"`
	Attempt int32     `json:"attempt"`
	// Failure is how the attempt before ended.
	Failure string `json:"failure,omitempty"`
	// Next is when it is tried again; zero while it is at it.
	Next time.Time `json:"next,omitzero"`
	// Started says that a worker has taken it.
	Started bool `json:"started"`
}

// look finds out how a migration is. An empty run is the latest. Of a migration that runs its worker is asked; how one ended is in its result, for which
// no worker is needed.
func (d *desk) look(ctx context.Context, id, run string, e *estimator) (view, error) {
	bounded, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	described, err := d.DescribeWorkflowExecution(bounded, id, run)
	if absent(err) {
		return view{}, refused("there is no %s; `transship history` lists all migrations", named(id, run))
	}
	if err != nil {
		return view{}, fmt.Errorf("look at %s: %w", id, err)
	}
	info := described.GetWorkflowExecutionInfo()
	if info.GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW {
		next, err := d.successor(bounded, id, info.GetExecution().GetRunId())
		if err != nil {
			return view{}, err
		}
		return d.look(ctx, id, next, e)
	}
	of := d.entry(info)
	v := view{Workflow: id, Run: of.Run, Link: of.Link, Over: info.GetStatus() != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING}
	if v.Over {
		v.Status, v.Trouble, err = d.ended(ctx, of)
		return v, err
	}
	v.Activities = activitiesOf(described.GetPendingActivities())
	value, err := d.query(bounded, id, of.Run, workflows.QueryStatus)
	if err == nil {
		err = value.Get(&v.Status)
	}
	if err != nil {
		v.Status = of.status()
		v.Trouble = err.Error()
		if late(err) && ctx.Err() == nil {
			v.Trouble = d.silent(ctx, "the migration was asked how it is").Error()
		}
		return v, nil
	}
	if e != nil {
		v.Copy, err = e.estimate(ctx, d, v, described.GetPendingActivities())
	}
	return v, err
}

// successor is the run in which a long migration went on.
func (d *desk) successor(ctx context.Context, id, run string) (string, error) {
	events := d.GetWorkflowHistory(ctx, id, run, false, enumspb.HISTORY_EVENT_FILTER_TYPE_CLOSE_EVENT)
	for events.HasNext() {
		event, err := events.Next()
		if err != nil {
			return "", fmt.Errorf("how run %s of %s went on: %w", run, id, err)
		}
		if next := event.GetWorkflowExecutionContinuedAsNewEventAttributes().GetNewExecutionRunId(); next != "" {
			return next, nil
		}
	}
	return "", fmt.Errorf("how run %s of %s went on: its history does not say", run, id)
}

func named(id, run string) string {
	if run == "" {
		return "migration " + id
	}
	return "run " + run + " of migration " + id
}

// status is what visibility knows of a migration, which is better than nothing.
func (e entry) status() workflows.Status {
	s := workflows.Status{Phase: e.Phase, Serving: "unknown, `transship routes` shows it", Report: report.Report{
		Prefix: e.Prefix, From: e.From, To: e.To, Operator: e.Operator, Workflow: e.Workflow, Run: e.Run, Began: e.Began, Ended: e.Ended, Outcome: report.Running,
	}}
	if !e.Ended.IsZero() {
		s.Report.Outcome = report.Outcome(e.Outcome)
	}
	return s
}

// ended is the last status of a migration that is over, and what is missing from it.
func (d *desk) ended(ctx context.Context, of entry) (s workflows.Status, trouble string, err error) {
	bounded, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	err = d.GetWorkflow(bounded, of.Workflow, of.Run).Get(bounded, &s.Report)
	var failed *temporal.ApplicationError
	var cancelled *temporal.CanceledError
	switch {
	case err == nil:
	case errors.As(err, &cancelled) && cancelled.HasDetails():
		err = cancelled.Details(&s.Report)
	case errors.As(err, &failed) && failed.HasDetails():
		err = failed.Details(&s.Report)
	default:
		// It was ended without being asked. A worker can tell from its history what it had come to.
		value, asked := d.query(bounded, of.Workflow, of.Run, workflows.QueryStatus)
		if asked == nil {
			asked = value.Get(&s)
		}
		if asked != nil {
			return of.status(), "what it had come to cannot be had: " + asked.Error(), nil
		}
		s.Report.Ended, s.Report.Outcome = of.Ended, report.Outcome(of.Outcome)
		return s, "", nil
	}
	if err != nil {
		return s, "", fmt.Errorf("result of %s: %w", of.Workflow, err)
	}
	s.Phase, s.Serving = workflows.Done, s.Report.From
	if s.Report.Outcome == report.Finalized {
		s.Serving = s.Report.To
	}
	return s, "", nil
}

func activitiesOf(infos []*workflowpb.PendingActivityInfo) []pending {
	var all []pending
	for _, i := range infos {
		p := pending{
			ID: i.GetActivityId(), Type: i.GetActivityType().GetName(), Since: i.GetScheduledTime().AsTime(), Attempt: i.GetAttempt(),
			Started: i.GetState() != enumspb.PENDING_ACTIVITY_STATE_SCHEDULED,
		}
		if started := i.GetLastStartedTime(); started != nil && p.Started {
			p.Since = started.AsTime()
		}
		if p.Attempt > 1 {
			p.Failure = i.GetLastFailure().GetMessage()
		}
		if next := i.GetNextAttemptScheduleTime(); next != nil && next.AsTime().After(time.Now()) {
			p.Next = next.AsTime()
		}
		all = append(all, p)
	}
	return all
}
