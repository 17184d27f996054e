//go:build lab

package lab

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"transship/internal/report"
	"transship/workflows"
)

// Promises 1, 2, 4, 5 where the job is: from Swift to Ceph, with two edges, any of which a client may use for each of its pushes and pulls.
func TestClientsOfTwoEdgesNoticeNothingFromSwiftToCephAndBack(t *testing.T) {
	s := Start(t, Swift, Ceph, SecondEdge, Adapt(func(s *Settings) { s.Soak, s.Finalize = time.Hour, "ask" }))
	c, stop := atWork(t, s, Amount{Repositories: 2, Tags: 3, Special: true})
	ctx := within(t, 8*time.Minute)

	s.must(t, "--as", "sre", "migrate", "restricted")
	_, err := s.Await(ctx, "restricted", Phase(workflows.Approval))
	require.NoError(t, err)
	s.must(t, "--as", "releng", "approve", "restricted")
	_, err = s.Await(ctx, "restricted", func(w workflows.Status) bool { return w.Report.Checks.Rounds > 0 })
	require.NoError(t, err)
	s.must(t, "--as", "sre", "rollback", "restricted", "--reason", "to see that it works")
	r, err := s.Outcome(ctx, "restricted")
	require.NoError(t, err)
	stop()

	assert.Equal(t, report.RolledBack, r.Outcome)
	assert.Empty(t, c.Failures())
	nothingLost(t, c, s.Addresses.Old)
	noHold(t, s)
}

// What `make lab` brings up answers, and ends.
func TestTheFullLabServesAndEnds(t *testing.T) {
	s := Start(t, Full, OwnStores)
	require.NoError(t, NewClientsOf(s.Addresses.Edges, "restricted").Seed(t.Context(), Amount{Repositories: 1, Tags: 4}))
	s.must(t, "doctor")
	assert.NotEmpty(t, s.Addresses.IRC)
	require.Eventually(t, func() bool { return up(s.Addresses.Prometheus) == 4 }, 30*time.Second, 200*time.Millisecond, "both registries, Ceph and Prometheus itself have metrics")

	require.Len(t, s.Addresses.Processes, 20)
	addresses := s.path("addresses.json")
	require.NoError(t, s.Leave(addresses))
	require.NoError(t, Down(addresses))
	for _, p := range s.Addresses.Processes {
		assert.False(t, p.Alive(), p.Name)
	}
}

// up counts the targets that Prometheus reaches.
func up(prometheus string) (n int) {
	resp, err := http.Get(prometheus + "/api/v1/targets")
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	var answer struct {
		Data struct {
			ActiveTargets []struct{ Health string }
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return 0
	}
	for _, target := range answer.Data.ActiveTargets {
		if target.Health == "up" {
			n++
		}
	}
	return n
}
