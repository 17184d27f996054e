//go:build lab

package lab

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"transship/internal/report"
	"transship/workflows"
)

func TestMain(m *testing.M) { Main(m) }

// start brings up a stack for one test.
func start(t *testing.T, adapt Adapt, parts ...Part) *Stack {
	t.Helper()
	return Start(t, adapt, Parts(parts))
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// atWork seeds a prefix and keeps clients busy until the returned function is called.
func atWork(t *testing.T, s *Stack, amount Amount) (*Clients, func()) {
	t.Helper()
	c := NewClientsOf(s.Addresses.Edges, "restricted")
	require.NoError(t, c.Seed(t.Context(), amount))
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	wait.Go(func() { c.Run(ctx, 2) })
	var once sync.Once
	stop := func() { once.Do(func() { cancel(); wait.Wait() }) }
	t.Cleanup(stop)
	return c, stop
}

func (s *Stack) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := s.Transship(t.Context(), args...)
	require.NoError(t, err)
	return out
}

func nothingLost(t *testing.T, c *Clients, backend string) {
	t.Helper()
	lost, tags := c.Check(t.Context(), backend)
	assert.Empty(t, lost, "acknowledged pushes that the serving backend does not have, of %d", tags)
	assert.Zero(t, c.Summary().Stale, "pulls that gave something older than what was acknowledged")
}

func noHold(t *testing.T, s *Stack) {
	t.Helper()
	r, err := s.Routing(t.Context())
	require.NoError(t, err)
	for _, route := range r.Table.Routes {
		assert.False(t, route.Mode.Parks(), "%s is still %s", route.Prefix, route.Mode)
	}
}

// Promises 1, 2, 4, 5: nobody notices a migration, nor the rollback after it.
func TestClientsNoticeNeitherMigrationNorRollback(t *testing.T) {
	s := start(t, func(s *Settings) { s.Soak, s.Finalize = time.Hour, "ask" })
	c, stop := atWork(t, s, Small)
	ctx := within(t, 3*time.Minute)

	s.must(t, "--as", "sre", "migrate", "restricted")
	_, err := s.Await(ctx, "restricted", Phase(workflows.Approval))
	require.NoError(t, err)
	s.must(t, "--as", "releng", "approve", "restricted")
	_, err = s.Await(ctx, "restricted", func(w workflows.Status) bool { return w.Report.Checks.Rounds > 1 })
	require.NoError(t, err)

	s.must(t, "--as", "sre", "rollback", "restricted", "--reason", "to see that it works")
	r, err := s.Outcome(ctx, "restricted")
	require.NoError(t, err)
	stop()

	assert.Equal(t, report.RolledBack, r.Outcome)
	assert.Empty(t, c.Failures())
	nothingLost(t, c, s.Addresses.Old)
	noHold(t, s)
	assert.NotZero(t, r.Reverse.Writes, "something was pushed to the new backend and carried back")
	assert.FileExists(t, r.File)

	// Promise 8: the same again costs little. The first time brings what was pushed since the rollback, the second nothing.
	for again := range 2 {
		s.must(t, "--as", "sre", "migrate", "restricted")
		status, err := s.Await(ctx, "restricted", Phase(workflows.Approval))
		require.NoError(t, err)
		if again == 1 {
			assert.Zero(t, status.Report.Mirror.Blobs, "blobs sent again")
			assert.Zero(t, status.Report.Mirror.Manifests, "manifests sent again")
			assert.Equal(t, status.Report.Mirror.Tags, status.Report.Mirror.TagsUnchanged)
		}
		s.must(t, "--as", "sre", "abort", "restricted")
		r, err = s.Outcome(ctx, "restricted")
		require.NoError(t, err)
		assert.Equal(t, report.Aborted, r.Outcome)
	}
	nothingLost(t, c, s.Addresses.Old)
}
