package workflows

import (
	"fmt"
	"slices"
	"strings"

	"go.temporal.io/sdk/workflow"

	"transship/activities"
	"transship/internal/edge"
	"transship/internal/monitor"
	"transship/internal/notify"
	"transship/internal/routing"
)

// readCanary has clients read digests from the target first, and from the source what the target does not have: step by step more of them, for as long as they
// fare no worse. It stays at the last step until the flip. Nothing is decided by it, and nobody's pull fails by it.
func (m *migration) readCanary(ctx workflow.Context) error {
	c := m.Policy.Canary
	if !c.Wanted() {
		return nil
	}
	m.enter(ReadCanary)
	steps := c.Percent
	if len(steps) == 0 {
		steps = []int{0}
	}
	for m.state.Canary < len(steps) {
		percent := steps[m.state.Canary]
		err := m.pausable(ctx, func(ctx workflow.Context) error {
			return m.canaryStep(ctx, &routing.Canary{Scope: routing.Digests, Percent: percent, Networks: c.Networks})
		})
		if err != nil {
			m.endCanary(ctx)
			return err
		}
		m.state.Canary++
	}
	return nil
}

// canaryStep sets a canary and watches what clients see.
func (m *migration) canaryStep(ctx workflow.Context, c *routing.Canary) error {
	before, _ := m.sample(ctx, m.Policy.Checks.Baseline)
	began, err := m.fellBack(ctx)
	if err != nil {
		return err
	}
	if err := m.setCanary(ctx, c); err != nil {
		return err
	}
	whose := strings.Join(append(slices.Clone(c.Networks), fmt.Sprintf("%d %% of all requests", c.Percent)), ", ")
	m.decide("transship", "reads digests from "+m.To+" first: "+whose, "")
	m.tell(ctx, notify.Info, "read canary", fmt.Sprintf("%s: %s read digests from %s first, for %s.", m.Prefix, whose, m.To, m.Policy.Canary.Interval))
	m.waits = "the read canary: " + whose
	m.show()
	if err := workflow.Sleep(ctx, m.Policy.Canary.Interval); err != nil {
		return err
	}
	m.waits = ""
	ended, err := m.fellBack(ctx)
	if err != nil {
		return err
	}
	if n := ended.Failed - began.Failed; n > 0 {
		return refusal(kindChecksFailed, "%s answered %d reads of the canary with a server error, or not at all; %s answered them instead", m.To, n, m.From)
	}
	if now, ok := m.sample(ctx, m.Policy.Canary.Interval); ok {
		if worse := monitor.Judge(before, now, m.Policy.Checks.Limits); len(worse) > 0 {
			return refusal(kindChecksFailed, "with a read canary (%s): %s", whose, worse[0])
		}
	}
	m.note("%s; %d reads of what %s did not have", whose, ended.Served-began.Served, m.To)
	return nil
}

func (m *migration) setCanary(ctx workflow.Context, c *routing.Canary) error {
	q := m.request()
	q.Canary = c
	var r *activities.Routes
	return workflow.ExecuteActivity(toRoutes(ctx, "read canary"), r.SetCanary, q).Get(ctx, nil)
}

// endCanary sends all reads to the source again, whatever else is going on. An edge that is away follows when it is back.
func (m *migration) endCanary(ctx workflow.Context) {
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	if err := m.setCanary(ctx, nil); err != nil {
		workflow.GetLogger(ctx).Warn("canary not ended", "error", because(err))
	}
}

// fellBack sums up what clients read from a second backend.
func (m *migration) fellBack(ctx workflow.Context) (sum edge.Fallbacks, err error) {
	var a *activities.Edge
	for _, name := range m.edges() {
		var s edge.Status
		if err := workflow.ExecuteActivity(onEdge(ctx, name, reach, "reads from a second backend"), a.EdgeStatus).Get(ctx, &s); err != nil {
			return sum, err
		}
		f := s.Fallbacks[m.Prefix]
		sum.Served, sum.Unserved, sum.Failed = sum.Served+f.Served, sum.Unserved+f.Unserved, sum.Failed+f.Failed
	}
	return sum, nil
}
