//go:build lab

package lab

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"transship/internal/report"
	"transship/workflows"
)

// Promises 1, 4 and 6, with --without-edge: a node that serves nobody is left out by order, and what it had acknowledged is not. Its nginx comes back while its worker, which ran all the while, still cannot be
// told of the flip. It takes no write until it can, and what it takes then goes to the new backend.
func TestANodeThatIsLeftOutTakesNoWriteUntilItHasCaughtUp(t *testing.T) {
	s := Start(t, Edges(2), Links, Adapt(func(s *Settings) { s.Soak, s.Interval, s.Finalize = time.Hour, time.Second, "ask" }))
	c, away := NewClients(s.Addresses.Edge, "restricted"), NewClients(s.Addresses.Edges[1], "restricted")
	require.NoError(t, c.Seed(t.Context(), Small))
	ctx := within(t, 5*time.Minute)
	s.must(t, "--as", "sre", "migrate", "restricted")
	_, err := s.Await(ctx, "restricted", Phase(workflows.Approval))
	require.NoError(t, err)
	node := s.Edges[1]
	node.Link.Cut()
	require.NoError(t, away.PushImage(ctx, "restricted/live:last-words", Image(4, 1024)), "it serves, and its journal cannot be read any more")
	node.Nginx.Kill()
	pause(ctx, 12*time.Second) // somebody is paged

	s.must(t, "--as", "sre", "pause", "restricted", "--reason", "edge2 is dead")
	s.must(t, "--as", "sre", "resume", "restricted", "--without-edge", "edge2", "--reason", "it is out of the balancer")
	s.must(t, "--as", "releng", "approve", "restricted")
	status, err := s.Await(ctx, "restricted", func(w workflows.Status) bool { return w.Report.Checks.Rounds > 0 })
	require.NoError(t, err)
	assert.Equal(t, "new", status.Serving)
	nothingLost(t, away, s.Addresses.New)
	require.NoError(t, c.PushImage(ctx, "restricted/live:since", Image(1, 1024)))

	require.NoError(t, node.Nginx.Start(ctx))
	began := time.Now()
	err = away.PushImage(ctx, "restricted/live:refused", Image(2, 1024))
	require.ErrorContains(t, err, "UNAVAILABLE", "it would go to the old backend")
	t.Logf("refused after %s", time.Since(began).Round(time.Millisecond))

	node.Link.Mend()
	require.Eventually(t, func() bool { return away.PushImage(ctx, "restricted/live:accepted", Image(3, 1024)) == nil }, time.Minute, time.Second)
	nothingLost(t, away, s.Addresses.New)
	nothingLost(t, c, s.Addresses.New)
	_, err = s.Await(ctx, "restricted", func(w workflows.Status) bool {
		return slices.ContainsFunc(w.Report.Decisions, func(d report.Decision) bool { return d.What == "edge edge2 is back" })
	})
	require.NoError(t, err)

	s.must(t, "--as", "sre", "rollback", "restricted", "--reason", "to see that it works")
	r, err := s.Outcome(ctx, "restricted")
	require.NoError(t, err)
	assert.Equal(t, report.RolledBack, r.Outcome)
	nothingLost(t, away, s.Addresses.Old)
	nothingLost(t, c, s.Addresses.Old)
	noHold(t, s)
}
