package edge

import (
	"container/heap"
	"fmt"
	"slices"
	"strings"
	"time"

	"transship/internal/routing"
)

// The model runs one prefix between two backends: the real transitions of edges (state.next, state.rule, stillHeld), the real routing.Table and the real
// decisions of Routes (routing/steps.go), below a simulated Temporal, nginx, gate, disk and clock. Time is in milliseconds of an outside observer.
//
// Writes and reads are not drawn: after every single event, a write and a read are tried at every edge. So a schedule breaks a promise whenever any
// client, anywhere, could have seen it broken.

const (
	modelPrefix = routing.Prefix("a")

	heartbeat  = 5_000  // onEdge: HeartbeatTimeout
	bounded    = 20_000 // onEdge: what push gives an edge
	reconcile  = 5_000  // Routes: reconcileEvery
	drainLimit = 5_000  // policy.freeze.drain
	settle     = 2_000  // policy.freeze.settle; longer than any write takes (inFlight), as the policy must be
	inFlight   = 1_500
	nginxWaits = 1_000 // for the gate, before a watched write passes (transship_server.conf)
	tries      = 4     // cutovers that a migration tries before it asks a person
)

// fault is something that goes wrong once so many events have happened, and a while after that.
type fault struct {
	Event int
	Wait  int64
	What  trouble
	Edge  int
	For   int64
	By    int64 // ms by which a clock is set
}

type trouble int

// Troubles. Each ends by itself after fault.For.
const (
	pauseWorker    trouble = iota // the edge worker, and its gate, is stopped (SIGSTOP, swapping, a virtual machine that moves)
	crashWorker                   // the edge worker dies; what is on disk is there when it starts again
	crashNginx                    // nginx dies, with the requests in flight
	cutLink                       // no message gets from Temporal to the edge worker or back
	duplicate                     // a table that the edge was handed some time ago is handed to it once more
	slowLink                      // messages to and from the edge worker take that long
	pauseRoutes                   // no worker runs workflows
	terminateOwner                // the migration is terminated; another one starts after For
	stepClock                     // the node's clock is set by fault.By, once
	leaveOut                      // nginx dies, an operator orders to go on without the node, and nginx comes back after For; the worker is cut off all the while when By is positive, and dies when it is negative
)

var troubles = []trouble{pauseWorker, crashWorker, crashNginx, cutLink, duplicate, slowLink, pauseRoutes, terminateOwner, stepClock, leaveOut}

func (t trouble) String() string {
	return [...]string{"pause worker of", "crash worker of", "crash nginx of", "cut off", "hand an old table to", "slow down messages of", "pause Routes", "terminate the migration", "set the clock of", "leave out"}[t]
}

// lasts is how long it is until a fault is over by itself, in ms.
func (f fault) lasts() int64 {
	if f.What == leaveOut {
		return ordered + f.For + max(0, f.By)
	}
	return f.For
}

func (f fault) String() string {
	if f.What == stepClock {
		return fmt.Sprintf("after event %d and %d ms: %s edge %d by %d ms", f.Event, f.Wait, f.What, f.Edge+1, f.By)
	}
	if f.What == leaveOut {
		return fmt.Sprintf("after event %d and %d ms: %s edge %d for %d ms, by %d", f.Event, f.Wait, f.What, f.Edge+1, f.For, f.By)
	}
	return fmt.Sprintf("after event %d and %d ms: %s edge %d for %d ms", f.Event, f.Wait, f.What, f.Edge+1, f.For)
}

// clock is a node's clock as it differs from the observer's.
type clock struct {
	Offset int64 // ms
	Drift  int64 // parts per million
}

// schedule is everything that is random.
type schedule struct {
	Clocks []clock
	Lease  int64
	Write  int64 // how long a write is in flight, at most
	Faults []fault
	Pushes []push
}

func (s schedule) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d edges, lease %d ms, writes take %d ms, clocks %v\n", len(s.Clocks), s.Lease, s.Write, s.Clocks)
	for _, f := range s.Faults {
		fmt.Fprintf(&b, "  %s\n", f)
	}
	for _, p := range s.Pushes {
		fmt.Fprintf(&b, "  %s\n", p)
	}
	return b.String()
}

type world struct {
	schedule
	rules  rules
	now    int64
	events int
	queue  queue
	pushed int
	nodes  []*modelEdge
	routes *routes
	owner  *owner
	owners int
	// acked counts writes; backends know which of them they have.
	acked    int
	accepted [2][]int // by backend and edge, the newest write that it acknowledged
	copied   [2][]int // by backend and edge, the newest write of the other backend that it was given
	// registries have the uploads; dirty says that what becomes of their requests may have changed.
	registries [2]*registry
	clients    []*client
	requests   int
	dirty      bool
	// calm is when the last fault is over.
	calm    int64
	stepped int64 // by how much clocks were set, in all
	flips   int
	longer  int64 // the longest that writes were not accepted at an edge, from when everything was well
	wrong   string
	trace   []string
}

// backends by their index.
var backends = [2]string{"old", "new"}

func index(backend string) int { return slices.Index(backends[:], backend) }

func run(s schedule, r rules) *world {
	w := &world{schedule: s, rules: r, now: -60_000} // gates are no longer new when it begins
	for b := range backends {
		w.registries[b] = newRegistry()
		w.accepted[b], w.copied[b] = make([]int, len(s.Clocks)), make([]int, len(s.Clocks))
	}
	w.routes = &routes{w: w}
	start := routing.Table{Generation: 1, Default: "old", Routes: []routing.Route{{Prefix: modelPrefix, Backend: "old", Other: "new", Mode: routing.Watched, Owner: "m"}}}
	w.routes.Table = start
	for i := range s.Clocks {
		n := &modelEdge{w: w, i: i, clock: s.Clocks[i], up: true, prepared: true, nginx: true, pid: 1, mem: state{Table: start, Nginx: nginxProcess{Master: 1}}, disk: state{Table: start, Nginx: nginxProcess{Master: 1}}, gateSince: w.now, refused: -1, busy: [2][2]int64{{-1, -1}, {-1, -1}}}
		n.open()
		n.setGate(n.mem)
		n.raise(n.mem)
		w.nodes = append(w.nodes, n)
		w.routes.Edges = append(w.routes.Edges, routing.EdgeState{Edge: backends[0], Generation: 1})
	}
	w.now = 0
	w.startOwner()
	w.plant()
	for len(w.queue) > 0 && w.wrong == "" {
		e := heap.Pop(&w.queue).(event)
		w.now = e.at
		e.run()
		w.events += e.counts
		if e.counts > 0 {
			w.plant()
		}
		w.look()
		if w.now > 10*60_000 {
			w.fail("it does not come to rest")
		}
	}
	w.atRest()
	return w
}

// plant starts the faults whose event has come.
func (w *world) plant() {
	for _, f := range w.Faults {
		if f.Event == w.events {
			w.calm = max(w.calm, w.now+f.Wait+f.lasts())
			w.at(w.now+f.Wait, 0, func() { w.trouble(f) })
		}
	}
	for i, p := range w.Pushes {
		if p.Event == w.events {
			w.startPush(i, p)
		}
	}
}

func (w *world) trouble(f fault) {
	w.note("%s edge %d for %d ms", f.What, f.Edge+1, f.For)
	n := w.nodes[f.Edge%len(w.nodes)]
	end := w.now + f.For
	switch f.What {
	case pauseWorker:
		n.pause(end)
	case crashWorker:
		n.crash(end)
	case crashNginx:
		n.nginxDies(end)
	case leaveOut:
		end := w.now + f.lasts()
		n.nginxDies(end)
		w.at(w.now+ordered, 0, func() { w.leaveOut(n) })
		switch {
		case f.By > 0:
			n.cut = max(n.cut, end+f.By)
		case f.By < 0:
			n.crash(end)
		}
	case cutLink:
		n.cut = max(n.cut, end)
	case slowLink:
		n.delay = f.For
		w.at(end, 0, func() { n.delay = 0 })
	case duplicate:
		if len(n.handed) > 0 {
			n.take(n.handed[int(f.For)%len(n.handed)], nil)
		}
	case stepClock:
		// More than the protocol bears is there and back within a hold; and back into a hold that ran out before the worker, stopped or dead, has seen that.
		l, leased := n.mem.Leases[modelPrefix]
		unseen := !n.flags.ends.IsZero() && !n.now().Before(n.flags.ends) || leased && l.Mode == routing.Held && !l.Lost && !n.now().Before(l.Deadline)
		if !n.set && !(unseen && f.By < 0) {
			n.set = true
			n.Offset += f.By
			n.arm()
			w.stepped += max(f.By, -f.By)
		}
	case pauseRoutes:
		w.routes.paused = max(w.routes.paused, end)
	case terminateOwner:
		w.owner.gone, w.owner.over = true, true
		w.at(end, 1, func() {
			if w.owner.gone {
				w.startOwner()
			}
		})
	}
}

// look tries a write and a read at every edge.
func (w *world) look() {
	for _, n := range w.nodes {
		if n.nginx && w.wrong == "" {
			n.write()
			n.read()
		}
	}
	w.lookAtUploads()
}

// accept is a write that a backend acknowledges. Whoever does must have everything that was acknowledged before.
func (w *world) accept(n *modelEdge, backend string, why string) {
	b := index(backend)
	if e, lacks := w.lacks(b); lacks {
		w.fail("edge %d writes to %s (%s), which lacks what %s acknowledged through edge %d", n.i+1, backend, why, backends[1-b], e+1)
		return
	}
	w.acked++
	w.accepted[b][n.i] = w.acked
}

func (w *world) lacks(b int) (edge int, lacks bool) {
	for e, last := range w.accepted[1-b] {
		if last > w.copied[b][e] {
			return e, true
		}
	}
	return 0, false
}

// atRest checks what must be so when nothing happens any more: no hold is left, and everybody has the same table.
func (w *world) atRest() {
	if w.wrong != "" {
		return
	}
	r, _ := w.routes.Table.Lookup(modelPrefix)
	if r.Mode.Parks() {
		w.fail("at rest, Routes has %s %s", modelPrefix, r.Mode)
	}
	for _, n := range w.nodes {
		if n.unsure > 0 || w.routes.Edges[n.i].LeftOut {
			w.fail("at rest, edge %d is unsure, or left out", n.i+1)
		}
		if n.mem.Table.Generation != w.routes.Table.Generation {
			w.fail("at rest, edge %d has generation %d instead of %d", n.i+1, n.mem.Table.Generation, w.routes.Table.Generation)
		}
	}
	w.uploadsAtRest(r)
}

func (w *world) fail(format string, args ...any) {
	if w.wrong == "" {
		w.wrong = fmt.Sprintf(format, args...)
		w.note("VIOLATION: %s", w.wrong)
	}
}

func (w *world) note(format string, args ...any) {
	if w.rules.tell {
		w.trace = append(w.trace, fmt.Sprintf("%7d ms, event %3d: ", w.now, w.events)+fmt.Sprintf(format, args...))
	}
}

// at runs f at a time. Events that count are those of the protocol; a fault can be planted at each.
func (w *world) at(ms int64, counts int, f func()) {
	w.pushed++
	heap.Push(&w.queue, event{max(ms, w.now), w.pushed, counts, f})
}

type event struct {
	at     int64
	seq    int
	counts int
	run    func()
}

// queue is a heap by time, and first come, first served.
type queue []event

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(event)) }
func (q *queue) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}

// wall is a node's clock as its programs read it.
func (c clock) wall(now int64) time.Time {
	return time.UnixMilli(1_800_000_000_000 + c.Offset + now + now*c.Drift/1_000_000)
}

// until is when, for the observer, a node's clock shows a time.
func (c clock) until(now int64, t time.Time) int64 {
	left := t.Sub(c.wall(now)).Milliseconds()
	if left <= 0 {
		return now
	}
	at := now + left - left*c.Drift/1_000_000 - 2
	for c.wall(at).Before(t) {
		at++
	}
	return at
}
