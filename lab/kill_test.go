//go:build lab

package lab

import (
	"context"
	"os"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"

	"transship/internal/report"
	"transship/workflows"
)

// killAt are the activities, one of each step, at whose first scheduling a process is killed.
var killAt = []string{
	"ClaimPrefix", "PlanRepositories", "CheckPair", "AuditRepositories", "WatchPrefix", "MirrorRepositories", "VerifyRepositories", "HoldWrites", "DrainWrites",
	"ApplyChanges", "FlipPrefix", "ReleaseWrites", "ProbeEdge", "DisownPrefix", "WriteReport",
}

// Promise 6: any process may be killed at any moment. Each of these kills one process at every step of a migration, with SIGKILL, and starts it again.
func TestMigrationSurvivesKillsOfTheWorker(t *testing.T) {
	c, _ := surviveKills(t, func(s *Stack) *Process { return s.Worker })
	assert.Empty(t, c.Failures(), "no client needs the worker")
}

func TestMigrationSurvivesKillsOfTheDevserver(t *testing.T) {
	c, _ := surviveKills(t, func(s *Stack) *Process { return s.Devserver })
	assert.Empty(t, c.Failures(), "no client needs Temporal")
}

func TestMigrationSurvivesKillsOfTheEdgeWorker(t *testing.T) {
	c, _ := surviveKills(t, func(s *Stack) *Process { return s.EdgeWorker })
	for _, f := range c.Failures() {
		assert.Regexp(t, ` (PUT|POST|PATCH|DELETE) .*503|push .*503|UNAVAILABLE`, f, "with the gate dead, held writes are asked to come back; nothing else fails")
	}
}

func TestMigrationSurvivesKillsOfNginx(t *testing.T) {
	surviveKills(t, func(s *Stack) *Process { return s.Nginx }) // whoever asks an edge whose nginx is dead gets no answer, with or without a migration
}

func surviveKills(t *testing.T, victim func(*Stack) *Process) (*Clients, report.Report) {
	const lease = 8 * time.Second
	s := start(t, func(s *Settings) {
		s.ApprovalRequired, s.Lease, s.Drain, s.FreezePause, s.Attempts, s.Failures = false, lease, 3*time.Second, time.Second, 50, 20
		s.Soak = 4 * time.Second
	})
	c, stop := atWork(t, s, Amount{Repositories: 3, Tags: 4, Special: true})
	ctx := within(t, 8*time.Minute)
	killed := make(chan []string, 1)
	watching, done := context.WithCancel(ctx)
	go func() { killed <- s.killAtSteps(watching, victim(s)) }()

	s.must(t, "--as", "sre", "migrate", "restricted")
	r, err := s.Outcome(ctx, "restricted")
	done()
	at := <-killed
	stop()
	require.NoError(t, err)
	require.Equal(t, report.Finalized, r.Outcome, r.Reason)
	t.Logf("killed at %v; %d cutovers were tried; slowest write %s", at, r.Attempts, c.Summary().Slowest)
	assert.ElementsMatch(t, killAt, at)
	nothingLost(t, c, s.Addresses.New)
	noHold(t, s)
	assert.Less(t, c.Summary().Slowest, lease+4*time.Second, "no hold outlives its deadline")
	assert.LessOrEqual(t, s.sentTwice(t), 40, "blobs that went to the new backend more than once: at most those of one activity")
	return c, r
}

// killAtSteps kills a process when an activity of killAt is first scheduled, and starts it again a moment later. It returns at which it did.
func (s *Stack) killAtSteps(ctx context.Context, victim *Process) (killed []string) {
	var seen int64
	for ctx.Err() == nil {
		events := s.Temporal.GetWorkflowHistory(ctx, workflows.MigrateID("restricted"), "", true, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
		for events.HasNext() {
			event, err := events.Next()
			if err != nil {
				break // not started yet, or the devserver is down
			}
			if event.GetEventId() <= seen {
				continue
			}
			seen = event.GetEventId()
			name := event.GetActivityTaskScheduledEventAttributes().GetActivityType().GetName()
			if slices.Contains(killAt, name) && !slices.Contains(killed, name) {
				killed = append(killed, name)
				victim.Kill()
				pause(ctx, 300*time.Millisecond)
				if victim == s.Devserver {
					_ = os.Remove(s.path("temporal/ready.json"))
				}
				if err := victim.Start(context.WithoutCancel(ctx)); err != nil {
					return append(killed, err.Error())
				}
			}
		}
		pause(ctx, 50*time.Millisecond)
	}
	return killed
}

// sentTwice counts the blobs that were uploaded to the new registry more than once, as its access log has it.
func (s *Stack) sentTwice(t *testing.T) int {
	raw, err := os.ReadFile(s.path("log/registry-new.log"))
	require.NoError(t, err)
	uploads := regexp.MustCompile(`"PUT /v2/(\S+)/blobs/uploads/\S*digest=(sha256%3A[0-9a-f]+)\S* HTTP/1.1" 201 .*"transship"`).FindAllStringSubmatch(string(raw), -1)
	require.NotEmpty(t, uploads, "the access log is not as expected: %.300s", raw)
	times, twice := map[string]int{}, 0
	for _, u := range uploads {
		if times[u[1]+u[2]]++; times[u[1]+u[2]] == 2 {
			twice++
		}
	}
	return twice
}
