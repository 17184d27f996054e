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

func newGate() *Gate { return New(slog.New(slog.DiscardHandler), Options{RetryAfter: 3 * time.Second}) }

func ask(g *Gate, endpoint, id, method, path string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, endpoint, nil)
	for k, v := range map[string]string{HeaderID: id, HeaderPrefix: string(prefix), HeaderMethod: method, HeaderPath: path, HeaderPID: "7"} {
		r.Header.Set(k, v)
	}
	w := httptest.NewRecorder()
	g.ServeHTTP(w, r)
	return w
}

// write is a write with a query.
func write(id, method, path, query string) func(g *Gate, endpoint string) *httptest.ResponseRecorder {
	return func(g *Gate, endpoint string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, endpoint, nil)
		for k, v := range map[string]string{HeaderID: id, HeaderPrefix: string(prefix), HeaderMethod: method, HeaderPath: path, HeaderQuery: query, HeaderPID: "7"} {
			r.Header.Set(k, v)
		}
		w := httptest.NewRecorder()
		g.ServeHTTP(w, r)
		return w
	}
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
	return Rule{Mode: routing.Held, Backend: "old", Other: "new", Hold: "h1", Deadline: time.Now().Add(d)}
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

// opened tells a gate of an upload session that a backend opened.
func opened(g *Gate, id, backend string) {
	g.Ended(journal.Entry{ID: "open " + id, At: time.Now(), Method: "POST", Path: "/v2/restricted/x/blobs/uploads/", Status: 202, Session: id, Backend: backend})
}

func TestUploadSessionsAreNeverParkedAndFinishWhereTheyBegan(t *testing.T) {
	g := newGate()
	g.Set(prefix, Rule{Mode: routing.Watched, Backend: "old", Other: "new"})
	opened(g, "u1", "old")
	deadline := time.Now().Add(time.Minute)
	elsewhere := []routing.Upload{{Repository: "restricted/x", Session: "u2"}}
	for _, c := range []struct {
		rule                 Rule
		method, session, via string
	}{
		{held(time.Minute), "PATCH", "u1", ""},
		{held(time.Minute), "PUT", "u1", "relay"},
		{Rule{Mode: routing.Prepared, Backend: "old", Other: "new", Hold: "h1", Deadline: deadline}, "PATCH", "u1", ""},
		{Rule{Mode: routing.Switched, Backend: "new", Other: "old", Hold: "h1", Deadline: deadline}, "PATCH", "u1", ""},
		{Rule{Mode: routing.Switched, Backend: "new", Other: "old", Hold: "h1", Deadline: deadline, Uploads: elsewhere}, "PATCH", "u2", ""},
		{Rule{Mode: routing.Switched, Backend: "new", Other: "old", Hold: "h1", Deadline: deadline, Uploads: elsewhere}, "PUT", "u2", "relay"},
		{Rule{Mode: routing.Watched, Backend: "new", Other: "old"}, "PATCH", "u1", ""},
		{Rule{Mode: routing.Watched, Backend: "new", Other: "old"}, "PUT", "u1", "relay"},
		{Rule{Mode: routing.Watched, Backend: "new", Other: "old", Uploads: elsewhere}, "PUT", "u2", "relay"},
		{Rule{Mode: routing.Watched, Backend: "old", Other: "new"}, "PUT", "u1", ""},
	} {
		g.Set(prefix, c.rule)
		w := ask(g, "/hold", c.method+c.session, c.method, "/v2/restricted/x/blobs/uploads/"+c.session)
		assert.Equal(t, http.StatusNoContent, w.Code, "%+v", c)
		assert.Equal(t, "old", w.Header().Get(HeaderBackend), "%+v", c)
		assert.Equal(t, c.via, w.Header().Get(HeaderVia), "%+v", c)
	}
	g.Set(prefix, Rule{Mode: routing.Watched, Backend: "new", Other: "old"})
	assert.Equal(t, "new", ask(g, "/begin", "z", "PATCH", "/v2/restricted/x/blobs/uploads/opened-later").Header().Get(HeaderBackend))
}

// Found by the mixed load: a session that was opened at an edge which had opened to the new backend already was looked for on the old one by an edge that had not.
func TestAnUploadOpenedAtAnEdgeThatOpenedEarlierGoesToTheNewBackend(t *testing.T) {
	g := newGate()
	g.Set(prefix, Rule{
		Mode: routing.Switched, Backend: "new", Other: "old", Hold: "h1", Deadline: time.Now().Add(time.Minute),
		Uploads: []routing.Upload{{Repository: "restricted/x", Session: "opened before the flip"}},
	})
	for _, method := range []string{"PATCH", "PUT"} {
		w := ask(g, "/hold", method, method, "/v2/restricted/x/blobs/uploads/opened-after-it")
		assert.Equal(t, http.StatusNoContent, w.Code)
		assert.Equal(t, "new", w.Header().Get(HeaderBackend), method)
	}
}

// Found by the model: an edge that had switched back answered the commit of a session that had stayed on the old backend. Another edge did not switch, all went
// back to the new backend, and the blob was not there.
func TestACommitOnTheBackendToWhichAnEdgeIsSwitchedIsCarriedOver(t *testing.T) {
	g := newGate()
	g.Set(prefix, Rule{Mode: routing.Watched, Backend: "old", Other: "new"})
	opened(g, "u1", "old")
	g.Set(prefix, Rule{Mode: routing.Switched, Backend: "old", Other: "new", Hold: "h2", Deadline: time.Now().Add(time.Minute)})
	w := ask(g, "/hold", "c", "PUT", "/v2/restricted/x/blobs/uploads/u1")
	assert.Equal(t, "old", w.Header().Get(HeaderBackend))
	assert.Equal(t, "relay", w.Header().Get(HeaderVia))
}

func TestOpeningAnUploadIsParkedLikeEverythingElse(t *testing.T) {
	g := newGate()
	g.Set(prefix, held(time.Minute))
	asked(g, "/hold", "q", "POST", "/v2/restricted/x/blobs/uploads/")
	parked(t, g, 1)
}

func TestDrainListsUploadsAndWaitsOnlyForNames(t *testing.T) {
	g := newGate()
	g.Set(prefix, Rule{Mode: routing.Watched, Backend: "old", Other: "new"})
	opened(g, "idle", "old")
	opened(g, "busy", "old")
	w := write("b", "PUT", "/v2/restricted/x/blobs/uploads/busy", "digest=sha256:ab")
	require.Equal(t, http.StatusNoContent, w(g, "/begin").Code)
	ask(g, "/begin", "m", "PUT", "/v2/restricted/x/manifests/v1")
	g.Set(prefix, held(time.Minute))
	_, err := g.Drain(t.Context(), drainOptions(20*time.Millisecond), alive)
	require.ErrorIs(t, err, ErrNotDrained)
	assert.ErrorContains(t, err, "PUT /v2/restricted/x/manifests/v1")

	g.Ended(journal.Entry{ID: "m", At: time.Now(), Method: "PUT", Path: "/v2/restricted/x/manifests/v1", Status: 201})
	began := time.Now()
	d, err := g.Drain(t.Context(), drainOptions(time.Minute), alive)
	require.NoError(t, err)
	assert.Less(t, time.Since(began), 10*time.Second, "an upload in flight does not prolong the freeze")
	assert.Equal(t, []routing.Upload{{Repository: "restricted/x", Session: "busy", Commits: "sha256:ab"}, {Repository: "restricted/x", Session: "idle"}}, d.Uploads)
}

func TestDrainWaitsForUploadsThatAreJustBeingOpened(t *testing.T) {
	g := newGate()
	g.Set(prefix, Rule{Mode: routing.Watched, Backend: "old", Other: "new"})
	ask(g, "/begin", "o", "POST", "/v2/restricted/x/blobs/uploads/")
	g.Set(prefix, held(time.Minute))
	_, err := g.Drain(t.Context(), drainOptions(20*time.Millisecond), alive)
	require.ErrorIs(t, err, ErrNotDrained, "nobody could tell where the session lives")
}

// Found by the model: the table of a rollback named a session that had stayed on the old backend, and edges that did not know it looked for it on the new one.
func TestDrainOfARollbackDoesNotListASessionThatNeverLeft(t *testing.T) {
	g := newGate()
	stayed := []routing.Upload{{Repository: "restricted/x", Session: "elsewhere"}}
	g.Set(prefix, Rule{Mode: routing.Watched, Backend: "new", Other: "old", Uploads: stayed})
	opened(g, "seen here", "old")
	opened(g, "opened since", "new")
	for _, session := range []string{"seen here", "elsewhere", "opened since"} {
		ask(g, "/begin", session, "PATCH", "/v2/restricted/x/blobs/uploads/"+session)
	}
	g.Set(prefix, Rule{Mode: routing.Held, Backend: "new", Other: "old", Uploads: stayed, Hold: "h1", Deadline: time.Now().Add(time.Minute)})
	d, err := g.Drain(t.Context(), drainOptions(time.Minute), alive)
	require.NoError(t, err)
	assert.Equal(t, []routing.Upload{{Repository: "restricted/x", Session: "opened since"}}, d.Uploads)
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

// nginx did not wait for a gate that stood still: what is over is not in flight, and what was refused did not get past.
func TestABeginThatComesAfterTheEndIsNotInFlight(t *testing.T) {
	g := newGate()
	g.Set(prefix, Rule{Mode: routing.Watched, Backend: "old"})
	g.Ended(journal.Entry{ID: "m", At: time.Now(), Method: "PUT", Path: "/v2/restricted/x/manifests/v1", Status: 201})
	assert.Equal(t, http.StatusNoContent, ask(g, "/begin", "m", "PUT", "/v2/restricted/x/manifests/v1").Code)
	assert.Empty(t, g.InFlight(prefix))
}

func TestWhatNeverGotPastTheGateCostsItNoTrust(t *testing.T) {
	g := newGate()
	g.Set(prefix, held(time.Minute))
	for _, status := range []int{401, 403, 405, 413, 429} {
		g.Ended(journal.Entry{ID: fmt.Sprint(status), At: time.Now(), Method: "PUT", Path: "/v2/restricted/x/manifests/v1", Status: status})
	}
	assert.Empty(t, g.unannounced)
	g.Set(prefix, Rule{Mode: routing.Prepared, Backend: "old", Hold: "h1", Deadline: time.Now()})
	require.Equal(t, http.StatusServiceUnavailable, ask(g, "/hold", "refused", "PUT", "/v2/restricted/x/manifests/v1").Code)
	g.Ended(journal.Entry{ID: "refused", At: time.Now(), Method: "PUT", Path: "/v2/restricted/x/manifests/v1", Status: 503})
	assert.Empty(t, g.unannounced)
}

// nginx lets a watched write pass when the gate takes longer than a second: one that was stopped may not know of it.
func TestDrainDoesNotBelieveAGateThatStoodStill(t *testing.T) {
	g := newGate()
	g.started = time.Now().Add(-time.Hour)
	g.Set(prefix, held(time.Minute))
	o := drainOptions(10 * time.Millisecond)
	o.Settle = time.Minute
	g.Awake()
	_, err := g.Drain(t.Context(), o, alive)
	require.NoError(t, err)
	g.awake = time.Now().Add(-2 * asleep)
	_, err = g.Drain(t.Context(), o, alive)
	require.ErrorIs(t, err, ErrNotDrained)
}

func TestDrainFailsWhenTheHoldIsLost(t *testing.T) {
	g := newGate()
	g.Set(prefix, held(20*time.Millisecond))
	ask(g, "/begin", "p", "PUT", "/v2/restricted/x/manifests/v1")
	g.writes["p"] = Write{ID: "p", Prefix: prefix, Method: "PUT", Path: "/v2/restricted/x/manifests/v1"}
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
