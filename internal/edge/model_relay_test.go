package edge

import (
	"net/http"
	"slices"

	"transship/internal/journal"
	"transship/internal/routing"
)

// What the gate does on goroutines, or with requests that it passes on itself (gate/relay.go), step by step.

// awaitBlobs is that of the gate: a manifest waits for blobs that are being committed elsewhere.
func (r *request) awaitBlobs(finish func(int)) {
	n := r.n
	sent := false
	var look func()
	look = func() {
		switch {
		case sent:
		case n.ruled && slices.ContainsFunc(n.rule.Uploads, func(u routing.Upload) bool { return u.Commits == r.client.digest }):
			n.whenRuled(look)
		default:
			sent = true
			n.do(r.takes/2, func() {
				status := r.serve()
				if other := backends[1-index(r.backend)]; status == 400 && n.w.registries[index(other)].blobs[r.client.digest] { // lend.go
					n.carry(other, r.client.digest, nil, func(err error) {
						if err != nil {
							finish(http.StatusServiceUnavailable)
							return
						}
						finish(r.serve())
					})
					return
				}
				n.do(r.takes/2, func() { finish(status) })
			})
		}
	}
	look()
	n.do(carryPatience, func() {
		if !sent {
			sent = true
			finish(http.StatusServiceUnavailable)
		}
	})
}

// commit is the rest of relay: the client hears of its blob when that was carried over.
func (r *request) commit(finish func(int)) {
	n := r.n
	carry := func() {
		if n.w.rules.answersBeforeCarry {
			finish(http.StatusCreated)
		}
		n.carryFor(r, func(carried bool) {
			if carried {
				finish(http.StatusCreated)
			} else {
				finish(http.StatusServiceUnavailable)
			}
		})
	}
	if n.committed[r.session] { // its client was told to come back
		carry()
		return
	}
	n.do(r.takes/2, func() {
		status := r.serve()
		if status != http.StatusCreated {
			finish(status)
			return
		}
		n.committed[r.session] = true
		n.do(r.takes/2, carry)
	})
}

// carryFor is Gate.carry: it is over when the migration has carried the blob over, or the prefix turns out to be served from where it is.
func (n *modelEdge) carryFor(r *request, then func(carried bool)) {
	over := false
	finish := func(carried bool) {
		if !over {
			over = true
			then(carried)
		}
	}
	var home func()
	home = func() {
		switch {
		case over:
		case !n.ruled || !n.rule.Mode.Parks() && n.rule.Backend == r.backend:
			finish(true)
		default:
			n.whenRuled(home)
		}
	}
	var try func()
	try = func() {
		n.carry(r.backend, r.commits, nil, func(err error) {
			if err != nil && !over && n.ruled && n.rule.Mode.Parks() {
				n.do(1_000, try)
				return
			}
			finish(err == nil)
		})
	}
	try()
	n.do(carryPatience, func() { finish(false) })
	home()
}

// carry asks the migration, through Temporal.
func (n *modelEdge) carry(from, digest string, ended []routing.Upload, then func(error)) {
	epoch := n.epoch
	n.send(func() {
		if n.epoch != epoch {
			return
		}
		n.w.owner.carry(from, digest, ended, func(err error) {
			n.send(func() {
				if n.epoch == epoch {
					n.do(0, func() { then(err) })
				}
			})
		})
	})
}

// tell is what the gate learns from the journal, with endedLate.
func (n *modelEdge) tell(e journal.Entry) {
	n.w.dirty = true
	n.gate.Ended(e)
	t, _ := e.Target()
	if t.Kind == journal.Upload && (e.Status == 201 || e.Status == 404) {
		if _, ok := n.closed[t.Reference]; !ok {
			n.closed[t.Reference] = n.w.now
		}
	}
	if !n.ruled || t.Kind != journal.Upload || t.Commits == "" {
		return
	}
	u := routing.Upload{Repository: t.Repository, Session: t.Reference, Commits: t.Commits}
	before := n.rule.Backend
	if n.rule.Mode == routing.Switched {
		before = n.rule.Other
	}
	if n.rule.Mode.Parks() && e.Backend == before && !n.w.rules.forgetsLate {
		n.late[u] = e.MayHaveChanged()
	}
	if slices.Contains(n.rule.Uploads, u) && e.Backend == n.rule.Other {
		n.settle(n.rule.Other, u, e.MayHaveChanged())
	}
}

// ruledAnew is the rest of Gate.Set: settleLate, and everybody who waits for the rule to change looks at it.
func (n *modelEdge) ruledAnew(had bool) {
	n.w.dirty = true
	if had {
		for _, u := range n.rule.Uploads {
			if changed, ok := n.late[u]; ok {
				delete(n.late, u)
				n.settle(n.rule.Other, u, changed)
			}
		}
		if !n.rule.Mode.Parks() {
			clear(n.late)
		}
	}
	if len(n.flying) > 0 {
		n.do(100, n.reap)
	}
	waiting := n.waiting
	n.waiting = nil
	for _, f := range waiting {
		n.do(0, f)
	}
}

// serves tells whether an nginx process still runs.
func (n *modelEdge) serves(pid int) bool { return n.nginx && pid == n.pid }

// settle is that of the gate.
func (n *modelEdge) settle(from string, u routing.Upload, changed bool) {
	digest := ""
	if changed {
		digest = u.Commits
	}
	n.settling[u] = true
	wait := int64(1_000)
	var try func()
	try = func() {
		n.carry(from, digest, []routing.Upload{u}, func(err error) {
			if err == nil || !n.ruled || !slices.Contains(n.rule.Uploads, u) {
				delete(n.settling, u)
				return
			}
			n.do(wait, try)
			wait = min(2*wait, 60_000)
		})
	}
	n.do(0, try)
}

// reap is that of the gate: nginx died before it could journal the end of a request.
func (n *modelEdge) reap() {
	n.gate.Reap(n.serves)
	n.flying = slices.DeleteFunc(n.flying, func(r *request) bool {
		if r.pid == n.pid {
			return false
		}
		if n.ruled && n.rule.Mode.Parks() { // a drain tells of them
			return false
		}
		u := routing.Upload{Repository: modelRepository, Session: r.session, Commits: r.commits}
		if n.ruled && slices.Contains(n.rule.Uploads, u) && (u.Commits != "" || n.w.rules.reapsSessions) {
			n.settle(n.rule.Other, u, true)
		}
		return true
	})
}
