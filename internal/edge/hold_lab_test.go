//go:build lab

package edge

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"transship/internal/routing"
)

const tag = "/v2/restricted/app/manifests/v1"

func held(lease time.Duration) routing.Route {
	r := route("restricted", routing.Held, "old")
	r.Lease = lease
	return r
}

func TestAHeldWriteWaitsAndGoesOnToTheBackendOfTheRelease(t *testing.T) {
	n := newNode(t)
	n.apply(1, route("restricted", routing.Watched, "old"))
	n.apply(2, held(20*time.Second))
	waiting := n.write(tag)
	n.parked(1)
	require.Empty(t, n.reached("old"), "not a byte reached a backend")
	require.Empty(t, n.reached("new"))

	begin := time.Now()
	read := n.send(http.MethodGet, tag, "")
	require.Equal(t, "old", read.body, "reads are not held")
	require.Less(t, time.Since(begin), time.Second)
	elsewhere := n.send(http.MethodPut, "/v2/restricted2/app/manifests/v1", "p")
	require.Equal(t, http.StatusCreated, elsewhere.status, "other prefixes are not held")

	n.apply(3, route("restricted", routing.Prepared, "old"))
	require.Equal(t, "old", n.send(http.MethodGet, tag, "").body)
	n.apply(4, route("restricted", routing.Switched, "new"))
	require.Equal(t, "new", n.send(http.MethodGet, tag, "").body, "reads go to the new backend at once")
	n.parked(1)
	applied := n.apply(5, route("restricted", routing.Watched, "new"))
	got := <-waiting
	require.NoError(t, got.err)
	require.Equal(t, http.StatusCreated, got.status)
	require.Contains(t, n.reached("new"), "PUT "+tag)
	require.NotContains(t, n.reached("old"), "PUT "+tag)
	require.Len(t, applied.Freezes, 1)
	require.Equal(t, 1, applied.Freezes[0].Parked)
	require.Zero(t, applied.Reload, "a prefix that nginx knows is flipped without a reload")
	e := n.journaled(tag)
	require.Equal(t, "new", e.Backend, "the journal names the backend that acknowledged it")
}

func TestBadCredentialsAreRefusedAtOnceDuringAHold(t *testing.T) {
	n := newNode(t)
	n.apply(1, route("restricted", routing.Watched, "old"))
	n.apply(2, held(20*time.Second))
	for _, password := range []string{"", "wrong"} {
		got := n.send(http.MethodPut, tag, password)
		require.NoError(t, got.err)
		require.Equal(t, http.StatusUnauthorized, got.status)
	}
	require.Zero(t, n.Gate().Parked("restricted"))
}

func TestOtherSpellingsOfAHeldPathAreHeldToo(t *testing.T) {
	n := newNode(t)
	n.apply(1, route("restricted", routing.Watched, "old"))
	n.apply(2, held(20*time.Second))
	var waiting []<-chan answered
	for i, path := range []string{
		"/v2/%72estricted/app/manifests/v1", "/v2//restricted/app/manifests/v1", "/v2/other/../restricted/app/manifests/v1", "/v2/other/%2e%2e/restricted/app/manifests/v1",
	} {
		waiting = append(waiting, n.write(path))
		n.parked(i + 1)
	}
	require.Empty(t, n.reached("old"))
	n.apply(3, route("restricted", routing.Watched, "old"))
	for _, w := range waiting {
		require.NoError(t, (<-w).err)
	}
}

func TestAHoldThatRunsOutLetsWritesGoOnToTheBackendTheyHad(t *testing.T) {
	n := newNode(t)
	n.apply(1, route("restricted", routing.Watched, "old"))
	n.apply(2, held(time.Second))
	got := <-n.write(tag)
	require.Equal(t, http.StatusCreated, got.status)
	require.Less(t, got.took, 3*time.Second)
	require.Contains(t, n.reached("old"), "PUT "+tag)
	select {
	case r := <-n.ranOut:
		require.Equal(t, "h1", r.Hold)
	case <-time.After(3 * time.Second):
		t.Fatal("nobody was told that the lease ran out")
	}
	_, err := n.Apply(t.Context(), table(3, route("restricted", routing.Prepared, "old")))
	require.ErrorIs(t, err, ErrHoldLost)
	require.EqualValues(t, 2, n.Table().Generation)
	require.Equal(t, http.StatusCreated, n.send(http.MethodPut, tag, "p").status)
}

func TestNginxEndsAHoldByItsOwnClockWhenTheGateIsDead(t *testing.T) {
	n := newNode(t)
	n.apply(1, route("restricted", routing.Watched, "old"))
	n.apply(2, held(2*time.Second))
	end := n.state.Leases["restricted"].Deadline
	require.NoError(t, n.gate.Close())
	got := n.send(http.MethodPut, tag, "p")
	require.Equal(t, http.StatusServiceUnavailable, got.status)
	require.Equal(t, "5", got.retryAfter)
	require.Contains(t, got.body, "UNAVAILABLE")
	require.Empty(t, n.reached("old"))
	time.Sleep(time.Until(end) + 200*time.Millisecond)
	got = n.send(http.MethodPut, tag, "p")
	require.Equal(t, http.StatusCreated, got.status)
	require.Contains(t, n.reached("old"), "PUT "+tag)
}

func TestPreparedAndSwitchedWritesAreRefusedAfterTheirLeaseAndNeverGuessed(t *testing.T) {
	n := newNode(t)
	n.apply(1, route("restricted", routing.Watched, "old"))
	n.apply(2, held(20*time.Second))
	for i, mode := range []routing.Mode{routing.Prepared, routing.Switched} {
		r := route("restricted", mode, "old")
		r.Lease = time.Second
		n.apply(int64(3+i), r)
		got := <-n.write(tag)
		require.Equal(t, http.StatusServiceUnavailable, got.status, "%s", mode)
		require.Equal(t, "5", got.retryAfter)
	}
	require.Empty(t, n.reached("old"))
	require.Empty(t, n.reached("new"))
}

func TestAWatchedWritePassesADeadGateAndIsInTheJournal(t *testing.T) {
	n := newNode(t)
	n.apply(1, route("restricted", routing.Watched, "old"))
	require.NoError(t, n.gate.Close())
	got := n.send(http.MethodPut, tag, "p")
	require.Equal(t, http.StatusCreated, got.status)
	require.Less(t, got.took, 3*time.Second)
	n.journaled(tag)
}

func TestAnEdgeThatRestartsInAHoldStillHolds(t *testing.T) {
	n := newNode(t)
	n.apply(1, route("restricted", routing.Watched, "old"))
	n.apply(2, held(20*time.Second))
	again, err := New(n.Config, n.log, n.tell())
	require.NoError(t, err)
	require.NoError(t, again.Prepare(t.Context(), "old"))
	require.EqualValues(t, 2, again.Table().Generation)
	rule, _ := again.Gate().Rule("restricted")
	require.Equal(t, routing.Held, rule.Mode)
	waiting := n.write(tag)
	n.parked(1)
	n.apply(3, route("restricted", routing.Watched, "old"))
	require.Equal(t, http.StatusCreated, (<-waiting).status)
}

func TestAHoldOfAPrefixThatIsCalledLikeANginxWordConcernsNobodyElse(t *testing.T) {
	for _, word := range []routing.Prefix{"default", "none"} {
		n := newNode(t)
		held := routing.Route{Prefix: word, Backend: "new", Other: "old", Mode: routing.Held, Hold: "h1", Lease: 30 * time.Second}
		n.apply(1, held)
		got := <-n.write("/v2/elsewhere/app/manifests/v1")
		require.Equal(t, http.StatusCreated, got.status)
		require.NotEmpty(t, n.reached("old"))
		n.write("/v2/" + word.String() + "/app/manifests/v1")
		require.Eventually(t, func() bool { return n.Gate().Parked(word) == 1 }, 5*time.Second, 5*time.Millisecond, "writes of %s itself are held", word)
	}
}
