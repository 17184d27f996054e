package gate

import (
	"crypto/subtle"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"transship/internal/journal"
	"transship/internal/routing"
)

// Headers between nginx and the gate. internal/edge writes the nginx side.
const (
	HeaderID      = "X-Request-Id"
	HeaderMethod  = "X-Original-Method"
	HeaderPath    = "X-Original-Path"
	HeaderQuery   = "X-Original-Query"
	HeaderPrefix  = "X-Transship-Prefix"
	HeaderPID     = "X-Transship-Pid"
	HeaderBackend = "X-Transship-Backend"
	// HeaderVia of an answer is "relay" when nginx must send the write through the gate.
	HeaderVia   = "X-Transship-Via"
	HeaderToken = "X-Transship-Token"
)

// ServeHTTP answers nginx's subrequests: /begin announces a write of a watched prefix, /hold asks whether one may go on. 204 lets it go
// on, to the backend named in the answer; 409 to a /begin sends nginx to /hold; 503 refuses it. What nginx is told to send through the gate comes to /relay.
func (g *Gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if rest, ok := strings.CutPrefix(r.URL.Path, "/relay/"); ok {
		// Only what nginx was just told to send here: its ID cannot be guessed, and is of no use afterwards.
		id, rest, _ := strings.Cut(rest, "/")
		g.mu.Lock()
		write, known := g.writes[id]
		g.mu.Unlock()
		if !known || !write.relayed {
			http.NotFound(w, r)
			return
		}
		g.relay(w, r, rest)
		return
	}
	if !g.knows(r.Header.Get(HeaderToken)) {
		http.NotFound(w, r)
		return
	}
	pid, _ := strconv.Atoi(r.Header.Get(HeaderPID))
	write := Write{
		ID: r.Header.Get(HeaderID), Prefix: routing.Prefix(r.Header.Get(HeaderPrefix)), Method: r.Header.Get(HeaderMethod),
		Path: r.Header.Get(HeaderPath), Query: r.Header.Get(HeaderQuery), Began: g.Now(), PID: pid,
	}
	if write.ID == "" || write.Prefix == "" {
		http.Error(w, "the request lacks "+HeaderID+" or "+HeaderPrefix+": it does not come from a generated nginx file", http.StatusBadRequest)
		return
	}
	switch r.URL.Path {
	case "/begin":
		g.begin(w, write)
	case "/hold":
		g.hold(w, r, write)
	default:
		http.NotFound(w, r)
	}
}

// begin never waits: nginx lets a watched write pass when the gate takes longer than a second.
func (g *Gate) begin(w http.ResponseWriter, write Write) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, over := g.ended[write.ID]; over { // this gate stood still, and nginx did not wait for it
		w.WriteHeader(http.StatusNoContent)
		return
	}
	r := g.rules[write.Prefix]
	if r != nil {
		d := g.decide(write.Prefix, r, write)
		if d.wait {
			// An nginx worker that still looks at the flags from before the freeze, or a deletion that something must come before.
			w.WriteHeader(http.StatusConflict)
			return
		}
		write = d.let(write, w.Header())
	}
	g.writes[write.ID] = write
	w.WriteHeader(http.StatusNoContent)
}

// decision is what becomes of a write: it goes on to a backend, perhaps through the gate, or it waits.
type decision struct {
	to    string
	relay bool
	wait  bool
}

// let writes a decision into the answer.
func (d decision) let(w Write, answer http.Header) Write {
	answer.Set(HeaderBackend, d.to)
	if d.relay {
		answer.Set(HeaderVia, "relay")
	}
	w.relayed = d.relay
	return w
}

// decide is called with g.mu held.
func (g *Gate) decide(p routing.Prefix, r *ruleState, w Write) decision {
	t, ok := journal.ParseTarget(w.Method, w.Path, w.Query)
	parks := r.Mode.Parks() && (r.Mode != routing.Held || g.Now().Before(r.Deadline))
	switch {
	case r.Unsure: // sessions, too, may live elsewhere than the table says
		return decision{wait: true}
	case ok && t.Kind == journal.Upload && t.Reference != "":
		to := g.home(t.Reference, r)
		// Also where an edge is switched to the backend of the session: until all are, everybody may go back.
		return decision{to: to, relay: w.Method == http.MethodPut && (to != r.Backend || parks)}
	case parks:
		return decision{wait: true}
	case !ok:
		return decision{to: r.Backend}
	case w.Method == http.MethodDelete && t.Kind == journal.Blob && (r.Scope != routing.Nothing || r.Narrowing):
		return g.narrowed(p, r, routing.DeletesBlob)
	case w.Method == http.MethodDelete && t.Kind == journal.Manifest && (r.Scope == routing.Digests || r.Narrowing):
		return g.narrowed(p, r, routing.DeletesManifest)
	case w.Method == http.MethodPut && t.Kind == journal.Manifest && r.mayLack(t.Repository):
		return decision{to: r.Backend, relay: true}
	}
	return decision{to: r.Backend}
}

// narrowed has a deletion wait until no edge reads any more from the other backend what it deletes.
func (g *Gate) narrowed(p routing.Prefix, r *ruleState, d routing.Deletes) decision {
	if !r.narrowing && g.Narrow != nil {
		r.narrowing = true
		go func() {
			g.Narrow(p, d)
			g.mu.Lock()
			defer g.mu.Unlock()
			r.narrowing = false
		}()
	}
	return decision{wait: true}
}

// home is the backend on which an upload session lives: where it was seen, or, for one that went through other edges only, what the routing table says. A table that
// switches names all sessions that were open then; any other was opened since, on the new backend, at an edge that has opened to it before this one.
func (g *Gate) home(id string, r *ruleState) string {
	if s, ok := g.sessions[id]; ok && s.backend != "" {
		return s.backend
	}
	listed := slices.ContainsFunc(r.Uploads, func(u routing.Upload) bool { return u.Session == id })
	if r.Other != "" && listed {
		return r.Other
	}
	return r.Backend
}

// mayLack reports whether the backend that serves may lack what a manifest of a repository needs, and the other one has it or is just getting it.
func (r Rule) mayLack(repository string) bool {
	return r.Fallback != routing.Nothing || slices.ContainsFunc(r.Uploads, func(u routing.Upload) bool { return u.Repository == repository })
}

// patience is how long a deletion waits for what must come before it.
const patience = 10 * time.Second

func (g *Gate) hold(w http.ResponseWriter, req *http.Request, write Write) {
	counted := false
	g.mu.Lock()
	defer func() {
		if r := g.rules[write.Prefix]; counted && r != nil {
			r.parked = max(0, r.parked-1) // the rule may have been dropped and set again meanwhile
		}
		g.mu.Unlock()
	}()
	begun := g.Now()
	for {
		r := g.rules[write.Prefix]
		if r == nil { // nginx holds what this gate knows nothing of, as after the loss of its state: it does not guess
			g.refuse(w, write)
			return
		}
		d := g.decide(write.Prefix, r, write)
		deadline := r.Deadline
		if !r.Mode.Parks() {
			deadline = begun.Add(patience)
		}
		switch {
		case !d.wait:
			write.Began = g.Now()
			write = d.let(write, w.Header())
			if _, over := g.ended[write.ID]; !over {
				g.writes[write.ID] = write
			}
			w.WriteHeader(http.StatusNoContent)
			return
		case !g.Now().Before(deadline):
			g.refuse(w, write)
			return
		}
		if !counted && r.Mode.Parks() {
			counted = true
			r.parked++
			r.hold.Parked++
			if r.first.IsZero() {
				r.first = g.Now()
			}
		}
		timer := time.NewTimer(deadline.Sub(g.Now()))
		g.mu.Unlock()
		select {
		case <-r.changed:
		case <-timer.C:
		case <-req.Context().Done():
		}
		timer.Stop()
		g.mu.Lock()
		if req.Context().Err() != nil {
			g.ended[write.ID] = g.Now() // it never got past us
			return                      // the client gave up, or the gate is shutting down
		}
	}
}

// knows reports whether whoever asks is this node's nginx.
func (g *Gate) knows(token string) bool {
	return subtle.ConstantTimeCompare([]byte(token), []byte(g.Token)) == 1
}

// refuse is called with g.mu held.
func (g *Gate) refuse(w http.ResponseWriter, write Write) {
	g.ended[write.ID] = g.Now() // it never got past us
	g.unavailable(w, fmt.Sprintf("writes of %s are refused until the routing table says where they go", write.Prefix))
}

// unavailable asks a client to come back.
func (g *Gate) unavailable(w http.ResponseWriter, why string) {
	w.Header().Set("Retry-After", strconv.Itoa(int(g.RetryAfter.Seconds()+0.5)))
	http.Error(w, why, http.StatusServiceUnavailable)
}
