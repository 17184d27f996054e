package workflows

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/workflow"

	"transship/activities"
	"transship/internal/routing"
)

// carryLimit bounds what an edge, and a client behind it, waits for.
const carryLimit = 40 * time.Second

func (m *migration) mayCarry(_ workflow.Context, q CarryRequest) error {
	if q.From != m.From && q.From != m.To {
		return refusal("Command", "%s is no backend of the migration of %s", q.From, m.Prefix)
	}
	if m.concluding {
		return refusal("Command", "the migration of %s is over: %s", m.Prefix, m.state.Report.Outcome)
	}
	if m.leaving {
		return refusal("Command", "the migration of %s begins a new run: ask again", m.Prefix)
	}
	return nil
}

// carryNow brings over what an edge asks for: it is what the backend that does not serve acknowledged, or still has.
func (m *migration) carryNow(ctx workflow.Context, q CarryRequest) (Answer, error) {
	to := m.To
	if q.From == m.To {
		to = m.From
	}
	left := len(m.state.Report.Left)
	err := m.apply(ctx, q.From, to, q.Changes, carryLimit)
	if err == nil && len(m.state.Report.Left) > left { // policy.audit.broken lets a migration go on without it, not a client
		err = refusal("Broken", "backend %s cannot give it whole", q.From)
	}
	if err != nil {
		return Answer{}, fmt.Errorf("carry over from %s to %s for edge %s: %w", q.From, to, q.Edge, err)
	}
	m.deltas(q.From).Changes += len(q.Changes)
	if len(q.Ended) == 0 {
		return Answer{Message: "carried over", Phase: m.phase}, nil
	}
	return Answer{Message: "carried over", Phase: m.phase}, m.settle(ctx, q.Ended, "uploads have ended")
}

// settle takes uploads that are over from the routing table.
func (m *migration) settle(ctx workflow.Context, over []routing.Upload, why string) error {
	request := m.request()
	request.Uploads = over
	var r *activities.Routes
	return workflow.ExecuteActivity(toRoutes(ctx, why), r.SettleUploads, request).Get(ctx, nil)
}

// uploadsInStore asks the store of the backend that serves which uploads are at work: those that no edge saw begin, or whose only request is not over.
func (m *migration) uploadsInStore(ctx workflow.Context) error {
	var a *activities.Registries
	p := activities.ListUploadsParams{Backend: m.serving(), Prefix: m.Prefix.String(), Idle: m.Policy.Freeze.SessionIdle}
	limit := time.Hour
	if m.rollingBack {
		limit = m.Policy.Freeze.Lease
	}
	err := workflow.ExecuteActivity(onMover(ctx, limit, "uploads at work in the store of "+m.serving()), a.ListUploads, p).Get(ctx, &m.stored)
	if m.rollingBack { // a backend that cannot be listed must not keep a rollback from trying
		return nil
	}
	return err
}

// lookForUploads is how often uploads that outlast a flip are looked for.
const lookForUploads = 2 * time.Second

// awaitUploads waits until no upload goes on any more that was open at the flip: its client would be told that nobody knows it. One that is silent for
// policy.freeze.session_idle counts as abandoned.
func (m *migration) awaitUploads(ctx workflow.Context) error {
	for {
		left, err := m.settleUploads(ctx)
		if err != nil || left == 0 {
			return err
		}
		m.waits = fmt.Sprintf("%d uploads that were open at the flip", left)
		m.show()
		if err := workflow.Sleep(ctx, lookForUploads); err != nil {
			return err
		}
	}
}

// settleUploads looks how many uploads still go on, and takes all from the routing table when none does.
func (m *migration) settleUploads(ctx workflow.Context) (left int, err error) {
	if len(m.state.Uploads) == 0 {
		return 0, nil
	}
	var a *activities.Edge
	for _, name := range m.edges() {
		var n int
		p := activities.LateUploadsParams{Prefix: m.Prefix, Idle: m.Policy.Freeze.SessionIdle}
		if err := workflow.ExecuteActivity(onEdge(ctx, name, 10*time.Second, "uploads that outlast the flip"), a.LateUploads, p).Get(ctx, &n); err != nil {
			return len(m.state.Uploads), nil // nobody knows, so they are taken to go on; an edge that stays away ends with its migration
		}
		left += n
	}
	if left > 0 {
		return left, nil
	}
	if err := m.settle(ctx, m.state.Uploads, "no upload is left of before the flip"); err != nil {
		return 0, err
	}
	m.state.Uploads = nil
	return 0, nil
}
