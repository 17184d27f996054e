package lab

import (
	"context"
	"fmt"
	"time"

	"transship/internal/report"
	"transship/internal/routing"
	"transship/workflows"
)

// Status asks the migration of a prefix how it stands.
func (s *Stack) Status(ctx context.Context, prefix string) (workflows.Status, error) {
	var status workflows.Status
	value, err := s.Temporal.QueryWorkflow(ctx, workflows.MigrateID(routing.Prefix(prefix)), "", workflows.QueryStatus)
	if err != nil {
		return status, fmt.Errorf("status of %s: %w", prefix, err)
	}
	return status, value.Get(&status)
}

// Await waits until the migration of a prefix is as wanted, and says how it stands then. A migration that is over ends the wait as well.
func (s *Stack) Await(ctx context.Context, prefix string, wanted func(workflows.Status) bool) (workflows.Status, error) {
	for {
		status, err := s.Status(ctx, prefix)
		if err == nil && wanted(status) {
			return status, nil
		}
		if err == nil && status.Phase == workflows.Done {
			return status, fmt.Errorf("migration of %s ended as %s: %s", prefix, status.Report.Outcome, status.Report.Reason)
		}
		select {
		case <-ctx.Done():
			return status, fmt.Errorf("waiting for %s, which is at %s (%s): %w (%v)", prefix, status.Phase, status.Waits, ctx.Err(), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Phase is a condition for Await.
func Phase(name string) func(workflows.Status) bool {
	return func(s workflows.Status) bool { return s.Phase == name }
}

// Outcome waits until the migration is over, and returns its report.
func (s *Stack) Outcome(ctx context.Context, prefix string) (report.Report, error) {
	status, err := s.Await(ctx, prefix, Phase(workflows.Done))
	if err != nil {
		return status.Report, err
	}
	// Its last words come a moment before its end. How it ended is in the report.
	_ = s.Temporal.GetWorkflow(ctx, workflows.MigrateID(routing.Prefix(prefix)), "").Get(ctx, nil)
	return status.Report, ctx.Err()
}

// Routing asks Routes for the table.
func (s *Stack) Routing(ctx context.Context) (routing.Routing, error) {
	var r routing.Routing
	value, err := s.Temporal.QueryWorkflow(ctx, routing.RoutesWorkflow, "", routing.QueryTable)
	if err != nil {
		return r, fmt.Errorf("routing table: %w", err)
	}
	return r, value.Get(&r)
}
