package workflows

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"transship/activities"
	"transship/internal/registry"
	"transship/internal/report"
)

func TestDifferencesThatADeltaHealsAreLookedAtAgain(t *testing.T) {
	w := newWorld(t)
	w.extra = []registry.Difference{{Repository: "restricted/r1", Tag: "gone", Kind: registry.ExtraTag}}
	w.after["VerifyRepositories"] = func(call int) error {
		if call == 4 { // four batches of two: all were looked at once
			w.mu.Lock()
			w.extra = nil
			w.mu.Unlock()
		}
		return nil
	}
	r, err := w.migrate(input())
	require.NoError(t, err)
	require.Empty(t, r.Checks.Differences)
	last := w.verified[len(w.verified)-1]
	require.Equal(t, []string{"restricted/r1"}, last.Repositories, "only what differed is looked at again")
}

// What was pushed just before the prefix was watched is in no journal, and where listings lag behind not in the first one either.
func TestTheComparisonBeginsWhenListingsShowWhatWasPushedBeforeTheWatch(t *testing.T) {
	w := newWorld(t)
	var watched, compared time.Time
	w.after["WatchPrefix"] = on(1, func() { watched = w.env.Now() })
	w.before["VerifyRepositories"] = on(1, func() { compared = w.env.Now() })
	r, err := w.migrate(input(func(in *MigrateInput) { in.Policy.Mirror.ListingLag = 10 * time.Minute }))
	require.NoError(t, err)
	require.Equal(t, report.Finalized, r.Outcome)
	require.GreaterOrEqual(t, compared.Sub(watched), 10*time.Minute)
	require.Less(t, compared.Sub(watched), 11*time.Minute)
}

func TestDifferencesThatPersistEndTheMigration(t *testing.T) {
	w := newWorld(t)
	w.extra = []registry.Difference{{Repository: "restricted/r1", Tag: "x", Kind: registry.ExtraTag}}
	r, err := w.migrate(input())
	require.ErrorContains(t, err, fmt.Sprintf("old and new still differ in 1 places after %d looks, such as extra restricted/r1:x", verifyRounds+1))
	require.Equal(t, report.Failed, r.Outcome)
	require.Len(t, r.Checks.Differences, 1)
	require.Empty(t, w.holds)
}

func TestATagThatNoJournalNamedIsBroughtWhenItIsFoundToDiffer(t *testing.T) {
	w := newWorld(t)
	w.before["VerifyRepositories"] = on(1, func() { // its push began before anything was watched
		w.mu.Lock()
		defer w.mu.Unlock()
		w.put(write{backend: "old", repository: "restricted/r1", tag: "unseen", digest: "sha256:unseen"})
	})
	_, err := w.migrate(input())
	require.NoError(t, err)
	require.Equal(t, "sha256:unseen", w.content["new"]["restricted/r1:unseen"])
}

func TestATagThatMovesAtEveryLookIsNoDifference(t *testing.T) {
	w := newWorld(t)
	w.before["VerifyRepositories"] = func(int) error { w.push("edge-1", "restricted/r1", "v1"); return nil }
	_, err := w.migrate(input())
	require.NoError(t, err)
}

func TestWhatEarlierProbesLeftAtTheTargetIsNoDifference(t *testing.T) {
	w := newWorld(t)
	w.put(write{backend: "old", repository: "restricted/transship-probe", tag: "probe", digest: "sha256:p"})
	w.extra = []registry.Difference{{Repository: "restricted/transship-probe", Tag: "older", Kind: registry.ExtraTag}}
	_, err := w.migrate(input())
	require.NoError(t, err)
}

func TestAPrefixThatIsPushedToFasterThanItCanBeCarriedOverIsNotFrozen(t *testing.T) {
	w := newWorld(t)
	w.before["ReadJournal"] = func(int) error { w.push("edge-1", "restricted/busy", "latest"); return nil }
	r, err := w.migrate(input(func(in *MigrateInput) { in.Policy.Converge.Changes = 0; in.Policy.Converge.Rounds = 4 }))
	require.ErrorContains(t, err, "after 4 deltas, one still brought")
	require.Equal(t, report.Failed, r.Outcome)
	require.Empty(t, w.holds)
}

func TestAMirrorThatFailsForGoodEndsTheMigration(t *testing.T) {
	w := newWorld(t)
	w.before["MirrorRepositories"] = func(call int) error {
		if call == 3 {
			return final(activities.KindRefused)
		}
		return nil
	}
	r, err := w.migrate(input())
	require.ErrorContains(t, err, "made to fail: Refused")
	require.Equal(t, report.Failed, r.Outcome)
	require.Equal(t, "old", w.route.Backend)
	require.Empty(t, w.switches)
	m, told := w.said("goes back")
	require.True(t, told)
	require.Equal(t, "critical", string(m.Level))
}

func TestAMirrorWhoseTargetIsDownForAWhileGoesOn(t *testing.T) {
	w := newWorld(t)
	w.before["MirrorRepositories"] = first(5, errDown)
	w.before["ReadJournal"] = first(4, errDown)
	w.before["VerifyRepositories"] = first(4, errDown)
	_, err := w.migrate(input())
	require.NoError(t, err)
}

func TestADeletionIsCarriedOverOnlyTowardsTheTarget(t *testing.T) {
	w := newWorld(t)
	w.before["VerifyRepositories"] = on(1, func() { w.remove("edge-1", "restricted/r1", "v1") })
	w.before["ProbeEdge"] = on(firstOfSoak, func() { w.remove("edge-1", "restricted/r2", "v1") })
	_, err := w.migrate(input())
	require.NoError(t, err)
	require.NotContains(t, w.content["new"], "restricted/r1:v1")
	require.Contains(t, w.content["old"], "restricted/r2:v1", "the old backend had it before the migration")
	for _, p := range w.applied {
		require.Equal(t, p.From == "old", p.Deletes)
		require.Equal(t, []string{"restricted/kept@sha256:before"}, p.KeptBefore)
	}
}
