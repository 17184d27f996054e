package workflows

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"transship/internal/report"
	"transship/internal/routing"
)

func TestAHoldIsReleasedEvenWhenReleasingFailsForAWhile(t *testing.T) {
	w := newWorld(t)
	w.before["FlipPrefix"] = always(final(routing.RefusedFiles))
	w.before["ReleaseWrites"] = first(8, errDown)
	r, err := w.migrate(input())
	require.ErrorContains(t, err, "FilesRejected")
	require.Equal(t, report.Failed, r.Outcome)
	require.Equal(t, 9, w.count("ReleaseWrites"))
}

func TestAClaimIsGivenUpEvenWhenThatFailsForAWhile(t *testing.T) {
	w := newWorld(t)
	w.before["DisownPrefix"] = first(8, errDown)
	w.at(time.Minute, func() { w.order(UpdateAbort, ann) })
	r, err := w.migrate(input(withApproval))
	require.NoError(t, err)
	require.Equal(t, report.Aborted, r.Outcome)
	require.Equal(t, 9, w.count("DisownPrefix"))
}

func TestAReportThatCannotBeWrittenChangesNothingAboutTheOutcome(t *testing.T) {
	w := newWorld(t)
	w.before["WriteReport"] = always(errDown)
	r, err := w.migrate(input())
	require.NoError(t, err)
	require.Equal(t, report.Finalized, r.Outcome)
	require.Empty(t, r.File)
	_, told := w.said(string(report.Finalized))
	require.True(t, told)
}

func TestARollbackWhoseOwnStepsFailIsTriedAgain(t *testing.T) {
	for _, step := range []string{"HoldWrites", "DrainWrites", "ReadJournal", "VerifyChanges", "FlipPrefix"} {
		t.Run(step, func(t *testing.T) {
			w := newWorld(t)
			rolling, failed := false, 0
			w.before["ProbeEdge"] = on(firstOfSoak, func() {
				w.push("edge-1", "restricted/r1", "since")
				rolling = true
				w.orderIn(UpdateRollback, ann)
			})
			was := w.before[step]
			w.before[step] = func(call int) error {
				if was != nil {
					_ = was(call)
				}
				w.mu.Lock()
				defer w.mu.Unlock()
				if rolling && w.route.Backend == "new" && failed < 2 {
					failed++
					return final("Whatever")
				}
				return nil
			}
			r, err := w.migrate(input())
			require.NoError(t, err)
			require.Equal(t, report.RolledBack, r.Outcome)
			require.Equal(t, []string{"new", "old"}, w.switches)
			require.Contains(t, w.content["old"], "restricted/r1:since")
		})
	}
}

func TestARollbackWhoseFlipLosesItsAnswerIsDone(t *testing.T) {
	w := newWorld(t)
	w.before["ProbeEdge"] = on(firstOfSoak, func() { w.orderIn(UpdateRollback, ann) })
	w.after["FlipPrefix"] = func(call int) error {
		if call == 2 {
			return final("Lost")
		}
		return nil
	}
	r, err := w.migrate(input())
	require.NoError(t, err)
	require.Equal(t, []string{"new", "old"}, w.switches)
	require.Equal(t, report.RolledBack, r.Outcome)
}

func TestACancellationInTemporalGoesBackFromWhereverTheMigrationIs(t *testing.T) {
	for _, c := range []struct {
		during   string
		call     int
		flipped  bool
		approval bool
	}{
		{during: "ClaimPrefix", call: 1},
		{during: "CheckBackend old", call: 1},
		{during: "MirrorRepositories", call: 3},
		{during: "VerifyRepositories", call: 1},
		{during: "HoldWrites", call: 1},
		{during: "DrainWrites", call: 1},
		{during: "FlipPrefix", call: 1, flipped: true},
		{during: "ReleaseWrites", call: 1, flipped: true},
		{during: "ProbeEdge", call: 1, flipped: true},
		{during: "ProbeEdge", call: firstOfSoak, flipped: true},
	} {
		t.Run(c.during, func(t *testing.T) {
			w := newWorld(t)
			cancelled := false
			w.after[c.during] = func(call int) error {
				if call == c.call && !cancelled {
					cancelled = true
					done := make(chan struct{})
					w.in(0, func() { w.env.CancelWorkflow(); close(done) })
					<-done
				}
				return nil
			}
			r, err := w.migrate(input())
			require.True(t, temporal.IsCanceledError(err), "%v", err)
			require.Equal(t, "old", w.route.Backend)
			require.Len(t, w.reports, 1)
			require.Equal(t, w.reports[0].Outcome, r.Outcome, "the result says how it ended")
			if c.flipped {
				require.Equal(t, report.RolledBack, r.Outcome)
				require.Equal(t, []string{"new", "old"}, w.switches)
			} else {
				require.Equal(t, report.Aborted, r.Outcome)
				require.Empty(t, w.switches)
			}
			_, told := w.said(string(r.Outcome))
			require.True(t, told, "people hear of the end of a cancelled migration")
		})
	}
}

func TestACancellationWhileWaitingForApprovalEndsTheMigration(t *testing.T) {
	w := newWorld(t)
	w.at(time.Hour, func() { w.env.CancelWorkflow() })
	r, err := w.migrate(input(withApproval))
	require.True(t, temporal.IsCanceledError(err))
	require.Equal(t, report.Aborted, r.Outcome)
	require.Equal(t, "was cancelled in Temporal", r.Reason)
}

func TestACancellationThatComesWhileItIsFinalizedDoesNotUndoIt(t *testing.T) {
	w := newWorld(t)
	w.after["DisownPrefix"] = func(call int) error {
		if call == 1 {
			done := make(chan struct{})
			w.in(0, func() { w.env.CancelWorkflow(); close(done) })
			<-done
		}
		return nil
	}
	r, err := w.migrate(input())
	require.Equal(t, report.Finalized, r.Outcome, "%v", err)
	require.Equal(t, []string{"new"}, w.switches)
}

func TestAMigrationThatIsAbortedWhileItClaimsGivesUpTheClaim(t *testing.T) {
	w := newWorld(t)
	w.after["ClaimPrefix"] = on(1, func() { w.orderIn(UpdateAbort, ann) }) // Routes has it, the migration does not know yet
	r, err := w.migrate(input())
	require.NoError(t, err)
	require.Equal(t, report.Aborted, r.Outcome)
}
