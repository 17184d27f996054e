package workflows

import (
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/testsuite"

	"transship/internal/edge"
	"transship/internal/routing"
)

// look runs a workflow that only looks.
func look[T any](w *world, workflow any, in any) (result T, err error) {
	w.t.Helper()
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	w.env = suite.NewTestWorkflowEnvironment()
	w.env.RegisterActivity(&fakes{w})
	w.env.ExecuteWorkflow(workflow, in)
	if err := w.env.GetWorkflowError(); err != nil {
		return result, err
	}
	return result, w.env.GetWorkflowResult(&result)
}

func TestADryRunShowsThePlanAndTheFilesAndChangesNothing(t *testing.T) {
	w := newWorld(t)
	r, err := look[DryRunResult](w, DryRun, input())
	require.NoError(t, err)
	require.EqualValues(t, 8, r.Plan.Repositories)
	require.Empty(t, r.Plan.Blockers)
	require.Len(t, r.Edges, 2)
	require.Equal(t, "edge-2", r.Edges[1].Edge)
	for _, touched := range []string{"ClaimPrefix", "WatchPrefix", "MirrorRepositories", "ApplyChanges"} {
		require.Zero(t, w.count(touched))
	}
}

func TestADryRunNamesEverythingThatBlocks(t *testing.T) {
	w := newWorld(t)
	w.route.Owner = "migrate/else"
	w.before["CheckBackend new"] = always(errDown)
	w.before["PreviewFiles"] = always(errDown)
	r, err := look[DryRunResult](w, DryRun, input())
	require.NoError(t, err)
	require.Len(t, r.Plan.Blockers, 4, "%v", r.Plan.Blockers)
	require.Contains(t, r.Plan.Blockers, "restricted is being moved by migrate/else already")
	require.Contains(t, r.Plan.Blockers, "backend new cannot be used: connection refused")
	require.Contains(t, r.Plan.Blockers, "edge edge-1 cannot show its files: connection refused")
}

func TestTheDoctorSaysOfEachConnectionWhetherItWorksAndWhatToDo(t *testing.T) {
	w := newWorld(t)
	w.before["CheckBackend new"] = always(errDown)
	w.findings = []edge.Finding{{What: "nginx answers", OK: true}}
	w.before["CheckEdge"] = func(int) error { return nil }
	found, err := look[[]edge.Finding](w, Doctor, DoctorInput{Backends: []string{"new", "old"}, Edges: []string{"edge-1"}})
	require.NoError(t, err)
	require.Len(t, found, 3)
	require.False(t, found[0].OK)
	require.Equal(t, "connection refused", found[0].Detail)
	require.Contains(t, found[0].Cure, "check backends.new")
	require.True(t, found[1].OK)
	require.True(t, found[2].OK)
	w.before["CheckEdge"] = always(errDown)
	found, err = look[[]edge.Finding](w, Doctor, DoctorInput{Edges: []string{"edge-1"}})
	require.NoError(t, err)
	require.Contains(t, found[0].Cure, "transship-worker --edge edge-1")
}

func TestWorkflowIDsNameThePrefix(t *testing.T) {
	require.Equal(t, "migrate/a/b", MigrateID(routing.Prefix("a/b")))
	require.Equal(t, "a/b", PrefixOf("migrate/a/b"))
	require.Equal(t, "plan/a/b", PlanID(routing.Prefix("a/b")))
	require.Equal(t, "edge/e1", EdgeQueue("e1"))
}
