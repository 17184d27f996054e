package gate

import (
	"fmt"
	"net/http"
	"strconv"
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
)

// ServeHTTP answers nginx's subrequests: /begin announces a write of a watched prefix, /hold asks whether one may go on. 204 lets it go
// on, to the backend named in the answer; 409 to a /begin sends nginx to /hold; 503 refuses it.
func (g *Gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	pid, _ := strconv.Atoi(r.Header.Get(HeaderPID))
	write := Write{
		ID: r.Header.Get(HeaderID), Prefix: routing.Prefix(r.Header.Get(HeaderPrefix)), Method: r.Header.Get(HeaderMethod),
		Path: r.Header.Get(HeaderPath), Query: r.Header.Get(HeaderQuery), Began: time.Now(), PID: pid,
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
	r := g.rules[write.Prefix]
	if r != nil && r.Mode.Parks() && !g.passes(r, write, w.Header()) {
		// An nginx worker that still has the file from before the freeze. Its write must wait like the others.
		w.WriteHeader(http.StatusConflict)
		return
	}
	g.writes[write.ID] = write
	w.WriteHeader(http.StatusNoContent)
}

// passes reports whether a write belongs to an upload session that may finish during a hold, and if so names its backend.
func (g *Gate) passes(r *ruleState, write Write, answer http.Header) bool {
	if r.Mode != routing.Held || r.Sessions == "" {
		return false
	}
	t, ok := journal.ParseTarget(write.Method, write.Path, write.Query)
	if !ok || t.Kind != journal.Upload || t.Reference == "" {
		return false
	}
	answer.Set(HeaderBackend, r.Sessions)
	return true
}

func (g *Gate) hold(w http.ResponseWriter, req *http.Request, write Write) {
	counted := false
	g.mu.Lock()
	defer func() {
		if r := g.rules[write.Prefix]; counted && r != nil {
			r.parked = max(0, r.parked-1) // the rule may have been dropped and set again meanwhile
		}
		g.mu.Unlock()
	}()
	for {
		r := g.rules[write.Prefix]
		switch {
		case r == nil: // nginx holds what this gate knows nothing of, as after the loss of its state: it does not guess
			g.refuse(w, write)
			return
		case !r.Mode.Parks(), r.Mode == routing.Held && !time.Now().Before(r.Deadline):
			write.Began = time.Now()
			g.writes[write.ID] = write
			w.Header().Set(HeaderBackend, r.Backend)
			w.WriteHeader(http.StatusNoContent)
			return
		case g.passes(r, write, w.Header()):
			g.writes[write.ID] = write
			w.WriteHeader(http.StatusNoContent)
			return
		case !time.Now().Before(r.Deadline):
			g.refuse(w, write)
			return
		}
		if !counted {
			counted = true
			r.parked++
			r.hold.Parked++
			if r.first.IsZero() {
				r.first = time.Now()
			}
		}
		timer := time.NewTimer(time.Until(r.Deadline))
		g.mu.Unlock()
		select {
		case <-r.changed:
		case <-timer.C:
		case <-req.Context().Done():
		}
		timer.Stop()
		g.mu.Lock()
		if req.Context().Err() != nil {
			return // the client gave up, or the gate is shutting down
		}
	}
}

func (g *Gate) refuse(w http.ResponseWriter, write Write) {
	w.Header().Set("Retry-After", strconv.Itoa(int(g.refusal.Seconds()+0.5)))
	http.Error(w, fmt.Sprintf("writes of %s are refused until the routing table says where they go", write.Prefix), http.StatusServiceUnavailable)
}
