//go:build lab

package edge

import (
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"transship/internal/routing"
)

const (
	known   = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
	missing = "sha256:2222222222222222222222222222222222222222222222222222222222222222"
)

func flipped(fallback routing.Scope) routing.Route {
	r := route("restricted", routing.Watched, "new")
	r.Other, r.Fallback = "old", fallback
	return r
}

// Promise 2: a digest that only the old backend has is read from there after the flip, is counted, and is brought over.
func TestADigestThatTheNewBackendLacksIsReadFromTheOldAndCarriedOver(t *testing.T) {
	n := newNode(t)
	n.lacks = map[string]bool{"new " + missing: true, "new gone": true}
	n.apply(1, flipped(routing.Digests))
	for path, want := range map[string]string{
		"/v2/restricted/x/blobs/" + known:       "new",
		"/v2/restricted/x/blobs/" + missing:     "old",
		"/v2/restricted/x/manifests/" + missing: "old",
		"/v2/restricted/x/manifests/v1":         "new",
	} {
		got := n.send(http.MethodGet, path, "")
		require.Equal(t, http.StatusOK, got.status, path)
		require.Equal(t, want, got.body, path)
	}
	require.Equal(t, http.StatusOK, n.send(http.MethodHead, "/v2/restricted/x/manifests/"+missing, "").status)
	require.Equal(t, http.StatusNotFound, n.send(http.MethodHead, "/v2/restricted/x/blobs/"+missing, "").status, "whoever is about to push must not skip what the new backend lacks")
	require.Equal(t, http.StatusNotFound, n.send(http.MethodGet, "/v2/restricted/x/manifests/gone", "").status, "a tag is read where it is written, and nowhere else")
	require.Eventually(t, func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return len(n.carried) == 2
	}, 5*time.Second, 10*time.Millisecond, "each is asked for once")
	require.ElementsMatch(t, []string{"old restricted/x " + missing, "old restricted/x " + missing}, n.carried)
	served := func() bool { return n.Status(t.Context()).Fallbacks["restricted"].Served == 3 }
	require.Eventually(t, served, 5*time.Second, 10*time.Millisecond, "nginx logs a read after it was answered")
	require.Zero(t, n.Status(t.Context()).Fallbacks["restricted"].Failed)

	n.apply(2, flipped(routing.Blobs))
	require.Equal(t, http.StatusNotFound, n.send(http.MethodGet, "/v2/restricted/x/manifests/"+missing, "").status, "a manifest was deleted")
	require.Equal(t, "old", n.send(http.MethodGet, "/v2/restricted/x/blobs/"+missing, "").body)
	n.apply(3, flipped(routing.Nothing))
	require.Equal(t, http.StatusNotFound, n.send(http.MethodGet, "/v2/restricted/x/blobs/"+missing, "").status)
}

func TestADigestThatNeitherHasIsUnknown(t *testing.T) {
	n := newNode(t)
	n.lacks = map[string]bool{"new " + missing: true, "old " + missing: true}
	n.apply(1, flipped(routing.Digests))
	got := n.send(http.MethodGet, "/v2/restricted/x/blobs/"+missing, "")
	require.Equal(t, http.StatusNotFound, got.status)
	require.Contains(t, got.body, "old does not have it", "the answer is a registry's own")
}

func TestAReadCanaryTakesItsShareAndItsNetworks(t *testing.T) {
	n := newNode(t)
	n.lacks = map[string]bool{"new " + missing: true}
	canary := func(generation int64, percent int, networks ...string) {
		r := route("restricted", routing.Watched, "old")
		r.Canary = &routing.Canary{Scope: routing.Digests, Percent: percent, Networks: networks}
		n.apply(generation, r)
	}
	share := func() (fromNew int) {
		for range 400 {
			got := n.send(http.MethodGet, "/v2/restricted/x/blobs/"+known, "")
			require.Equal(t, http.StatusOK, got.status)
			if got.body == "new" {
				fromNew++
			}
		}
		return fromNew
	}
	canary(1, 0)
	require.Zero(t, share())
	canary(2, 25)
	require.InDelta(t, 100, share(), 50)
	canary(3, 100)
	require.Equal(t, 400, share())
	require.Equal(t, "old", n.send(http.MethodGet, "/v2/restricted/x/blobs/"+missing, "").body, "what the new one lacks comes from the old")
	require.Equal(t, "old", n.send(http.MethodGet, "/v2/restricted/x/manifests/v1", "").body, "a tag is read where it is written")
	require.Equal(t, "old", n.send(http.MethodGet, "/v2/other/x/blobs/"+known, "").body)
	canary(4, 0, "10.0.0.0/8")
	require.Zero(t, share())
	canary(5, 0, "10.0.0.0/8", "127.0.0.0/8")
	require.Equal(t, 400, share())
}

// A new backend that is down fails no read of a canary.
func TestAReadCanarySurvivesItsBackend(t *testing.T) {
	n := newNode(t)
	n.Upstreams[0].Address = free(t) // nobody listens there
	r := route("restricted", routing.Watched, "old")
	r.Canary = &routing.Canary{Scope: routing.Digests, Percent: 100}
	n.apply(1, r)
	require.Equal(t, "old", n.send(http.MethodGet, "/v2/restricted/x/blobs/"+known, "").body)
	require.Eventually(t, func() bool { return n.Status(t.Context()).Fallbacks["restricted"].Failed == 1 }, 5*time.Second, 10*time.Millisecond)

	n.lacks = map[string]bool{"old " + missing: true}
	got := n.send(http.MethodGet, "/v2/restricted/x/blobs/"+missing, "")
	require.Equal(t, http.StatusServiceUnavailable, got.status, "nobody knows whether it is there: no client may take that for an answer")
	require.Equal(t, "5", got.retryAfter)
}

// An upload session lives where it was opened, through whatever edge it goes on.
func TestAnUploadSessionOfTheTableGoesToTheBackendThatHasIt(t *testing.T) {
	n := newNode(t)
	r := flipped(routing.Digests)
	r.Uploads = []routing.Upload{{Repository: "restricted/x", Session: "elsewhere"}}
	n.apply(1, r)
	put := <-n.write("/v2/restricted/x/blobs/uploads/elsewhere?digest=" + known)
	require.Equal(t, http.StatusCreated, put.status)
	require.Equal(t, []string{"PUT /v2/restricted/x/blobs/uploads/elsewhere"}, n.reached("old"))
	require.Equal(t, []string{"old restricted/x " + known}, n.carried, "carried over before it was answered")
	entry := n.journaled("/v2/restricted/x/blobs/uploads/elsewhere")
	require.Equal(t, "old", entry.Backend, "the journal names who has it, not who passed it on")
	require.Equal(t, http.StatusCreated, (<-n.write("/v2/restricted/x/blobs/uploads/another")).status)
	require.Equal(t, []string{"PUT /v2/restricted/x/blobs/uploads/another"}, n.reached("new"))

	n.gate.Close()
	refused := <-n.write("/v2/restricted/x/blobs/uploads/elsewhere?digest=" + known)
	require.Equal(t, http.StatusServiceUnavailable, refused.status, "without the gate nobody can tell where it lives")
	require.Equal(t, "5", refused.retryAfter)
}

// Promise 4: a node that may have missed a flip takes no write until it has the present table.
func TestANodeWhoseNginxWasAwayAsksBeforeItServesWrites(t *testing.T) {
	n := newNode(t)
	n.apply(1, route("restricted", routing.Watched, "old"))
	n.state.Nginx.Started++ // as after a restart of nginx
	again, err := New(n.Config, n.log, n.tell())
	require.NoError(t, err)
	again.state.Nginx.Started++
	n.gate.Handler = again.Gate()
	require.NoError(t, again.Prepare(t.Context(), "old"))
	require.True(t, again.Unsure())
	waits := n.write("/v2/restricted/x/manifests/v1")
	require.Equal(t, "old", n.send(http.MethodGet, "/v2/restricted/x/manifests/v1", "").body, "reads are never held")
	require.Equal(t, http.StatusCreated, n.send(http.MethodPut, "/v2/other/x/manifests/v1", "p").status, "and what nobody moves is not either")
	require.Eventually(t, func() bool { return again.Gate().Parked("restricted") == 1 }, 3*time.Second, 2*time.Millisecond)
	now := table(5, flipped(routing.Digests))
	require.NoError(t, again.CaughtUp(t.Context(), &now, time.Now()))
	require.Equal(t, http.StatusCreated, (<-waits).status)
	require.Equal(t, []string{"PUT /v2/restricted/x/manifests/v1"}, n.reached("new"))
}

// Found by the model: the worker died before the node knew what it had missed, and the next one believed that it had missed nothing, because nginx was the same.
func TestAWorkerThatStartsAgainDoubtsWhatTheOneBeforeDoubted(t *testing.T) {
	n := newNode(t)
	n.apply(1, route("restricted", routing.Watched, "old"))
	n.mayHaveMissed(t.Context())
	n.apply(2, route("restricted", routing.Watched, "old"), route("other", routing.Watched, "old"))
	require.True(t, n.Unsure(), "a table may have been on its way for long")
	again, err := New(n.Config, n.log, n.tell())
	require.NoError(t, err)
	require.NoError(t, again.Prepare(t.Context(), "old"))
	require.True(t, again.Unsure())
	require.Error(t, again.CaughtUp(t.Context(), nil, time.Now().Add(-time.Minute)), "it asked too long ago")
	require.True(t, again.Unsure())
	require.NoError(t, again.CaughtUp(t.Context(), nil, time.Now()))
	require.False(t, again.Unsure())
}

// Found by the model: the flags were newer than the state, and nothing held writes when the gate died.
func TestAnUnsureNodeWhoseFlagsAreNewerThanItsStateHoldsWritesToo(t *testing.T) {
	n := newNode(t)
	before := n.state
	n.apply(1, route("restricted", routing.Watched, "old"))
	before.Nginx = nginxProcess{}
	require.NoError(t, before.save(n.State))
	again, err := New(n.Config, n.log, n.tell())
	require.NoError(t, err)
	require.NoError(t, again.Prepare(t.Context(), "old"))
	require.True(t, again.Unsure())
	n.gate.Close()
	require.Equal(t, "old", n.send(http.MethodGet, "/v2/restricted/x/manifests/v1", "").body)
	require.Equal(t, http.StatusServiceUnavailable, n.send(http.MethodPut, "/v2/restricted/x/manifests/v1", "p").status)
}

func TestANodeWithoutFlagsServesReadsAndRefusesWritesOfKnownPrefixes(t *testing.T) {
	n := newNode(t)
	n.apply(1, route("restricted", routing.Watched, "old"))
	require.NoError(t, os.RemoveAll(n.flags()))
	require.Equal(t, "old", n.send(http.MethodGet, "/v2/restricted/x/manifests/v1", "").body)
	require.Equal(t, http.StatusCreated, n.send(http.MethodPut, "/v2/other/x/manifests/v1", "p").status)
	n.gate.Close()
	require.Equal(t, http.StatusServiceUnavailable, n.send(http.MethodPut, "/v2/restricted/x/manifests/v1", "p").status)
}
