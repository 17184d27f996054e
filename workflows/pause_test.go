package workflows

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"transship/activities"
	"transship/internal/report"
)

var ann = Command{By: "ann", Reason: "lunch"}

func TestAPauseStopsTheMirrorAndResumeGoesOnFromItsCursor(t *testing.T) {
	w := newWorld(t)
	var paused, resumed *reply
	interrupted := false
	w.mirroring = func(p activities.MirrorParams, at *activities.Cursor) bool {
		if interrupted || at.Repository != 1 {
			return true
		}
		interrupted = true
		paused = w.order(UpdatePause, ann)
		<-paused.heard
		w.untilStopped("MirrorRepositories")
		at.After = "v0"
		w.in(time.Hour, func() {
			s := w.status()
			require.True(t, s.Paused)
			require.Equal(t, "paused by ann: `transship resume restricted` goes on", s.Waits)
			require.Len(t, w.cursors, 1, "nothing was copied while paused")
			resumed = w.order(UpdateResume, Command{By: "bob"})
		})
		return false
	}
	r, err := w.migrate(input())
	require.NoError(t, err)
	require.Equal(t, "paused at mirror: copies stop within seconds, writes and pulls go on at old", paused.answer.Message)
	require.Equal(t, "goes on with mirror", resumed.answer.Message)
	require.Equal(t, 1, w.cursors[1].Repository)
	require.Equal(t, "v0", w.cursors[1].After)
	require.EqualValues(t, 8, r.Mirror.Tags, "nothing was copied twice")
}

func TestAPauseTakesEffectAtTheNextBoundary(t *testing.T) {
	w := newWorld(t)
	w.before["JournalEnd"] = on(1, func() {
		w.orderIn(UpdatePause, ann)
		w.in(time.Hour, func() {
			require.Zero(t, w.count("MirrorRepositories"))
			w.order(UpdateResume, ann)
		})
	})
	r, err := w.migrate(input())
	require.NoError(t, err)
	require.GreaterOrEqual(t, r.Ended.Sub(r.Began), time.Hour)
}

func TestASecondPauseIsRefused(t *testing.T) {
	w := newWorld(t)
	var second *reply
	w.at(time.Minute, func() { w.order(UpdatePause, ann) })
	w.at(2*time.Minute, func() { second = w.order(UpdatePause, Command{By: "bob"}) })
	w.at(3*time.Minute, func() { w.order(UpdateResume, Command{By: "bob"}) })
	_, err := w.migrate(input())
	require.NoError(t, err)
	require.True(t, second.refused)
	require.ErrorContains(t, second.err, "was paused by ann already")
}

func TestAPauseInAFreezeReleasesTheHoldAndSaysSo(t *testing.T) {
	for _, during := range []string{"HoldWrites", "DrainWrites", "ApplyChanges", "VerifyChanges"} {
		t.Run(during, func(t *testing.T) {
			w := newWorld(t)
			var paused *reply
			w.before["HoldWrites"] = on(1, func() { w.push("edge-1", "restricted/late", "v1") })
			var once sync.Once // both edges drain
			w.before[during] = func(int) error {
				if w.heldNow() || during == "HoldWrites" {
					once.Do(func() {
						paused = w.order(UpdatePause, ann)
						<-paused.heard
						w.in(time.Minute, func() {
							require.False(t, w.heldNow(), "writes go on while paused")
							require.Equal(t, "old", w.status().Serving)
							require.True(t, paused.finished)
							w.order(UpdateResume, ann)
						})
					})
				}
				return nil
			}
			r, err := w.migrate(input())
			require.NoError(t, err)
			require.Equal(t, "the freeze was given up, writes go on to old; paused", paused.answer.Message)
			require.Equal(t, []string{"new"}, w.switches, "resumed, it was frozen again and flipped")
			require.Equal(t, 2, r.Attempts)
			require.Equal(t, report.Finalized, r.Outcome)
		})
	}
}

func TestAPauseWhileTheFlipIsBeingDecidedWaitsUntilWritesGoOn(t *testing.T) {
	for _, during := range []string{"FlipPrefix", "ReleaseWrites"} {
		t.Run(during, func(t *testing.T) {
			w := newWorld(t)
			var paused *reply
			w.before[during] = on(1, func() {
				paused = w.order(UpdatePause, ann)
				<-paused.heard
				require.False(t, paused.finished, "it is answered when writes go on")
				w.in(time.Minute, func() {
					s := w.status()
					require.True(t, s.Paused)
					require.Equal(t, "new", s.Serving)
					w.order(UpdateResume, ann)
				})
			})
			r, err := w.migrate(input())
			require.NoError(t, err)
			require.Equal(t, "the flip was being decided, so it was completed first; paused after it", paused.answer.Message)
			require.Equal(t, 1, r.Attempts)
			require.Len(t, w.holds, 1)
		})
	}
}

func TestAPauseInTheSoakStopsItsRounds(t *testing.T) {
	w := newWorld(t)
	rounds := -1
	w.before["ProbeEdge"] = on(firstOfSoak, func() {
		w.orderIn(UpdatePause, ann)
		w.in(time.Hour, func() {
			rounds = w.status().Report.Checks.Rounds
			w.order(UpdateResume, ann)
		})
	})
	r, err := w.migrate(input())
	require.NoError(t, err)
	require.Zero(t, rounds, "the round that was interrupted does not count")
	require.Zero(t, r.Checks.RoundsFailed)
}

func TestAPausedMigrationCanBeRolledBackOrAborted(t *testing.T) {
	for update, outcome := range map[string]report.Outcome{UpdateRollback: report.RolledBack, UpdateAbort: report.Aborted} {
		w := newWorld(t)
		w.before["VerifyRepositories"] = on(1, func() {
			w.orderIn(UpdatePause, ann)
			w.in(time.Hour, func() { w.order(update, ann) })
		})
		r, err := w.migrate(input())
		require.NoError(t, err)
		require.Equal(t, outcome, r.Outcome)
		require.Equal(t, "old", w.route.Backend)
	}
}
