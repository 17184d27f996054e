package workflows

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"transship/activities"
	"transship/internal/gate"
	"transship/internal/journal"
	"transship/internal/notify"
	"transship/internal/registry"
	"transship/internal/routing"
)

// cutOver tries the steps of a cutover until they succeed in one go. An attempt that does not is given up, not forced: writes go on to the backend
// they had, and it is tried again later. After too many a person is asked.
func (m *migration) cutOver(list []step) step {
	return step{run: func(ctx workflow.Context) error {
		from := m.serving()
		for tried := 1; ; tried++ {
			err := m.attempt(ctx, list)
			if err != nil {
				m.giveUp(ctx)
			}
			if m.serving() != from { // also when it was the answer that got lost, and not the flip
				return nil
			}
			paused := m.state.Paused != nil
			if next := m.boundary(ctx); next != nil {
				return next
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if paused {
				tried--
				continue
			}
			if !m.rollingBack && !worthAnotherTry(err) {
				return err
			}
			m.decide("transship", "gave up a freeze, writes go on to "+from, because(err))
			if tried%m.Policy.Freeze.Attempts == 0 {
				if err := m.askPerson(ctx, tried, err); err != nil {
					return err
				}
				continue
			}
			if err := m.sleep(ctx, m.Policy.Freeze.Pause, m.lossIsAccepted()); err != nil {
				return err
			}
		}
	}}
}

// worthAnotherTry reports whether another freeze may not meet a failure: whatever no activity called final, and some of what they do.
func worthAnotherTry(err error) bool {
	var final *temporal.ApplicationError
	return !errors.As(err, &final) || !final.NonRetryable() ||
		slices.Contains([]string{routing.RefusedHoldLost, routing.RefusedNotDrained, routing.RefusedEdge, kindJournalLost, kindLastDelta}, final.Type())
}

// kindLastDelta: what the last delta carried over is not the same on both sides.
const kindLastDelta = "LastDelta"

// askPerson says that freezes keep failing. On the way there the migration pauses itself; on the way back it goes on trying.
func (m *migration) askPerson(ctx workflow.Context, tried int, cause error) error {
	text := fmt.Sprintf("%d freezes were given up, the last because: %s.", tried, because(cause))
	if m.rollingBack {
		m.waits = "backend " + m.serving() + " to give back what was pushed to it; `transship rollback " + m.Prefix.String() + " --accept-loss` goes back without it"
		m.show()
		m.tell(ctx, notify.Critical, "the rollback needs a person", text+" It is tried again every "+m.Policy.Freeze.Pause.String()+"; it waits for "+m.waits)
		return m.sleep(ctx, m.Policy.Freeze.Pause, m.lossIsAccepted())
	}
	m.tell(ctx, notify.Critical, "paused: the cutover needs a person", text+" `transship resume "+m.Prefix.String()+"` tries again.")
	d := m.decide("transship", "paused", text)
	m.state.Paused = &d
	return m.boundary(ctx)
}

// lossIsAccepted waits for somebody to accept, from now on, that a rollback loses what it cannot carry back.
func (m *migration) lossIsAccepted() func() bool {
	accepts := func() bool { return m.state.Stop != nil && m.state.Stop.AcceptLoss }
	before := accepts()
	return func() bool { return accepts() && !before }
}

// attempt is one cutover, from the last look before the freeze until writes go on. A pause cancels it as long as nothing is decided.
func (m *migration) attempt(ctx workflow.Context, list []step) error {
	m.stored = nil
	// What is listed before the delta does not have writes pile up for the last one.
	listedFirst := m.Storage && workflow.GetVersion(ctx, "uploads-before-the-delta", workflow.DefaultVersion, 1) > workflow.DefaultVersion
	if listedFirst {
		if err := m.uploadsInStore(ctx); err != nil {
			return err
		}
	}
	// The freeze is as long as what is left to carry over.
	if !m.rollingBack {
		if err := m.compareUnread(ctx); err != nil {
			return err
		}
		if _, err := m.delta(ctx, 0); err != nil {
			return err
		}
		m.sampleBefore(ctx)
	} else if !m.state.Stop.AcceptLoss {
		// A target that cannot give back what was pushed to it must not keep the rollback from trying: bounded, and whatever comes of it.
		_, err := m.delta(ctx, m.Policy.Freeze.Lease)
		if kindOf(err) == kindJournalLost { // both sides must be compared, which no freeze has the time for
			_, err = m.delta(ctx, 0)
		}
		if err == nil {
			err = m.compareUnreadUnlessLossIsAccepted(ctx)
		}
		if err != nil {
			workflow.GetLogger(ctx).Warn("nothing was carried back before the freeze", "error", because(err))
		}
	}
	if err := m.welcomeBack(ctx); err != nil {
		return err
	}
	if m.Storage && !listedFirst && workflow.GetVersion(ctx, "uploads-in-the-store", workflow.DefaultVersion, 1) > workflow.DefaultVersion {
		if err := m.uploadsInStore(ctx); err != nil {
			return err
		}
	}
	m.state.Report.Attempts++
	m.state.Report.Freezes = nil
	m.state.Hold = fmt.Sprintf("%s-%d", m.shortRun(), m.state.Report.Attempts)
	inner, cancel := workflow.WithCancel(ctx)
	defer cancel()
	over := false
	workflow.Go(inner, func(ctx workflow.Context) {
		if workflow.Await(ctx, func() bool { return over || m.state.Paused != nil && !m.flipping }) == nil && !over {
			cancel()
		}
	})
	defer func() { over = true }()
	for _, s := range list {
		if err := m.take(inner, s); err != nil {
			return err
		}
	}
	return nil
}

// giveUp lets held writes go on, whatever else is going on, and learns from Routes who serves the prefix.
func (m *migration) giveUp(ctx workflow.Context) {
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	_ = m.letGo(ctx)
}

func (m *migration) letGo(ctx workflow.Context) error {
	var r *activities.Routes
	var after routing.Routing
	err := workflow.ExecuteActivity(toRoutes(ctx, "let writes go on"), r.ReleaseWrites, m.request()).Get(ctx, &after)
	m.frozen, m.flipping = false, false
	if err != nil {
		return err
	}
	m.state.Report.Freezes = append(m.state.Report.Freezes, after.Freezes...)
	if route, ok := after.Table.Lookup(m.Prefix); ok {
		m.state.Flipped = route.Backend == m.To
	}
	return nil
}

// freeze holds the writes of the prefix on all edges.
func (m *migration) freeze(ctx workflow.Context) error {
	m.frozen = true
	var r *activities.Routes
	var after routing.Routing
	if err := workflow.ExecuteActivity(toRoutes(ctx, "hold the writes of "+m.Prefix.String()), r.HoldWrites, m.request()).Get(ctx, &after); err != nil {
		return err
	}
	// It may have waited for its turn. Edges end a hold by their own clocks; this only bounds what is tried meanwhile.
	m.frozenUntil = workflow.Now(ctx).Add(m.Policy.Freeze.Lease)
	for _, e := range after.Edges {
		if !e.LeftOut && slices.Contains(m.state.Without, e.Edge) { // it serves clients, and nobody has read its journal
			return refusal(routing.RefusedEdge, "edge %s is back: the next attempt takes it in", e.Edge)
		}
	}
	return nil
}

// remaining is how much of the freeze is left, less what the flip itself needs.
func (m *migration) remaining(ctx workflow.Context) time.Duration {
	return max(time.Second, m.frozenUntil.Sub(workflow.Now(ctx))-time.Second)
}

// maxOpen bounds the uploads that a routing table carries along: each is about 150 bytes in the history of every change.
const maxOpen = 500

// drain waits for the writes in flight. Uploads go on.
func (m *migration) drain(ctx workflow.Context) error {
	o := gate.DrainOptions{
		Prefix: m.Prefix, Hold: m.state.Hold, Limit: m.Policy.Freeze.Drain, Settle: m.Policy.Freeze.Settle, SessionIdle: m.Policy.Freeze.SessionIdle,
	}
	edges := m.edges()
	futures := make([]workflow.Future, len(edges))
	var a *activities.Edge
	for i, name := range edges {
		futures[i] = workflow.ExecuteActivity(onEdge(ctx, name, m.remaining(ctx), "wait for writes in flight"), a.DrainWrites, o)
	}
	m.lost, m.open, m.drained = nil, nil, map[string]journal.Position{}
	var failed error
	var longest time.Duration
	var closed []string
	for i, future := range futures {
		var d activities.DrainResult
		if err := future.Get(ctx, &d); err != nil {
			failed = err
			continue
		}
		m.drained[edges[i]] = d.Position
		closed = append(closed, d.Drained.Closed...)
		longest = max(longest, d.Drained.Waited)
		for _, u := range d.Drained.Uploads {
			if !slices.Contains(m.open, u) { // a session may have gone through several edges
				m.open = append(m.open, u)
			}
		}
		for _, w := range d.Drained.Lost {
			if t, ok := journal.ParseTarget(w.Method, w.Path, w.Query); ok {
				var unknown journal.Changes
				unknown.Add(t, w.Method)
				m.lost = append(m.lost, unknown.List()...)
			}
		}
	}
	m.open = slices.DeleteFunc(m.open, func(u routing.Upload) bool {
		return u.Session != "" && u.Commits == "" && slices.Contains(closed, u.Session)
	})
	for _, u := range m.stored {
		if !slices.ContainsFunc(m.open, func(o routing.Upload) bool { return o.Session == u.Session }) {
			m.open = append(m.open, u)
		}
	}
	m.note("%s; %d uploads still open, %d writes with unknown end", longest.Round(time.Millisecond), len(m.open), len(m.lost))
	if n := len(m.open); n > maxOpen {
		return refusal(routing.RefusedNotDrained, "%d uploads are open, more than the %d that a flip can follow", n, maxOpen)
	}
	return failed
}

// lastDelta carries over what was acknowledged since the delta before the freeze.
func (m *migration) lastDelta(ctx workflow.Context) error {
	brought, err := m.delta(ctx, m.remaining(ctx))
	if err == nil {
		err = m.apply(ctx, m.serving(), m.other(), m.lost, m.remaining(ctx))
	}
	m.changes = append(brought.changes, m.lost...)
	if names := m.unread(ctx); err == nil && len(names) > 0 {
		err = refusal(kindJournalLost, "edge %s was left out, and what it had acknowledged has not been found by comparing yet", strings.Join(names, ", "))
	}
	if err != nil && m.rollingBack && m.state.Stop.AcceptLoss {
		return m.leaveBehind(ctx, err)
	}
	if err != nil {
		return err
	}
	// What the other side acknowledges from now on is behind where the drain ended.
	for _, name := range m.edges() {
		m.state.Positions[m.other()][name] = m.drained[name]
	}
	m.note("%d writes, %d changes", brought.writes, len(m.changes))
	return nil
}

// verifyLast compares what the last delta touched.
func (m *migration) verifyLast(ctx workflow.Context) error {
	if len(m.changes) == 0 {
		m.note("nothing to compare")
		return nil
	}
	var a *activities.Registries
	var differences []registry.Difference
	p := activities.ApplyParams{From: m.serving(), To: m.other(), Changes: m.changes, Jobs: m.Policy.Mirror.Jobs, Storage: m.Storage}
	err := workflow.ExecuteActivity(onMover(ctx, m.remaining(ctx), "compare what the last delta touched"), a.VerifyChanges, p).Get(ctx, &differences)
	if err != nil {
		return err
	}
	if left := m.left(); len(left) > 0 {
		differences = slices.DeleteFunc(differences, func(d registry.Difference) bool { return slices.Contains(left, d.Repository+":"+d.Tag) })
	}
	if n := len(differences); n > 0 {
		m.state.Report.Checks.Differences = differences
		return refusal(kindLastDelta, "%d things differ after the last delta, such as %s:%s", n, differences[0].Repository, differences[0].Tag)
	}
	m.note("%d changes agree", len(m.changes))
	return nil
}

// flip switches the reads of the prefix to the other backend, on all edges or on none. From here on nothing interrupts until writes go on.
func (m *migration) flip(ctx workflow.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.flipping = true
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	m.state.Uploads = m.open
	q := m.request()
	q.Uploads = m.open
	var r *activities.Routes
	return workflow.ExecuteActivity(toRoutes(ctx, "flip "+m.Prefix.String()+" to "+m.other()), r.FlipPrefix, q).Get(ctx, nil)
}

// release lets the parked writes go on, to the backend that now serves the prefix.
func (m *migration) release(ctx workflow.Context) error {
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	from := m.serving()
	if err := m.letGo(ctx); err != nil {
		return err
	}
	if m.serving() == from {
		return refusal(routing.RefusedHoldLost, "the hold ran out before the flip was complete: %s stays on %s", m.Prefix, from)
	}
	lasted, longest := m.state.Report.Freeze()
	m.note("writes were held for %s, the longest wait of one was %s", lasted.Round(time.Millisecond), longest.Round(time.Millisecond))
	return nil
}
