package workflows

import (
	"fmt"
	"slices"

	"go.temporal.io/sdk/workflow"

	"transship/internal/journal"
	"transship/internal/notify"
	"transship/internal/report"
)

// rollBack returns the prefix to the backend it came from, after a command, a failure or a cancellation. Before the flip there is only a claim to give
// up; after it, the same cutover is done the other way round, and carries back what was pushed to the new backend. It runs in a context of
// its own, so that nothing interrupts it.
func (m *migration) rollBack(ctx workflow.Context, cause error) error {
	cancelled := ctx.Err() != nil
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	m.rollingBack = true
	m.state.Paused, m.waits = nil, ""
	if m.state.Stop == nil {
		m.state.Stop = m.because(cause, cancelled)
	}
	stop := m.state.Stop
	if !m.state.Claimed {
		return cause
	}
	m.enter(Rollback)
	m.state.Report.Reason = stop.Decision.What
	if stop.Decision.Reason != "" {
		m.state.Report.Reason += ": " + stop.Decision.Reason
	}
	level := notify.Warning
	if stop.Decision.By == "transship" {
		level = notify.Critical
	}
	m.tell(ctx, level, "goes back", fmt.Sprintf("%s %s. %s will be served by %s.", stop.Decision.By, m.state.Report.Reason, m.Prefix, m.From))
	if m.state.Flipped {
		err := m.cutOver([]step{
			{Rollback + ": " + Freeze, m.freeze},
			{Rollback + ": " + Drain, m.drain},
			{Rollback + ": " + LastDelta, m.lastDelta},
			{Rollback + ": " + VerifyLast, m.verifyLast},
			{Rollback + ": " + Flip, m.flip},
			{Rollback + ": " + Release, m.release},
		}).run(ctx)
		if err == nil {
			err = m.awaitUploads(ctx)
		}
		if err != nil {
			return err
		}
	}
	if err := m.disown(ctx); err != nil {
		return err
	}
	if stop.Outcome == report.Failed || cancelled {
		return cause
	}
	return nil
}

// because makes a failure or a cancellation a reason to go back.
func (m *migration) because(cause error, cancelled bool) *Stop {
	what, outcome := "failed", report.Failed
	switch {
	case m.state.Flipped:
		what, outcome = "rolls back", report.RolledBack
	case cancelled:
		outcome = report.Aborted
	}
	reason := because(cause)
	if cancelled {
		what, reason = "was cancelled in Temporal", ""
	}
	return &Stop{Outcome: outcome, Decision: m.decide("transship", what, reason)}
}

// leaveBehind records what a rollback does not carry back, because somebody accepted that.
func (m *migration) leaveBehind(ctx workflow.Context, cause error) error {
	left := slices.Clone(m.lost)
	for _, name := range m.edges() {
		from := m.state.Positions[m.serving()][name]
		for more := true; more; {
			d, err := m.readFrom(ctx, name, m.serving(), from, m.remaining(ctx))
			if err != nil {
				return err
			}
			left, from, more = append(left, d.Changes...), d.Next, d.More
		}
	}
	for _, name := range m.unread(ctx) {
		m.state.Report.NotCarriedBack = append(m.state.Report.NotCarriedBack, "whatever edge "+name+" had acknowledged and nobody had read when it was left out")
	}
	for _, c := range left {
		m.state.Report.NotCarriedBack = append(m.state.Report.NotCarriedBack, string(c.Kind)+" "+c.Repository+" "+c.Reference)
	}
	m.decide(m.state.Stop.Decision.By, fmt.Sprintf("left %d changes behind on %s", len(m.state.Report.NotCarriedBack), m.serving()), because(cause))
	m.changes = []journal.Change{}
	return nil
}
