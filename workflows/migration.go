package workflows

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"transship/activities"
	"transship/internal/journal"
	"transship/internal/report"
	"transship/internal/routing"
)

// migration is a running Migrate.
type migration struct {
	MigrateInput
	state State
	// steps is the context of the steps up to finalize; stop ends it.
	steps workflow.Context
	stop  workflow.CancelFunc
	// phase is the step that is under way; waits is what it waits for; shown is what the list of workflows says of that.
	phase, waits, shown string
	// frozen says that a freeze is in place and not decided yet; flipping that it is being decided.
	frozen, flipping bool
	// frozenUntil is when the lease of the freeze runs out.
	frozenUntil time.Time
	// drained is where the drain found the end of each edge's journal; lost are writes in flight whose outcome nobody can tell.
	drained map[string]journal.Position
	lost    []journal.Change
	// open are the uploads that the drain found.
	open []routing.Upload
	// stored are those that the store showed before the freeze.
	stored []routing.Upload
	// changes is what the last delta of a cutover carried over.
	changes []journal.Change
	// leaving says that a new run is about to begin.
	leaving bool
	// concluding says that it is over, but for the report.
	concluding bool
	// rollingBack says that the list of steps is over and the way back has begun.
	rollingBack bool
	live        workflow.Context
}

// step is one step of a migration.
type step struct {
	name string
	run  func(workflow.Context) error
}

// errStopped says that a command ended the list of steps.
var errStopped = errors.New("stopped by command")

// begin sets a migration up: its state, and the messages it takes.
func begin(ctx workflow.Context, in MigrateInput) (*migration, error) {
	m := &migration{MigrateInput: in, live: ctx}
	info := workflow.GetInfo(ctx)
	if in.State != nil {
		m.state = *in.State
		m.MigrateInput.State = nil
	} else {
		m.state = State{
			Without:   in.Without,
			Throttle:  activities.Throttle{Bandwidth: in.Policy.Mirror.Bandwidth, Requests: in.Policy.Mirror.Requests},
			Positions: map[string]map[string]journal.Position{in.From: {}, in.To: {}},
			Report: report.Report{
				Prefix: in.Prefix, From: in.From, To: in.To, Operator: in.Operator, Workflow: info.WorkflowExecution.ID,
				Run: info.WorkflowExecution.RunID, Began: workflow.Now(ctx), Outcome: report.Running,
			},
		}
		m.decide(in.Operator, "asked for the migration", "")
		m.goWithout(in.Operator, in.Without, "")
	}
	m.steps, m.stop = workflow.WithCancel(ctx)
	if m.state.Stop != nil {
		m.stop()
	}
	return m, m.listen(ctx)
}

// follow takes the steps in their order, from the one that a continued run has come to. Between any two it pauses when told to.
func (m *migration) follow(ctx workflow.Context, list []step) error {
	for m.state.Next < len(list) {
		if err := m.boundary(ctx); err != nil {
			return err
		}
		s := list[m.state.Next]
		run := m.take
		if s.name == "" { // a group, which takes its own steps
			run = func(ctx workflow.Context, s step) error { return s.run(ctx) }
		}
		if err := run(ctx, s); err != nil {
			return err
		}
		m.state.Next++
	}
	return nil
}

// take does one step, and records when it began and ended and what came of it.
func (m *migration) take(ctx workflow.Context, s step) error {
	m.enter(s.name)
	steps := &m.state.Report.Steps
	if n := len(*steps); n == 0 || (*steps)[n-1].Name != s.name || !(*steps)[n-1].Ended.IsZero() {
		*steps = append(*steps, report.Step{Name: s.name, Began: workflow.Now(ctx)})
	} // else a continued run goes on with it
	at := len(*steps) - 1
	err := s.run(ctx)
	if workflow.IsContinueAsNewError(err) {
		return err
	}
	record := &(*steps)[at]
	record.Ended = workflow.Now(ctx)
	m.waits = ""
	switch {
	case err == nil:
		m.show()
		return nil
	case m.state.Stop != nil && !m.rollingBack:
		record.Note = strings.TrimSpace(record.Note + " (ended by command)")
	default:
		record.Error = because(err)
	}
	return fmt.Errorf("%s: %w", s.name, err)
}

// note says in the report what came of the step under way.
func (m *migration) note(format string, args ...any) {
	if n := len(m.state.Report.Steps); n > 0 {
		m.state.Report.Steps[n-1].Note = fmt.Sprintf(format, args...)
	}
	m.show()
}

// enter says which phase the migration is in, where people look for it.
func (m *migration) enter(phase string) {
	m.phase = phase
	_ = workflow.UpsertTypedSearchAttributes(m.live, AttrPhase.ValueSet(phase))
	m.show()
}

// boundary is where a migration may stop or pause.
func (m *migration) boundary(ctx workflow.Context) error {
	if m.state.Stop == nil && m.state.Paused != nil {
		if err := m.whilePaused(ctx); err != nil {
			return err
		}
	}
	if m.state.Stop != nil && !m.rollingBack {
		return errStopped
	}
	return nil
}

// whilePaused waits until somebody resumes, or ends, the migration.
func (m *migration) whilePaused(ctx workflow.Context) error {
	m.show()
	err := workflow.Await(ctx, func() bool { return m.state.Paused == nil || m.state.Stop != nil })
	m.show()
	return err
}

// waiting says what the migration waits for, and how to give it.
func (m *migration) waiting() string {
	if p := m.state.Paused; p != nil {
		return fmt.Sprintf("paused by %s: `transship resume %s` goes on", p.By, m.Prefix)
	}
	return m.waits
}

// pausable does something long that may be interrupted and begun again. A pause cancels it; when the migration is resumed, it is begun anew,
// and is expected to know how far it had come.
func (m *migration) pausable(ctx workflow.Context, work func(workflow.Context) error) error {
	for {
		if err := m.boundary(ctx); err != nil {
			return err
		}
		inner, cancel := workflow.WithCancel(ctx)
		done := false
		workflow.Go(inner, func(ctx workflow.Context) {
			if workflow.Await(ctx, func() bool { return done || m.state.Paused != nil }) == nil && !done {
				cancel()
			}
		})
		err := work(inner)
		done = true
		interrupted := inner.Err() != nil && ctx.Err() == nil
		cancel()
		if err == nil || !interrupted {
			return err
		}
	}
}

// decide records a decision.
func (m *migration) decide(by, what, reason string) report.Decision {
	d := report.Decision{At: workflow.Now(m.live), By: by, What: what, Reason: reason}
	m.state.Report.Decisions = append(m.state.Report.Decisions, d)
	return d
}

// continueIfLong starts a new run when the history has grown long. Only steps that go on where they were when they are begun again may call it.
func (m *migration) continueIfLong(ctx workflow.Context) error {
	if !workflow.GetInfo(ctx).GetContinueAsNewSuggested() {
		return nil
	}
	m.leaving = true
	defer func() { m.leaving = false }()
	if err := workflow.Await(ctx, func() bool { return workflow.AllHandlersFinished(ctx) }); err != nil {
		return err
	}
	next := m.MigrateInput
	next.State = &m.state
	return workflow.NewContinueAsNewError(ctx, Migrate, next)
}

// serving is the backend that has the prefix now; other is the one on the far side.
func (m *migration) serving() string {
	if m.state.Flipped {
		return m.To
	}
	return m.From
}

func (m *migration) other() string {
	if m.state.Flipped {
		return m.From
	}
	return m.To
}

// sleep waits, but no longer than until something has to be done.
func (m *migration) sleep(ctx workflow.Context, d time.Duration, until func() bool) error {
	_, err := workflow.AwaitWithTimeout(ctx, d, func() bool { return until() || m.state.Paused != nil })
	return err
}

// refusal makes a final failure of the migration itself.
func refusal(kind, format string, args ...any) error {
	return temporal.NewNonRetryableApplicationError(fmt.Sprintf(format, args...), kind, nil)
}
