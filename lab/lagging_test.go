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

// Promises 1, 4 and 7 when Swift's listings stand still for half a minute, and lag behind by as much from then on: a prefix goes to the new backend, back, and there again, while clients push,
// move and delete tags all the while. The workers see Swift that way; to the registry it is as it is.
func TestAListingThatLagsBehindLosesNothing(t *testing.T) {
	const lag = 30 * time.Second
	s := Start(t, Swift, Ceph, SecondEdge, Lag(time.Second), Adapt(func(s *Settings) {
		s.Soak, s.Interval, s.Finalize, s.Failures, s.ListingLag = time.Hour, time.Second, "ask", 1000, lag+5*time.Second
	}))
	l, stop := s.underLoad(t, "restricted", 1, nil)
	ctx := within(t, 10*time.Minute)
	hidden := 0
	part := func(name string) {
		total, err := s.lagging.Hidden()
		require.NoError(t, err)
		t.Logf("%s: listings left out %d names; %d operations", name, total-hidden, len(l.Recorder.Operations()))
		assert.Greater(t, total, hidden, "nothing lagged")
		hidden = total
	}
	pause(ctx, 8*time.Second) // so that there is something to list
	s.lagging.SetLag(lag)
	pause(ctx, 3*time.Second) // what is pushed now is in no listing, and in no journal either: nobody knows the prefix yet

	// there migrates the prefix, and waits for some rounds of the soak, in which clients delete as well.
	there := func() (from time.Time) {
		began := time.Now()
		s.must(t, "--as", "sre", "migrate", "restricted")
		_, err := s.Await(ctx, "restricted", Phase(workflows.Approval))
		require.NoError(t, err)
		l.Keeps.Store(false)
		from = time.Now()
		s.must(t, "--as", "releng", "approve", "restricted")
		w, err := s.Await(ctx, "restricted", func(w workflows.Status) bool { return w.Report.Checks.Rounds > 2 })
		require.NoError(t, err)
		t.Logf("there, with three rounds of the soak, in %s, with %d cutovers", time.Since(began).Round(time.Second), w.Report.Attempts)
		return from
	}
	flipped := during{from: there()}
	// What is deleted at the old backend while nothing is migrated stays at the new one, and stops the next migration. Deletions under way end before the prefix goes back.
	l.Keeps.Store(true)
	pause(ctx, 5*time.Second)
	s.must(t, "--as", "sre", "rollback", "restricted", "--reason", "there and back again")
	r, err := s.Outcome(ctx, "restricted")
	require.NoError(t, err)
	require.Equal(t, report.RolledBack, r.Outcome, r.Reason)
	flipped.to = time.Now()
	part("there and back")

	there()
	part("there again")
	stop()
	s.must(t, "--as", "sre", "finalize", "restricted")
	r, err = s.Outcome(ctx, "restricted")
	require.NoError(t, err)
	require.Equal(t, report.Finalized, r.Outcome, r.Reason)
	noHold(t, s)
	s.judged(t, l.Recorder.Operations(), "new", []during{flipped})

	s.lagging.SetLag(0)
	pause(ctx, 3*time.Second)
	for _, backend := range []string{"new", "old"} {
		t.Logf("audit of %s, whose listing is up to date again:\n%s", backend, s.must(t, "audit", backend, "restricted", "--deep"))
	}
}
