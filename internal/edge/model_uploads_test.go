package edge

import (
	"fmt"
	"slices"
	"strconv"

	"transship/internal/journal"
	"transship/internal/routing"
)

// Clients that push: each opens an upload session, continues it, commits it and puts a manifest that needs the blob, each request through any edge. Unlike other writes
// they are drawn, because what becomes of a request depends on the ones before.

const (
	modelRepository = "a/x"
	sessionIdle     = 8_000  // policy.freeze.session_idle
	uploadGrace     = 100    // gate: uploadGrace
	carryPatience   = 45_000 // gate: carryPatience
	carries         = 20     // what a mover takes for a blob
	journalLag      = 5      // Edge.followJournal
	retryAfter      = 1_000
	patience        = 90 // how often a client repeats a request
)

// push is a client that pushes one image.
type push struct {
	Event int
	// Waits come before each request; Edges are those through which they go; Takes is how long each is under way, when nothing keeps it.
	Waits [requests]int64
	Edges [requests]int
	Takes [requests]int64
}

// What a push consists of.
const (
	opens = iota
	continues
	commits
	names
	requests
)

func (p push) String() string {
	return fmt.Sprintf("after event %d: a push through edges %v after %v ms, requests take %v ms", p.Event, p.Edges, p.Waits, p.Takes)
}

// registry is a backend, as far as uploads go.
type registry struct {
	sessions, blobs, manifests map[string]bool
}

func newRegistry() *registry {
	return &registry{sessions: map[string]bool{}, blobs: map[string]bool{}, manifests: map[string]bool{}}
}

func (b *registry) serve(r *request) (status int) {
	c := r.client
	switch r.kind {
	case opens:
		c.opened++
		r.opened = fmt.Sprintf("%s-%d", c.name, c.opened)
		b.sessions[r.opened] = true
		return 202
	case continues:
		if b.sessions[r.session] {
			return 202
		}
	case commits:
		if b.sessions[r.session] {
			delete(b.sessions, r.session)
			b.blobs[c.digest] = true
			return 201
		}
	case names:
		if b.blobs[c.digest] {
			b.manifests[c.name] = true
			return 201
		}
		return 400
	}
	return 404
}

// client is a push under way.
type client struct {
	w            *world
	push         push
	name, digest string
	step         int
	edge         int
	opened       int // sessions
	session      string
	active       int64 // when its session was last heard of
	// excused says that its session was silent for so long that nobody need know it any more.
	excused      bool
	acknowledged bool // the blob
	committedAt  *modelEdge
	through      map[*modelEdge]bool
	lent         bool // nobody can know of the blob: it is carried over when the manifest needs it
	done         bool
	tries        int
}

func (w *world) startPush(i int, p push) {
	c := &client{w: w, push: p, through: map[*modelEdge]bool{}, name: fmt.Sprintf("p%d", i+1), digest: fmt.Sprintf("sha256:%064d", i+1)}
	w.clients = append(w.clients, c)
	c.next()
}

func (c *client) next() {
	if c.step == requests {
		c.done = true
		return
	}
	c.edge = c.push.Edges[c.step] % len(c.w.nodes)
	c.w.at(c.w.now+c.push.Waits[c.step], 0, c.send)
}

func (c *client) send() {
	r := c.request(c.step, c.w.nodes[c.edge])
	r.answer = c.answered
	c.through[r.n] = true
	c.excused = c.excused || c.w.owner.without[r.n.i] // the migration has not taken it in again, and does not hear that the session goes on
	r.arrive()
}

func (c *client) request(kind int, n *modelEdge) *request {
	r := &request{n: n, client: c, kind: kind, session: c.session, takes: c.push.Takes[kind]}
	c.w.requests++
	r.id = strconv.Itoa(c.w.requests)
	switch kind {
	case opens:
		r.method, r.path = "POST", "/v2/"+modelRepository+"/blobs/uploads/"
	case continues:
		r.method, r.path = "PATCH", "/v2/"+modelRepository+"/blobs/uploads/"+c.session
	case commits:
		r.method, r.path, r.query, r.commits = "PUT", "/v2/"+modelRepository+"/blobs/uploads/"+c.session, "digest="+c.digest, c.digest
	case names:
		r.method, r.path = "PUT", "/v2/"+modelRepository+"/manifests/"+c.name
	}
	return r
}

func (c *client) answered(r *request, status int) {
	w := c.w
	w.dirty = true
	w.note("%s: %s through edge %d to %s: %d", c.name, [...]string{"POST", "PATCH", "PUT", "manifest"}[r.kind], r.n.i+1, r.backend, status)
	silent := r.kind != opens && r.kind != names && w.now-c.active > w.idle()
	c.excused = c.excused || silent
	switch {
	case status == 400 && c.lent: // and nothing lent it, because the gate was away as well
		c.step, c.session, c.acknowledged = opens, "", false
		c.repeat()
	case status == 400:
		w.fail("%s has acknowledged the blob of %s, and its manifest through edge %d is told that %s does not know it", backends[w.has(c.digest)], c.name, r.n.i+1, r.backend)
	case status == 404:
		if b := w.lives(c.session); b >= 0 && !c.excused {
			w.fail("a session of %s that lives on %s is unknown to %s, where edge %d sent it", c.name, backends[b], r.backend, r.n.i+1)
			return
		}
		// It has ended, and its client was not told; or nobody knows it any more. The client begins again.
		c.step, c.session, c.excused = opens, "", false
		c.repeat()
	case status >= 200 && status < 300:
		c.active, c.tries = w.now, 0
		if r.kind == opens {
			c.session = r.opened
		}
		if r.kind == commits {
			c.acknowledged, c.committedAt = true, r.n
		}
		c.step++
		c.next()
	default:
		if c.edge = r.n.i; !r.n.nginx {
			c.edge = (c.edge + 1) % len(w.nodes)
		}
		c.repeat()
	}
}

// repeat is what clients do who are told to come back.
func (c *client) repeat() {
	if c.tries++; c.tries > patience {
		if c.excused { // nobody carries over any more what it commits
			c.done = true
			return
		}
		c.w.fail("%s has been refused %d times", c.name, c.tries)
		return
	}
	c.w.at(c.w.now+retryAfter, 0, c.send)
}

// idle is how long a session may be silent: a clock that is set forward makes that shorter.
func (w *world) idle() int64 { return sessionIdle - w.stepped }

// lives is the backend that has an upload session, or -1.
func (w *world) lives(session string) int {
	return slices.IndexFunc(w.registries[:], func(b *registry) bool { return b.sessions[session] })
}

// has is a backend that has a blob, or -1.
func (w *world) has(digest string) int {
	return slices.IndexFunc(w.registries[:], func(b *registry) bool { return b.blobs[digest] })
}

// lookAtUploads tries, at every edge, to go on with every open session, and to name every acknowledged blob.
func (w *world) lookAtUploads() {
	if !w.dirty || len(w.clients) == 0 {
		return
	}
	w.dirty = false
	for _, n := range w.nodes {
		for _, c := range w.clients {
			home := w.lives(c.session)
			if home < 0 || c.excused || w.now-c.active >= w.idle() {
				continue
			}
			if b := c.request(continues, n).would(); b >= 0 && b != home {
				w.fail("a session of %s that lives on %s would be unknown to %s, where edge %d sends it", c.name, backends[home], backends[b], n.i+1)
			}
		}
		for _, c := range w.clients {
			if !c.acknowledged || c.lent {
				continue
			}
			if b := c.request(names, n).would(); b >= 0 && !w.registries[b].blobs[c.digest] {
				w.fail("the blob of %s was acknowledged, and a manifest through edge %d would go to %s, which does not have it", c.name, n.i+1, backends[b])
			}
		}
	}
}

// copyBlob is what a mover does: what is at one side is then at the other.
func (w *world) copyBlob(from int, digest string) {
	if w.registries[from].blobs[digest] {
		w.registries[1-from].blobs[digest] = true
		w.dirty = true
	}
}

// lastDelta carries over what the journals name up to where the drains ended, manifests with their blobs.
func (w *world) lastDelta(from int, ends []int) {
	for i, n := range w.nodes {
		for _, e := range n.journal[:ends[i]] {
			t, ok := e.Target()
			if !ok || e.Backend != backends[from] || !e.MayHaveChanged() {
				continue
			}
			switch {
			case t.Kind == journal.Upload && t.Commits != "":
				w.copyBlob(from, t.Commits)
			case t.Kind == journal.Manifest && w.registries[from].manifests[t.Reference]:
				c := w.clients[slices.IndexFunc(w.clients, func(c *client) bool { return c.name == t.Reference })]
				w.copyBlob(from, c.digest)
				w.registries[1-from].manifests[c.name] = true
			}
		}
	}
}

// uploadsAtRest checks that every push has come to its end, and is where the prefix is served.
func (w *world) uploadsAtRest(route routing.Route) {
	serving := w.registries[index(route.Backend)]
	for _, c := range w.clients {
		switch {
		case !c.done:
			w.fail("at rest, %s has not ended", c.name)
		case c.acknowledged && !c.lent && !serving.blobs[c.digest]:
			w.fail("at rest, %s lacks the blob of %s", route.Backend, c.name)
		case c.step == requests && !serving.manifests[c.name]:
			w.fail("at rest, %s lacks the manifest of %s", route.Backend, c.name)
		}
	}
	for _, u := range route.Uploads {
		if u.Commits != "" {
			w.fail("at rest, manifests still wait for %s", u.Commits)
		}
	}
}
