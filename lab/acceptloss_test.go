//go:build lab

package lab

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"transship/internal/report"
	"transship/workflows"
)

// When the target is gone, a rollback asks a person, who may go back without what only the target had.
func TestARollbackFromADeadTargetAsksAndGoesBackWithoutWhatOnlyItHad(t *testing.T) {
	s := start(t, func(s *Settings) {
		s.ApprovalRequired, s.Soak, s.Interval, s.Finalize, s.Failures = false, time.Hour, 20*time.Second, "ask", 100
		s.Lease, s.Drain, s.Attempts = 8*time.Second, 3*time.Second, 1
	})
	c := NewClients(s.Addresses.Edge, "restricted")
	require.NoError(t, c.Seed(t.Context(), Small))
	ctx := within(t, 3*time.Minute)
	s.must(t, "migrate", "restricted")
	_, err := s.Await(ctx, "restricted", func(w workflows.Status) bool { return w.Report.Checks.Rounds > 0 })
	require.NoError(t, err)
	only := NewClients(s.Addresses.Edge, "restricted")
	require.NoError(t, only.PushImage(ctx, "restricted/live:only-on-new", Image(1, 1024)))
	s.New.Kill()
	s.must(t, "rollback", "restricted")
	_, err = s.Await(ctx, "restricted", func(w workflows.Status) bool { return w.Waits != "" && w.Report.Attempts > 1 })
	require.NoError(t, err)
	require.Error(t, c.Pull(ctx, "restricted/app-0:v0"), "reads are still at the dead target")
	out := s.must(t, "rollback", "restricted", "--accept-loss")
	t.Log(out)
	r, err := s.Outcome(ctx, "restricted")
	require.NoError(t, err)
	assert.Equal(t, report.RolledBack, r.Outcome)
	assert.Contains(t, r.NotCarriedBack, "manifest restricted/live only-on-new")
	require.NoError(t, c.Pull(ctx, "restricted/app-0:v0"))
	nothingLost(t, c, s.Addresses.Old)
	noHold(t, s)
}
