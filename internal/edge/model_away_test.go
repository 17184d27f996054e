package edge

import (
	"slices"
	"time"

	"transship/internal/routing"
)

// Nodes that serve nobody for a while. Those that may have missed a table do not know it, and take no write until they do. An operator may order to go on without one
// (--without-edge), whose last writes nobody can read then.

const (
	catchUp  = 15_000       // catchUpPatience
	away     = 8_000        // awayLong
	poll     = 1_000        // edgeNode.catchUp, Edge.watchNginx
	seen     = 2*poll - 100 // how much later Edge.watchNginx may see it
	ordered  = 10_000       // nobody orders to go on without a node sooner
	outLimit = reconcile    // Routes: what it gives an edge that is left out
	compares = 2_000        // what comparing both sides takes
)

// nginxDies takes the requests in flight along.
func (n *modelEdge) nginxDies(until int64) {
	n.backAt = max(n.backAt, until)
	n.w.at(until, 0, n.nginxStarts)
	if !n.nginx {
		return
	}
	n.nginx, n.diedAt, n.busy = false, n.w.now, [2][2]int64{}
	n.pid++
	n.do(100, n.reap)
	n.watchNginx()
}

// nginxStarts brings nginx back. Where a node is left out, its worker is started first (runbooks/edge.md).
func (n *modelEdge) nginxStarts() {
	switch {
	case n.nginx || n.w.now < n.backAt:
	case n.isLeftOut() && (!n.works() || !n.prepared || n.w.now < n.worksSince()+poll+100):
		n.w.at(n.w.now+50, 0, n.nginxStarts)
	default:
		n.nginx = true
		n.w.dirty = true
	}
}

// worksSince is when the worker process started or went on.
func (n *modelEdge) worksSince() int64 { return max(n.started, n.paused) }

func (n *modelEdge) isLeftOut() bool {
	return n.w.routes.Edges[n.i].LeftOut || n.w.owner.without[n.i]
}

// watchNginx is that of the edge.
func (n *modelEdge) watchNginx() {
	pid := n.pid
	var look func()
	look = func() {
		if n.nginx || n.pid != pid {
			return
		}
		n.mayHaveMissed()
		n.do(poll, look)
	}
	n.do(away+seen, look)
}

// mayHaveMissed is that of the edge.
func (n *modelEdge) mayHaveMissed() {
	switch {
	case n.w.rules.trustsItself:
	case n.applying: // it waits for the lock
		if !n.waits {
			n.waits = true
			n.do(5, func() { n.waits = false; n.mayHaveMissed() })
		}
	default:
		n.doubt(n.w.now + catchUp)
	}
}

// doubt is that of the edge.
func (n *modelEdge) doubt(until int64) {
	n.unsure = until
	n.mem.Nginx, n.disk.Nginx = nginxProcess{}, nginxProcess{}
	n.setGate(n.mem)
	n.raiseAnew()
	n.catchUp()
}

// raiseAnew is that of the edge.
func (n *modelEdge) raiseAnew() {
	switch {
	case n.flags.generation <= n.mem.Table.Generation:
		n.raise(n.mem)
	case n.unsure > 0:
		n.flags.held, n.flags.ends = true, time.Time{}
		n.w.dirty = true
	}
}

// beginUnsure is that of the edge: nginx has not been running all the while.
func (n *modelEdge) beginUnsure() {
	if n.nginx && n.mem.Nginx.Master == n.pid {
		return
	}
	n.unsure = n.w.now + catchUp
	n.catchUp()
}

// catchUp asks for the present table until the node is sure.
func (n *modelEdge) catchUp() {
	if n.catching {
		return
	}
	n.catching = true
	var again func()
	again = func() {
		if n.unsure == 0 {
			n.catching = false
			return
		}
		n.fetch()
		n.do(poll, again)
	}
	n.do(2, again)
}

func (n *modelEdge) fetch() {
	if !n.nginx {
		return
	}
	epoch, r, served := n.epoch, n.w.routes, n.w.now
	n.send(func() {
		r.later(1, func() {
			if r.Edges[n.i].LeftOut {
				return
			}
			t := r.Table
			n.send(func() {
				if n.epoch != epoch || !n.up {
					return
				}
				n.tasks = append(n.tasks, func() { n.caughtUp(t, served) })
				n.work()
			})
		})
	})
}

// caughtUp is that of the edge.
func (n *modelEdge) caughtUp(t routing.Table, served int64) {
	s := n.mem
	late := func() error {
		if n.w.now-served >= away {
			return errTooLate
		}
		return nil
	}
	if n.unsure == 0 || late() != nil {
		n.worked()
		return
	}
	if t.Generation >= s.Table.Generation {
		next, err := s.next(t, n.now())
		if err != nil {
			n.worked()
			return
		}
		s = next
	}
	unsure := n.unsure
	n.unsure = 0
	n.become(s, served+away, late, func(err error) {
		if err != nil {
			n.doubt(unsure)
		}
		n.arm()
		n.worked()
	})
}

// leaveOut is the order of an operator who sees that a node serves nobody.
func (w *world) leaveOut(n *modelEdge) {
	r := w.routes
	others := slices.DeleteFunc(slices.Clone(w.nodes), func(o *modelEdge) bool { return o == n || o.isLeftOut() })
	if n.nginx || n.isLeftOut() || len(others) == 0 || w.owner.gone {
		return
	}
	w.note("an operator leaves out edge %d", n.i+1)
	r.leaveOut(n.i)
	w.owner.without[n.i], w.owner.unread[n.i] = true, true
	for _, c := range w.clients {
		c.lent = c.lent || c.acknowledged && c.committedAt == n // the gate lends what comparing does not find (gate/lend.go)
		c.excused = c.excused || c.through[n]                   // of its session, only a store can tell
	}
}

// welcomeBack takes nodes in again that serve by the present table.
func (o *owner) welcomeBack() {
	for i, n := range o.w.nodes {
		if o.without[i] && n.works() && o.w.now >= n.cut && n.nginx && n.unsure == 0 && n.flags.generation == n.mem.Table.Generation {
			o.w.note("edge %d is back", i+1)
			o.without[i], o.unread[i] = false, false
		}
	}
}

// compareUnread finds what nodes had acknowledged when they were left out.
func (o *owner) compareUnread(from int, then func()) {
	if !slices.Contains(o.unread, true) || o.w.rules.skipsUnread {
		then()
		return
	}
	o.step(compares, func() {
		for i := range o.unread {
			if !o.unread[i] {
				continue
			}
			o.w.copied[1-from][i] = o.w.accepted[from][i]
			o.unread[i] = false
		}
		for _, c := range o.w.clients {
			if o.w.registries[from].manifests[c.name] {
				o.w.copyBlob(from, c.digest)
				o.w.registries[1-from].manifests[c.name] = true
			}
		}
		then()
	})
}

// present are the nodes that take part.
func (o *owner) present() (nodes []*modelEdge) {
	for i, n := range o.w.nodes {
		if !o.without[i] {
			nodes = append(nodes, n)
		}
	}
	return nodes
}
