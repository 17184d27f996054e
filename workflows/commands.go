package workflows

import (
	"fmt"
	"slices"
	"strings"

	"go.temporal.io/sdk/workflow"

	"transship/internal/report"
)

// listen sets up everything that an operator can ask of and tell a migration.
func (m *migration) listen(ctx workflow.Context) error {
	err := workflow.SetQueryHandler(ctx, QueryStatus, func() (Status, error) { return m.status(), nil })
	for _, u := range []struct {
		name     string
		validate func(workflow.Context, Command) error
		obey     func(workflow.Context, Command) (string, error)
	}{
		{UpdateApprove, m.mayApprove, m.approve},
		{UpdatePause, m.mayPause, m.pause},
		{UpdateResume, m.mayResume, m.resume},
		{UpdateRollback, m.mayRollBack, m.orderRollback},
		{UpdateAbort, m.mayAbort, m.abort},
		{UpdateFinalize, m.mayFinalize, m.orderFinalize},
		{UpdateThrottle, m.mayThrottle, m.throttle},
	} {
		if err != nil {
			return fmt.Errorf("migration: %w", err)
		}
		err = workflow.SetUpdateHandlerWithOptions(ctx, u.name, func(ctx workflow.Context, c Command) (Answer, error) {
			message, err := u.obey(ctx, c)
			m.show()
			return Answer{Message: message, Phase: m.phase}, err
		}, workflow.UpdateHandlerOptions{Validator: func(ctx workflow.Context, c Command) error {
			if c.By == "" {
				return refusal("Command", "the command does not say whose it is: set by")
			}
			return u.validate(ctx, c)
		}})
	}
	if err != nil {
		return err
	}
	return workflow.SetUpdateHandlerWithOptions(ctx, UpdateCarry, m.carryNow, workflow.UpdateHandlerOptions{Validator: m.mayCarry})
}

func (m *migration) status() Status {
	return Status{Carried: m.state.Positions[m.serving()], Phase: m.phase, Waits: m.waiting(), Paused: m.state.Paused != nil, Serving: m.serving(), Report: m.state.Report}
}

func (m *migration) over() error {
	switch {
	case m.concluding:
		return refusal("Command", "the migration of %s is over: %s", m.Prefix, m.state.Report.Outcome)
	case m.state.Stop != nil:
		return refusal("Command", "the migration of %s is going back already", m.Prefix)
	}
	return nil
}

func (m *migration) mayApprove(ctx workflow.Context, c Command) error {
	if err := m.over(); err != nil {
		return err
	}
	if m.phase != Approval {
		return refusal("Command", "the migration of %s is at %s and waits for no approval", m.Prefix, m.phase)
	}
	if m.state.Approved != nil {
		return refusal("Command", "the migration of %s was approved by %s", m.Prefix, m.state.Approved.By)
	}
	allowed := m.Policy.Approval
	if len(allowed.Approvers) > 0 && !slices.Contains(allowed.Approvers, c.By) {
		return refusal("Command", "%s is not among those who may approve: %v", c.By, allowed.Approvers)
	}
	if open, why := allowed.Window.Open(workflow.Now(ctx)); !open {
		return refusal("Command", "no flip may begin now: %s", why)
	}
	return nil
}

func (m *migration) approve(_ workflow.Context, c Command) (string, error) {
	d := m.decide(c.By, "approved the flip", c.Reason)
	m.state.Approved = &d
	return "approved: the freeze begins as soon as both sides have converged", nil
}

func (m *migration) mayPause(_ workflow.Context, _ Command) error {
	if err := m.over(); err != nil {
		return err
	}
	if m.state.Paused != nil {
		return refusal("Command", "the migration of %s was paused by %s already", m.Prefix, m.state.Paused.By)
	}
	return nil
}

// pause answers when it has taken effect. It never leaves writes held: before the flip is decided it gives the freeze up, after that it waits
// the moment until writes go on.
func (m *migration) pause(ctx workflow.Context, c Command) (string, error) {
	frozen, flipping, phase := m.frozen, m.flipping, m.phase
	d := m.decide(c.By, "paused", c.Reason)
	m.state.Paused = &d
	if err := workflow.Await(ctx, func() bool { return !m.frozen && !m.flipping }); err != nil {
		return "", err
	}
	switch {
	case flipping:
		return "the flip was being decided, so it was completed first; paused after it", nil
	case frozen:
		return fmt.Sprintf("the freeze was given up, writes go on to %s; paused", m.serving()), nil
	}
	return fmt.Sprintf("paused at %s: copies stop within seconds, writes and pulls go on at %s", phase, m.serving()), nil
}

func (m *migration) mayResume(_ workflow.Context, c Command) error {
	if err := m.over(); err != nil {
		return err
	}
	if m.state.Paused == nil {
		return refusal("Command", "the migration of %s is not paused", m.Prefix)
	}
	return m.mayLeaveOut(c.Without)
}

func (m *migration) resume(ctx workflow.Context, c Command) (string, error) {
	m.decide(c.By, "resumed", c.Reason)
	m.goWithout(c.By, c.Without, c.Reason)
	if err := m.tellRoutes(ctx, c.Without); err != nil {
		return "", err
	}
	m.state.Paused = nil
	return "goes on with " + m.phase, nil
}

func (m *migration) mayRollBack(_ workflow.Context, c Command) error {
	if err := m.mayLeaveOut(c.Without); err != nil {
		return err
	}
	if m.rollingBack && (c.AcceptLoss || len(c.Without) > 0) && m.phase != Done {
		return nil
	}
	if err := m.over(); err != nil {
		return err
	}
	if m.phase == Finalize {
		return refusal("Command", "%s is being finalized; to move it back, migrate it from %s to %s", m.Prefix, m.To, m.From)
	}
	return nil
}

func (m *migration) orderRollback(ctx workflow.Context, c Command) (string, error) {
	what := "ordered the rollback"
	if c.AcceptLoss {
		what += ", also if the target cannot give back what was pushed to it"
	}
	d := m.decide(c.By, what, c.Reason)
	m.goWithout(c.By, c.Without, c.Reason)
	if err := m.tellRoutes(ctx, c.Without); err != nil {
		return "", err
	}
	if m.rollingBack {
		m.state.Stop.AcceptLoss = m.state.Stop.AcceptLoss || c.AcceptLoss
		if !c.AcceptLoss {
			return "the rollback goes on without " + strings.Join(c.Without, ", "), nil
		}
		return "the rollback goes on, and leaves what it cannot carry back", nil
	}
	m.halt(Stop{Outcome: report.RolledBack, Decision: d, AcceptLoss: c.AcceptLoss})
	return fmt.Sprintf("rolling back: %s will be served by %s", m.Prefix, m.From), nil
}

func (m *migration) mayAbort(_ workflow.Context, _ Command) error {
	if err := m.over(); err != nil {
		return err
	}
	if m.state.Flipped || m.flipping {
		return refusal("Command", "%s has flipped to %s: use rollback, which carries back what was pushed since", m.Prefix, m.To)
	}
	return nil
}

func (m *migration) abort(_ workflow.Context, c Command) (string, error) {
	m.halt(Stop{Outcome: report.Aborted, Decision: m.decide(c.By, "aborted", c.Reason)})
	return fmt.Sprintf("aborting: %s stays on %s; what was copied to %s is left there", m.Prefix, m.From, m.To), nil
}

// halt ends the list of steps.
func (m *migration) halt(s Stop) {
	m.state.Stop, m.state.Paused = &s, nil
	m.stop()
}

func (m *migration) mayFinalize(_ workflow.Context, _ Command) error {
	if err := m.over(); err != nil {
		return err
	}
	if m.phase != Soak {
		return refusal("Command", "the migration of %s is at %s; only a soak can be ended by finalize", m.Prefix, m.phase)
	}
	return nil
}

func (m *migration) orderFinalize(_ workflow.Context, c Command) (string, error) {
	d := m.decide(c.By, "ordered to finalize", c.Reason)
	m.state.Finalize = &d
	return fmt.Sprintf("finalizing: %s is no longer kept current, there is no rollback from here", m.From), nil
}
