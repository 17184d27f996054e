package workflows

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"transship/internal/edge"
	"transship/internal/routing"
)

// site is a Routes workflow with three edges that remember what they were handed.
type site struct {
	t   *testing.T
	env *testsuite.TestWorkflowEnvironment

	mu sync.Mutex
	// over says that the workflow has ended.
	over bool
	// fail makes an edge refuse a table.
	fail func(edge string, t routing.Table) error
	has  map[string]routing.Table
	log  []string // "edge mode backend", in the order in which the tables took effect
}

var three = []string{"e1", "e2", "e3"}

func claimOf(prefix, owner string) routing.Request {
	return routing.Request{
		Prefix: routing.Prefix(prefix), Owner: owner, From: "old", To: "new", Default: "old", Edges: three, Hold: "h1", Lease: 15 * time.Second,
	}
}

// run has Routes take the steps, a minute apart, and then ends it.
func (s *site) run(state routing.Routing, steps ...func()) error {
	s.has, s.over = map[string]routing.Table{}, false
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	s.env = suite.NewTestWorkflowEnvironment()
	s.env.SetTestTimeout(10 * time.Second)
	s.env.RegisterActivity(&fakeEdges{s})
	for i, step := range append(steps, func() { s.env.CancelWorkflow() }) {
		s.env.RegisterDelayedCallback(step, time.Duration(i+1)*time.Minute)
	}
	s.env.ExecuteWorkflow(Routes, state)
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	require.True(s.t, s.env.IsWorkflowCompleted())
	return s.env.GetWorkflowError()
}

type fakeEdges struct{ s *site }

func (f *fakeEdges) ApplyTable(ctx context.Context, t routing.Table) (edge.Applied, error) {
	name := onWhich(ctx)
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if f.s.over { // it outlasted its workflow, whose test looks at what there is
		return edge.Applied{}, errOver
	}
	if f.s.fail != nil {
		if err := f.s.fail(name, t); err != nil {
			return edge.Applied{}, err
		}
	}
	if t.Generation < f.s.has[name].Generation {
		return edge.Applied{}, final(routing.RefusedStale)
	}
	f.s.has[name] = t
	what := name + " nothing"
	if r, ok := t.Lookup("restricted"); ok {
		what = fmt.Sprintf("%s %s %s", name, r.Mode, r.Backend)
	}
	f.s.log = append(f.s.log, what)
	return edge.Applied{Edge: name, Generation: t.Generation}, nil
}

// asked is what became of an Update.
type asked struct {
	err      error
	after    routing.Routing
	rejected bool
	done     bool
}

func (a *asked) Accept()          {}
func (a *asked) Reject(err error) { a.err, a.rejected, a.done = err, true, true }
func (a *asked) Complete(success any, err error) {
	a.err, a.done = err, true
	if r, ok := success.(routing.Routing); ok {
		a.after = r
	}
}

// ask makes a step that asks for a change; the answer is in the result afterwards.
func (s *site) ask(update string, q routing.Request) (*asked, func()) {
	a := &asked{}
	return a, func() { s.env.UpdateWorkflow(update, "", a, q) }
}

func (s *site) table() routing.Routing {
	value, err := s.env.QueryWorkflow(routing.QueryTable)
	require.NoError(s.t, err)
	var r routing.Routing
	require.NoError(s.t, value.Get(&r))
	return r
}

// mode is how all edges see the prefix; a mixture is named as such.
func (s *site) mode() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := map[string]bool{}
	for _, name := range three {
		r, ok := s.has[name].Lookup("restricted")
		if !ok {
			r.Mode, r.Backend = "nothing", routing.Route{}.Backend
		}
		seen[strings.TrimSpace(string(r.Mode)+" "+r.Backend)] = true
	}
	if len(seen) > 1 {
		return fmt.Sprintf("mixed: %v", seen)
	}
	for m := range seen {
		return m
	}
	return ""
}

func TestAnOverlappingClaimIsRefusedAndNamesTheOther(t *testing.T) {
	for _, c := range []struct {
		name   string
		second routing.Request
		reason string
	}{
		{"above", claimOf("re", "migrate/re"), ""},
		{"a sibling", claimOf("restricted2", "migrate/restricted2"), ""},
		{"below", claimOf("restricted/a", "migrate/restricted/a"), "restricted/a overlaps restricted, which is being moved by migrate/restricted: a repository can belong to one route only"},
		{"the same by another", claimOf("restricted", "somebody"), "restricted is being moved by migrate/restricted already"},
		{"the same again", claimOf("restricted", "migrate/restricted"), ""},
		{"no prefix", claimOf("a/../b", "x"), "relative parts"},
		{"from a backend that does not serve it", routing.Request{Prefix: "other", Owner: "o", From: "new", To: "old", Default: "old", Edges: three}, "other is served by backend old, not by new"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &site{t: t}
			first, one := s.ask(routing.UpdateClaim, claimOf("restricted", "migrate/restricted"))
			second, two := s.ask(routing.UpdateClaim, c.second)
			var after routing.Routing
			err := s.run(routing.Routing{}, one, two, func() { after = s.table() })
			require.True(t, temporal.IsCanceledError(err))
			require.NoError(t, first.err)
			require.Empty(t, s.log, "a claim changes nothing for the edges")
			if c.reason == "" {
				require.NoError(t, second.err)
				return
			}
			require.True(t, second.rejected)
			require.ErrorContains(t, second.err, c.reason)
			require.Equal(t, routing.RefusedOverlap, kindOf(second.err))
			require.Len(t, after.Table.Routes, 1)
		})
	}
}

func TestAnOverlapWithAPrefixThatWasMovedIsRefusedAsWell(t *testing.T) {
	s := &site{t: t}
	state := routing.Routing{Table: routing.Table{Generation: 4, Default: "old", Routes: []routing.Route{{Prefix: "restricted", Backend: "new", Mode: routing.Open}}}}
	claim, one := s.ask(routing.UpdateClaim, claimOf("restricted/a", "m"))
	_ = s.run(state, one)
	require.ErrorContains(t, claim.err, "restricted/a overlaps restricted, which was moved to backend new")
}

func TestStepsOfOneWhoHasNotClaimedAreRefused(t *testing.T) {
	for _, update := range []string{routing.UpdateWatch, routing.UpdateHold, routing.UpdateFlip, routing.UpdateRelease} {
		s := &site{t: t}
		_, claim := s.ask(routing.UpdateClaim, claimOf("restricted", "m"))
		other, step := s.ask(update, claimOf("restricted", "eve"))
		_ = s.run(routing.Routing{}, claim, step)
		require.True(t, other.rejected)
		require.ErrorContains(t, other.err, "restricted is not claimed by eve")
		require.Empty(t, s.log)
	}
}

func TestStepsOutOfOrderAreRefused(t *testing.T) {
	s := &site{t: t}
	q := claimOf("restricted", "m")
	_, claim := s.ask(routing.UpdateClaim, q)
	early, hold := s.ask(routing.UpdateHold, q)
	flipped, flip := s.ask(routing.UpdateFlip, q)
	_, watch := s.ask(routing.UpdateWatch, q)
	_, held := s.ask(routing.UpdateHold, q)
	other := q
	other.Hold = "h2"
	wrong, wrongFlip := s.ask(routing.UpdateFlip, other)
	again, wrongHold := s.ask(routing.UpdateHold, other)
	_ = s.run(routing.Routing{}, claim, hold, flip, watch, held, wrongFlip, wrongHold)
	for _, a := range []*asked{early, flipped, wrong, again} {
		require.Equal(t, routing.RefusedHoldLost, kindOf(a.err), "%v", a.err)
	}
	require.Equal(t, "held old", s.mode())
}
