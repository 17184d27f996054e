// Package gate is the small service beside each edge that nginx asks before it passes on a write of a watched or held prefix.
// It knows every write in flight, which is what a drain waits for, and it parks the writes of a held prefix until the hold
// ends: then they go on to the backend that it names, before any byte of their body was read.
//
// Upload sessions are never parked: they live on the backend that opened them, and go on there during a freeze and after the flip. What they
// commit on a backend that no longer serves is carried over before the client is answered (relay.go).
package gate

import (
	"context"
	"crypto/tls"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"transship/internal/journal"
	"transship/internal/routing"
)

// Rule is what the gate does with the writes of one prefix.
type Rule struct {
	// Mode is Open, Watched, or one of the parking modes.
	Mode routing.Mode
	// Backend gets the writes when they go on; Other is the backend on the far side of the migration.
	Backend, Other string
	// Scope is what is read from two backends. A deletion waits until that is narrowed, so that what was deleted stays gone.
	Scope routing.Scope
	// Narrowing says that other edges may not have heard of that yet.
	Narrowing bool
	// Fallback is what of it is so because Backend serves since a flip.
	Fallback routing.Scope
	// Uploads were open when Backend began to serve, and live on Other.
	Uploads []routing.Upload
	// Hold names the freeze; only for parking modes.
	Hold string
	// Unsure says that it parks because this node may have missed a routing table: nothing is committed before it has that.
	Unsure bool
	// Deadline ends a parking mode: Held writes go on to Backend, others are refused.
	Deadline time.Time
}

// Equal reports whether two rules say the same.
func (r Rule) Equal(o Rule) bool {
	return r.Mode == o.Mode && r.Backend == o.Backend && r.Other == o.Other && r.Scope == o.Scope && r.Narrowing == o.Narrowing && r.Fallback == o.Fallback && r.Hold == o.Hold && r.Unsure == o.Unsure &&
		r.Deadline.Equal(o.Deadline) && slices.Equal(r.Uploads, o.Uploads)
}

// Options are what a gate needs of its node.
type Options struct {
	// RetryAfter is what refused clients are told.
	RetryAfter time.Duration
	// Token is what nginx must show; empty asks for none.
	Token string
	// Backends are the addresses to which writes are relayed, by name.
	Backends map[string]*url.URL
	// Carry brings what a backend acknowledged to the one that serves the prefix, and returns when it is there. Uploads are those of the table
	// that have ended by it.
	Carry func(ctx context.Context, p routing.Prefix, from string, changes []journal.Change, ended []routing.Upload) error
	// Narrow has every edge read less from the other backend, because a client is about to delete something. The rule changes when it is done.
	Narrow func(p routing.Prefix, d routing.Deletes)
	// Now is the clock of the node; nil is time.Now.
	Now func() time.Time
}

// Gate parks and counts writes. Its zero value is not usable; see New.
type Gate struct {
	Options
	log       *slog.Logger
	started   time.Time
	transport *http.Transport

	mu          sync.Mutex
	rules       map[routing.Prefix]*ruleState
	writes      map[string]Write
	sessions    map[string]session
	unannounced map[routing.Prefix]time.Time // when a write was last seen to end that had never been announced
	ended       map[string]time.Time
	awake       time.Time         // when Awake was called last
	committed   map[string]commit // by session, what a relayed request committed
	// closed are sessions that ended lately; late are commits that ended while their prefix was parked, and whether they may have taken effect: the table may name them yet.
	closed map[string]time.Time
	late   map[routing.Prefix]map[routing.Upload]bool
	// settling are commits that have ended, and are being carried over.
	settling map[routing.Prefix]map[routing.Upload]bool
}

type ruleState struct {
	Rule
	changed chan struct{} // closed when the rule is replaced
	parked  int           // writes waiting now
	hold    Ended
	first   time.Time // when the first write of this hold was parked
	// narrowing says that the narrowing of the scope was asked for.
	narrowing bool
}

// Ended is a hold that is over.
type Ended struct {
	Hold  string
	Began time.Time
	// Lasted is until writes could go on.
	Lasted time.Duration
	// Longest is the longest that a write waited.
	Longest time.Duration
	// Parked counts the writes that waited.
	Parked int
}

// Write is a write that nginx has announced and that has not ended.
type Write struct {
	ID     string         `json:"id"`
	Prefix routing.Prefix `json:"prefix"`
	Method string         `json:"method"`
	Path   string         `json:"path"`
	Query  string         `json:"query,omitempty"`
	Began  time.Time      `json:"began"`
	// PID is the nginx worker process that serves it.
	PID int `json:"pid,omitempty"`
	// relayed says that it goes through the gate, which answers only when what it commits is where it belongs.
	relayed bool
}

type session struct {
	prefix     routing.Prefix
	repository string
	backend    string
	active     time.Time
}

type commit struct {
	digest string
	at     time.Time
}

// New makes a gate.
func New(log *slog.Logger, o Options) *Gate {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Gate{
		Options: o, log: log, started: o.Now(),
		// Backends as nginx reaches them: directly, and without looking at their certificates, as proxy_ssl_verify is off unless a site turns it on.
		transport: &http.Transport{DisableCompression: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, MaxIdleConnsPerHost: 16}, //nolint:gosec // see above
		committed: map[string]commit{}, closed: map[string]time.Time{}, late: map[routing.Prefix]map[routing.Upload]bool{},
		settling: map[routing.Prefix]map[routing.Upload]bool{},
		rules:    map[routing.Prefix]*ruleState{}, writes: map[string]Write{}, sessions: map[string]session{}, ended: map[string]time.Time{},
		unannounced: map[routing.Prefix]time.Time{},
	}
}

func (g *Gate) since(t time.Time) time.Duration { return g.Now().Sub(t) }

// Set replaces the rule of a prefix. Writes parked under the old rule look at the new one at once. When the new rule ends a hold, Set returns what
// it was.
func (g *Gate) Set(p routing.Prefix, r Rule) (ended Ended, was bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	next := &ruleState{Rule: r, changed: make(chan struct{})}
	if r.Mode.Parks() {
		next.hold = Ended{Hold: r.Hold, Began: g.Now()}
	}
	old := g.rules[p]
	g.rules[p] = next
	if old == nil {
		return ended, false
	}
	close(old.changed)
	next.parked = old.parked
	g.settleLate(p, next)
	switch {
	case !old.Mode.Parks():
	case r.Mode.Parks() && old.Hold == r.Hold:
		next.hold, next.first = old.hold, old.first
	default:
		ended = old.hold
		ended.Lasted = g.since(ended.Began)
		if ended.Parked > 0 {
			ended.Longest = g.since(old.first)
		}
		return ended, true
	}
	return ended, false
}

// Drop forgets the rule of a prefix: its writes go on, unseen.
func (g *Gate) Drop(p routing.Prefix) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if old := g.rules[p]; old != nil {
		delete(g.rules, p)
		close(old.changed)
	}
}

// Rule returns the rule of a prefix.
func (g *Gate) Rule(p routing.Prefix) (Rule, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r := g.rules[p]; r != nil {
		return r.Rule, true
	}
	return Rule{}, false
}

// asleep is half of how long nginx waits for a gate that does not answer, before it lets a watched write pass.
const asleep = 500 * time.Millisecond

// Awake is called all the time. A gate that finds it was not, because its process was stopped or starved, may not have been asked about writes: it is trusted no
// more than one that just started.
func (g *Gate) Awake() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.wake()
	g.awake = g.Now()
}

// wake is called with g.mu held.
func (g *Gate) wake() {
	if !g.awake.IsZero() && g.since(g.awake) > asleep {
		g.log.Warn("this process stood still: writes may have passed unseen", "for", g.since(g.awake).Round(time.Millisecond))
		g.started, g.awake = g.Now(), time.Time{}
	}
}

// Ended tells the gate that a write has ended, as the journal says. Entries may be told in any order and more than once.
func (g *Gate) Ended(e journal.Entry) {
	g.mu.Lock()
	defer g.mu.Unlock()
	t, ok := e.Target()
	prefix, watched := g.prefixOf(t.Repository)
	if _, announced := g.writes[e.ID]; announced {
		delete(g.writes, e.ID)
	} else if _, seen := g.ended[e.ID]; watched && !seen && e.MayHaveChanged() && e.At.After(g.started) {
		// Refused before the gate was asked is no write, whatever refused it. Everything else that was not announced began before the prefix was watched, or got past a
		// gate that did not answer in time.
		g.unannounced[prefix] = g.Now()
	}
	g.ended[e.ID] = g.Now()
	g.forget()
	if !ok || t.Kind != journal.Upload {
		return
	}
	id := t.Reference
	if id == "" {
		id = e.Session
	}
	g.endedLate(prefix, t, e)
	switch {
	case id == "":
	case e.Status == 202 && prefix != "":
		g.sessions[id] = session{prefix: prefix, repository: t.Repository, backend: e.Backend, active: e.At}
	case e.Status == 201, e.Status == 204, e.Status == 404:
		delete(g.sessions, id)
		g.closed[id] = g.Now()
	}
}

// forget keeps what the gate remembers from growing without end. g.mu is held.
func (g *Gate) forget() {
	const many = 10_000
	old := func(at time.Time, age time.Duration) bool { return g.since(at) > age }
	if len(g.ended) > many {
		maps.DeleteFunc(g.ended, func(_ string, at time.Time) bool { return old(at, time.Minute) })
	}
	if len(g.closed) > many {
		maps.DeleteFunc(g.closed, func(_ string, at time.Time) bool { return old(at, 5*time.Minute) })
	}
	if len(g.sessions) > many { // most ended through another edge
		maps.DeleteFunc(g.sessions, func(_ string, s session) bool { return old(s.active, time.Hour) })
	}
	if len(g.committed) > many {
		maps.DeleteFunc(g.committed, func(_ string, c commit) bool { return old(c.at, time.Hour) })
	}
}

func (g *Gate) prefixOf(repository string) (p routing.Prefix, watched bool) {
	for p, r := range g.rules {
		if p.Contains(repository) {
			return p, r.Mode != routing.Open
		}
	}
	return "", false
}

// Parked returns how many writes of a prefix wait now.
func (g *Gate) Parked(p routing.Prefix) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r := g.rules[p]; r != nil {
		return r.parked
	}
	return 0
}

// Prefixes returns the prefixes that have a rule.
func (g *Gate) Prefixes() []routing.Prefix {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Collect(maps.Keys(g.rules))
}
