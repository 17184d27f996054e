package edge

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"transship/internal/gate"
	"transship/internal/routing"
)

// owner is the migration: it flips the prefix and flips it back, and gives up each cutover that does not succeed in one go.
type owner struct {
	w     *world
	name  int
	tried int
	gone  bool
	// over says that it has ended, and nothing can be asked of it any more.
	over bool
	// open are the uploads that the last drain found; uploads those of the last flip.
	open, uploads []routing.Upload
	ends          []int // of the journals, at the drain
	// without are nodes that were left out by order, unread those of them whose last writes nobody has found yet.
	without, unread []bool
}

func (w *world) startOwner() {
	w.owner = &owner{w: w, without: make([]bool, len(w.nodes)), unread: make([]bool, len(w.nodes))}
	if w.owners++; w.owners > 1 {
		w.owner.name = w.owners
	}
	w.owner.cutOver()
}

// step is one of its steps, unless it was terminated; its worker is that of Routes.
func (o *owner) step(ms int64, f func()) {
	o.w.routes.later(ms, func() {
		if !o.gone {
			f()
		}
	})
}

func (o *owner) cutOver() {
	o.tried++
	hold := fmt.Sprintf("h%d-%d", o.name, o.tried)
	w := o.w
	from := func() int { r, _ := w.routes.Table.Lookup(modelPrefix); return index(r.Backend) }
	serving := func() string { r, _ := w.routes.Table.Lookup(modelPrefix); return r.Backend }
	q := w.routes.request(w, hold)
	before := serving()
	giveUp := func(error) {
		o.step(2, func() {
			w.routes.release(q, func(after string) {
				o.step(2, func() { o.cutoverEnded(before, after) })
			})
		})
	}
	check := func(next func()) func(error) {
		return func(err error) {
			o.step(2, func() {
				if err != nil {
					giveUp(err)
				} else {
					next()
				}
			})
		}
	}
	o.step(2, func() {
		o.compareUnread(from(), func() {
			o.welcomeBack()
			w.routes.hold(q, check(func() {
				for i, out := range o.without {
					if out && !w.routes.Edges[i].LeftOut {
						giveUp(errBack)
						return
					}
				}
				o.drain(hold, check(func() {
					if slices.Contains(o.unread, true) && !w.rules.skipsUnread {
						giveUp(errUnread)
						return
					}
					o.step(20, func() { // the last delta: what each edge had acknowledged when its drain was over
						w.lastDelta(from(), o.ends)
						q.Uploads, o.uploads = o.open, o.open
						w.routes.flip(q, check(func() { giveUp(nil) })) // a release as well
					})
				}))
			}))
		})
	})
}

var (
	errBack   = errors.New("an edge that was left out is back")
	errUnread = errors.New("what an edge had acknowledged when it was left out was not found yet")
)

// cutoverEnded says what became of a cutover.
func (o *owner) cutoverEnded(before, after string) {
	if after != before {
		o.w.flips++
		o.tried = 0
		o.name += 10
	}
	if o.tried >= tries || after != before && o.w.flips >= 2 {
		o.awaitUploads()
		return
	}
	o.step(1_000, func() { // a round of the soak
		o.welcomeBack()
		o.settleUploads(func(int) { o.cutOver() })
	})
}

// drain is DrainWrites on every edge, and the delta that rests on it.
func (o *owner) drain(hold string, then func(error)) {
	w := o.w
	from := 0
	if r, _ := w.routes.Table.Lookup(modelPrefix); r.Backend == backends[1] {
		from = 1
	}
	at, ends := make([]int, len(w.nodes)), make([]int, len(w.nodes))
	var open []routing.Upload
	var closed []string
	began := w.now
	nodes := o.present()
	left := len(nodes)
	var failed error
	for _, n := range nodes {
		i, over := n.i, false
		finish := func(err error) {
			if over {
				return
			}
			over = true
			failed = errors.Join(failed, err)
			if left--; left > 0 {
				return
			}
			if failed == nil {
				for e, position := range at {
					w.copied[1-from][e] = max(w.copied[1-from][e], position)
				}
				o.ends, o.open = ends, w.stillOpen(open, closed, began)
			}
			then(failed)
		}
		began := w.now
		var look func()
		look = func() {
			known := w.now <= n.busy[0][1] || w.now <= n.busy[1][1]
			trusted := w.now-n.gateSince >= settle
			found, err := n.drained(hold, w.now-began)
			switch {
			case errors.Is(err, ErrHoldLost):
				n.send(func() { finish(ErrHoldLost) })
			case !known && trusted && err == nil || w.rules.neverDrains:
				at[i], ends[i] = w.accepted[from][n.i], len(n.journal)
				n.send(func() {
					open, closed = append(open, found.Uploads...), append(closed, found.Closed...)
					finish(nil)
				})
			case w.now-began > drainLimit:
				n.send(func() { finish(errDown) })
			default:
				n.do(100, look)
			}
		}
		n.send(func() { n.do(1, look) })
		w.at(w.now+drainLimit+bounded, 0, func() { finish(errDown) })
	}
}

// ended is a context that has: the real drain then looks once.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// drained is one look of the real drain.
func (n *modelEdge) drained(hold string, waited int64) (gate.Drained, error) {
	limit := time.Hour
	if waited >= uploadGrace {
		limit = 0 // it does not wait for uploads any longer
	}
	d, err := n.gate.Drain(ended, gate.DrainOptions{Prefix: modelPrefix, Hold: hold, Limit: limit, Settle: settle * time.Millisecond, SessionIdle: sessionIdle * time.Millisecond}, n.serves)
	if n.w.rules.listsWhatIsElsewhere {
		for _, r := range n.flying {
			if r.kind == continues || r.kind == commits {
				d.Uploads = append(d.Uploads, routing.Upload{Repository: modelRepository, Session: r.session})
			}
		}
	}
	return d, err
}

// stillOpen is what a flip takes along: what the drains of all edges found and none knows to have ended.
func (w *world) stillOpen(found []routing.Upload, closed []string, began int64) (open []routing.Upload) {
	for _, u := range found {
		switch idle := u.Session != "" && u.Commits == ""; {
		case idle && slices.Contains(closed, u.Session) && !w.rules.ignoresClosed, slices.Contains(open, u):
		case idle && w.rules.listsNoSessions, u.Commits != "" && w.rules.listsNoCommits:
		default:
			for _, n := range w.nodes {
				if at, ok := n.closed[u.Session]; ok && idle && at < began && w.now-at < w.idle()/2 { // edges look one after the other, and each forgets
					w.fail("the flip takes along a session that edge %d knew to have ended", n.i+1)
				}
			}
			open = append(open, u)
		}
	}
	return open
}

var errNoMigration = errors.New("the migration is over")

// carry is carryNow: it brings over what an edge asks for, and takes from the table what has ended.
func (o *owner) carry(from, digest string, ended []routing.Upload, answer func(error)) {
	w := o.w
	ask := func(ms int64, f func()) {
		w.routes.later(ms, func() {
			if o.over {
				answer(errNoMigration)
				return
			}
			f()
		})
	}
	ask(2, func() {
		if w.rules.settlesFirst && len(ended) > 0 {
			w.routes.settle(ended, func() { ask(carries, func() { w.copyBlob(index(from), digest); answer(nil) }) })
			return
		}
		ask(carries, func() {
			w.copyBlob(index(from), digest)
			if len(ended) == 0 {
				answer(nil)
				return
			}
			w.routes.settle(ended, func() { ask(2, func() { answer(nil) }) })
		})
	})
}

// settleUploads looks how many uploads still go on, and takes all from the table when none does.
func (o *owner) settleUploads(then func(left int)) {
	w := o.w
	if len(o.uploads) == 0 {
		then(0)
		return
	}
	nodes := o.present()
	sum, unanswered, over := 0, len(nodes), false
	finish := func(left int) {
		if over {
			return
		}
		over = true
		o.step(2, func() {
			if left > 0 {
				then(left)
				return
			}
			w.routes.settle(o.uploads, func() { o.step(2, func() { o.uploads = nil; then(0) }) })
		})
	}
	for _, n := range nodes {
		n.send(func() {
			n.do(1, func() {
				sum += n.gate.Late(modelPrefix, sessionIdle*time.Millisecond)
				if !w.rules.settlesWhatIsCarried {
					sum += len(n.settling)
				}
				n.send(func() {
					if unanswered--; unanswered == 0 {
						finish(sum)
					}
				})
			})
		})
	}
	w.at(w.now+10_000, 0, func() { finish(len(o.uploads)) })
}

// awaitUploads is how a migration ends: when no upload goes on any more that was open at its last flip.
func (o *owner) awaitUploads() {
	o.settleUploads(func(left int) {
		if left > 0 && !o.w.rules.neverAwaitsUploads {
			o.step(2_000, o.awaitUploads)
			return
		}
		// One that began after another was terminated does not know what that one's flip took along. It lasts longer than edges wait between two tries to settle it.
		lasts := int64(1)
		if o.w.owners > 1 {
			lasts = 2 * 60_000
		}
		o.step(lasts, func() { o.gone, o.over = true, o.w.flips >= 2 }) // else it waits for a person
	})
}
