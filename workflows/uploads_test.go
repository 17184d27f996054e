package workflows

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"transship/internal/journal"
	"transship/internal/policy"
	"transship/internal/report"
	"transship/internal/routing"
)

// carry is the question of an edge.
func (w *world) carry(q CarryRequest) *reply {
	r := &reply{heard: make(chan struct{})}
	w.env.RegisterDelayedCallback(func() { w.env.UpdateWorkflow(UpdateCarry, "", r, q) }, 0)
	return r
}

func TestTheFlipTakesAlongWhichUploadsAreOpenEachOnce(t *testing.T) {
	w := newWorld(t)
	w.open = openUploads // both edges know both
	r, err := w.migrate(input())
	require.NoError(t, err)
	require.Equal(t, report.Finalized, r.Outcome)
	require.Equal(t, openUploads, w.flippedWith[0].Uploads)
	require.Equal(t, openUploads, w.settled, "nobody goes on with them: the table forgets them")
}

func TestUploadsThatOnlyTheStoreKnowsAreTakenAlong(t *testing.T) {
	w := newWorld(t)
	w.open = openUploads
	w.stored = []routing.Upload{{Repository: "restricted/a", Session: "u1"}, {Repository: "restricted/z", Session: "u9"}}
	r, err := w.migrate(input(stored))
	require.NoError(t, err)
	require.Equal(t, report.Finalized, r.Outcome)
	require.Equal(t, append(openUploads[:2:2], w.stored[1]), w.flippedWith[0].Uploads)
}

func TestWhatAnUploadCommitsLateIsCarriedOverBeforeItsEdgeIsAnswered(t *testing.T) {
	w := newWorld(t)
	w.open, w.late = openUploads, 1
	var told, wrong *reply
	w.before["ProbeEdge"] = on(firstOfSoak, func() {
		w.mu.Lock()
		w.content["old"]["restricted/a:blob"] = "sha256:late"
		w.mu.Unlock()
		wrong = w.carry(CarryRequest{Edge: "edge-1", From: "elsewhere"})
		<-wrong.heard
		told = w.carry(CarryRequest{Edge: "edge-1", From: "old", Ended: openUploads[:1], Changes: []journal.Change{{Kind: journal.Blob, Repository: "restricted/a", Reference: "blob"}}})
		<-told.heard
	})
	w.at(3*time.Minute, func() { w.mu.Lock(); w.late = 0; w.mu.Unlock() })
	r, err := w.migrate(input())
	require.NoError(t, err)
	require.Equal(t, report.Finalized, r.Outcome)
	require.True(t, wrong.refused)
	require.True(t, told.finished)
	require.NoError(t, told.err)
	require.Equal(t, openUploads[:1], w.settled[:1])
	carried := w.applied[len(w.applied)-1]
	for _, p := range w.applied {
		if len(p.Changes) == 1 && p.Changes[0].Reference == "blob" {
			carried = p
		}
	}
	require.Equal(t, "old", carried.From)
	require.Equal(t, "new", carried.To)
}

// The way back is open for writes in seconds; the migration itself ends when no upload needs it any more.
func TestARollbackEndsWhenNoUploadOfBeforeGoesOn(t *testing.T) {
	w := newWorld(t)
	w.open = openUploads
	w.late = 1
	looked := 0
	w.before["LateUploads"] = func(int) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.route.Backend == "old" {
			if looked++; looked > 6 {
				w.late = 0
			}
		}
		return nil
	}
	w.before["ProbeEdge"] = on(firstOfSoak, func() { w.orderIn(UpdateRollback, ann) })
	r, err := w.migrate(input())
	require.NoError(t, err)
	require.Equal(t, report.RolledBack, r.Outcome)
	require.Greater(t, looked, 6)
	require.Empty(t, w.route.Owner)
}

func TestMoreUploadsThanATableCanCarryAreNoReasonToLoseThem(t *testing.T) {
	w := newWorld(t)
	for range maxOpen + 1 {
		w.open = append(w.open, routing.Upload{Repository: "restricted/a", Session: time.Duration(len(w.open)).String()})
	}
	w.before["DrainWrites"] = on(3, func() { w.mu.Lock(); w.open = nil; w.mu.Unlock() })
	r, err := w.migrate(input())
	require.NoError(t, err)
	require.Equal(t, report.Finalized, r.Outcome)
	require.Equal(t, 2, r.Attempts)
}

func TestAReadCanaryIsRampedWatchedAndLeftToTheFlip(t *testing.T) {
	canary := func(in *MigrateInput) { in.Policy.Canary = policy.Canary{Percent: []int{1, 50}, Interval: time.Minute} }
	w := newWorld(t)
	r, err := w.migrate(input(canary))
	require.NoError(t, err)
	require.Equal(t, report.Finalized, r.Outcome)
	require.Equal(t, []int{1, 50}, w.canaries)

	w = newWorld(t)
	w.before["EdgeStatus"] = on(3, func() { w.mu.Lock(); w.fallbacks.Failed = 2; w.fallbacks.Served = 2; w.mu.Unlock() })
	r, err = w.migrate(input(canary))
	require.Error(t, err)
	require.Equal(t, report.Failed, r.Outcome)
	require.Contains(t, r.Reason, "new answered 4 reads of the canary with a server error")
	require.Equal(t, []int{1, -1}, w.canaries)
	require.Empty(t, w.switches)

	w = newWorld(t)
	r, err = w.migrate(input())
	require.NoError(t, err)
	require.Empty(t, w.canaries, "off by default")
	require.Equal(t, report.Finalized, r.Outcome)
}

func TestAMigrationGoesOnWithoutAnEdgeOnlyByOrderAndTakesItInAgain(t *testing.T) {
	w := newWorld(t)
	var wrong, all *reply
	w.before["DrainWrites"] = on(1, func() {
		wrong = w.orderIn(UpdateRollback, Command{By: "ann", Without: []string{"edge-9"}})
		all = w.orderIn(UpdateRollback, Command{By: "ann", Without: []string{"edge-1", "edge-2"}})
	})
	w.away = []string{"edge-2"}
	w.after["ReleaseWrites"] = on(1, func() { w.mu.Lock(); w.away = nil; w.mu.Unlock() })
	r, err := w.migrate(input(func(in *MigrateInput) { in.Without = []string{"edge-2"} }))
	require.NoError(t, err)
	require.True(t, wrong.refused)
	require.ErrorContains(t, wrong.err, "there is no edge edge-9")
	require.True(t, all.refused)
	require.ErrorContains(t, all.err, "no edge would be left")
	require.Equal(t, report.Finalized, r.Outcome)
	require.Equal(t, 1, w.count("DrainWrites"))
	require.Equal(t, []string{"edge-2"}, w.flippedWith[0].Without)
	var said []string
	for _, d := range r.Decisions {
		said = append(said, d.By+" "+d.What)
	}
	require.Contains(t, said, "olga goes on without edge edge-2, which serves nobody")
	require.Contains(t, said, "transship edge edge-2 is back")
}

// An edge that is back before the freeze serves clients: it takes part, and what it let through meanwhile is found by comparing both sides.
func TestAnEdgeThatIsBackBeforeTheFreezeTakesPart(t *testing.T) {
	w := newWorld(t)
	r, err := w.migrate(input(func(in *MigrateInput) { in.Without = []string{"edge-2"} }))
	require.NoError(t, err)
	require.Equal(t, report.Finalized, r.Outcome)
	require.Equal(t, 2, w.count("DrainWrites"))
	require.Equal(t, 1, r.Deltas.Comparisons)
}

// Promise 1: the journal of a node that died has what nobody has carried over yet, and nobody can read it.
func TestWhatAnEdgeTookBeforeItWasLeftOutIsFoundByComparing(t *testing.T) {
	leaveOut := func(w *world) {
		w.mu.Lock()
		w.away = []string{"edge-2"}
		w.mu.Unlock()
	}
	t.Run("before the flip", func(t *testing.T) {
		w := newWorld(t)
		w.at(30*time.Minute, func() {
			w.push("edge-2", "restricted/r1", "last-words")
			leaveOut(w)
			w.order(UpdatePause, ann)
		})
		w.at(31*time.Minute, func() { w.order(UpdateResume, Command{By: "ann", Without: []string{"edge-2"}}) })
		w.at(32*time.Minute, func() { w.order(UpdateApprove, ann) })
		w.before["FlipPrefix"] = on(1, func() { require.Contains(t, w.content["new"], "restricted/r1:last-words") })
		r, err := w.migrate(input(withApproval))
		require.NoError(t, err)
		require.Equal(t, report.Finalized, r.Outcome)
		require.Equal(t, 1, r.Deltas.Comparisons)
	})
	t.Run("before the rollback", func(t *testing.T) {
		w := newWorld(t)
		w.before["ProbeEdge"] = on(firstOfSoak, func() {
			w.push("edge-2", "restricted/r1", "last-words")
			leaveOut(w)
			w.orderIn(UpdateRollback, Command{By: "ann", Without: []string{"edge-2"}})
		})
		r, err := w.migrate(input())
		require.NoError(t, err)
		require.Equal(t, report.RolledBack, r.Outcome)
		require.Contains(t, w.content["old"], "restricted/r1:last-words")
		require.Equal(t, 1, r.Reverse.Comparisons)
	})
	t.Run("while the freeze of a rollback lasts", func(t *testing.T) {
		w := newWorld(t)
		w.before["ProbeEdge"] = on(firstOfSoak, func() { w.orderIn(UpdateRollback, ann) })
		w.before["HoldWrites"] = on(2, func() { w.push("edge-2", "restricted/r1", "last-words") })
		w.before["DrainWrites"] = on(3, func() {
			leaveOut(w)
			w.orderIn(UpdateRollback, Command{By: "ann", Without: []string{"edge-2"}})
		})
		r, err := w.migrate(input())
		require.NoError(t, err)
		require.Equal(t, report.RolledBack, r.Outcome)
		require.Contains(t, w.content["old"], "restricted/r1:last-words")
	})
}
