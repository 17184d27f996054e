//go:build lab

package lab

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"transship/internal/report"
	"transship/internal/routing"
	"transship/workflows"
)

// slowWrite begins to put a manifest through the edge and does not finish: a write in flight, which a drain must wait for. Calling the result
// sends the rest and returns the answer.
func (s *Stack) slowWrite(t *testing.T, path string) (finish func() *http.Response) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.Addresses.Edge, "http://"))
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	body := `{"schemaVersion":2}`
	_, err = fmt.Fprintf(conn, "PUT %s HTTP/1.1\r\nHost: edge\r\nAuthorization: Basic %s\r\nContent-Type: application/vnd.oci.image.manifest.v1+json\r\nContent-Length: %d\r\n\r\n%s",
		path, base64.StdEncoding.EncodeToString([]byte(PushUser+":"+Password)), len(body), body[:5])
	require.NoError(t, err)
	return func() *http.Response {
		_, err := conn.Write([]byte(body[5:]))
		require.NoError(t, err)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		return resp
	}
}

// approveWithAWriteInFlight brings a migration to its freeze, in which the drain waits for a write that ends when the result is called.
func (s *Stack) approveWithAWriteInFlight(ctx context.Context, t *testing.T) (finish func() *http.Response) {
	t.Helper()
	s.must(t, "migrate", "restricted")
	_, err := s.Await(ctx, "restricted", Phase(workflows.Approval))
	require.NoError(t, err)
	finish = s.slowWrite(t, "/v2/restricted/app-0/manifests/slow")
	s.must(t, "approve", "restricted")
	return finish
}

// held waits until the edge holds the writes of restricted.
func (s *Stack) held(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		r, err := s.Routing(t.Context())
		if err != nil {
			return false
		}
		route, _ := r.Table.Lookup("restricted")
		return route.Mode == routing.Held && len(r.Edges) > 0 && r.Edges[0].Generation == r.Table.Generation
	}, time.Minute, 10*time.Millisecond, "the freeze did not begin")
}

// Promise 6: a hold ends by itself when nobody comes back to end it, neither worker nor edge worker nor Temporal.
func TestAHoldEndsWhenEverythingButNginxAndTheRegistriesIsDead(t *testing.T) {
	const lease = 8 * time.Second
	s := start(t, func(s *Settings) { s.Lease, s.Drain = lease, 4*time.Second })
	c := NewClients(s.Addresses.Edge, "restricted")
	require.NoError(t, c.Seed(t.Context(), Small))
	ctx := within(t, 2*time.Minute)
	s.approveWithAWriteInFlight(ctx, t)
	s.held(t)
	held := time.Now()
	s.EdgeWorker.Kill()
	s.Worker.Kill()
	s.Devserver.Kill()
	require.Error(t, c.PushImage(ctx, "restricted/live:during", Image(1, 1024)), "the gate is dead and the prefix is held: writes are refused")
	require.NoError(t, c.Pull(ctx, "restricted/app-0:v0"), "reads are never held")
	for {
		if err := c.PushImage(ctx, "restricted/live:after", Image(1, 1024)); err == nil {
			break
		}
		require.NoError(t, ctx.Err(), "the hold did not end")
		pause(ctx, 100*time.Millisecond)
	}
	t.Logf("writes went on %s after the hold began", time.Since(held))
	assert.Less(t, time.Since(held), lease+3*time.Second)
	nothingLost(t, c, s.Addresses.Old)
	for _, f := range c.Failures() {
		assert.Contains(t, f, "503")
	}
}

// A pause asked for during the freeze gives the freeze up and says so; resume tries again.
func TestAPauseDuringTheFreezeLetsWritesGoOn(t *testing.T) {
	s := start(t, func(s *Settings) { s.Soak = 3 * time.Second })
	c, stop := atWork(t, s, Small)
	ctx := within(t, 2*time.Minute)
	finish := s.approveWithAWriteInFlight(ctx, t)
	s.held(t)
	answer := s.must(t, "pause", "restricted")
	assert.Contains(t, answer, "the freeze was given up, writes go on to old")
	noHold(t, s)
	require.NoError(t, c.PushImage(ctx, "restricted/live:paused", Image(1, 1024)))
	assert.Equal(t, http.StatusBadRequest, finish().StatusCode, "the write in flight got its registry's own answer")

	s.must(t, "resume", "restricted")
	r, err := s.Outcome(ctx, "restricted")
	stop()
	require.NoError(t, err)
	assert.Equal(t, report.Finalized, r.Outcome)
	assert.Empty(t, c.Failures())
	nothingLost(t, c, s.Addresses.New)
}

// A drain that does not end in time gives the freeze up, and it is tried again.
func TestAFreezeWhoseDrainDoesNotEndIsGivenUpAndTriedAgain(t *testing.T) {
	s := start(t, func(s *Settings) { s.Soak, s.Drain, s.FreezePause = 3*time.Second, time.Second, time.Second })
	c, stop := atWork(t, s, Small)
	ctx := within(t, 2*time.Minute)
	finish := s.approveWithAWriteInFlight(ctx, t)
	_, err := s.Await(ctx, "restricted", func(w workflows.Status) bool { return w.Report.Attempts > 1 })
	require.NoError(t, err)
	assert.Equal(t, http.StatusBadRequest, finish().StatusCode)
	r, err := s.Outcome(ctx, "restricted")
	stop()
	require.NoError(t, err)
	assert.Equal(t, report.Finalized, r.Outcome)
	assert.Empty(t, c.Failures())
	nothingLost(t, c, s.Addresses.New)
	assert.Less(t, c.Summary().Slowest, 5*time.Second)
}

// A migration that is terminated can release nothing any more. Its hold ends at its deadline, everywhere, and the next migration takes its claim over.
func TestAMigrationThatIsTerminatedInItsFreezeLeavesNoHold(t *testing.T) {
	const lease = 8 * time.Second
	s := start(t, func(s *Settings) { s.Lease, s.Drain, s.Soak = lease, 4*time.Second, 2*time.Second })
	c, stop := atWork(t, s, Small)
	ctx := within(t, 2*time.Minute)
	finish := s.approveWithAWriteInFlight(ctx, t)
	s.held(t)
	require.NoError(t, s.Temporal.TerminateWorkflow(ctx, workflows.MigrateID("restricted"), "", "to see what becomes of its hold"))
	require.NoError(t, c.PushImage(ctx, "restricted/live:after", Image(1, 1024)), "the write waits, and goes on when the hold ends")
	assert.Equal(t, http.StatusBadRequest, finish().StatusCode)
	require.Eventually(t, func() bool {
		r, err := s.Routing(ctx)
		require.NoError(t, err)
		route, _ := r.Table.Lookup("restricted")
		return route.Mode == routing.Watched
	}, 20*time.Second, 50*time.Millisecond, "Routes learns that the hold ran out")

	s.must(t, "migrate", "restricted")
	_, err := s.Await(ctx, "restricted", Phase(workflows.Approval))
	require.NoError(t, err)
	s.must(t, "approve", "restricted")
	r, err := s.Outcome(ctx, "restricted")
	stop()
	require.NoError(t, err)
	assert.Equal(t, report.Finalized, r.Outcome)
	assert.Empty(t, c.Failures())
	assert.Less(t, c.Summary().Slowest, lease+3*time.Second)
	nothingLost(t, c, s.Addresses.New)
}
