package workflows

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"transship/internal/report"
)

func TestARollbackBeforeTheFlipOnlyGivesUpTheClaim(t *testing.T) {
	for _, during := range []string{
		"CheckBackend old", "CheckEdge", "ListRepositories", "PlanRepositories", "AuditRepositories", "WatchPrefix", "JournalEnd", "MirrorRepositories",
		"VerifyRepositories", "ReadJournal", "SampleTraffic", "HoldWrites", "DrainWrites", "VerifyChanges",
	} {
		for update, outcome := range map[string]report.Outcome{UpdateRollback: report.RolledBack, UpdateAbort: report.Aborted} {
			t.Run(update+" during "+during, func(t *testing.T) {
				w := newWorld(t)
				var ordered *reply
				known := make(chan struct{}) // the order may end the migration before whoever gave it knows what came of it
				w.before["HoldWrites"] = on(1, func() { w.push("edge-1", "restricted/late", "v1") })
				was := w.before[during]
				w.before[during] = func(call int) error {
					if was != nil {
						_ = was(call)
					}
					if call == 1 {
						ordered = w.order(update, ann)
						close(known)
						<-ordered.heard
					}
					return nil
				}
				r, err := w.migrate(input())
				require.NoError(t, err)
				<-known
				require.False(t, ordered.refused, "%v", ordered.err)
				require.Equal(t, outcome, r.Outcome)
				require.Empty(t, w.switches, "it never flipped")
				require.Equal(t, "old", w.route.Backend)
				require.Contains(t, r.Reason, "lunch")
				require.Len(t, w.reports, 1)
			})
		}
	}
}

func TestARollbackOrderedWhileTheFlipIsBeingDecidedComesAfterIt(t *testing.T) {
	for _, during := range []string{"FlipPrefix", "ReleaseWrites"} {
		t.Run(during, func(t *testing.T) {
			w := newWorld(t)
			var aborted *reply
			w.before[during] = on(1, func() {
				aborted = w.order(UpdateAbort, ann)
				<-aborted.heard
				w.orderIn(UpdateRollback, ann)
			})
			r, err := w.migrate(input())
			require.NoError(t, err)
			require.True(t, aborted.refused, "what has begun to flip cannot be aborted")
			require.Equal(t, []string{"new", "old"}, w.switches)
			require.Equal(t, report.RolledBack, r.Outcome)
			require.NotContains(t, took(r), Soak)
		})
	}
}

func TestARollbackInTheSoakCarriesBackWhatWasPushedAndFlipsBack(t *testing.T) {
	w := newWorld(t)
	var ordered *reply
	w.before["ProbeEdge"] = on(firstOfSoak+4, func() {
		w.push("edge-1", "restricted/r1", "new-tag")
		ordered = w.order(UpdateRollback, Command{By: "ann", Reason: "deploys are slow"})
		<-ordered.heard
	})
	r, err := w.migrate(input())
	require.NoError(t, err)
	require.Equal(t, "rolling back: restricted will be served by old", ordered.answer.Message)
	require.Equal(t, report.RolledBack, r.Outcome)
	require.Equal(t, []string{"new", "old"}, w.switches)
	require.Contains(t, w.content["old"], "restricted/r1:new-tag")
	require.Equal(t, "ordered the rollback: deploys are slow", r.Reason)
	require.Equal(t, []string{
		Rollback + ": " + Freeze, Rollback + ": " + Drain, Rollback + ": " + LastDelta, Rollback + ": " + VerifyLast, Rollback + ": " + Flip, Rollback + ": " + Release,
	}, took(r)[len(took(r))-6:])
	m, told := w.said("goes back")
	require.True(t, told)
	require.Equal(t, "warning", string(m.Level), "somebody asked for it")
	for _, p := range w.applied {
		require.Equal(t, p.From == "old", p.Deletes, "nothing is deleted on the backend that had it before")
	}
}

func TestARollbackGoesOnUntilTheTargetGivesBackWhatWasPushed(t *testing.T) {
	w := newWorld(t)
	rolling := false
	failures := 0
	w.before["ProbeEdge"] = on(firstOfSoak, func() { rolling = true; w.orderIn(UpdateRollback, ann) })
	w.before["ApplyChanges"] = func(int) error {
		if rolling {
			if failures++; failures <= 6 { // each attempt tries before its freeze and under it
				return final("Refused")
			}
		}
		return nil
	}
	r, err := w.migrate(input())
	require.NoError(t, err)
	require.Equal(t, report.RolledBack, r.Outcome)
	require.Empty(t, r.NotCarriedBack)
	require.Equal(t, 5, r.Attempts, "one forward, three given up, one that did it")
	_, asked := w.said("the rollback needs a person")
	require.False(t, asked)
}

func TestARollbackAsksAPersonAndAcceptLossGoesBackWithout(t *testing.T) {
	w := newWorld(t)
	var ordered, early *reply
	rolling := false
	w.before["ProbeEdge"] = on(firstOfSoak, func() {
		w.push("edge-2", "restricted/r1", "stuck")
		rolling = true
		w.orderIn(UpdateRollback, ann)
		early = w.order(UpdateRollback, ann)
		<-early.heard
		w.in(24*time.Hour, func() {
			require.False(t, w.heldNow())
			require.Equal(t, "new", w.status().Serving)
			require.Contains(t, w.status().Waits, "--accept-loss")
			ordered = w.order(UpdateRollback, Command{By: "bob", Reason: "the new store is gone", AcceptLoss: true})
		})
	})
	w.before["ApplyChanges"] = func(int) error {
		if rolling {
			return final("Refused")
		}
		return nil
	}
	w.lossy = true
	r, err := w.migrate(input(func(in *MigrateInput) { in.Policy.Freeze.Attempts = 3; in.Policy.Freeze.Pause = time.Hour }))
	require.NoError(t, err)
	require.True(t, early.refused)
	require.Equal(t, report.RolledBack, r.Outcome)
	require.Equal(t, "old", w.route.Backend)
	require.Contains(t, ordered.answer.Message, "leaves what it cannot carry back")
	require.Contains(t, r.NotCarriedBack, "manifest restricted/r1 stuck")
	m, told := w.said("the rollback needs a person")
	require.True(t, told)
	require.Equal(t, "critical", string(m.Level))
	require.True(t, strings.Contains(m.Text, "--accept-loss"))
}

func TestARollbackThatAcceptsLossFromTheStartNeedsNoSecondCommand(t *testing.T) {
	w := newWorld(t)
	rolling := false
	w.before["ProbeEdge"] = on(firstOfSoak, func() {
		rolling = true
		w.orderIn(UpdateRollback, Command{By: "ann", AcceptLoss: true})
	})
	w.before["ApplyChanges"] = func(int) error {
		if rolling {
			return final("Refused")
		}
		return nil
	}
	w.lossy = true
	r, err := w.migrate(input())
	require.NoError(t, err)
	require.Equal(t, 2, r.Attempts)
	require.NotEmpty(t, r.NotCarriedBack)
}

func TestAcceptingTheLossIsActedOnAtOnce(t *testing.T) {
	w := newWorld(t)
	rolling := false
	var began time.Time
	w.before["ProbeEdge"] = on(firstOfSoak, func() {
		w.drainLost, rolling, began = true, true, w.env.Now()
		w.orderIn(UpdateRollback, ann)
		w.in(time.Minute, func() { w.order(UpdateRollback, Command{By: "bob", AcceptLoss: true}) })
	})
	w.before["ApplyChanges"] = func(int) error {
		if rolling {
			return final("Refused")
		}
		return nil
	}
	w.lossy = true
	r, err := w.migrate(input(func(in *MigrateInput) { in.Policy.Freeze.Pause = time.Hour }))
	require.NoError(t, err)
	require.Less(t, r.Ended.Sub(began), 2*time.Minute, "not only after the pause between two attempts")
	seen := map[string]int{}
	for _, what := range r.NotCarriedBack {
		seen[what]++
	}
	require.Equal(t, 2, seen["manifest restricted/r1 unknown"], "once for each edge that lost sight of it")
}
