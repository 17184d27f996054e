package main

import (
	"context"
	"fmt"

	"transship/config"
	"transship/internal/routing"
	"transship/workflows"
)

// free makes sure that nothing else has the prefix, so that a refusal names the other before anything is started. It is a courtesy: what
// happens between here and the start is refused by Temporal or by Routes.
func (d *desk) free(ctx context.Context, move config.Move) error {
	others, err := d.list(ctx, ofMigrations+running, 1000)
	if err != nil {
		return err
	}
	for _, other := range others {
		if other.Prefix.Overlaps(move.Prefix) {
			return conflict(move.Prefix, other)
		}
	}
	now, _, err := d.routing(ctx)
	if err != nil {
		return fmt.Errorf("nothing was started: %w", err)
	}
	return routed(now.Table, move)
}

// routed refuses what the routing table would refuse.
func routed(t routing.Table, move config.Move) error {
	p := move.Prefix
	if other, ok := t.Overlapping(p); ok {
		how := "was moved to backend " + other.Backend
		if other.Owner != "" {
			how = "is being moved by the workflow " + other.Owner
		}
		return refused("%s overlaps %s, which %s: a repository can belong to one route only", p, other.Prefix, how)
	}
	serving := t.Default
	if route, ok := t.Lookup(p); ok {
		if route.Owner != "" && route.Owner != workflows.MigrateID(p) {
			return refused("%s is being moved by the workflow %s", p, route.Owner)
		}
		serving = route.Backend
	}
	if serving != "" && serving != move.From {
		return refused("%s is served by backend %s, not by %s: to move it from there, `transship migrate %s --from %s --to %s`", p, serving, move.From, p, serving, move.From)
	}
	return nil
}

// taken names the running migration with an ID.
func (d *desk) taken(ctx context.Context, p routing.Prefix, id string) error {
	answer, err := d.DescribeWorkflowExecution(ctx, id, "")
	if err != nil {
		return refused("%s is being moved already, by the workflow %s", p, id)
	}
	return conflict(p, d.entry(answer.GetWorkflowExecutionInfo()))
}

func conflict(p routing.Prefix, other entry) error {
	what := fmt.Sprintf("%s is being moved already", p)
	if other.Prefix != p {
		what = fmt.Sprintf("%s overlaps %s, which is being moved", p, other.Prefix)
	}
	return refused("%s: workflow %s (%s → %s), asked for by %s, at %s, since %s; `transship status %s` shows it",
		what, other.Workflow, other.From, other.To, other.Operator, other.Phase, clock(other.Began), other.Prefix)
}
