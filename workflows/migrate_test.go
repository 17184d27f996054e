package workflows

import (
	"testing"

	"github.com/stretchr/testify/require"

	"transship/internal/report"
)

var wholeWay = []string{
	Plan, Announce, SourceAudit, Mirror, Verify, Converge, Approval, Freeze, Drain, LastDelta, VerifyLast, Flip, Release, Stragglers, Probe, Soak, Finalize,
}

func TestAMigrationThatNobodyDisturbsTakesEveryStepAndFinalizesByItself(t *testing.T) {
	w := newWorld(t)
	r, err := w.migrate(input())
	require.NoError(t, err)
	require.Equal(t, report.Finalized, r.Outcome)
	require.Equal(t, wholeWay, took(r))
	require.Equal(t, []string{"new"}, w.switches)
	require.Len(t, w.holds, 1)
	require.GreaterOrEqual(t, r.Checks.Rounds, 10, "a soak of 5 minutes has a round every 30 seconds")
	require.Equal(t, "report.md", r.File)
	for _, s := range r.Steps {
		require.Empty(t, s.Error)
		require.False(t, s.Ended.IsZero())
	}
}
