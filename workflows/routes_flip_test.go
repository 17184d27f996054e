package workflows

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"

	"transship/internal/routing"
)

// flip makes the steps of a whole cutover.
func (s *site) flip() (answers map[string]*asked, steps []func()) {
	q := claimOf("restricted", "m")
	answers = map[string]*asked{}
	for _, update := range []string{routing.UpdateClaim, routing.UpdateWatch, routing.UpdateHold, routing.UpdateFlip, routing.UpdateRelease, routing.UpdateDisown} {
		a, step := s.ask(update, q)
		answers[update] = a
		steps = append(steps, step)
	}
	return answers, steps
}

func TestEveryEdgeIsHeldBeforeAnyIsPreparedAndPreparedBeforeAnyIsSwitchedAndSwitchedBeforeAnyOpens(t *testing.T) {
	s := &site{t: t}
	answers, steps := s.flip()
	_ = s.run(routing.Routing{}, steps[:5]...)
	for name, a := range answers {
		require.NoError(t, a.err, name)
	}
	var order []string
	for _, line := range s.log {
		_, what, _ := strings.Cut(line, " ")
		order = append(order, what)
	}
	var want []string
	for _, what := range []string{"watched old", "held old", "prepared old", "switched new", "watched new"} {
		want = append(want, what, what, what)
	}
	require.Equal(t, want, order)
}

// An edge that stands still between its hold and the switch would read from the new backend after its hold ran out (internal/edge/model_test.go).
func TestASingleEdgeIsPreparedToo(t *testing.T) {
	s := &site{t: t}
	q := claimOf("restricted", "m")
	q.Edges = []string{"e1"}
	var steps []func()
	for _, update := range []string{routing.UpdateClaim, routing.UpdateWatch, routing.UpdateHold, routing.UpdateFlip, routing.UpdateRelease} {
		_, step := s.ask(update, q)
		steps = append(steps, step)
	}
	_ = s.run(routing.Routing{}, steps...)
	require.Equal(t, []string{"e1 watched old", "e1 held old", "e1 prepared old", "e1 switched new", "e1 watched new"}, s.log)
}

// After a switch that failed, nobody writes to the old backend before everybody reads from it again; an edge that does not answer is waited for, or left out by order.
func TestEverybodyReadsFromTheOldBackendBeforeAnybodyWritesToItAgain(t *testing.T) {
	for _, order := range []bool{false, true} {
		s := &site{t: t}
		away := false
		s.fail = func(edge string, table routing.Table) error {
			r, _ := table.Lookup("restricted")
			if edge == "e2" && r.Mode == routing.Switched {
				away = true
				return errDown
			}
			if edge == "e2" && away {
				return errDown
			}
			return nil
		}
		answers, steps := s.flip()
		var during, after string
		q := claimOf("restricted", "m")
		q.Without = []string{"e2"}
		left, leaveOut := s.ask(routing.UpdateLeaveOut, q)
		back := func() { s.mu.Lock(); away = false; s.mu.Unlock() }
		if order {
			back = leaveOut
		}
		_ = s.run(routing.Routing{}, append(steps[:4:4], func() { during = s.mode() }, back, func() {}, func() { after = s.mode() })...)
		require.ErrorContains(t, answers[routing.UpdateFlip].err, "edge e2")
		require.Contains(t, during, "prepared old")
		require.NotContains(t, during, "watched")
		if order {
			require.NoError(t, left.err)
			require.Contains(t, after, "watched old")
			continue
		}
		require.Equal(t, "watched old", after)
	}
}

func TestAnEdgeThatFailsInAnyPhasePutsTheOldStateBackEverywhere(t *testing.T) {
	for _, c := range []struct {
		mode    routing.Mode
		update  string
		err     error
		kind    string
		finally string
	}{
		{routing.Watched, routing.UpdateWatch, final(routing.RefusedFiles), routing.RefusedFiles, "open old"},
		{routing.Held, routing.UpdateHold, final(routing.RefusedFiles), routing.RefusedFiles, "watched old"},
		{routing.Held, routing.UpdateHold, errDown, routing.RefusedEdge, "watched old"},
		{routing.Prepared, routing.UpdateFlip, final(routing.RefusedHoldLost), routing.RefusedHoldLost, "watched old"},
		{routing.Prepared, routing.UpdateFlip, errDown, routing.RefusedEdge, "watched old"},
		{routing.Switched, routing.UpdateFlip, final(routing.RefusedHoldLost), routing.RefusedHoldLost, "watched old"},
		{routing.Switched, routing.UpdateFlip, errDown, routing.RefusedEdge, "watched old"},
	} {
		t.Run(string(c.mode)+" "+c.kind, func(t *testing.T) {
			s := &site{t: t}
			s.fail = func(edge string, table routing.Table) error {
				if r, _ := table.Lookup("restricted"); edge == "e2" && r.Mode == c.mode {
					return c.err
				}
				return nil
			}
			answers, steps := s.flip()
			at := slices.Index([]string{routing.UpdateClaim, routing.UpdateWatch, routing.UpdateHold, routing.UpdateFlip}, c.update)
			finally := ""
			_ = s.run(routing.Routing{}, append(steps[:at+1:at+1], func() { finally = s.mode() })...)
			require.ErrorContains(t, answers[c.update].err, "edge e2: ")
			require.Equal(t, c.kind, kindOf(answers[c.update].err))
			require.Equal(t, c.finally, finally)
			require.NotContains(t, s.log, "e1 watched new", "no edge opened to the new backend")
		})
	}
}

func TestAReleaseThatAnEdgeMissesReachesItLater(t *testing.T) {
	s := &site{t: t}
	away := true
	s.fail = func(edge string, table routing.Table) error {
		if r, _ := table.Lookup("restricted"); edge == "e3" && away && r.Mode == routing.Watched && r.Backend == "new" {
			return errDown
		}
		return nil
	}
	answers, steps := s.flip()
	before, after, trouble := "", "", ""
	steps = append(steps[:5:5], func() {
		before = s.mode()
		trouble = s.table().Edges[2].Trouble
		s.mu.Lock()
		away = false
		s.mu.Unlock()
	}, func() { after = s.mode() })
	_ = s.run(routing.Routing{}, steps...)
	require.NoError(t, answers[routing.UpdateRelease].err, "there is no way back from here")
	require.Contains(t, before, "mixed")
	require.Contains(t, before, "switched new")
	require.Equal(t, "connection refused", trouble)
	require.Equal(t, "watched new", after)
}

func TestARepeatedStepAnswersAsTheFirst(t *testing.T) {
	s := &site{t: t}
	q := claimOf("restricted", "m")
	var all []*asked
	var steps []func()
	for _, update := range []string{routing.UpdateClaim, routing.UpdateWatch, routing.UpdateHold, routing.UpdateFlip, routing.UpdateRelease, routing.UpdateDisown} {
		for range 2 {
			a, step := s.ask(update, q)
			all, steps = append(all, a), append(steps, step)
		}
	}
	_ = s.run(routing.Routing{}, steps...)
	for i, a := range all {
		require.NoError(t, a.err, "step %d", i)
	}
	require.Len(t, s.log, 6*3, "watch, hold, prepare, switch, release and disown, once at each edge")
}

func TestDisownKeepsTheRouteOfAPrefixThatMovedAndDropsThatOfOneThatDidNot(t *testing.T) {
	s := &site{t: t}
	_, steps := s.flip()
	var after routing.Routing
	_ = s.run(routing.Routing{}, append(steps, func() { after = s.table() })...)
	require.Equal(t, []routing.Route{{Prefix: "restricted", Backend: "new", Mode: routing.Open}}, after.Table.Routes)
	require.Equal(t, "open new", s.mode())

	s = &site{t: t}
	_, steps = s.flip()
	_ = s.run(routing.Routing{}, steps[0], steps[1], steps[5], func() { after = s.table() })
	require.Empty(t, after.Table.Routes)
	require.Equal(t, "nothing", s.mode())
}

func TestAnEdgeThatStartsGetsThePresentTable(t *testing.T) {
	s := &site{t: t}
	_, steps := s.flip()
	asks := func() {
		s.mu.Lock()
		delete(s.has, "e2") // it lost its disk
		s.mu.Unlock()
		s.env.SignalWorkflow(routing.SignalEdgeAsks, routing.EdgeAsks{Edge: "e2"})
	}
	mode := ""
	_ = s.run(routing.Routing{}, append(steps[:2:2], asks, func() { mode = s.mode() })...)
	require.Equal(t, "watched old", mode)
	require.Equal(t, "e2 watched old", s.log[len(s.log)-1])
}

func TestAnEdgeThatHasThePresentTableIsLeftAlone(t *testing.T) {
	s := &site{t: t}
	_, steps := s.flip()
	handed := 0
	_ = s.run(routing.Routing{}, append(steps[:2:2], func() {
		handed = len(s.log)
		s.env.SignalWorkflow(routing.SignalEdgeAsks, routing.EdgeAsks{Edge: "e2", Table: s.has["e2"]})
	})...)
	require.Len(t, s.log, handed)
}

func TestAHoldThatRanOutEndsEverywhere(t *testing.T) {
	for _, c := range []struct {
		until   int
		finally string
	}{{3, "watched old"}, {4, "watched new"}} {
		s := &site{t: t}
		_, steps := s.flip()
		finally := ""
		_ = s.run(routing.Routing{}, append(steps[:c.until:c.until],
			func() {
				s.env.SignalWorkflow(routing.SignalEdgeAsks, routing.EdgeAsks{Edge: "e1", Table: s.has["e1"], RanOut: "h1"})
			},
			func() { finally = s.mode() })...)
		require.Equal(t, c.finally, finally)
	}
}

func TestAnEdgeThatWasAwayIsHandedTheTableUntilItTakesIt(t *testing.T) {
	s := &site{t: t}
	away := true
	s.fail = func(edge string, table routing.Table) error {
		if edge == "e3" && away {
			return errDown
		}
		return nil
	}
	q := claimOf("restricted", "m")
	_, claim := s.ask(routing.UpdateClaim, q)
	watched, watch := s.ask(routing.UpdateWatch, q)
	behind, caught := false, false
	_ = s.run(routing.Routing{}, claim, watch, func() {
		r := s.table()
		behind = r.Edges[2].Generation < r.Table.Generation
		s.mu.Lock()
		away = false
		s.mu.Unlock()
	}, func() {
		r := s.table()
		caught = r.Edges[2].Generation == r.Table.Generation && r.Edges[2].Trouble == ""
	})
	require.ErrorContains(t, watched.err, "edge e3: connection refused")
	require.True(t, behind)
	require.True(t, caught)
	require.Equal(t, "open old", s.mode())
}

func TestRoutesTakesOverANewerTableThatAnEdgeServesBy(t *testing.T) {
	s := &site{t: t}
	served := routing.Table{Generation: 40, Default: "old", Routes: []routing.Route{{Prefix: "restricted", Backend: "new", Mode: routing.Open}}}
	var after routing.Routing
	_ = s.run(routing.Routing{}, func() {
		s.env.SignalWorkflow(routing.SignalEdgeAsks, routing.EdgeAsks{Edge: "e1", Table: served})
	}, func() { after = s.table() })
	require.Equal(t, served, after.Table)
}

func TestRoutesKeepsItsStateInANewRun(t *testing.T) {
	s := &site{t: t}
	_, steps := s.flip()
	var before routing.Routing
	err := s.run(routing.Routing{}, append(steps[:4:4], func() {
		before = s.table()
		s.env.SetContinueAsNewSuggested(true)
		s.env.SignalWorkflow(routing.SignalEdgeAsks, routing.EdgeAsks{Edge: "e1", Table: s.has["e1"]})
	})...)
	require.True(t, workflow.IsContinueAsNewError(err), "%v", err)
	var again *workflow.ContinueAsNewError
	require.True(t, errors.As(err, &again))
	var state routing.Routing
	require.NoError(t, converter.GetDefaultDataConverter().FromPayloads(again.Input, &state))
	require.Equal(t, before.Table, state.Table)
	next := &site{t: t}
	release, step := next.ask(routing.UpdateRelease, claimOf("restricted", "m"))
	start := time.Now()
	_ = next.run(state, step)
	require.NoError(t, release.err)
	require.Equal(t, "watched new", next.mode())
	require.Less(t, time.Since(start), 5*time.Second)
}

// Freezes of several prefixes come one after the other, so that each is as short as if it were alone.
func TestOneFreezeAtATime(t *testing.T) {
	s := &site{t: t}
	first, second := claimOf("restricted", "m"), claimOf("platform", "n")
	second.Hold = "h2"
	var order []string
	s.fail = func(edge string, table routing.Table) error {
		for _, r := range table.Routes {
			if edge == "e1" && r.Mode == routing.Held {
				order = append(order, string(r.Prefix))
			}
		}
		return nil
	}
	var steps []func()
	ask := func(update string, q routing.Request) *asked {
		a, step := s.ask(update, q)
		steps = append(steps, step)
		return a
	}
	for _, q := range []routing.Request{first, second} {
		ask(routing.UpdateClaim, q)
		ask(routing.UpdateWatch, q)
	}
	// Both are accepted while another change is under way; and one is refused at once when the other is frozen.
	third := claimOf("other", "o")
	ask(routing.UpdateClaim, third)
	_, watch := s.ask(routing.UpdateWatch, third)
	one, holdOne := s.ask(routing.UpdateHold, first)
	other, holdOther := s.ask(routing.UpdateHold, second)
	var behind, refused, turn, beside *asked
	now := func(update string, q routing.Request) *asked {
		a, step := s.ask(update, q)
		step()
		return a
	}
	steps = append(steps,
		func() { watch(); holdOne(); holdOther() },
		func() {
			if behind = other; one.err != nil {
				behind, first, second = one, second, first
			}
			refused = now(routing.UpdateHold, second)
		},
		func() { now(routing.UpdateRelease, first) },
		func() { turn = now(routing.UpdateHold, second) },
		func() { first.Beside = true; beside = now(routing.UpdateHold, first) },
	)
	_ = s.run(routing.Routing{}, steps...)
	for _, a := range []*asked{behind, refused} {
		require.Equal(t, routing.RefusedBusy, kindOf(a.err))
	}
	require.False(t, behind.rejected, "it was accepted")
	require.True(t, refused.rejected, "nothing of it is in the history")
	require.NoError(t, turn.err)
	require.NoError(t, beside.err, "one that is stuck keeps nobody waiting for good")
	s.mu.Lock()
	defer s.mu.Unlock()
	require.Equal(t, []string{string(first.Prefix), string(second.Prefix), "platform", "restricted"}, order, "the last table has both")
}
