package workflows

import (
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/workflow"

	"transship/activities"
	"transship/internal/edge"
)

// edges are the proxy nodes that take part: all but those that an operator says are down.
func (m *migration) edges() []string {
	return slices.DeleteFunc(slices.Clone(m.Edges), func(name string) bool { return slices.Contains(m.state.Without, name) })
}

// goWithout records the order to leave edges out. A node that is left out refuses writes when it comes back, until it has the present routing table.
func (m *migration) goWithout(by string, edges []string, reason string) {
	for _, name := range edges {
		if slices.Contains(m.Edges, name) && !slices.Contains(m.state.Without, name) {
			m.state.Without = append(m.state.Without, name)
		}
	}
	if len(edges) > 0 {
		m.decide(by, "goes on without edge "+strings.Join(edges, ", ")+", which serves nobody", reason)
	}
}

// tellRoutes has a change that waits for an edge go on without it.
func (m *migration) tellRoutes(ctx workflow.Context, without []string) error {
	if len(without) == 0 || !m.state.Claimed {
		return nil
	}
	var r *activities.Routes
	return workflow.ExecuteActivity(toRoutes(ctx, "go on without "+strings.Join(without, ", ")), r.LeaveOutEdges, m.request()).Get(ctx, nil)
}

// mayLeaveOut refuses edges that are not there, and to leave out all.
func (m *migration) mayLeaveOut(edges []string) error {
	left := m.edges()
	for _, name := range edges {
		if !slices.Contains(m.Edges, name) {
			return refusal("Command", "there is no edge %s: the edges are %s", name, strings.Join(m.Edges, ", "))
		}
		left = slices.DeleteFunc(left, func(n string) bool { return n == name })
	}
	if len(left) == 0 {
		return refusal("Command", "no edge would be left: one at least must serve")
	}
	return nil
}

// welcomeBack takes edges in again that serve by the present table. What they journaled while they were away is carried over like everything else; where nobody knows since when,
// both sides are compared.
func (m *migration) welcomeBack(ctx workflow.Context) error {
	for _, name := range slices.Clone(m.state.Without) {
		var a *activities.Edge
		var s edge.Status
		err := workflow.ExecuteActivity(onEdge(ctx, name, 5*time.Second, "is "+name+" back?"), a.EdgeStatus).Get(ctx, &s)
		if err != nil || s.Unsure || s.Nginx < 0 || s.Nginx != s.Generation {
			continue
		}
		m.state.Without = slices.DeleteFunc(m.state.Without, func(n string) bool { return n == name })
		m.decide("transship", "edge "+name+" is back", "")
		if _, known := m.state.Positions[m.From][name]; known {
			continue
		}
		m.state.Positions[m.From][name], m.state.Positions[m.To][name] = s.Journal, s.Journal
		if m.state.Flipped { // comparing would take what the new backend has been given since for old
			m.decide("transship", "cannot tell which writes edge "+name+" acknowledged for "+m.From+" while it was away", "it was never part of this migration")
		} else if err := m.compareInstead(ctx, m.From, m.To, name); err != nil {
			return err
		}
	}
	return nil
}
