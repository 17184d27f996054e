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

// FlipSteps switches the reads of a held prefix to its other backend. A single edge is prepared and switched in one step, because nobody else
// has to agree.
func (t Table) FlipSteps(q Request, edges int) (Steps, error) {
	r, _ := t.Lookup(q.Prefix)
	switch {
	case r.Mode == Switched && r.Hold == q.Hold:
		return Steps{}, nil
	case r.Mode != Held || r.Hold != q.Hold:
		return Steps{}, &RefusedStep{RefusedHoldLost, fmt.Sprintf("%s is not held under %s any more", q.Prefix, q.Hold)}
	}
	back := r.released()
	s := Steps{Back: &back}
	if edges > 1 {
		r.Mode, r.Lease = Prepared, q.Lease
		s.Routes = append(s.Routes, r)
	}
	r.Mode, r.Lease = Switched, q.Lease
	r.Backend, r.Other = r.Other, r.Backend
	s.Routes = append(s.Routes, r)
	return s, nil
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
