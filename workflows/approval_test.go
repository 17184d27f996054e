package workflows

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/workflow"

	"transship/internal/policy"
	"transship/internal/report"
)

func withApproval(in *MigrateInput) { in.Policy.Approval.Required = true }

func askToFinalize(in *MigrateInput) { in.Policy.Soak.Finalize = policy.Ask }

func TestTheFlipWaitsForApprovalAndTheSoakForFinalizeWherePolicySaysSo(t *testing.T) {
	w := newWorld(t)
	var approved, finalized *reply
	w.at(30*time.Minute, func() {
		s := w.status()
		require.Equal(t, Approval, s.Phase)
		require.Contains(t, s.Waits, "transship approve restricted")
		require.Equal(t, "old", s.Serving)
		w.push("edge-1", "restricted/late", "v1") // while it waits, the sides are kept close
	})
	w.at(31*time.Minute, func() { approved = w.order(UpdateApprove, Command{By: "ann", Reason: "releng is ready"}) })
	w.at(60*time.Minute, func() {
		s := w.status()
		require.Equal(t, Soak, s.Phase)
		require.Contains(t, s.Waits, "transship finalize restricted")
		require.Equal(t, "new", s.Serving)
	})
	w.at(2*time.Hour, func() { finalized = w.order(UpdateFinalize, Command{By: "bob"}) })
	r, err := w.migrate(input(withApproval, askToFinalize))
	require.NoError(t, err)
	require.Equal(t, wholeWay, took(r))
	require.Contains(t, approved.answer.Message, "approved")
	require.Equal(t, Approval, approved.answer.Phase)
	require.Contains(t, finalized.answer.Message, "there is no rollback from here")
	var who []string
	for _, d := range r.Decisions {
		who = append(who, d.By+" "+d.What)
	}
	require.Contains(t, who, "olga asked for the migration")
	require.Contains(t, who, "ann approved the flip")
	require.Contains(t, who, "bob ordered to finalize")
	require.Contains(t, who, "bob finalized: old is no longer kept current")
	_, told := w.said("waits for approval")
	require.True(t, told)
}

func TestWithoutARequiredApprovalTheReportSaysSo(t *testing.T) {
	w := newWorld(t)
	r, err := w.migrate(input())
	require.NoError(t, err)
	require.Contains(t, r.Decisions[1].What, "flips without approval")
}

func TestCommandsThatMakeNoSenseAreRefusedWithTheReasonAndLeaveNoTrace(t *testing.T) {
	const inApproval = time.Minute
	const inSoak = 61 * time.Minute
	closed := func(in *MigrateInput) {
		in.Policy.Approval.Window = policy.Window{Days: []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}, From: "09:00", To: "16:00"}
	}
	for _, c := range []struct {
		name, update string
		command      Command
		when         time.Duration
		policy       func(*MigrateInput)
		reason       string
	}{
		{"approve by a stranger", UpdateApprove, Command{By: "eve"}, inApproval, nil, "eve is not among those who may approve: [ann]"},
		{"approve outside the window", UpdateApprove, Command{By: "ann"}, inApproval, closed, "no flip may begin now: it is"},
		{"approve in the soak", UpdateApprove, Command{By: "ann"}, inSoak, nil, "is at soak and waits for no approval"},
		{"approve by nobody", UpdateApprove, Command{}, inApproval, nil, "does not say whose it is"},
		{"pause by nobody", UpdatePause, Command{}, inApproval, nil, "does not say whose it is"},
		{"rollback by nobody", UpdateRollback, Command{}, inSoak, nil, "does not say whose it is"},
		{"resume what is not paused", UpdateResume, Command{By: "ann"}, inApproval, nil, "is not paused"},
		{"finalize before the flip", UpdateFinalize, Command{By: "ann"}, inApproval, nil, "is at approval; only a soak can be ended"},
		{"abort after the flip", UpdateAbort, Command{By: "ann"}, inSoak, nil, "has flipped to new: use rollback"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.quiet = true
			w.start = time.Date(2026, time.March, 2, 20, 0, 0, 0, time.UTC) // outside the window
			var refused *reply
			decisions := 0
			w.at(c.when, func() { decisions = len(w.status().Report.Decisions); refused = w.order(c.update, c.command) })
			w.at(c.when+time.Second, func() { require.Len(t, w.status().Report.Decisions, decisions) })
			w.at(c.when+2*time.Second, func() {
				if c.when == inApproval {
					w.order(UpdateAbort, Command{By: "ann"})
				}
			})
			w.at(time.Hour, func() { w.order(UpdateApprove, Command{By: "ann"}) })
			w.at(2*time.Hour, func() { w.order(UpdateFinalize, Command{By: "ann"}) })
			in := input(withApproval, askToFinalize, func(in *MigrateInput) { in.Policy.Approval.Approvers = []string{"ann"} })
			if c.policy != nil {
				c.policy(&in)
			}
			_, err := w.migrate(in)
			require.NoError(t, err)
			require.True(t, refused.refused, "%+v", refused)
			require.ErrorContains(t, refused.err, c.reason)
		})
	}
}

func TestAMigrationIsApprovedOnce(t *testing.T) {
	w := newWorld(t)
	var again *reply
	w.at(time.Minute, func() {
		w.order(UpdateApprove, Command{By: "ann"})
		again = w.order(UpdateApprove, Command{By: "bob"})
	})
	_, err := w.migrate(input(withApproval))
	require.NoError(t, err)
	require.True(t, again.refused)
	require.ErrorContains(t, again.err, "was approved by ann")
}

func TestAMigrationThatGoesBackTakesNoOtherCommand(t *testing.T) {
	w := newWorld(t)
	var replies []*reply
	w.before["DisownPrefix"] = on(1, func() {
		for _, update := range []string{UpdateApprove, UpdatePause, UpdateResume, UpdateRollback, UpdateAbort, UpdateFinalize} {
			replies = append(replies, w.orderIn(update, Command{By: "ann"}))
		}
	})
	w.at(time.Minute, func() { w.order(UpdateAbort, Command{By: "ann"}) })
	r, err := w.migrate(input(withApproval))
	require.NoError(t, err)
	require.Equal(t, report.Aborted, r.Outcome)
	for _, reply := range replies {
		require.True(t, reply.refused)
		require.ErrorContains(t, reply.err, "going back already")
	}
}

func TestAMigrationThatIsOverTakesNoCommand(t *testing.T) {
	m := &migration{MigrateInput: input(), phase: Done, concluding: true}
	m.state.Report.Outcome = report.Finalized
	for _, may := range []func(workflow.Context, Command) error{m.mayApprove, m.mayPause, m.mayResume, m.mayRollBack, m.mayAbort, m.mayFinalize} {
		require.ErrorContains(t, may(nil, Command{By: "ann"}), "is over: finalized")
	}
}
