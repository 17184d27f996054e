package workflows

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/workflow"

	"transship/activities"
	"transship/internal/edge"
	"transship/internal/routing"
)

// DoctorInput names what the asker's configuration has.
type DoctorInput struct {
	Backends []string `json:"backends"`
	Edges    []string `json:"edges"`
	// Moves are those of the configuration's prefixes.
	Moves []Move `json:"moves,omitempty"`
}

// Doctor checks every connection that workers need, from where they run.
func Doctor(ctx workflow.Context, in DoctorInput) ([]edge.Finding, error) {
	const patience = 10 * time.Second
	var r *activities.Registries
	var e *activities.Edge
	backends := make([]workflow.Future, len(in.Backends))
	for i, name := range in.Backends {
		backends[i] = workflow.ExecuteActivity(onMover(ctx, patience, "reach backend "+name), r.CheckBackend, activities.CheckBackendParams{Backend: name})
	}
	edges := make([]workflow.Future, len(in.Edges))
	for i, name := range in.Edges {
		edges[i] = workflow.ExecuteActivity(onEdge(ctx, name, patience, "check edge "+name), e.CheckEdge)
	}
	var together []question
	var findings []edge.Finding
	if len(in.Moves) > 0 {
		var table *activities.Routes
		var now routing.Routing
		err := workflow.ExecuteActivity(small(ctx, patience, "the routing table"), table.ReadTable).Get(ctx, &now)
		resting, busy := atRest(in.Moves, now.Table)
		if err != nil {
			resting, busy = nil, in.Moves // who knows
		}
		for _, m := range resting {
			together = append(together, askSite(ctx, m, in.Edges, 2*patience+patience/2)...)
		}
		for _, m := range busy {
			findings = append(findings, edge.Finding{What: fmt.Sprintf("backends %s and %s, and the edges, together", m.From, m.To), Detail: "not looked at: " + notNow, Cure: "look again when it has ended", Warning: true})
		}
	}
	for i, name := range in.Backends {
		f := edge.Finding{What: "backend " + name + ": movers reach it", OK: true}
		if err := backends[i].Get(ctx, nil); err != nil {
			f = edge.Finding{What: f.What, Detail: because(err), Cure: "check backends." + name + " (url, username, password) and that a worker with the role mover runs"}
		}
		findings = append(findings, f)
	}
	for i, name := range in.Edges {
		var seen []edge.Finding
		if err := edges[i].Get(ctx, &seen); err != nil {
			seen = []edge.Finding{{What: "edge " + name + ": its worker answers", Detail: because(err), Cure: "run transship-worker --edge " + name + " on that node"}}
		}
		findings = append(findings, seen...)
	}
	return append(findings, answers(ctx, together)...), nil
}
