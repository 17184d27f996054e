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
	"transship/internal/edge"
	"transship/internal/routing"
)

// Routes is the only writer of the routing table: a single long-lived workflow that takes one change at a time, hands the new table to every
// edge, and answers when they have confirmed it. It refuses overlapping claims and steps that do not follow from the one before, and it
// keeps at edges that were away until they have the present table.
//
// A flip is a two-phase commit. Every edge holds before any is prepared, is prepared before any is switched, and is switched before any
// opens to the new backend. Until the first of them opens, every failure goes back to the old backend; from then on there is only forward.
func Routes(ctx workflow.Context, state routing.Routing) error {
	r := &routes{Routing: state, lock: workflow.NewMutex(ctx)}
	if err := r.listen(ctx); err != nil {
		return err
	}
	asks := workflow.GetSignalChannel(ctx, routing.SignalEdgeAsks)
	for {
		var ask routing.EdgeAsks
		for asks.ReceiveAsync(&ask) {
			if err := r.answer(ctx, ask); err != nil {
				return err
			}
		}
		if workflow.GetInfo(ctx).GetContinueAsNewSuggested() {
			if err := workflow.Await(ctx, func() bool { return workflow.AllHandlersFinished(ctx) }); err != nil {
				return err
			}
			if asks.Len() == 0 {
				return workflow.NewContinueAsNewError(ctx, Routes, r.Routing)
			}
			continue
		}
		wake := func() bool {
			return asks.Len() > 0 || workflow.GetInfo(ctx).GetContinueAsNewSuggested()
		}
		if len(r.behind()) == 0 {
			if err := workflow.Await(ctx, func() bool { return wake() || len(r.behind()) > 0 }); err != nil {
				return err
			}
		}
		if woken, err := workflow.AwaitWithTimeout(ctx, reconcileEvery, wake); err != nil {
			return err
		} else if !woken {
			if err := r.reconcile(ctx); err != nil {
				return err
			}
		}
	}
}

// reconcileEvery is how long edges that lack the present table are left alone between two tries.
const reconcileEvery = 5 * time.Second

type routes struct {
	routing.Routing
	lock workflow.Mutex
}

func (r *routes) listen(ctx workflow.Context) error {
	err := workflow.SetQueryHandler(ctx, routing.QueryTable, func() (routing.Routing, error) { return r.Routing, nil })
	for _, u := range []struct {
		name     string
		validate func(routing.Request) error
		change   func(workflow.Context, routing.Request) error
	}{
		{routing.UpdateClaim, r.mayClaim, r.claim},
		{routing.UpdateWatch, r.owns, r.watch},
		{routing.UpdateHold, r.mayHold, r.hold},
		{routing.UpdateFlip, r.owns, r.flip},
		{routing.UpdateRelease, r.owns, r.release},
		{routing.UpdateDisown, nil, r.disown},
		{routing.UpdateSettle, nil, r.settle},
		{routing.UpdateNarrow, r.owns, r.narrow},
		{routing.UpdateCanary, r.owns, r.canary},
	} {
		if err != nil {
			return fmt.Errorf("routes: %w", err)
		}
		options := workflow.UpdateHandlerOptions{}
		if u.validate != nil {
			options.Validator = func(_ workflow.Context, q routing.Request) error { return u.validate(q) }
		}
		err = workflow.SetUpdateHandlerWithOptions(ctx, u.name, func(ctx workflow.Context, q routing.Request) (routing.Routing, error) {
			if err := r.lock.Lock(ctx); err != nil {
				return r.Routing, err
			}
			defer r.lock.Unlock()
			// What held when the update was accepted may have changed while it waited for its turn.
			again := u.validate
			if u.name == routing.UpdateHold { // it looks for the freezes of others by itself
				again = r.owns
			}
			if again != nil {
				if err := again(q); err != nil {
					return r.Routing, err
				}
			}
			r.Freezes = nil
			err := u.change(ctx, q)
			return r.Routing, err
		}, options)
	}
	if err != nil {
		return fmt.Errorf("routes: %w", err)
	}
	// It waits for no other change: that may be waiting for just this edge.
	return workflow.SetUpdateHandler(ctx, routing.UpdateLeaveOut, func(ctx workflow.Context, q routing.Request) (routing.Routing, error) {
		r.leaveOut(ctx, q.Without)
		return r.Routing, nil
	})
}

func refuse(kind, format string, args ...any) error {
	return temporal.NewNonRetryableApplicationError(fmt.Sprintf(format, args...), kind, nil)
}

func (r *routes) mayClaim(q routing.Request) error {
	if _, err := routing.ParsePrefix(q.Prefix.String()); err != nil {
		return refuse(routing.RefusedOverlap, "%v", err)
	}
	if other, ok := r.Table.Overlapping(q.Prefix); ok {
		who := "was moved to backend " + other.Backend
		if other.Owner != "" {
			who = "is being moved by " + other.Owner
		}
		return refuse(routing.RefusedOverlap, "%s overlaps %s, which %s: a repository can belong to one route only", q.Prefix, other.Prefix, who)
	}
	serving := r.Table.Default
	if serving == "" {
		serving = q.Default
	}
	if route, ok := r.Table.Lookup(q.Prefix); ok {
		if route.Owner != "" && route.Owner != q.Owner {
			return refuse(routing.RefusedOverlap, "%s is being moved by %s already", q.Prefix, route.Owner)
		}
		serving = route.Backend
	}
	if serving != q.From {
		return refuse(routing.RefusedOverlap, "%s is served by backend %s, not by %s: migrate it from %s", q.Prefix, serving, q.From, serving)
	}
	return nil
}

func (r *routes) owns(q routing.Request) error {
	route, ok := r.Table.Lookup(q.Prefix)
	if !ok || route.Owner != q.Owner {
		return refuse(routing.RefusedOverlap, "%s is not claimed by %s", q.Prefix, q.Owner)
	}
	return nil
}

// claim notes whose prefix it is. Nothing changes for the edges.
func (r *routes) claim(_ workflow.Context, q routing.Request) error {
	if r.Table.Default == "" {
		r.Table.Default = q.Default
	}
	for _, name := range q.Edges {
		if !slices.ContainsFunc(r.Edges, func(e routing.EdgeState) bool { return e.Edge == name }) {
			r.Edges = append(r.Edges, routing.EdgeState{Edge: name})
		}
	}
	slices.SortFunc(r.Edges, func(a, b routing.EdgeState) int { return strings.Compare(a.Edge, b.Edge) })
	route, ok := r.Table.Lookup(q.Prefix)
	if ok && route.Owner == q.Owner { // asked again, or a run that was terminated left its claim to this one
		route.Other = q.To
		r.replace(route)
		return nil
	}
	route = routing.Route{Prefix: q.Prefix, Backend: q.From, Other: q.To, Mode: routing.Open, Owner: q.Owner}
	r.replace(route)
	return nil
}

// replace changes what edges need not know.
func (r *routes) replace(route routing.Route) {
	generation := r.Table.Generation
	r.Table = r.Table.With(route)
	r.Table.Generation = generation
}

// watch has the writes of a claimed prefix announced and journaled from now on.
func (r *routes) watch(ctx workflow.Context, q routing.Request) error {
	route, _ := r.Table.Lookup(q.Prefix)
	if route.Mode != routing.Open {
		return nil
	}
	r.leaveOut(ctx, q.Without)
	before := route
	route.Mode = routing.Watched
	if err := r.push(ctx, r.Table.With(route), bounded); err != nil {
		r.back(ctx, before)
		return err
	}
	return nil
}

// hold parks the writes of a watched prefix on every edge, or on none.
func (r *routes) hold(ctx workflow.Context, q routing.Request) error {
	if err := r.awaitTurn(ctx, q); err != nil {
		return err
	}
	steps, err := r.Table.HoldSteps(q)
	if err != nil {
		return refusedStep(err)
	}
	return r.take(ctx, steps)
}

// othersFrozen reports whether another prefix is frozen.
func (r *routes) othersFrozen(q routing.Request) bool {
	return slices.ContainsFunc(r.Table.Routes, func(o routing.Route) bool { return o.Prefix != q.Prefix && o.Mode.Parks() })
}

// mayHold lets the freeze of another prefix come to its end first. Side by side they would take turns at every step, and each would hold its writes for as long as all of
// them take. Whoever is refused asks again.
func (r *routes) mayHold(q routing.Request) error {
	if err := r.owns(q); err != nil {
		return err
	}
	if r.othersFrozen(q) && !q.Beside {
		return refuse(routing.RefusedBusy, "another prefix is frozen: %s has to wait for its turn", q.Prefix)
	}
	return nil
}

// turnLimit is how long a freeze waited here for those of other prefixes, before it was refused and asked again.
const turnLimit = time.Minute

// awaitTurn looks again, now that the lock is held, whether another prefix is frozen.
func (r *routes) awaitTurn(ctx workflow.Context, q routing.Request) error {
	if !r.othersFrozen(q) {
		return nil
	}
	switch workflow.GetVersion(ctx, "one-freeze-at-a-time", workflow.DefaultVersion, 2) {
	case workflow.DefaultVersion:
		return nil
	case 2:
		return r.mayHold(q)
	}
	deadline := workflow.Now(ctx).Add(turnLimit)
	for r.othersFrozen(q) && workflow.Now(ctx).Before(deadline) { // then side by side: one that is stuck must not keep all others waiting
		r.lock.Unlock()
		_, err := workflow.AwaitWithTimeout(ctx, deadline.Sub(workflow.Now(ctx)), func() bool { return !r.othersFrozen(q) })
		if lockErr := r.lock.Lock(ctx); lockErr != nil {
			return lockErr
		}
		if err != nil {
			return err
		}
	}
	return r.owns(q)
}

// flip switches a held prefix to its other backend: reads go there on every edge when it is done, writes are still parked.
func (r *routes) flip(ctx workflow.Context, q routing.Request) error {
	steps, err := r.Table.FlipSteps(q)
	if err != nil {
		return refusedStep(err)
	}
	// A single edge was switched without being prepared once.
	if len(steps.Routes) > 1 && len(r.present()) == 1 && workflow.GetVersion(ctx, "prepare-a-single-edge", workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		steps.Routes = steps.Routes[1:]
	}
	return r.take(ctx, steps)
}

// release lets parked writes go on to the backend of the route. After a switch there is no way back from here.
func (r *routes) release(ctx workflow.Context, q routing.Request) error {
	// Edges that do not take it now are reconciled: they park or refuse until then, and never guess.
	_ = r.take(ctx, r.Table.ReleaseSteps(q))
	return nil
}

func refusedStep(err error) error {
	var refused *routing.RefusedStep
	if errors.As(err, &refused) {
		return refuse(refused.Kind, "%s", refused.Reason)
	}
	return err
}

// take hands the routes of a change to all edges, one after the other: every edge confirms one before any gets the next. When one does not, all go back.
func (r *routes) take(ctx workflow.Context, steps routing.Steps) error {
	for _, route := range steps.Routes {
		if err := r.push(ctx, r.Table.With(route), bounded); err != nil {
			r.undo(ctx, steps.Undo(route))
			return err
		}
	}
	return nil
}

// undo goes back on every edge, step by step. Where an edge may read from the new backend, it waits until that edge reads from the old one again, or an operator
// vouches that it serves nobody (leave-out): until then writes wait, and are refused when the lease is over.
func (r *routes) undo(ctx workflow.Context, way []routing.Route) {
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	if len(way) > 1 && workflow.GetVersion(ctx, "read-old-before-writing-old", workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		way = way[1:]
	}
	if len(way) > 1 {
		if !r.untilTaken(ctx, way[0]) {
			return
		}
		way = way[1:]
	}
	for _, route := range way {
		_ = r.push(ctx, r.Table.With(route), bounded)
	}
}

// untilTaken hands a route to all edges until every one that is not left out has it. Between two tries others may change their prefixes. It is false when this one was changed
// meanwhile, or this run ends.
func (r *routes) untilTaken(ctx workflow.Context, route routing.Route) bool {
	err := r.push(ctx, r.Table.With(route), bounded)
	for wait := time.Second; err != nil && kindOf(err) != routing.RefusedHoldLost; wait = min(2*wait, time.Minute) { // whoever lost the hold never read from the new one
		r.lock.Unlock()
		slept := workflow.Sleep(ctx, wait)
		locked := r.lock.Lock(ctx)
		now, _ := r.Table.Lookup(route.Prefix)
		if slept != nil || locked != nil || now.Mode != route.Mode || now.Hold != route.Hold {
			return false
		}
		err = r.hand(ctx, r.presentBehind(), bounded)
	}
	return true
}

// disown ends a claim. The prefix stays where it is.
func (r *routes) disown(ctx workflow.Context, q routing.Request) error {
	route, ok := r.Table.Lookup(q.Prefix)
	if !ok || route.Owner != q.Owner {
		return nil
	}
	next := r.Table.Without(q.Prefix)
	if route.Backend != r.Table.Default {
		next = r.Table.With(routing.Route{Prefix: q.Prefix, Backend: route.Backend, Mode: routing.Open})
	}
	_ = r.push(ctx, next, bounded)
	return nil
}

// present are the edges that are not left out.
func (r *routes) present() []string {
	return r.names(func(e routing.EdgeState) bool { return !e.LeftOut })
}

// back returns a route to what it was, on every edge that can be reached; the others follow when they can.
func (r *routes) back(ctx workflow.Context, route routing.Route) {
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	_ = r.push(ctx, r.Table.With(route), bounded)
}

// bounded is how long an edge may take to take a table before the change is given up on it.
const bounded = 20 * time.Second

// push makes a table the present one and hands it to all edges at once. Its error names the edges that did not take it, with a kind that says
// why.
func (r *routes) push(ctx workflow.Context, t routing.Table, limit time.Duration) error {
	r.Table = t
	return r.hand(ctx, r.present(), limit)
}

func (r *routes) hand(ctx workflow.Context, edges []string, limit time.Duration) error {
	futures := make([]workflow.Future, len(edges))
	var a *activities.Edge
	for i, name := range edges {
		futures[i] = workflow.ExecuteActivity(onEdge(ctx, name, limit, fmt.Sprintf("%s takes generation %d", name, r.Table.Generation)), a.ApplyTable, r.Table)
	}
	var troubles []string
	kind := ""
	for i, future := range futures {
		var applied edge.Applied
		err := future.Get(ctx, &applied)
		state := r.edge(edges[i])
		if err == nil {
			state.Generation, state.Seen, state.Trouble = max(state.Generation, applied.Generation), workflow.Now(ctx), ""
			state.LeftOut = state.LeftOut && state.Generation < r.Table.Generation
			r.Freezes = append(r.Freezes, applied.Freezes...)
			continue
		}
		state.Trouble = because(err)
		troubles = append(troubles, "edge "+edges[i]+": "+state.Trouble)
		if k := kindOf(err); kind == "" || k == routing.RefusedHoldLost {
			kind = k
		}
	}
	if len(troubles) == 0 {
		return nil
	}
	if kind == "" {
		kind = routing.RefusedEdge
	}
	return refuse(kind, "%s", strings.Join(troubles, "; "))
}

func (r *routes) edge(name string) *routing.EdgeState {
	i := slices.IndexFunc(r.Edges, func(e routing.EdgeState) bool { return e.Edge == name })
	return &r.Edges[i]
}

func (r *routes) names(which func(routing.EdgeState) bool) []string {
	var names []string
	for _, e := range r.Edges {
		if which(e) {
			names = append(names, e.Edge)
		}
	}
	return names
}

// behind returns the edges that lack the present table.
func (r *routes) behind() []string {
	return r.names(func(e routing.EdgeState) bool { return e.Generation < r.Table.Generation })
}

// presentBehind are those of them that are not left out.
func (r *routes) presentBehind() []string {
	return r.names(func(e routing.EdgeState) bool { return !e.LeftOut && e.Generation < r.Table.Generation })
}

func (r *routes) reconcile(ctx workflow.Context) error {
	// Edges that are left out may keep nobody waiting. Whatever they are given is the present table, and no step of a flip counts them.
	if out := r.names(func(e routing.EdgeState) bool { return e.LeftOut }); len(out) > 0 {
		_ = r.hand(ctx, out, reconcileEvery)
	}
	behind := r.presentBehind()
	if len(behind) == 0 {
		return nil
	}
	if err := r.lock.Lock(ctx); err != nil {
		return err
	}
	defer r.lock.Unlock()
	_ = r.hand(ctx, behind, bounded)
	return nil
}

// answer tells an edge what it should be doing. A hold that ran out ends everywhere: to the old backend when nothing was decided, to the new
// one when all edges had switched.
func (r *routes) answer(ctx workflow.Context, ask routing.EdgeAsks) error {
	if err := r.lock.Lock(ctx); err != nil {
		return err
	}
	defer r.lock.Unlock()
	if ask.Table.Generation > r.Table.Generation {
		workflow.GetLogger(ctx).Warn("an edge has a newer routing table: taking it over", "edge", ask.Edge, "generation", ask.Table.Generation)
		r.Table = ask.Table
	}
	if !slices.ContainsFunc(r.Edges, func(e routing.EdgeState) bool { return e.Edge == ask.Edge }) {
		r.Edges = append(r.Edges, routing.EdgeState{Edge: ask.Edge, Generation: ask.Table.Generation, Seen: workflow.Now(ctx)})
		slices.SortFunc(r.Edges, func(a, b routing.EdgeState) int { return strings.Compare(a.Edge, b.Edge) })
	}
	// What it asks from is what it has: a node that lost its disk has none of the tables that it confirmed. Until it takes the present one it is behind,
	// and reconciled.
	e := r.edge(ask.Edge)
	if e.Generation = ask.Table.Generation; e.LeftOut {
		r.handToLeftOut(ctx, e)
	}
	if steps := r.Table.RanOutSteps(ask.RanOut); len(steps.Routes) > 0 {
		_ = r.take(ctx, steps)
		return nil
	}
	for _, e := range r.Edges {
		if e.Edge == ask.Edge && ask.Table.Generation != r.Table.Generation {
			_ = r.hand(ctx, []string{ask.Edge}, bounded)
		}
	}
	return nil
}
