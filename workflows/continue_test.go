package workflows

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"

	"transship/internal/report"
)

// continued runs a migration as its history grows too long at the given activity, and returns the input of the next run, as Temporal stores it.
func (w *world) continued(in MigrateInput, activity string, call int) MigrateInput {
	w.t.Helper()
	was := w.before[activity]
	w.before[activity] = func(n int) error {
		if n == call {
			w.env.SetContinueAsNewSuggested(true)
		}
		if was != nil {
			return was(n)
		}
		return nil
	}
	w.unattended = true
	_, err := w.migrate(in)
	require.True(w.t, workflow.IsContinueAsNewError(err), "%v", err)
	w.before[activity] = was
	var again *workflow.ContinueAsNewError
	require.True(w.t, errors.As(err, &again))
	require.Equal(w.t, "Migrate", again.WorkflowType.Name)
	var next MigrateInput
	require.NoError(w.t, converter.GetDefaultDataConverter().FromPayloads(again.Input, &next))
	require.NotNil(w.t, next.State)
	return next
}

func TestASoakGoesOnInANewRunWhenItsHistoryHasGrownLong(t *testing.T) {
	w := newWorld(t)
	next := w.continued(input(), "ProbeEdge", firstOfSoak+4)
	require.True(t, next.State.Flipped)
	require.Equal(t, 3, next.State.Report.Checks.Rounds)
	require.NotEmpty(t, next.State.Positions["new"])
	until, told, hold := next.State.SoakUntil, next.State.Told, next.State.Hold
	claims, plans := w.count("ClaimPrefix"), w.count("PlanRepositories")
	r, err := w.migrate(next)
	require.NoError(t, err)
	require.Equal(t, report.Finalized, r.Outcome)
	require.Equal(t, wholeWay, took(r), "every step is in the report once")
	require.Equal(t, claims, w.count("ClaimPrefix"))
	require.Equal(t, plans, w.count("PlanRepositories"))
	require.Equal(t, []string{"new"}, w.switches)
	require.False(t, until.IsZero())
	require.NotZero(t, told)
	require.NotEmpty(t, hold)
	require.Equal(t, next.State.Report.Began.UTC(), r.Began.UTC())
}

func TestTheWayBackIsOpenInANewRunAsWell(t *testing.T) {
	w := newWorld(t)
	next := w.continued(input(askToFinalize), "ProbeEdge", firstOfSoak+4)
	// The environment starts clocks and calls anew.
	w.before["SampleTraffic"] = func(int) error { return nil }
	ordered := false
	w.before["ProbeEdge"] = func(int) error {
		if !ordered {
			ordered = true
			w.push("edge-1", "restricted/r1", "in-the-new-run")
			w.orderIn(UpdateRollback, ann)
		}
		return nil
	}
	r, err := w.migrate(next)
	require.NoError(t, err)
	require.Equal(t, report.RolledBack, r.Outcome)
	require.Contains(t, w.content["old"], "restricted/r1:in-the-new-run")
}

func TestAMigrationThatWaitsForApprovalGoesOnInANewRun(t *testing.T) {
	w := newWorld(t)
	w.quiet = true
	next := w.continued(input(withApproval), "ReadJournal", 30)
	require.Nil(t, next.State.Approved)
	reads := w.count("ReadJournal")
	var approved *reply
	w.before["ReadJournal"] = func(call int) error {
		if call == reads+3 {
			approved = w.order(UpdateApprove, ann)
			<-approved.heard
		}
		return nil
	}
	r, err := w.migrate(next)
	require.NoError(t, err)
	require.False(t, approved.refused, "%v", approved.err)
	require.Equal(t, report.Finalized, r.Outcome)
	require.Equal(t, wholeWay, took(r))
}

func TestTheStateSurvivesARoundTripThroughJSON(t *testing.T) {
	w := newWorld(t)
	in := input()
	in.Policy.Checks.Failures = 100
	w.before["ProbeEdge"] = func(call int) error {
		if call >= firstOfSoak {
			return errDown
		}
		return nil
	}
	next := w.continued(in, "SampleTraffic", 8)
	require.Positive(t, next.State.Failures)
	raw, err := json.Marshal(next)
	require.NoError(t, err)
	var again MigrateInput
	require.NoError(t, json.Unmarshal(raw, &again))
	require.Equal(t, next, again)
	require.WithinDuration(t, next.State.Report.Began.Add(5*time.Minute), again.State.SoakUntil, time.Minute)
}
