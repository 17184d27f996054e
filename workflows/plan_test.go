package workflows

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"transship/internal/edge"
	"transship/internal/report"
	"transship/internal/routing"
)

func TestAMigrationThatIsBlockedFailsBeforeAnythingIsTouched(t *testing.T) {
	for _, c := range []struct {
		name   string
		knob   func(*world, *MigrateInput)
		reason string
	}{
		{"the target is down", func(w *world, _ *MigrateInput) { w.before["CheckBackend new"] = always(errDown) }, "backend new cannot be used: connection refused"},
		{"the source is down", func(w *world, _ *MigrateInput) { w.before["CheckBackend old"] = always(errDown) }, "backend old cannot be used: connection refused"},
		{"an edge does not answer", func(w *world, _ *MigrateInput) { w.before["CheckEdge"] = always(errDown) }, "edge edge-1 cannot be used: connection refused; edge edge-2 cannot be used"},
		{"an edge lacks something", func(w *world, _ *MigrateInput) {
			w.findings = []edge.Finding{{What: "fine", OK: true}, {What: "edge edge-1: nginx answers", Detail: "no", Cure: "start nginx"}}
		}, "edge edge-1: nginx answers: no: start nginx"},
		{"there is no repository", func(w *world, _ *MigrateInput) { clear(w.content["old"]); clear(w.acked) }, "backend old has no repository under restricted"},
		{"the target has tags of its own", func(w *world, _ *MigrateInput) {
			w.plan.Extra = []string{"restricted/a:x", "restricted/transship-probe:probe"}
		}, "backend new has 1 tags under restricted that old does not have, such as restricted/a:x"},
		{"the catalog fails for good", func(w *world, _ *MigrateInput) { w.before["ListRepositories"] = always(final("Refused")) }, "made to fail: Refused"},
		{"sizing up fails for good", func(w *world, _ *MigrateInput) { w.before["PlanRepositories"] = always(final("Refused")) }, "made to fail: Refused"},
		{"the policy has a mistake", func(_ *world, in *MigrateInput) { in.Policy.Mirror.Jobs = 0 }, "policy.mirror.jobs: is 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			in := input()
			c.knob(w, &in)
			r, err := w.migrate(in)
			require.ErrorContains(t, err, c.reason)
			require.Equal(t, string(report.Failed), kindOf(err))
			require.Equal(t, report.Failed, r.Outcome)
			require.Contains(t, r.Reason, c.reason)
			require.Equal(t, []string{Plan}, took(r))
			require.Zero(t, w.count("WatchPrefix"))
			require.Zero(t, w.count("MirrorRepositories"))
			require.Empty(t, w.content["new"])
			require.Len(t, w.reports, 1, "a migration that failed has a report as well")
		})
	}
}

func TestTagsThatOnlyTheTargetHasAreAcceptedWherePolicySaysSo(t *testing.T) {
	w := newWorld(t)
	w.plan.Extra = []string{"restricted/a:x"}
	r, err := w.migrate(input(func(in *MigrateInput) { in.Policy.Verify.AllowExtra = true }))
	require.NoError(t, err)
	require.Equal(t, []string{"restricted/a:x"}, r.Plan.Extra)
	require.True(t, w.verified[0].AllowExtra)
}

func TestAClaimThatIsRefusedEndsTheMigrationAndLeavesTheOtherClaimAlone(t *testing.T) {
	w := newWorld(t)
	w.before["ClaimPrefix"] = always(final(routing.RefusedOverlap))
	r, err := w.migrate(input())
	require.ErrorContains(t, err, "made to fail: Overlap")
	require.Equal(t, report.Failed, r.Outcome)
	require.Zero(t, w.count("DisownPrefix"))
	require.Zero(t, w.count("CheckBackend old"), "nothing is asked of a backend before the prefix is ours")
}

func TestRoutesThatCannotBeReachedAreAskedUntilTheyAnswer(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"ClaimPrefix", "WatchPrefix", "HoldWrites", "FlipPrefix", "ReleaseWrites", "DisownPrefix"} {
		w.before[name] = first(3, errDown)
	}
	r, err := w.migrate(input())
	require.NoError(t, err)
	require.Equal(t, report.Finalized, r.Outcome)
	require.Equal(t, []string{"new"}, w.switches)
}

func TestRepositoriesThatAreNamedAreNotAskedOfTheCatalog(t *testing.T) {
	w := newWorld(t)
	w.quiet = true
	for i := 2; i < 8; i++ {
		delete(w.acked, fmt.Sprintf("restricted/r%d:v1", i)) // not asked for
	}
	_, err := w.migrate(input(func(in *MigrateInput) { in.Repositories = []string{"restricted/r0", "restricted/r1"} }))
	require.NoError(t, err)
	require.Zero(t, w.count("ListRepositories"))
	require.Equal(t, "sha256:seed", w.content["new"]["restricted/r1:v1"])
}
