package workflows

import (
	"fmt"

	"go.temporal.io/sdk/workflow"

	"transship/activities"
	"transship/internal/report"
	"transship/internal/routing"
)

// PlanID is the workflow ID of the dry run for a prefix.
func PlanID(p routing.Prefix) string { return "plan/" + p.String() }

// DryRunResult is what a migration would do.
type DryRunResult struct {
	Plan         report.Plan `json:"plan"`
	Repositories []string    `json:"repositories,omitempty"`
	// Edges are the generated files as they would be after the flip.
	Edges []activities.Preview `json:"edges,omitempty"`
}

// DryRun makes the plan of a migration and shows what the edges' files would become. It changes nothing.
func DryRun(ctx workflow.Context, in MigrateInput) (DryRunResult, error) {
	var r *activities.Routes
	var now routing.Routing
	if err := workflow.ExecuteActivity(toRoutes(ctx, "the routing table"), r.ReadTable).Get(ctx, &now); err != nil {
		return DryRunResult{}, err
	}
	p, err := makePlan(ctx, in, owned(now.Table, in.Prefix))
	if err != nil {
		return DryRunResult{}, err
	}
	result := DryRunResult{Plan: p.Plan, Repositories: p.repositories}
	asks := routes{Routing: now}
	if err := asks.mayClaim(routing.Request{Prefix: in.Prefix, Owner: MigrateID(in.Prefix), From: in.From, To: in.To, Default: in.Default}); err != nil {
		result.Plan.Blockers = append(result.Plan.Blockers, because(err))
	}
	table := now.Table
	if table.Default == "" {
		table.Default = in.Default
	}
	table = table.With(routing.Route{Prefix: in.Prefix, Backend: in.To, Mode: routing.Open})
	if err := table.Check(); err != nil {
		return result, nil // the claim's blocker says why
	}
	var a *activities.Edge
	for _, name := range in.Edges {
		var preview activities.Preview
		if err := workflow.ExecuteActivity(onEdge(ctx, name, reach, "what the files of "+name+" would become"), a.PreviewFiles, table).Get(ctx, &preview); err != nil {
			result.Plan.Blockers = append(result.Plan.Blockers, fmt.Sprintf("edge %s cannot show its files: %s", name, because(err)))
			continue
		}
		result.Edges = append(result.Edges, preview)
	}
	return result, nil
}
