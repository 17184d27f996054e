package workflows

import (
	"slices"

	"go.temporal.io/sdk/workflow"

	"transship/internal/routing"
)

// leaveOut goes on without edges that an operator says are down.
func (r *routes) leaveOut(ctx workflow.Context, edges []string) {
	for i := range r.Edges {
		if e := &r.Edges[i]; slices.Contains(edges, e.Edge) {
			e.LeftOut = true
			r.handToLeftOut(ctx, e)
		}
	}
}

// handToLeftOut has an edge that is left out handed the present table until it takes it, also if it seems to have it: only then it takes part again, and knows it.
func (r *routes) handToLeftOut(ctx workflow.Context, e *routing.EdgeState) {
	if e.Generation >= r.Table.Generation && workflow.GetVersion(ctx, "hand-to-left-out", workflow.DefaultVersion, 1) != workflow.DefaultVersion {
		e.Generation = r.Table.Generation - 1
	}
}
