package edge

import (
	"errors"
	"slices"
	"time"

	"transship/internal/routing"
)

// routes is workflows/routes.go with the decisions of routing/steps.go: one change at a time, its state survives whatever its workers do.
type routes struct {
	w *world
	routing.Routing
	changes     []func(done func())
	changing    bool
	paused      int64
	reconciling bool
}

// later runs a step of the workflow when a worker runs workflows.
func (r *routes) later(ms int64, f func()) {
	var step func()
	step = func() {
		if r.w.now < r.paused {
			r.w.at(r.paused, 1, step)
			return
		}
		f()
	}
	r.w.at(r.w.now+ms, 1, step)
}

// change waits for its turn, as at the workflow's mutex.
func (r *routes) change(f func(done func())) {
	r.changes = append(r.changes, f)
	r.next()
}

func (r *routes) next() {
	if r.changing || len(r.changes) == 0 {
		return
	}
	r.changing = true
	f := r.changes[0]
	r.changes = r.changes[1:]
	r.later(1, func() {
		f(func() { r.changing = false; r.keepUp(); r.next() })
	})
}

func (r *routes) behind() (edges []int) {
	for i, e := range r.Edges {
		if e.Generation < r.Table.Generation {
			edges = append(edges, i)
		}
	}
	return edges
}

// keepUp is the loop of Routes.
func (r *routes) keepUp() {
	if r.reconciling || len(r.behind()) == 0 {
		return
	}
	r.reconciling = true
	r.later(reconcile, func() {
		out := slices.DeleteFunc(r.behind(), func(i int) bool { return !r.Edges[i].LeftOut })
		r.handWithin(out, outLimit, func(error) {
			r.change(func(done func()) {
				present := slices.DeleteFunc(r.behind(), func(i int) bool { return r.Edges[i].LeftOut })
				r.hand(present, func(error) { r.reconciling = false; done() })
			})
		})
	})
}

// leaveOut has it handed the table until it takes it.
func (r *routes) leaveOut(i int) {
	e := &r.Edges[i]
	e.LeftOut, e.Generation = true, min(e.Generation, r.Table.Generation-1)
	r.keepUp()
}

func (r *routes) push(t routing.Table, then func(error)) {
	r.Table = t
	var present []int
	for i, e := range r.Edges {
		if !e.LeftOut {
			present = append(present, i)
		}
	}
	r.hand(present, then)
}

func (r *routes) hand(edges []int, then func(error)) { r.handWithin(edges, bounded, then) }

// handWithin is what hand and Temporal do: an attempt whose worker is not heard from is made again, within bounds.
func (r *routes) handWithin(edges []int, limit int64, then func(error)) {
	t := r.Table
	left := len(edges)
	var failed error
	if left == 0 {
		r.later(1, func() { then(nil) })
		return
	}
	for _, i := range edges {
		n := r.w.nodes[i]
		attempt, over := 0, false
		finish := func(err error) {
			if over {
				return
			}
			over = true
			r.later(1, func() {
				if err == nil {
					e := &r.Edges[i]
					e.Generation = max(e.Generation, t.Generation)
					e.LeftOut = e.LeftOut && e.Generation < r.Table.Generation
				} else {
					if failed == nil || errors.Is(failed, ErrHoldLost) {
						failed = err
					}
				}
				if left--; left == 0 {
					then(failed)
				}
			})
		}
		var try func()
		try = func() {
			attempt++
			mine, epoch := attempt, n.epoch
			n.send(func() {
				if over || mine != attempt || !n.up {
					return
				}
				n.take(t, func(err error) {
					switch {
					case mine != attempt:
					case errors.Is(err, errNginxAway): // to be tried again
						r.w.at(r.w.now+100, 1, func() {
							if !over {
								try()
							}
						})
					default:
						finish(err)
					}
				})
			})
			var listen func()
			listen = func() {
				switch {
				case over || mine != attempt:
				case n.epoch != epoch || !n.works() || n.w.now < n.cut:
					try()
				default:
					r.w.at(r.w.now+heartbeat, 0, listen)
				}
			}
			r.w.at(r.w.now+heartbeat, 0, listen)
		}
		try()
		r.w.at(r.w.now+limit, 0, func() { finish(errDown) })
	}
}

var errDown = errors.New("no answer in time")

// take goes through the steps of a change.
func (r *routes) take(s routing.Steps, then func(error)) {
	if len(s.Routes) == 0 {
		then(nil)
		return
	}
	route := s.Routes[0]
	r.w.note("Routes: %s %s, generation %d", route.Mode, route.Backend, r.Table.Generation+1)
	r.push(r.Table.With(route), func(err error) {
		switch {
		case err == nil, s.Back == nil, r.w.rules.opensEarly && route.Mode == routing.Switched:
			s.Routes = s.Routes[1:]
			r.take(s, then)
		default:
			r.w.note("Routes: back to %s %s, because %v", s.Back.Mode, s.Back.Backend, err)
			r.back(s.Undo(route), func() { then(err) })
		}
	})
}

func (r *routes) back(way []routing.Route, then func()) {
	if len(way) > 1 && r.w.rules.backAtOnce {
		way = way[1:]
	}
	var again func()
	again = func() {
		r.push(r.Table.With(way[0]), func(err error) {
			switch {
			case len(way) == 1:
				then()
				return
			case err == nil, errors.Is(err, ErrHoldLost): // whoever lost the hold never switched
				way = way[1:]
			}
			again()
		})
	}
	again()
}

func (r *routes) request(w *world, hold string) routing.Request {
	return routing.Request{Prefix: modelPrefix, Hold: hold, Lease: time.Duration(w.Lease) * time.Millisecond}
}

func (r *routes) hold(q routing.Request, answer func(error)) {
	r.change(func(done func()) {
		s, err := r.Table.HoldSteps(q)
		if err != nil {
			answer(err)
			done()
			return
		}
		r.take(s, func(err error) { answer(err); done() })
	})
}

func (r *routes) flip(q routing.Request, answer func(error)) {
	r.change(func(done func()) {
		s, err := r.Table.FlipSteps(q)
		if len(s.Routes) > 1 && (r.w.rules.skipsPrepared || r.w.rules.oneStepForOne && len(r.Edges) == 1) {
			s.Routes = s.Routes[1:]
		}
		if err != nil {
			answer(err)
			done()
			return
		}
		r.take(s, func(err error) { answer(err); done() })
	})
}

func (r *routes) release(q routing.Request, answer func(serving string)) {
	r.change(func(done func()) {
		s := r.Table.ReleaseSteps(q)
		if len(s.Routes) > 0 && r.w.rules.dropsUploads {
			s.Routes[0].Uploads = nil
		}
		if route, ok := r.Table.Lookup(modelPrefix); ok && r.w.rules.backAfterRelease && len(s.Routes) > 0 && route.Mode == routing.Switched {
			old := s.Routes[0]
			old.Backend, old.Other = old.Other, old.Backend
			s.Back = &old
		}
		r.take(s, func(error) {
			route, _ := r.Table.Lookup(modelPrefix)
			answer(route.Backend)
			done()
		})
	})
}

// settle takes uploads from the table that have ended and were carried over.
func (r *routes) settle(over []routing.Upload, then func()) {
	r.change(func(done func()) {
		route, _ := r.Table.Lookup(modelPrefix)
		left := slices.DeleteFunc(slices.Clone(route.Uploads), func(u routing.Upload) bool { return slices.Contains(over, u) })
		if len(left) == len(route.Uploads) {
			then()
			done()
			return
		}
		route.Uploads = left
		r.push(r.Table.With(route), func(error) { then(); done() })
	})
}

// asked is answer: what Routes does when an edge asks.
func (r *routes) asked(i int, ask routing.EdgeAsks) {
	r.change(func(done func()) {
		if r.Edges[i].Generation = ask.Table.Generation; r.Edges[i].LeftOut {
			r.leaveOut(i)
		}
		s := r.Table.RanOutSteps(ask.RanOut)
		if len(s.Routes) > 0 && r.w.rules.alwaysForward && s.Routes[0].Backend != backends[1] {
			s.Routes[0].Backend, s.Routes[0].Other = s.Routes[0].Other, s.Routes[0].Backend
		}
		switch {
		case len(s.Routes) > 0:
			r.take(s, func(error) { done() })
		case ask.Table.Generation != r.Table.Generation:
			r.hand([]int{i}, func(error) { done() })
		default:
			done()
		}
	})
}
