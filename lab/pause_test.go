//go:build lab

package lab

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"transship/internal/report"
	"transship/workflows"
)

// A pause during the mirror stops new copies within seconds, and resume goes on from there.
func TestAPauseDuringTheMirrorStopsCopiesAndResumeGoesOn(t *testing.T) {
	s := start(t, func(s *Settings) { s.ApprovalRequired, s.Soak, s.Jobs = false, 2*time.Second, 1 })
	c := NewClients(s.Addresses.Edge, "restricted")
	require.NoError(t, c.Seed(t.Context(), Amount{Repositories: 4, Tags: 80}))
	ctx := within(t, 4*time.Minute)
	s.must(t, "migrate", "restricted")
	_, err := s.Await(ctx, "restricted", func(w workflows.Status) bool { return w.Phase == workflows.Mirror && s.blobs(t) > 20 })
	require.NoError(t, err)

	answer := s.must(t, "pause", "restricted")
	assert.Contains(t, answer, "paused at mirror")
	time.Sleep(4 * time.Second) // a heartbeat carries the pause to the mover
	paused := s.blobs(t)
	time.Sleep(3 * time.Second)
	assert.Equal(t, paused, s.blobs(t), "copies went on while paused")
	status, err := s.Status(ctx, "restricted")
	require.NoError(t, err)
	require.Equal(t, workflows.Mirror, status.Phase, "the seed was too small to be caught in the middle")
	assert.Contains(t, status.Waits, "transship resume restricted")
	require.NoError(t, c.PushImage(ctx, "restricted/live:paused", Image(1, 1024)), "writes go on while paused")

	s.must(t, "resume", "restricted")
	r, err := s.Outcome(ctx, "restricted")
	require.NoError(t, err)
	assert.Equal(t, report.Finalized, r.Outcome)
	assert.LessOrEqual(t, s.sentTwice(t), 8, "what was under way at the pause, at most, was sent again")
	nothingLost(t, c, s.Addresses.New)
}

// blobs counts the blobs that the new registry has.
func (s *Stack) blobs(t *testing.T) int {
	t.Helper()
	found, err := filepath.Glob(s.path("new/docker/registry/v2/blobs/sha256/*/*/data"))
	require.NoError(t, err)
	return len(found)
}

// remove deletes what a pattern below the lab's folder matches, as a fault of a store would.
func (s *Stack) remove(t *testing.T, pattern string) {
	t.Helper()
	found, err := filepath.Glob(s.path(pattern))
	require.NoError(t, err)
	require.NotEmpty(t, found, pattern)
	for _, path := range found {
		require.NoError(t, os.RemoveAll(path))
	}
}
