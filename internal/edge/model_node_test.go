package edge

import (
	"errors"
	"maps"
	"time"

	"transship/internal/gate"
	"transship/internal/journal"
	"transship/internal/routing"
)

// modelEdge is one edge: an nginx that looks at flags, a worker process with its gate, and a disk.
type modelEdge struct {
	w *world
	i int
	clock
	set bool // once

	// nginx and its flags; backAt is when it comes back at the earliest.
	nginx   bool
	backAt  int64
	diedAt  int64
	pid     int // grows with each crash
	flags   flags
	journal []journal.Entry

	disk state

	// The worker process. epoch grows with each crash: what the dead one was about to do does not happen.
	up        bool
	epoch     int
	stopped   int64 // since when, and until when, it is paused
	paused    int64
	mem       state
	rule      gate.Rule
	ruled     bool
	gate      *gate.Gate
	gateSince int64 // when the gate started
	started   int64
	flying    []*request
	committed map[string]bool         // sessions
	late      map[routing.Upload]bool // as in the gate
	settling  map[routing.Upload]bool // as in the gate
	closed    map[string]int64        // when the gate heard of the end of a session
	waiting   []func()                // for the rule to change
	dies      []func()                // what comes of requests when the process dies
	applying  bool
	unsure    int64 // until when writes wait because it may have missed a table; 0 when it has not
	catching  bool  // it asks for the table
	waits     bool  // for the lock, to say that it may have missed one
	prepared  bool  // its flags are in place
	tasks     []func()
	told      map[string]bool

	// The link to Temporal.
	cut   int64
	delay int64

	// busy says until when writes may be in flight, by backend, and whether the gate knows of them (1) or not (0).
	busy [2][2]int64
	// refused is since when writes have not been accepted; -1 when they are.
	refused int64
	handed  []routing.Table
}

// flags are what raise leaves for nginx.
type flags struct {
	generation    int64
	route         string
	watched, held bool
	strict        bool
	from, to      int64     // seconds in which writes are held
	ends          time.Time // of a hold that ends by itself; for the model to check that it does
}

func (n *modelEdge) now() time.Time { return n.wall(n.w.now) }

// works reports whether the worker process answers.
func (n *modelEdge) works() bool { return n.up && n.w.now >= n.paused }

// do runs a step of the worker process: later while it is paused, never once it has died.
func (n *modelEdge) do(ms int64, f func()) {
	epoch := n.epoch
	var step func()
	step = func() {
		switch {
		case n.epoch != epoch || !n.up:
		case n.w.now < n.paused:
			n.w.at(n.paused, 1, step)
		default:
			f()
		}
	}
	n.w.at(n.w.now+ms, 1, step)
}

// send gets a message from Temporal to the worker or back, when there is a link.
func (n *modelEdge) send(f func()) {
	var try func()
	try = func() {
		if n.w.now < n.cut {
			n.w.at(n.cut+1, 1, try)
			return
		}
		f()
	}
	n.w.at(n.w.now+2+n.delay, 1, try)
}

func (n *modelEdge) pause(until int64) {
	if n.w.now >= n.paused {
		n.stopped = n.w.now
	}
	n.paused = max(n.paused, until)
	n.do(n.paused-n.w.now, func() {
		if n.paused-n.stopped > nginxWaits/2 && !n.w.rules.deafToPauses {
			n.gateSince = n.w.now
		}
		if n.paused-n.stopped >= away {
			n.mayHaveMissed()
		}
	})
}

// passedOver reports whether nginx lets a watched write pass that the gate does not answer.
func (n *modelEdge) passedOver() bool { return !n.up || n.w.now-n.stopped >= nginxWaits }

func (n *modelEdge) crash(until int64) {
	n.epoch++
	n.up, n.tasks, n.applying, n.paused, n.unsure, n.catching, n.waits, n.prepared = false, nil, false, 0, 0, false, false, false
	dies := n.dies
	n.dies, n.waiting, n.flying = nil, nil, nil
	for _, f := range dies {
		f()
	}
	for b := range backends { // the next gate learns what is in flight from the journal, when it ends
		n.busy[b][0] = max(n.busy[b][0], n.busy[b][1])
		n.busy[b][1] = 0
	}
	epoch := n.epoch
	n.w.at(until, 1, func() {
		if n.epoch == epoch {
			n.start()
		}
	})
}

// start is New, Prepare and the first question of Run.
func (n *modelEdge) start() {
	n.up, n.mem, n.gateSince, n.started, n.told = true, n.disk, n.w.now, n.w.now, nil
	n.open()
	if n.w.rules.forgetsState {
		n.mem = state{Table: routing.Table{Generation: 0, Default: "old", Routes: n.mem.Table.Routes}}
		n.mem.Table.Routes = []routing.Route{{Prefix: modelPrefix, Backend: "old", Other: "new", Mode: routing.Watched}}
	}
	n.beginUnsure()
	n.setGate(n.mem)
	if !n.nginx {
		n.watchNginx()
	}
	for _, e := range n.journal {
		n.do(1, func() { n.tell(e) })
	}
	n.do(1, func() {
		n.raiseAnew()
		n.prepared = true
		n.arm()
		n.asks("")
	})
}

// open makes the gate.
func (n *modelEdge) open() {
	n.gate, n.ruled = newGate(n), false
	n.committed, n.closed = map[string]bool{}, map[string]int64{}
	n.late, n.settling = map[routing.Upload]bool{}, map[routing.Upload]bool{}
}

func (n *modelEdge) asks(ranOut string) {
	if ranOut != "" && n.w.rules.neverAsks {
		return
	}
	asks := routing.EdgeAsks{Table: n.mem.Table, RanOut: ranOut}
	epoch := n.epoch
	n.send(func() {
		if n.epoch == epoch { // a question that was not sent when the process died is asked again by the next
			n.w.routes.asked(n.i, asks)
		}
	})
}

// take has the worker apply a table, after those that it was handed before; report may be nil.
func (n *modelEdge) take(t routing.Table, report func(error)) {
	n.handed = append(n.handed, t)
	if !n.up {
		return
	}
	if report == nil {
		report = func(error) {}
	}
	n.tasks = append(n.tasks, func() { n.apply(t, report) })
	n.work()
}

func (n *modelEdge) work() {
	if n.applying || len(n.tasks) == 0 {
		return
	}
	n.applying = true
	task := n.tasks[0]
	n.tasks = n.tasks[1:]
	n.do(1, task)
}

func (n *modelEdge) worked() { n.applying = false; n.work() }

var errNginxAway = errors.New("nginx did not confirm")

// apply is Edge.Apply, a step at a time: anything may come between two of them.
func (n *modelEdge) apply(t routing.Table, report func(error)) {
	before := n.mem
	given := before
	r, _ := t.Lookup(modelPrefix)
	if n.w.rules.takesStale {
		given.Table.Generation = 0
	}
	if l, ok := given.Leases[modelPrefix]; ok && n.w.rules.ignoresDeadline && l.Mode != r.Mode {
		l.Deadline, l.Lost = l.Deadline.Add(time.Hour), false
		given.Leases = map[routing.Prefix]lease{modelPrefix: l}
	}
	next, err := given.next(t, n.now())
	finish := func(err error) {
		if err != nil || !n.w.rules.acksEarly {
			n.report(report, err)
		}
		n.arm()
		n.worked()
	}
	if err != nil {
		finish(err)
		return
	}
	if n.w.rules.acksEarly {
		n.report(report, nil)
	}
	look := func() error {
		if n.w.rules.neverLooksBack || n.w.rules.ignoresDeadline {
			return nil
		}
		return n.stillHeld(before, next)
	}
	if n.w.rules.believesWhatItIsHanded {
		n.unsure = 0
	}
	n.become(next, n.w.now+bounded, look, func(err error) {
		if err != nil {
			n.beginUnsure()
			n.become(before, n.w.now+15_000, func() error { return nil }, func(error) { finish(err) })
			return
		}
		n.w.note("edge %d is %s %s", n.i+1, r.Mode, r.Backend)
		finish(nil)
	})
}

// stillHeld asks the real one, which looks at the real clock.
func (n *modelEdge) stillHeld(before, after state) error {
	shifted := state{Leases: maps.Clone(before.Leases)}
	for p, l := range shifted.Leases {
		left := time.Hour
		if !n.now().Before(l.Deadline) {
			left = -time.Hour
		}
		l.Deadline = time.Now().Add(left)
		shifted.Leases[p] = l
	}
	return stillHeld(shifted, after)
}

// become is Edge.become, with the look back of Edge.Apply. When the hole is closed, a step into a hold, or further into it, is on disk once it is known that the
// hold lasted until it was in force; the way out of one is on disk first, as all are with the hole.
func (n *modelEdge) become(s state, limit int64, look func() error, then func(error)) {
	gate := func() error { n.setGate(s); n.mem = s; return nil }
	disk := func() error {
		if !n.w.rules.forgetsDisk {
			n.disk = s
		}
		return nil
	}
	flags := func() error { n.raise(s); return nil }
	confirm := func() error {
		switch {
		case n.nginx:
			return nil
		case n.unsure == 0 && n.w.now-n.diedAt >= away:
			return errAway
		case n.w.now < limit:
			return errNotYet
		}
		return errNginxAway
	}
	if s.Nginx = (nginxProcess{}); n.nginx && n.unsure == 0 {
		s.Nginx.Master = n.pid
	}
	steps := []func() error{gate, disk, flags, confirm, look}
	if r, _ := s.Table.Lookup(modelPrefix); !n.w.rules.diskFirst && r.Mode.Parks() {
		steps = []func() error{gate, flags, confirm, look, disk}
	}
	var step func()
	step = func() {
		switch err := steps[0](); {
		case err == errNotYet:
			n.do(500, step)
			return
		case err != nil:
			then(err)
			return
		}
		if steps = steps[1:]; len(steps) == 0 {
			then(nil)
			return
		}
		n.do(1, step)
	}
	n.do(1, step)
}

var errNotYet = errors.New("not yet")

func (n *modelEdge) report(to func(error), err error) {
	n.send(func() { to(err) })
}

// setGate is Edge.setGate for the one prefix.
func (n *modelEdge) setGate(s state) {
	r, ok := s.Table.Lookup(modelPrefix)
	if !ok || r.Mode == routing.Open {
		n.ruled = false
		return
	}
	rule, had := s.rule(r), n.ruled
	if n.unsure > 0 {
		rule = (&Edge{unsureUntil: n.wall(n.unsure)}).unsureRule(s, modelPrefix)
	}
	if had && n.rule.Equal(rule) {
		return
	}
	n.rule, n.ruled = rule, true
	n.gate.Set(modelPrefix, rule)
	n.ruledAnew(had)
}

// raise is Config.raise.
func (n *modelEdge) raise(s state) {
	f := flags{generation: s.Table.Generation}
	if r, ok := s.Table.Lookup(modelPrefix); ok {
		f.route, f.watched, f.strict = r.Backend, r.Mode != routing.Open, len(r.Uploads) > 0
		l, leased := s.Leases[modelPrefix]
		switch {
		case !r.Mode.Parks(), l.Lost:
		case r.Mode == routing.Held && leased && !n.w.rules.holdsForever:
			f.from, f.to = n.now().Unix()-clockStep, l.Deadline.Unix()
			if n.w.rules.heldFromNow {
				f.from = n.now().Unix()
			}
		default:
			f.held = true
		}
		if r.Mode == routing.Held && !l.Lost {
			f.ends = l.Deadline
		}
	}
	if n.unsure > 0 {
		f.held, f.ends = true, time.Time{}
	}
	n.flags = f
	n.w.dirty = true
}

// arm wakes the worker when a lease runs out (watchLeases).
func (n *modelEdge) arm() {
	l, ok := n.mem.Leases[modelPrefix]
	if !ok {
		return
	}
	at := n.until(n.w.now, l.Deadline)
	n.w.at(at-1, 0, func() {}) // a write just before and just when it runs out
	n.w.at(at, 0, func() {})
	n.do(at-n.w.now+50, n.runOut)
}

// runOut is Edge.runOut.
func (n *modelEdge) runOut() {
	if n.applying { // it waits for the lock
		n.do(5, n.runOut)
		return
	}
	l, ok := n.mem.Leases[modelPrefix]
	if !ok || n.now().Before(l.Deadline) {
		return
	}
	r, _ := n.mem.Table.Lookup(modelPrefix)
	if id := r.Hold + string(r.Mode); !n.told[id] {
		if n.told == nil {
			n.told = map[string]bool{}
		}
		n.told[id] = true
		n.asks(r.Hold)
	}
	if l.Mode != routing.Held || l.Lost {
		return
	}
	n.w.note("edge %d: hold ran out", n.i+1)
	l.Lost = true
	next := state{Table: n.mem.Table, Leases: map[routing.Prefix]lease{modelPrefix: l}}
	n.applying = true
	n.become(next, n.w.now+5_000, func() error { return nil }, func(error) { n.worked() })
}

// write is what becomes of a write that arrives now, as the generated files and gate.ServeHTTP have it.
func (n *modelEdge) write() {
	for b, backend := range backends { // those that arrived before may end now
		for _, until := range n.busy[b] {
			if n.w.now <= until {
				n.w.accept(n, backend, "in flight")
			}
		}
	}
	f := n.flags
	passed := true
	switch gateWorks := n.works(); {
	case f.holds(n.now()):
		passed = gateWorks && n.hold()
	case f.watched && gateWorks && n.ruled && n.rule.Mode.Parks():
		passed = n.hold() // 409
	case f.watched && gateWorks:
		n.pass(f.route, 1, "watched")
	case f.watched && (!n.passedOver() || f.strict):
		passed = false // nginx waits for the gate
	case f.watched:
		n.pass(f.route, 0, "past a gate that does not answer")
	default:
		n.pass(f.route, 0, "open")
	}
	switch {
	case !passed && !n.up && !f.strict && !f.ends.IsZero() && !n.now().Before(f.ends):
		n.w.fail("edge %d refuses writes although its hold has run out", n.i+1)
	case passed:
		if n.refused >= 0 {
			n.w.longer = max(n.w.longer, n.w.now-max(n.refused, n.w.calm))
		}
		n.refused = -1
	case n.refused < 0:
		n.refused = n.w.now
	case n.w.now-max(n.refused, n.w.calm) > n.w.bound():
		n.w.fail("edge %d has not accepted writes for %d ms, the last fault was over %d ms ago", n.i+1, n.w.now-n.refused, n.w.now-n.w.calm)
	}
}

// bound is how long a hold may last once nothing is wrong any more.
func (w *world) bound() int64 { return 2*w.Lease + 2*bounded + reconcile + w.stepped }

func (n *modelEdge) hold() (passed bool) {
	rule := n.rule
	over := !n.now().Before(rule.Deadline)
	switch {
	case !n.ruled:
		return false
	case !rule.Mode.Parks(), over && rule.Mode == routing.Held, over && n.w.rules.fallsOpen:
		n.pass(rule.Backend, 1, "let go by the gate")
		return true
	}
	return false
}

func (n *modelEdge) pass(backend string, known int, why string) {
	b := index(backend)
	n.w.accept(n, backend, why)
	n.busy[b][known] = max(n.busy[b][known], n.w.now+n.w.Write)
}

// read is a read that arrives now: reads are never held, and go where the flags say. A node that was left out serves them by what it knew until it has caught up.
func (n *modelEdge) read() {
	if n.unsure > 0 || n.w.routes.Edges[n.i].LeftOut {
		return
	}
	b := index(n.flags.route)
	if e, lacks := n.w.lacks(b); lacks {
		n.w.fail("edge %d reads from %s, which lacks what %s acknowledged through edge %d", n.i+1, backends[b], backends[1-b], e+1)
	}
}
