package workflows

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"transship/internal/journal"
	"transship/internal/monitor"
	"transship/internal/policy"
	"transship/internal/report"
)

func TestAProbeThatFailsAfterTheFlipRollsBackByItself(t *testing.T) {
	w := newWorld(t)
	w.before["ProbeEdge"] = always(final("Broken"))
	r, err := w.migrate(input())
	require.NoError(t, err, "a rollback that worked is no failure of the workflow")
	require.Equal(t, report.RolledBack, r.Outcome)
	require.Equal(t, []string{"new", "old"}, w.switches)
	require.Equal(t, "rolls back: made to fail: Broken", r.Reason)
	require.Equal(t, 3*2, r.Checks.ProbesFailed, "as many tries as checks.failures, at both edges")
	m, told := w.said("goes back")
	require.True(t, told)
	require.Equal(t, "critical", string(m.Level))
	require.NotContains(t, took(r), Soak)
}

func TestAProbeThatFailsOnceIsTriedAgain(t *testing.T) {
	w := newWorld(t)
	w.before["ProbeEdge"] = first(3, final("Broken"))
	r, err := w.migrate(input())
	require.NoError(t, err)
	require.Equal(t, report.Finalized, r.Outcome)
	require.Equal(t, 3, r.Checks.ProbesFailed)
}

func TestAProbeThatACommandInterruptsIsNoFailure(t *testing.T) {
	w := newWorld(t)
	w.before["ProbeEdge"] = func(call int) error {
		if call == firstOfSoak {
			w.orderIn(UpdateRollback, ann)
			return final("Interrupted") // as a worker does whose activity is cancelled
		}
		return nil
	}
	r, err := w.migrate(input())
	require.NoError(t, err)
	require.Equal(t, report.RolledBack, r.Outcome)
	require.Zero(t, r.Checks.ProbesFailed)
}

func TestChecksThatFailInTheSoakRollBackAndCarryBackWhatWasPushed(t *testing.T) {
	for _, c := range []struct {
		name string
		knob func(*world, *MigrateInput)
		why  string
	}{
		{"probes", func(w *world, _ *MigrateInput) {
			w.before["ProbeEdge"] = func(call int) error {
				if call >= firstOfSoak {
					return final("Broken")
				}
				return nil
			}
		}, "made to fail: Broken"},
		{"a check of the site", func(w *world, in *MigrateInput) {
			in.Policy.Checks.HTTP = []policy.HTTPCheck{{Name: "smoke", URL: "http://smoke"}}
			w.before["AskCheck"] = always(final("Smoke"))
		}, "made to fail: Smoke"},
		{"what clients see", func(w *world, _ *MigrateInput) {
			w.before["SampleTraffic"] = func(call int) error {
				if call > 2 { // the first two are the baseline
					w.mu.Lock()
					w.traffic = monitor.Sample{Requests: 1000, Failed: 500}
					w.mu.Unlock()
				}
				return nil
			}
		}, "50.00 % of requests fail, 0.00 % did before the flip"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			in := input()
			w.after["ReleaseWrites"] = on(1, func() { w.push("edge-1", "restricted/r1", "since-the-flip") })
			c.knob(w, &in)
			r, err := w.migrate(in)
			require.NoError(t, err)
			require.Equal(t, report.RolledBack, r.Outcome)
			require.Equal(t, []string{"new", "old"}, w.switches)
			require.Equal(t, 3, r.Checks.RoundsFailed)
			require.Contains(t, r.Reason, "3 rounds of checks failed in a row: "+c.why)
			require.Contains(t, w.content["old"], "restricted/r1:since-the-flip")
			_, told := w.said("checks failed")
			require.True(t, told)
		})
	}
}

func TestFailuresThatAreNotInARowRollNothingBack(t *testing.T) {
	w := newWorld(t)
	w.before["ProbeEdge"] = func(call int) error {
		if call >= firstOfSoak && (call-firstOfSoak)/2%3 != 2 { // two rounds fail, one does not
			return final("Broken")
		}
		return nil
	}
	r, err := w.migrate(input())
	require.NoError(t, err)
	require.Equal(t, report.Finalized, r.Outcome)
	require.Greater(t, r.Checks.RoundsFailed, 4)
	require.Equal(t, []string{"new"}, w.switches)
}

func TestASoakDoesNotEndWhileItsLastRoundFailed(t *testing.T) {
	w := newWorld(t)
	w.before["ProbeEdge"] = func(call int) error {
		if round := (call - firstOfSoak) / 2; round == 10 || round == 11 { // the soak is over at the tenth
			return final("Broken")
		}
		return nil
	}
	r, err := w.migrate(input())
	require.NoError(t, err)
	require.Equal(t, report.Finalized, r.Outcome)
	require.Equal(t, 13, r.Checks.Rounds)
}

func TestTroubleOfTheWayBackIsAWarningOnly(t *testing.T) {
	w := newWorld(t)
	flipped := false
	w.after["FlipPrefix"] = on(1, func() { flipped = true })
	w.before["ApplyChanges"] = func(int) error {
		if flipped {
			return final("Refused")
		}
		return nil
	}
	r, err := w.migrate(input())
	require.NoError(t, err)
	require.Equal(t, report.Finalized, r.Outcome)
	require.Zero(t, r.Checks.RoundsFailed)
	require.Contains(t, r.Checks.Last, "carrying back to old: made to fail: Refused")
}

func TestAJournalThatIsLostInTheSoakIsReplacedByAComparisonBackwards(t *testing.T) {
	w := newWorld(t)
	w.before["ProbeEdge"] = on(firstOfSoak, func() {
		w.mu.Lock()
		w.lost = []string{"edge-1 new"}
		w.content["new"]["restricted/unseen:v1"] = "sha256:unseen"
		w.acked["restricted/unseen:v1"] = "sha256:unseen"
		w.mu.Unlock()
	})
	r, err := w.migrate(input())
	require.NoError(t, err)
	require.Equal(t, 1, r.Reverse.Comparisons)
	require.Equal(t, "sha256:unseen", w.content["old"]["restricted/unseen:v1"])
}

func TestALateWriteOfTheOldBackendIsBroughtUnlessTheNewOneHasANewerOne(t *testing.T) {
	w := newWorld(t)
	w.quiet = true
	w.after["ReleaseWrites"] = on(1, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, tag := range []string{"late", "both"} { // past a gate that was down
			x := write{edge: "edge-1", backend: "old", repository: "restricted/r1", tag: tag, digest: "sha256:late"}
			w.content["old"][x.key()], w.journal["edge-1"] = x.digest, append(w.journal["edge-1"], x)
		}
		w.acked["restricted/r1:late"] = "sha256:late"
		w.pushLocked("edge-1", "restricted/r1", "both")
	})
	_, err := w.migrate(input())
	require.NoError(t, err)
	require.Equal(t, "sha256:late", w.content["new"]["restricted/r1:late"])
	require.NotEqual(t, "sha256:late", w.content["new"]["restricted/r1:both"])
}

func TestALateWriteIsNotBroughtOverANewerOneThatCameThroughAnotherEdge(t *testing.T) {
	w := newWorld(t)
	w.quiet = true
	w.after["ReleaseWrites"] = on(1, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		x := write{edge: "edge-1", backend: "old", repository: "restricted/r1", tag: "both", digest: "sha256:late"}
		w.content["old"][x.key()], w.journal["edge-1"] = x.digest, append(w.journal["edge-1"], x)
		w.pushLocked("edge-2", "restricted/r1", "both")
	})
	_, err := w.migrate(input())
	require.NoError(t, err)
	require.NotEqual(t, "sha256:late", w.content["new"]["restricted/r1:both"])
}

func TestWhatTheTargetAcknowledgedBeforeThisMigrationIsNotTakenForNewer(t *testing.T) {
	w := newWorld(t)
	w.quiet = true
	x := write{edge: "edge-1", repository: "restricted/r1", tag: "late", digest: "sha256:late"}
	earlier := x
	earlier.backend = "new" // from when the prefix had lived there
	w.journal["edge-1"] = []write{earlier}
	w.after["ReleaseWrites"] = on(1, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		x.backend = "old"
		w.content["old"][x.key()], w.journal["edge-1"] = x.digest, append(w.journal["edge-1"], x)
		w.acked[x.key()] = x.digest
	})
	_, err := w.migrate(input())
	require.NoError(t, err)
	require.Equal(t, "sha256:late", w.content["new"][x.key()])
}

func TestWritesWhoseEndNobodySawAreLookedAtByTheLastDelta(t *testing.T) {
	w := newWorld(t)
	w.drainLost = true
	w.quiet = true
	w.before["HoldWrites"] = on(1, func() {
		w.mu.Lock()
		w.content["old"]["restricted/r1:unknown"] = "sha256:unknown" // stored, but neither answered nor journaled
		w.mu.Unlock()
	})
	_, err := w.migrate(input())
	require.NoError(t, err)
	require.Equal(t, "sha256:unknown", w.content["new"]["restricted/r1:unknown"])
	found := false
	for _, p := range w.applied {
		for _, c := range p.Changes {
			found = found || c == journal.Change{Kind: journal.Manifest, Repository: "restricted/r1", Reference: "unknown"}
		}
	}
	require.True(t, found)
}

func TestFinalizeIsTakenWhenTheSoakStandsWell(t *testing.T) {
	w := newWorld(t)
	w.at(time.Hour, func() {
		require.Equal(t, Soak, w.status().Phase, "asked to wait, it soaks on")
		w.order(UpdateFinalize, ann)
	})
	r, err := w.migrate(input(askToFinalize))
	require.NoError(t, err)
	require.Less(t, r.Ended.Sub(r.Began), time.Hour+time.Minute)
	require.Equal(t, report.Finalized, r.Outcome)
}
