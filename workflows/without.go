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
	if len(edges) == 0 {
		return
	}
	d := m.decide(by, "goes on without edge "+strings.Join(edges, ", ")+", which serves nobody", reason)
	for _, name := range edges {
		if !slices.Contains(m.Edges, name) || slices.Contains(m.state.Without, name) {
			continue
		}
		m.state.Without = append(m.state.Without, name)
		if _, read := m.state.Positions[m.From][name]; read { // what it took before the mirror, that brings
			m.state.Unread, m.state.UnreadSince = append(m.state.Unread, name), d.At
		}
	}
}

// unread are the edges that were left out with acknowledged writes that nobody has carried over yet.
func (m *migration) unread(ctx workflow.Context) []string {
	if len(m.state.Unread) == 0 || workflow.GetVersion(ctx, "unread-journals", workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		return nil
	}
	return m.state.Unread
}

// compareUnread finds what edges had acknowledged when they were left out, by comparing both sides: their journals are where nobody can read them.
func (m *migration) compareUnread(ctx workflow.Context) error {
	names := slices.Clone(m.unread(ctx))
	if len(names) == 0 {
		return nil
	}
	if !m.rollingBack {
		if err := m.letListingsCatchUp(ctx, m.state.UnreadSince); err != nil {
			return err
		}
	}
	if err := m.compareInstead(ctx, m.serving(), m.other(), "nobody can read the journal of edge "+strings.Join(names, ", ")); err != nil {
		return err
	}
	m.state.Unread = slices.DeleteFunc(m.state.Unread, func(name string) bool { return slices.Contains(names, name) })
	return nil
}

// compareUnreadUnlessLossIsAccepted is that of a rollback: a target that is gone can be asked for ever, and somebody may decide to go back without what only it has.
func (m *migration) compareUnreadUnlessLossIsAccepted(ctx workflow.Context) error {
	if len(m.unread(ctx)) == 0 {
		return nil
	}
	inner, cancel := workflow.WithCancel(ctx)
	defer cancel()
	workflow.Go(inner, func(inner workflow.Context) {
		if workflow.Await(inner, m.lossIsAccepted()) == nil {
			cancel()
		}
	})
	return m.compareUnread(inner)
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
		m.state.Unread = slices.DeleteFunc(m.state.Unread, func(n string) bool { return n == name }) // its journal can be read again
		m.decide("transship", "edge "+name+" is back", "")
		if _, known := m.state.Positions[m.From][name]; known {
			continue
		}
		m.state.Positions[m.From][name], m.state.Positions[m.To][name] = s.Journal, s.Journal
		if m.state.Flipped { // comparing would take what the new backend has been given since for old
			m.decide("transship", "cannot tell which writes edge "+name+" acknowledged for "+m.From+" while it was away", "it was never part of this migration")
		} else if err := m.compareInstead(ctx, m.From, m.To, noJournal(name)); err != nil {
			return err
		}
	}
	return nil
}
