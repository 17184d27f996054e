package workflows

import (
	"time"

	"go.temporal.io/sdk/workflow"

	"transship/activities"
	"transship/internal/edge"
)

// LookInput names the edges to look at.
type LookInput struct {
	Edges []string `json:"edges"`
}

// EdgeLook is an edge as it is now, or why it does not say.
type EdgeLook struct {
	Edge    string       `json:"edge"`
	Status  *edge.Status `json:"status,omitempty"`
	Trouble string       `json:"trouble,omitempty"`
}

// LookAtEdges asks every edge how it is, at the same time.
func LookAtEdges(ctx workflow.Context, in LookInput) ([]EdgeLook, error) {
	var a *activities.Edge
	futures := make([]workflow.Future, len(in.Edges))
	for i, name := range in.Edges {
		futures[i] = workflow.ExecuteActivity(onEdge(ctx, name, 5*time.Second, "how is "+name+"?"), a.EdgeStatus)
	}
	looks := make([]EdgeLook, len(in.Edges))
	for i, name := range in.Edges {
		looks[i].Edge = name
		var s edge.Status
		if err := futures[i].Get(ctx, &s); err != nil {
			looks[i].Trouble = because(err)
			continue
		}
		looks[i].Status = &s
	}
	return looks, nil
}
