package workflows

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"transship/internal/report"
	"transship/internal/routing"
)

func TestAFreezeThatDoesNotSucceedIsGivenUpAndTriedAgain(t *testing.T) {
	for _, c := range []struct {
		name string
		knob func(*world)
		why  string
	}{
		{"writes in flight do not end", func(w *world) { w.before["DrainWrites"] = first(1, final(routing.RefusedNotDrained)) }, "NotDrained"},
		{"an edge does not take the hold", func(w *world) { w.before["HoldWrites"] = first(1, final(routing.RefusedEdge)) }, "EdgeRefused"},
		{"the hold runs out in the drain", func(w *world) { w.before["DrainWrites"] = on(1, w.loseHold) }, "refused"},
		{"the hold runs out before the flip", func(w *world) { w.before["FlipPrefix"] = on(1, w.loseHold) }, "refused"},
		{"the flip is refused", func(w *world) { w.before["FlipPrefix"] = first(1, final(routing.RefusedHoldLost)) }, "HoldLost"},
		{"an edge loses its journal in the freeze", func(w *world) {
			w.after["DrainWrites"] = on(2, func() { w.mu.Lock(); w.lost = []string{"edge-1 old"}; w.mu.Unlock() })
		}, "the journal of edge edge-1 lost"},
		{"what the last delta brought differs", func(w *world) {
			w.before["HoldWrites"] = on(1, func() { w.push("edge-1", "restricted/late", "v1") })
			w.before["VerifyChanges"] = on(1, func() { w.mu.Lock(); w.content["new"]["restricted/late:v1"] = "sha256:other"; w.mu.Unlock() })
			w.after["VerifyChanges"] = on(1, func() { w.push("edge-1", "restricted/late", "v1") })
		}, "1 things differ after the last delta, such as restricted/late:v1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			c.knob(w)
			held := false
			w.after["ReleaseWrites"] = on(1, func() { w.in(time.Second, func() { held = w.heldNow() }) })
			r, err := w.migrate(input())
			require.NoError(t, err)
			require.Equal(t, report.Finalized, r.Outcome)
			require.Equal(t, 2, r.Attempts)
			require.False(t, held, "writes go on between two attempts")
			require.Equal(t, []string{"new"}, w.switches)
			found := false
			for _, d := range r.Decisions {
				found = found || d.What == "gave up a freeze, writes go on to old"
			}
			require.True(t, found)
			var errors string
			for _, s := range r.Steps {
				errors += s.Error
			}
			require.Contains(t, errors, c.why)
		})
	}
}

func TestAfterTooManyFreezesTheMigrationPausesItselfAndAsksAPerson(t *testing.T) {
	w := newWorld(t)
	w.before["DrainWrites"] = first(6, final(routing.RefusedNotDrained)) // two edges, three attempts
	var resumed *reply
	w.at(24*time.Hour, func() {
		require.Contains(t, w.status().Waits, "paused by transship")
		require.False(t, w.heldNow())
		resumed = w.order(UpdateResume, ann)
	})
	r, err := w.migrate(input(func(in *MigrateInput) { in.Policy.Freeze.Attempts = 3 }))
	require.NoError(t, err)
	require.NotNil(t, resumed, "it waits for somebody")
	require.Equal(t, 4, r.Attempts)
	m, told := w.said("paused: the cutover needs a person")
	require.True(t, told)
	require.Equal(t, "critical", string(m.Level))
	require.Contains(t, m.Text, "3 freezes were given up, the last because: made to fail: NotDrained")
}

func TestFilesThatNginxRejectsEndTheMigrationWithWritesReleased(t *testing.T) {
	w := newWorld(t)
	w.before["FlipPrefix"] = always(final(routing.RefusedFiles))
	r, err := w.migrate(input())
	require.ErrorContains(t, err, "made to fail: FilesRejected")
	require.Equal(t, report.Failed, r.Outcome)
	require.Equal(t, 1, r.Attempts)
	require.Equal(t, "old", w.route.Backend)
}

func TestAFlipWhoseAnswerIsLostIsAFlip(t *testing.T) {
	for _, kind := range []string{"", routing.RefusedEdge, "Whatever"} {
		w := newWorld(t)
		w.after["FlipPrefix"] = first(10, final(kind))
		r, err := w.migrate(input())
		require.NoError(t, err)
		require.Equal(t, report.Finalized, r.Outcome)
		require.Equal(t, []string{"new"}, w.switches)
		require.Equal(t, 1, r.Attempts)
	}
}

func TestAReleaseWhoseAnswerIsLostDoesNotHideTheFlip(t *testing.T) {
	w := newWorld(t)
	w.after["ReleaseWrites"] = first(3, errDown)
	r, err := w.migrate(input())
	require.NoError(t, err)
	require.Equal(t, []string{"new"}, w.switches)
	require.Equal(t, report.Finalized, r.Outcome)
}

func TestAHoldThatRanOutBeforeTheReleaseIsNoFlip(t *testing.T) {
	w := newWorld(t)
	w.after["FlipPrefix"] = on(1, func() { w.mu.Lock(); w.serve(routing.Watched, "old"); w.mu.Unlock() }) // Routes gave it up
	r, err := w.migrate(input())
	require.NoError(t, err)
	require.Equal(t, 2, r.Attempts)
	require.Equal(t, "new", w.route.Backend)
	require.Equal(t, report.Finalized, r.Outcome)
}

func TestAJournalThatIsLostOutsideOfAFreezeIsReplacedByAComparison(t *testing.T) {
	w := newWorld(t)
	w.before["VerifyRepositories"] = on(1, func() {
		w.mu.Lock()
		w.lost = []string{"edge-2 old"}
		w.content["old"]["restricted/unseen:v1"] = "sha256:unseen" // acknowledged, and in no journal
		w.acked["restricted/unseen:v1"] = "sha256:unseen"
		w.mu.Unlock()
	})
	r, err := w.migrate(input())
	require.NoError(t, err)
	require.Equal(t, 1, r.Deltas.Comparisons)
	require.Equal(t, "sha256:unseen", w.content["new"]["restricted/unseen:v1"])
}

func TestWhatIsPushedAtAnyMomentOfACutoverIsNotLost(t *testing.T) {
	for _, moment := range []string{"SampleTraffic", "HoldWrites", "DrainWrites", "ApplyChanges", "VerifyChanges", "FlipPrefix", "ReleaseWrites"} {
		w := newWorld(t)
		w.before["HoldWrites"] = on(1, func() { w.push("edge-2", "restricted/late", "v1") })
		for _, knob := range []map[string]func(int) error{w.before, w.after} {
			was := knob[moment]
			knob[moment] = func(call int) error {
				if was != nil {
					_ = was(call)
				}
				w.push("edge-1", "restricted/pushed", moment)
				return nil
			}
		}
		r, err := w.migrate(input(func(in *MigrateInput) { in.Policy.Converge.Rounds = 2; in.Policy.Converge.Changes = 5 }))
		require.NoError(t, err, moment)
		require.Equal(t, report.Finalized, r.Outcome)
		require.Contains(t, w.acked, "restricted/pushed:"+moment)
	}
}
