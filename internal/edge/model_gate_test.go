package edge

import (
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"transship/internal/gate"
	"transship/internal/journal"
	"transship/internal/routing"
)

// request is a client's request on its way through nginx and the gate. What the gate decides, knows of sessions and of writes in flight, and tells a drain is the real one;
// the waiting is here, because the real one waits on goroutines.
type request struct {
	n      *modelEdge
	client *client
	kind   int
	answer func(*request, int)

	id, method, path, query string
	session, commits        string
	opened                  string // the session, by the answer to a POST
	takes                   int64

	flags   flags // as nginx found them
	pid     int
	backend string
	relayed bool
	over    bool // it has left the gate, or has its answer
}

func newGate(n *modelEdge) *gate.Gate {
	return gate.New(slog.New(slog.DiscardHandler), gate.Options{Now: n.now})
}

// decided takes the gate's answer.
type decided struct {
	header http.Header
	status int
}

func (d *decided) Header() http.Header         { return d.header }
func (d *decided) WriteHeader(status int)      { d.status = status }
func (d *decided) Write(b []byte) (int, error) { return len(b), nil }

// ask asks the real gate. 409 is what waits.
func (n *modelEdge) ask(r *request) (status int, backend string, relay bool) {
	n.asWas(r)
	q := &http.Request{Method: http.MethodGet, URL: &begin, Header: http.Header{
		gate.HeaderID: {r.id}, gate.HeaderPrefix: {string(modelPrefix)}, gate.HeaderMethod: {r.method}, gate.HeaderPath: {r.path}, gate.HeaderQuery: {r.query},
		gate.HeaderPID: {strconv.Itoa(r.pid)},
	}}
	d := decided{header: http.Header{}}
	n.gate.ServeHTTP(&d, q)
	backend, relay = d.header.Get(gate.HeaderBackend), d.header.Get(gate.HeaderVia) != ""
	switch rules := n.w.rules; {
	case rules.neverRelays && r.kind == commits, rules.namesAtOnce && r.kind == names,
		rules.trustsSwitched && r.kind == commits && n.rule.Mode == routing.Switched && backend == n.rule.Backend:
		relay = false
	}
	return d.status, backend, relay
}

var begin = url.URL{Path: "/begin"}

// asWas has the gate look for every session on the old backend while it is switched, with the hole.
func (n *modelEdge) asWas(r *request) {
	if !n.w.rules.switchedMeansOld || !n.ruled || n.rule.Mode != routing.Switched || r.session == "" {
		return
	}
	rule := n.rule
	rule.Uploads = append(slices.Clone(rule.Uploads), routing.Upload{Repository: modelRepository, Session: r.session})
	n.gate.Set(modelPrefix, rule)
}

// would is the backend to which a request would go now, or -1 when it would wait, be refused, or looked into.
func (r *request) would() int {
	n := r.n
	f := n.flags
	if !n.nginx || !n.works() && (f.holds(n.now()) || !f.watched || f.strict && !n.w.rules.neverStrict || !n.passedOver()) {
		return -1
	}
	if !n.works() {
		return index(f.route)
	}
	status, to, relay := n.ask(r)
	if status != http.StatusNoContent {
		return -1
	}
	n.gate.Ended(journal.Entry{At: n.now(), ID: r.id, Method: r.method, Path: r.path, Status: http.StatusServiceUnavailable})
	if relay && slices.ContainsFunc(n.rule.Uploads, func(u routing.Upload) bool { return r.kind == names && u.Commits == r.client.digest }) {
		return -1
	}
	return index(to)
}

func (f flags) holds(now time.Time) bool {
	second := now.Unix()
	return f.held || f.from <= second && second < f.to
}

func (r *request) arrive() {
	n := r.n
	if !n.nginx {
		r.answer(r, 0)
		return
	}
	r.flags, r.pid = n.flags, n.pid
	switch f := r.flags; {
	case f.holds(n.now()):
		r.hold()
	case f.watched:
		r.begin()
	default:
		r.pass(f.route, false)
	}
}

// end is an answer of nginx itself, or of the gate.
func (r *request) end(status int) {
	if r.over {
		return
	}
	r.over = true
	if r.pid != r.n.pid {
		status = 0
	}
	r.n.w.at(r.n.w.now, 0, func() { r.answer(r, status) })
}

// begin is /begin: nginx passes on what the gate does not answer within a second, unless uploads may live elsewhere.
func (r *request) begin() {
	n := r.n
	answered := false
	unasked := func() {
		switch {
		case r.over, answered:
		case r.flags.strict && !n.w.rules.neverStrict:
			r.backend = r.flags.route
			r.write(http.StatusServiceUnavailable)
			r.end(http.StatusServiceUnavailable)
		default:
			r.pass(r.flags.route, false)
		}
	}
	if !n.up {
		unasked()
		return
	}
	if !n.works() {
		n.w.at(n.w.now+nginxWaits, 0, unasked)
	}
	n.whenAwake(func() { // a gate that was stopped finds the question, whether or not nginx still waits
		answered = true
		switch status, to, relay := n.ask(r); {
		case status == http.StatusConflict && !r.over:
			r.hold()
		default:
			n.flying = append(n.flying, r)
			if r.pid != n.pid {
				n.do(100, n.reap)
			}
			r.pass(to, relay)
		}
	}, unasked)
}

// whenAwake runs f in the worker process, at once unless it is stopped, or else died when it dies before.
func (n *modelEdge) whenAwake(f, died func()) {
	if n.works() {
		f()
		return
	}
	if !n.up {
		died()
		return
	}
	done := false
	n.dies = append(n.dies, func() {
		if !done {
			died()
		}
	})
	n.do(0, func() { done = true; f() })
}

func (r *request) hold() {
	r.n.whenAwake(r.held, func() { r.end(http.StatusServiceUnavailable) })
}

// gone reports whether a request has ended; it ends here with the nginx that had it.
func (r *request) gone() bool {
	if !r.over && r.pid != r.n.pid {
		r.end(0)
	}
	return r.over
}

// held is /hold: it looks at the rule now, whenever that changes, and when it runs out.
func (r *request) held() {
	n := r.n
	if r.gone() {
		return
	}
	if !n.ruled {
		r.end(http.StatusServiceUnavailable)
		return
	}
	status, to, relay := n.ask(r)
	switch deadline := n.rule.Deadline; {
	case status == http.StatusNoContent:
		n.flying = append(n.flying, r)
		r.pass(to, relay)
	case !n.now().Before(deadline):
		r.end(http.StatusServiceUnavailable)
	default:
		n.whenRuled(r.held)
		n.do(n.until(n.w.now, deadline)-n.w.now, r.held)
		n.dies = append(n.dies, func() { r.end(http.StatusServiceUnavailable) })
	}
}

// whenRuled runs f when the rule has changed.
func (n *modelEdge) whenRuled(f func()) { n.waiting = append(n.waiting, f) }

// pass sends a request on to a backend, or through the gate.
func (r *request) pass(backend string, relayed bool) {
	n := r.n
	if r.gone() {
		return
	}
	r.over, r.backend, r.relayed = true, backend, relayed
	switch {
	case !relayed:
		n.w.at(n.w.now+r.takes/2, 0, func() {
			status := r.serve()
			n.w.at(n.w.now+r.takes/2, 0, func() { r.finish(status) })
		})
	default:
		finished := false
		finish := func(status int) {
			if !finished {
				finished = true
				r.finish(status)
			}
		}
		n.dies = append(n.dies, func() { finish(http.StatusServiceUnavailable) })
		if r.kind == names {
			r.awaitBlobs(finish)
		} else {
			r.commit(finish)
		}
	}
}

func (r *request) serve() int {
	r.n.w.dirty = true
	return r.n.w.registries[index(r.backend)].serve(r)
}

// finish ends a request at nginx: the client is answered, and the journal has it.
func (r *request) finish(status int) {
	n := r.n
	if r.pid != n.pid {
		r.answer(r, 0)
		return
	}
	r.write(status)
	n.flying = slices.DeleteFunc(n.flying, func(o *request) bool { return o == r })
	r.answer(r, status)
}

// write puts a request into the journal, when nginx lives to do so.
func (r *request) write(status int) {
	n := r.n
	if r.pid != n.pid {
		return
	}
	e := journal.Entry{At: n.now(), ID: r.id, Method: r.method, Path: r.path, Query: r.query, Status: status, Session: r.opened, Backend: r.backend}
	n.journal = append(n.journal, e)
	n.do(journalLag, func() { n.tell(e) })
}
