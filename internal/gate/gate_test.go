package gate

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"transship/internal/journal"
	"transship/internal/routing"
)

const prefix = routing.Prefix("restricted")

func newGate() *Gate { return New(slog.New(slog.DiscardHandler), 3*time.Second) }

func ask(g *Gate, endpoint, id, method, path string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, endpoint, nil)
	for k, v := range map[string]string{HeaderID: id, HeaderPrefix: string(prefix), HeaderMethod: method, HeaderPath: path, HeaderPID: "7"} {
		r.Header.Set(k, v)
	}
	w := httptest.NewRecorder()
	g.ServeHTTP(w, r)
	return w
}

func asked(g *Gate, endpoint, id, method, path string) <-chan *httptest.ResponseRecorder {
	answer := make(chan *httptest.ResponseRecorder, 1)
	go func() { answer <- ask(g, endpoint, id, method, path) }()
	return answer
}

func parked(t *testing.T, g *Gate, n int) {
	t.Helper()
	require.Eventually(t, func() bool { return g.Parked(prefix) == n }, 5*time.Second, time.Millisecond)
}

func held(d time.Duration) Rule {
	return Rule{Mode: routing.Held, Backend: "old", Sessions: "old", Hold: "h1", Deadline: time.Now().Add(d)}
}

func alive(int) bool { return true }

func drainOptions(limit time.Duration) DrainOptions {
	return DrainOptions{Prefix: prefix, Hold: "h1", Limit: limit, SessionIdle: time.Minute}
}

func TestHeldWriteWaitsAndGoesOnToTheBackendOfTheRelease(t *testing.T) {
	g := newGate()
	g.Set(prefix, held(time.Minute))
	answer := asked(g, "/hold", "a", "PUT", "/v2/restricted/x/manifests/v1")
	parked(t, g, 1)
	g.Set(prefix, Rule{Mode: routing.Prepared, Backend: "old", Hold: "h1", Deadline: time.Now().Add(time.Minute)})
	g.Set(prefix, Rule{Mode: routing.Switched, Backend: "new", Hold: "h1", Deadline: time.Now().Add(time.Minute)})
	select {
	case <-answer:
		t.Fatal("the write went on while the prefix was still parked")
	case <-time.After(20 * time.Millisecond):
	}
	ended, was := g.Set(prefix, Rule{Mode: routing.Watched, Backend: "new"})
	require.True(t, was)
	assert.Equal(t, 1, ended.Parked)
	assert.GreaterOrEqual(t, ended.Longest, 20*time.Millisecond)
	assert.GreaterOrEqual(t, ended.Lasted, ended.Longest)
	w := <-answer
	assert.Equal(t, http.StatusNoContent, w.Code)
	assert.Equal(t, "new", w.Header().Get(HeaderBackend))
	assert.Len(t, g.InFlight(prefix), 1, "a released write is in flight until the journal says that it ended")
	assert.Zero(t, g.Parked(prefix))
}

func TestHeldOpensByItselfAtItsDeadline(t *testing.T) {
	g := newGate()
	g.Set(prefix, held(30*time.Millisecond))
	w := ask(g, "/hold", "a", "PUT", "/v2/restricted/x/manifests/v1")
	assert.Equal(t, http.StatusNoContent, w.Code)
	assert.Equal(t, "old", w.Header().Get(HeaderBackend))
}

func TestPreparedAndSwitchedRefuseAtTheirDeadline(t *testing.T) {
	for _, mode := range []routing.Mode{routing.Prepared, routing.Switched} {
		g := newGate()
		g.Set(prefix, Rule{Mode: mode, Backend: "new", Hold: "h1", Deadline: time.Now().Add(30 * time.Millisecond)})
		w := ask(g, "/hold", "a", "PUT", "/v2/restricted/x/manifests/v1")
		assert.Equal(t, http.StatusServiceUnavailable, w.Code)
		assert.Equal(t, "3", w.Header().Get("Retry-After"))
	}
}

func TestAWriteOfAnOldNginxWorkerIsSentToTheHold(t *testing.T) {
	g := newGate()
	g.Set(prefix, held(time.Minute))
	assert.Equal(t, http.StatusConflict, ask(g, "/begin", "a", "PUT", "/v2/restricted/x/manifests/v1").Code)
	assert.Empty(t, g.InFlight(prefix))
}

func TestUploadSessionsPassUntilTheDrainIsOver(t *testing.T) {
	g := newGate()
	g.Set(prefix, Rule{Mode: routing.Watched, Backend: "old"})
	open := journal.Entry{ID: "o", At: time.Now(), Method: "POST", Path: "/v2/restricted/x/blobs/uploads/", Status: 202, Session: "u1", Backend: "old"}
	require.Equal(t, http.StatusNoContent, ask(g, "/begin", "o", "POST", open.Path).Code)
	g.Ended(open)
	g.Set(prefix, held(time.Minute))

	w := ask(g, "/hold", "p", "PUT", "/v2/restricted/x/blobs/uploads/u1")
	assert.Equal(t, "old", w.Header().Get(HeaderBackend))

	done := make(chan Drained)
	go func() {
		d, err := g.Drain(t.Context(), drainOptions(time.Minute), alive)
		assert.NoError(t, err)
		done <- d
	}()
	select {
	case <-done:
		t.Fatal("drained while an upload was in flight")
	case <-time.After(20 * time.Millisecond):
	}
	g.Ended(journal.Entry{ID: "p", At: time.Now(), Method: "PUT", Path: "/v2/restricted/x/blobs/uploads/u1", Query: "digest=sha256:ab", Status: 201, Backend: "old"})
	assert.Zero(t, (<-done).Uploads)

	asked(g, "/hold", "q", "PUT", "/v2/restricted/x/blobs/uploads/u2")
	parked(t, g, 1)
}

func TestDrainReportsUploadsThatStayOpenAndGivesUpOnNames(t *testing.T) {
	g := newGate()
	g.Set(prefix, Rule{Mode: routing.Watched, Backend: "old"})
	ask(g, "/begin", "o", "POST", "/v2/restricted/x/blobs/uploads/")
	g.Ended(journal.Entry{ID: "o", At: time.Now(), Method: "POST", Path: "/v2/restricted/x/blobs/uploads/", Status: 202, Session: "u1", Backend: "old"})
	ask(g, "/begin", "m", "PUT", "/v2/restricted/x/manifests/v1")
	g.Set(prefix, held(time.Minute))
	_, err := g.Drain(t.Context(), drainOptions(20*time.Millisecond), alive)
	require.ErrorIs(t, err, ErrNotDrained)
	assert.ErrorContains(t, err, "PUT /v2/restricted/x/manifests/v1")

	g.Ended(journal.Entry{ID: "m", At: time.Now(), Method: "PUT", Path: "/v2/restricted/x/manifests/v1", Status: 201})
	d, err := g.Drain(t.Context(), drainOptions(20*time.Millisecond), alive)
	require.NoError(t, err)
	assert.Equal(t, 1, d.Uploads)
}

func TestDrainReturnsTheWritesOfADeadNginxAsLost(t *testing.T) {
	g := newGate()
	g.Set(prefix, Rule{Mode: routing.Watched, Backend: "old"})
	ask(g, "/begin", "m", "PUT", "/v2/restricted/x/manifests/v1")
	g.Set(prefix, held(time.Minute))
	d, err := g.Drain(t.Context(), drainOptions(time.Minute), func(pid int) bool { return pid != 7 })
	require.NoError(t, err)
	require.Len(t, d.Lost, 1)
	assert.Equal(t, "/v2/restricted/x/manifests/v1", d.Lost[0].Path)
}

func TestDrainDoesNotBelieveAGateThatJustStartedOrWasPassed(t *testing.T) {
	g := newGate()
	g.Set(prefix, held(time.Minute))
	o := drainOptions(10 * time.Millisecond)
	o.Settle = 50 * time.Millisecond
	_, err := g.Drain(t.Context(), o, alive)
	require.ErrorIs(t, err, ErrNotDrained)
	o.Limit = 5 * time.Second
	_, err = g.Drain(t.Context(), o, alive)
	require.NoError(t, err)

	g.Ended(journal.Entry{ID: "never announced", At: time.Now(), Method: "PUT", Path: "/v2/restricted/x/manifests/v1", Status: 201})
	o.Limit = 10 * time.Millisecond
	_, err = g.Drain(t.Context(), o, alive)
	require.ErrorIs(t, err, ErrNotDrained)
}

func TestDrainFailsWhenTheHoldIsLost(t *testing.T) {
	g := newGate()
	g.Set(prefix, held(20*time.Millisecond))
	ask(g, "/hold", "p", "PUT", "/v2/restricted/x/blobs/uploads/u1")
	_, err := g.Drain(t.Context(), drainOptions(time.Minute), alive)
	require.ErrorIs(t, err, ErrHoldLost)
}

func TestAGateThatKnowsNothingOfAHoldRefusesAndDoesNotGuess(t *testing.T) {
	assert.Equal(t, http.StatusServiceUnavailable, ask(newGate(), "/hold", "a", "PUT", "/v2/restricted/x/manifests/v1").Code)
}

func TestARequestThatDoesNotComeFromNginxIsRefused(t *testing.T) {
	w := httptest.NewRecorder()
	newGate().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/begin", nil))
	assert.Equal(t, http.StatusBadRequest, w.Code)
}

func TestAParkedClientThatGivesUpIsForgotten(t *testing.T) {
	g := newGate()
	g.Set(prefix, held(time.Minute))
	server := httptest.NewServer(g)
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/hold", nil)
	require.NoError(t, err)
	req.Header.Set(HeaderID, "a")
	req.Header.Set(HeaderPrefix, string(prefix))
	go func() {
		if resp, err := http.DefaultClient.Do(req); err == nil {
			resp.Body.Close()
		}
	}()
	parked(t, g, 1)
	cancel()
	parked(t, g, 0)
}

func BenchmarkBegin(b *testing.B) {
	g := newGate()
	g.Set(prefix, Rule{Mode: routing.Watched, Backend: "old"})
	for i := range b.N {
		id := fmt.Sprint(i)
		ask(g, "/begin", id, "PUT", "/v2/restricted/x/manifests/v1")
		g.Ended(journal.Entry{ID: id, Status: 201})
	}
}
