package routing

import "fmt"

// Steps are the routes that a change hands to all edges, one after the other: every edge confirms one before any gets the next.
type Steps struct {
	Routes []Route
	// Back is handed to all edges when one of Routes was not confirmed by all; nil when there is no way back.
	Back *Route
}

// RefusedStep is a step that does not follow from the one before.
type RefusedStep struct{ Kind, Reason string }

func (e *RefusedStep) Error() string { return e.Kind + ": " + e.Reason }

// HoldSteps parks the writes of a watched prefix. Asked again for the same hold there is nothing left to do.
func (t Table) HoldSteps(q Request) (Steps, error) {
	r, _ := t.Lookup(q.Prefix)
	switch {
	case r.Mode == Held && r.Hold == q.Hold:
		return Steps{}, nil
	case r.Mode != Watched:
		return Steps{}, &RefusedStep{RefusedHoldLost, fmt.Sprintf("%s is %s: it cannot be held", q.Prefix, r.Mode)}
	}
	back := r
	r.Mode, r.Hold, r.Lease = Held, q.Hold, q.Lease
	return Steps{Routes: []Route{r}, Back: &back}, nil
}

// FlipSteps switches the reads of a held prefix to its other backend. Uploads that are open live on the backend that served until now, which is also where digests
// are read that the other one does not have.
func (t Table) FlipSteps(q Request) (Steps, error) {
	r, _ := t.Lookup(q.Prefix)
	switch {
	case r.Mode == Switched && r.Hold == q.Hold:
		return Steps{}, nil
	case r.Mode != Held || r.Hold != q.Hold:
		return Steps{}, &RefusedStep{RefusedHoldLost, fmt.Sprintf("%s is not held under %s any more", q.Prefix, q.Hold)}
	}
	back := r.released()
	prepared := r
	prepared.Mode, prepared.Lease = Prepared, q.Lease
	switched := prepared
	switched.Mode, switched.Backend, switched.Other = Switched, r.Other, r.Backend
	switched.Uploads, switched.Fallback, switched.Canary, switched.Narrowing = q.Uploads, Digests, nil, false
	if r.Canary != nil && len(r.Canary.Networks) > 0 {
		switched.Canary = &Canary{Networks: r.Canary.Networks} // it reads nothing any more, and nginx need not be reloaded within the freeze
	}
	return Steps{Routes: []Route{prepared, switched}, Back: &back}, nil
}

// Undo is the way back from a step that not every edge confirmed. Where some may read from the new backend already, everybody reads from the old one again before
// anybody writes to it: otherwise a tag would go back in time for those who read it through an edge that follows late.
func (s Steps) Undo(failed Route) []Route {
	switch {
	case s.Back == nil:
		return nil
	case failed.Mode != Switched:
		return []Route{*s.Back}
	}
	parked := *s.Back
	parked.Mode, parked.Hold, parked.Lease = Prepared, failed.Hold, failed.Lease
	return []Route{parked, *s.Back}
}

// ReleaseSteps lets parked writes go on to the backend of the route. After a switch there is no way back from here.
func (t Table) ReleaseSteps(q Request) Steps {
	r, _ := t.Lookup(q.Prefix)
	if !r.Mode.Parks() || r.Hold != q.Hold {
		return Steps{} // it ran out, or was given up, before
	}
	return Steps{Routes: []Route{r.released()}}
}

// RanOutSteps ends, on all edges, a hold whose lease ran out at one of them.
func (t Table) RanOutSteps(hold string) Steps {
	for _, r := range t.Routes {
		if hold != "" && r.Hold == hold {
			return Steps{Routes: []Route{r.released()}}
		}
	}
	return Steps{}
}

func (r Route) released() Route {
	r.Mode, r.Hold, r.Lease = Watched, "", 0
	return r
}
