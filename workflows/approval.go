package workflows

import (
	"fmt"
	"strings"

	"go.temporal.io/sdk/workflow"

	"transship/internal/notify"
	"transship/internal/policy"
)

// awaitApproval waits until somebody who may approves the flip. Both sides are kept close all the while.
func (m *migration) awaitApproval(ctx workflow.Context) error {
	a := m.Policy.Approval
	if !a.Required {
		m.note("not required")
		m.decide("transship", "flips without approval, as policy.approval.required says", "")
		return nil
	}
	m.waits = "approval by " + whoMay(a) + ": `transship approve " + m.Prefix.String() + "`; window: " + a.Window.String()
	m.show()
	if m.state.Approved == nil && m.state.Report.Steps[len(m.state.Report.Steps)-1].Note == "" {
		m.tell(ctx, notify.Info, "waits for approval", fmt.Sprintf("%s is on both backends. The flip waits for %s.", m.Prefix, m.waits))
		m.note("asked for")
	}
	for m.state.Approved == nil {
		if err := m.sleep(ctx, m.Policy.Soak.Interval, func() bool { return m.state.Approved != nil }); err != nil {
			return err
		}
		if err := m.boundary(ctx); err != nil {
			return err
		}
		if err := m.pausable(ctx, func(ctx workflow.Context) error { _, err := m.delta(ctx, 0); return err }); err != nil {
			return err
		}
		if m.state.Approved == nil {
			if err := m.continueIfLong(ctx); err != nil {
				return err
			}
		}
	}
	m.note("given by %s", m.state.Approved.By)
	m.tell(ctx, notify.Info, "approved", fmt.Sprintf("%s approved the flip. %s", m.state.Approved.By, m.state.Approved.Reason))
	return nil
}

func whoMay(a policy.Approval) string {
	if len(a.Approvers) == 0 {
		return "anybody"
	}
	return strings.Join(a.Approvers, " or ")
}
