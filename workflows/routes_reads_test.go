package workflows

import (
	"testing"

	"github.com/stretchr/testify/require"

	"transship/internal/routing"
)

var openUploads = []routing.Upload{{Repository: "restricted/a", Session: "u1", Commits: "sha256:1"}, {Repository: "restricted/a", Session: "u2"}}

// flipWith is a flip with uploads open, up to the release.
func (s *site) flipWith(uploads []routing.Upload) []func() {
	q := claimOf("restricted", "m")
	var steps []func()
	for _, update := range []string{routing.UpdateClaim, routing.UpdateWatch, routing.UpdateHold, routing.UpdateFlip, routing.UpdateRelease} {
		q.Uploads = nil
		if update == routing.UpdateFlip {
			q.Uploads = uploads
		}
		_, step := s.ask(update, q)
		steps = append(steps, step)
	}
	return steps
}

func (s *site) route(edge string) routing.Route {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, _ := s.has[edge].Lookup("restricted")
	return r
}

func TestAFlipTellsEveryEdgeWhatIsOpenAndWhereElseToRead(t *testing.T) {
	s := &site{t: t}
	q := claimOf("restricted", "m")
	q.Uploads = openUploads[:1]
	settled, settle := s.ask(routing.UpdateSettle, q)
	var flipped, after []routing.Route
	note := func(into *[]routing.Route) func() {
		return func() {
			for _, e := range three {
				*into = append(*into, s.route(e))
			}
		}
	}
	_ = s.run(routing.Routing{}, append(s.flipWith(openUploads), note(&flipped), settle, note(&after))...)
	require.NoError(t, settled.err)
	for i := range three {
		require.Equal(t, "new", flipped[i].Backend)
		require.Equal(t, "old", flipped[i].Other)
		require.Equal(t, openUploads, flipped[i].Uploads)
		require.Equal(t, routing.Digests, flipped[i].Fallback)
		require.Equal(t, openUploads[1:], after[i].Uploads)
	}
}

// A deletion goes on only when no edge reads any more what it deletes: every edge reads less before any lets deletions go on.
func TestEveryEdgeReadsLessBeforeAnyLetsADeletionGoOn(t *testing.T) {
	s := &site{t: t}
	q := claimOf("restricted", "m")
	q.Deletes = routing.DeletesManifest
	narrowed, narrow := s.ask(routing.UpdateNarrow, q)
	again, repeat := s.ask(routing.UpdateNarrow, q)
	var seen []routing.Route
	handed := 0
	_ = s.run(routing.Routing{}, append(s.flipWith(nil), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.fail = func(_ string, table routing.Table) error {
			r, _ := table.Lookup("restricted")
			seen = append(seen, r)
			return nil
		}
	}, narrow, func() { handed = len(seen) }, repeat)...)
	require.NoError(t, narrowed.err)
	require.NoError(t, again.err)
	require.Len(t, seen, 6)
	require.Equal(t, 6, handed, "the second deletion finds it done")
	for i, r := range seen {
		require.Equal(t, routing.Blobs, r.Fallback)
		require.Equal(t, i < 3, r.Narrowing)
	}
}

func TestADeletionIsRefusedWhenAnEdgeCannotBeTold(t *testing.T) {
	s := &site{t: t}
	q := claimOf("restricted", "m")
	q.Deletes = routing.DeletesBlob
	narrowed, narrow := s.ask(routing.UpdateNarrow, q)
	_ = s.run(routing.Routing{}, append(s.flipWith(nil), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.fail = func(edge string, _ routing.Table) error {
			if edge == "e2" {
				return errDown
			}
			return nil
		}
	}, narrow)...)
	require.ErrorContains(t, narrowed.err, "edge e2")
	require.True(t, s.route("e1").Narrowing, "deletions wait there")
}

func TestACanaryIsOnEveryEdgeOrNoneAndEndsAtTheFlip(t *testing.T) {
	s := &site{t: t}
	q := claimOf("restricted", "m")
	q.Canary = &routing.Canary{Scope: routing.Digests, Percent: 10}
	set, canary := s.ask(routing.UpdateCanary, q)
	late, tooLate := s.ask(routing.UpdateCanary, q)
	steps := s.flipWith(nil)
	var during, after routing.Route
	_ = s.run(routing.Routing{}, steps[0], steps[1], canary, func() { during = s.route("e3") }, steps[2], steps[3], steps[4], func() { after = s.route("e3") }, tooLate)
	require.NoError(t, set.err)
	require.Equal(t, q.Canary, during.Canary)
	require.Equal(t, "old", during.Backend)
	require.Nil(t, after.Canary)
	require.ErrorContains(t, late.err, "a canary comes before the flip")

	s = &site{t: t}
	s.fail = func(edge string, table routing.Table) error {
		if r, _ := table.Lookup("restricted"); edge == "e2" && r.Canary != nil {
			return errDown
		}
		return nil
	}
	set, canary = s.ask(routing.UpdateCanary, q)
	_ = s.run(routing.Routing{}, s.flipWith(nil)[0], s.flipWith(nil)[1], canary)
	require.ErrorContains(t, set.err, "edge e2")
	require.Nil(t, s.route("e1").Canary)
}

// An edge that is down blocks a flip, unless somebody orders to go on without it; it has the present table before it counts again.
func TestAnEdgeIsLeftOutOnlyByOrderAndUntilItHasTheTable(t *testing.T) {
	for _, without := range [][]string{nil, {"e3"}} {
		s := &site{t: t}
		away := false
		s.fail = func(edge string, _ routing.Table) error {
			if edge == "e3" && away {
				return errDown
			}
			return nil
		}
		q := claimOf("restricted", "m")
		_, claim := s.ask(routing.UpdateClaim, q)
		_, watch := s.ask(routing.UpdateWatch, q)
		q.Without = without
		_, leaveOut := s.ask(routing.UpdateLeaveOut, q)
		held, hold := s.ask(routing.UpdateHold, q)
		flipped, flip := s.ask(routing.UpdateFlip, q)
		_, release := s.ask(routing.UpdateRelease, q)
		var during, after routing.Routing
		set := func(is bool) func() { return func() { s.mu.Lock(); away = is; s.mu.Unlock() } }
		_ = s.run(routing.Routing{}, claim, watch, set(true), leaveOut, hold, flip, release, func() { during = s.table() }, set(false), func() { after = s.table() })
		if without == nil {
			require.ErrorContains(t, held.err, "edge e3")
			require.Equal(t, "old", during.Table.Routes[0].Backend)
			continue
		}
		require.NoError(t, held.err)
		require.NoError(t, flipped.err)
		require.True(t, during.Edges[2].LeftOut)
		require.Equal(t, "new", during.Table.Routes[0].Backend)
		require.False(t, after.Edges[2].LeftOut, "it was given the table as soon as it answered")
		require.Equal(t, after.Table.Generation, after.Edges[2].Generation)
		require.Equal(t, "watched new", s.mode())
	}
}

// Found by the model: an edge that was left out, and missed nothing, was never given the table again. It believed that flips go on without it, and took no writes.
func TestAnEdgeThatIsLeftOutForNothingTakesPartAgain(t *testing.T) {
	s := &site{t: t}
	q := claimOf("restricted", "m")
	_, claim := s.ask(routing.UpdateClaim, q)
	_, watch := s.ask(routing.UpdateWatch, q)
	q.Without = []string{"e3"}
	left, leaveOut := s.ask(routing.UpdateLeaveOut, q)
	var after routing.Routing
	_ = s.run(routing.Routing{}, claim, watch, leaveOut, func() { after = s.table() })
	require.NoError(t, left.err)
	require.False(t, after.Edges[2].LeftOut)
	require.Equal(t, after.Table.Generation, after.Edges[2].Generation)
}
