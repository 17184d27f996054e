package edge

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"transship/internal/routing"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

func TestWhatAnEdgeMayBecome(t *testing.T) {
	now := time.Now()
	leased := func(mode routing.Mode, left time.Duration, lost bool) state {
		r := route("a", mode, "old")
		return state{Table: table(5, r), Leases: map[routing.Prefix]lease{"a": {Hold: "h1", Mode: mode, Deadline: now.Add(left), Lost: lost}}}
	}
	other := route("a", routing.Prepared, "old")
	other.Hold = "h2"
	for _, c := range []struct {
		name string
		from state
		to   routing.Table
		err  error
	}{
		{"a newer table", leased(routing.Held, time.Second, false), table(6, route("a", routing.Watched, "old")), nil},
		{"the same table", leased(routing.Held, time.Second, false), table(5, route("a", routing.Held, "old")), nil},
		{"an older table", leased(routing.Held, time.Second, false), table(4, route("a", routing.Watched, "old")), ErrStale},
		{"prepared from held", leased(routing.Held, time.Second, false), table(6, route("a", routing.Prepared, "old")), nil},
		{"prepared after the deadline", leased(routing.Held, -time.Second, false), table(6, route("a", routing.Prepared, "old")), ErrHoldLost},
		{"prepared after the hold was lost", leased(routing.Held, time.Second, true), table(6, route("a", routing.Prepared, "old")), ErrHoldLost},
		{"prepared under another hold", leased(routing.Held, time.Second, false), table(6, other), ErrHoldLost},
		{"prepared without a hold", state{Table: table(5)}, table(6, route("a", routing.Prepared, "old")), ErrHoldLost},
		{"switched without a hold", state{Table: table(5)}, table(6, route("a", routing.Switched, "new")), ErrHoldLost},
		{"switched from prepared, late", leased(routing.Prepared, -time.Second, false), table(6, route("a", routing.Switched, "new")), nil},
		{"open from switched, late", leased(routing.Switched, -time.Second, false), table(6, route("a", routing.Open, "new")), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := c.from.next(c.to, now)
			require.ErrorIs(t, err, c.err)
			require.Equal(t, c.err == nil, err == nil)
		})
	}
}

func TestARetryDoesNotProlongAHold(t *testing.T) {
	now := time.Now()
	first, err := (state{}).next(table(1, route("a", routing.Held, "old")), now)
	require.NoError(t, err)
	again, err := first.next(table(2, route("a", routing.Held, "old")), now.Add(10*time.Second))
	require.NoError(t, err)
	require.Equal(t, first.Leases, again.Leases)
	require.WithinDuration(t, now.Add(15*time.Second), first.Leases["a"].Deadline, time.Second)
	require.Zero(t, first.Leases["a"].Deadline.Nanosecond(), "nginx and the gate end it at the same moment")
	next, err := again.next(table(3, route("a", routing.Prepared, "old")), now.Add(10*time.Second))
	require.NoError(t, err)
	require.True(t, next.Leases["a"].Deadline.After(first.Leases["a"].Deadline), "the next mode has a lease of its own")
}

func TestATableThatIsWrongIsNotTaken(t *testing.T) {
	_, err := (state{}).next(routing.Table{Generation: 1}, time.Now())
	require.ErrorContains(t, err, "no default backend")
}

func TestAnEdgeRemembersItsStateAndItsHoldsAcrossARestart(t *testing.T) {
	c := settings(t.TempDir())
	s, err := (state{}).next(table(9, route("a", routing.Held, "old")), time.Now())
	require.NoError(t, err)
	require.NoError(t, s.save(c.State))
	e, err := New(c, slog.New(slog.DiscardHandler), Tell{Expired: func(routing.Route) {}})
	require.NoError(t, err)
	require.EqualValues(t, 9, e.Table().Generation)
	rule, ok := e.Gate().Rule("a")
	require.True(t, ok)
	require.Equal(t, routing.Held, rule.Mode)
	require.Equal(t, "h1", rule.Hold)
	require.True(t, s.Leases["a"].Deadline.Equal(rule.Deadline))
}

func TestAStateThatCannotBeReadIsAnErrorAndNoEmptyState(t *testing.T) {
	c := settings(t.TempDir())
	require.NoError(t, os.WriteFile(c.State, []byte("{"), 0o600))
	_, err := New(c, slog.New(slog.DiscardHandler), Tell{})
	require.ErrorContains(t, err, "edge state")
}

func TestFilesThatCannotBeWrittenAreNamed(t *testing.T) {
	dir := t.TempDir()
	c := settings(filepath.Join(dir, "absent"))
	c.State = filepath.Join(dir, "state.json")
	e, err := New(c, slog.New(slog.DiscardHandler), Tell{})
	require.NoError(t, err)
	_, err = e.Apply(context.Background(), table(1))
	require.ErrorIs(t, err, ErrUnwritable)
	require.ErrorContains(t, err, "give the edge worker's user write access to "+c.Directory)
	require.Zero(t, e.Table().Generation, "the edge is as it was")
	var findings []string
	for _, f := range e.Check(context.Background()) {
		if !f.OK {
			findings = append(findings, f.What)
			require.NotEmpty(t, f.Cure)
		}
	}
	require.Contains(t, findings, "edge e1: generated files can be written to "+c.Directory)
}

func TestFilesThatAreRejectedArePutBackAndThoseThatWereNotThereRemoved(t *testing.T) {
	c := settings(t.TempDir())
	require.NoError(t, os.WriteFile(filepath.Join(c.Directory, FileHTTP), []byte("before"), 0o600))
	c.TestCommand = []string{"false"}
	changed, err := c.install(context.Background(), map[string]string{FileHTTP: "after", FileServer: "after"})
	require.ErrorIs(t, err, ErrRejected)
	require.False(t, changed)
	have, err := c.installed()
	require.NoError(t, err)
	require.Equal(t, map[string]string{FileHTTP: "before"}, have)
}

func TestAStepThatTookEffectAfterTheHoldRanOutIsTakenBack(t *testing.T) {
	at := func(mode routing.Mode, end time.Time) state {
		return state{Leases: map[routing.Prefix]lease{"a": {Hold: "h1", Mode: mode, Deadline: end}}}
	}
	past, future := time.Now().Add(-time.Second), time.Now().Add(time.Minute)
	require.ErrorIs(t, stillHeld(at(routing.Held, past), at(routing.Prepared, future)), ErrHoldLost)
	require.NoError(t, stillHeld(at(routing.Held, future), at(routing.Prepared, future)))
	require.NoError(t, stillHeld(at(routing.Prepared, past), at(routing.Switched, future)), "prepared writes are refused, not let through")
}

func TestAnEdgeThatLostItsStateServesReadsByItsFlagsUntilRoutesTellsIt(t *testing.T) {
	c := settings(t.TempDir())
	require.NoError(t, c.raise(state{Table: table(7, route("a", routing.Open, "new"))}, time.Time{}))
	e, err := New(c, slog.New(slog.DiscardHandler), Tell{})
	require.NoError(t, err)
	require.NoError(t, e.Prepare(context.Background(), "old"))
	require.Equal(t, []string{"held", "route.new"}, raised(t, c, "a"), "what was moved is not put back on the default backend, and writes wait")
	require.Zero(t, e.Table().Generation, "so that Routes sees that this edge needs its table")
}
