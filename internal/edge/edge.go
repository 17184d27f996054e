package edge

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"transship/internal/gate"
	"transship/internal/journal"
	"transship/internal/monitor"
	"transship/internal/routing"
)

// ErrStale says that an edge was given a table older than the one it has.
var ErrStale = errors.New("the routing table is older than the edge's")

// ErrHoldLost says that a step of the flip came after the hold had run out: writes have gone on to the old backend.
var ErrHoldLost = gate.ErrHoldLost

// Config is what an edge needs to know of its node.
type Config struct {
	Name      string
	Upstreams []Upstream
	// Prefixes are known to nginx from the start, so that routing them later takes no reload.
	Prefixes []routing.Prefix
	// Directory holds the generated files.
	Directory string
	// TestCommand and ReloadCommand are nginx's, as an argument list each.
	TestCommand, ReloadCommand []string
	// StatusURL is where nginx answers with the generation it has.
	StatusURL string
	// GateAddress is the gate as nginx writes it in proxy_pass: http://127.0.0.1:9099, or http://unix:/path:.
	GateAddress string
	// Journal, Traffic and Fallbacks are the logs that nginx writes.
	Journal, Traffic, Fallbacks string
	// Reads is the loopback address where nginx itself reads from a second backend what the first does not have. Without one, there are neither fallback
	// reads nor canaries.
	Reads string
	// State is the file in which the edge remembers its table.
	State string
	// RetryAfter is what refused clients are told.
	RetryAfter time.Duration

	// token is what nginx shows the gate, so that the gate answers nobody else.
	token string
}

// Edge is one proxy node.
type Edge struct {
	Config
	log     *slog.Logger
	gate    *gate.Gate
	traffic *monitor.Traffic

	// mu is held while a table is applied, so that tables take effect one after the other.
	mu    sync.Mutex
	state state
	// unsureUntil is zero when the table is the present one, as far as this node can know.
	unsureUntil time.Time
	// served is when nginx was last seen to serve; nil when it was never looked at.
	served atomic.Pointer[time.Time]

	tell      Tell
	fallbacks fallbacks
}

// Tell is whom the edge tells what it cannot decide or do itself. Each is called on a goroutine of its own.
type Tell struct {
	// Expired says that a lease ran out unrenewed, once for each.
	Expired func(routing.Route)
	// Carry has the migration of a route bring what a backend acknowledged to the one that serves, and returns when it is there. ended are uploads of the
	// table that are over.
	Carry func(ctx context.Context, r routing.Route, from string, changes []journal.Change, ended []routing.Upload) error
	// Narrow has every edge read less from the other backend of a route.
	Narrow func(r routing.Route, d routing.Deletes)
}

// New makes the edge with what it remembers.
func New(c Config, log *slog.Logger, tell Tell) (*Edge, error) {
	s, err := loadState(c.State)
	if err != nil {
		return nil, err
	}
	if s.Token == "" {
		s.Token = rand.Text()
	}
	c.token = s.Token
	e := &Edge{Config: c, log: log.With("edge", c.Name), traffic: monitor.NewTraffic(), state: s, tell: tell}
	options := gate.Options{RetryAfter: c.RetryAfter, Token: s.Token, Backends: map[string]*url.URL{}, Carry: e.carry, Narrow: e.narrow}
	for _, u := range c.Upstreams {
		options.Backends[u.Name] = &url.URL{Scheme: u.scheme(), Host: u.Address}
	}
	e.gate = gate.New(log, options)
	e.setGate(s)
	return e, nil
}

func (e *Edge) carry(ctx context.Context, p routing.Prefix, from string, changes []journal.Change, ended []routing.Upload) error {
	r, ok := e.Table().Lookup(p)
	if !ok || r.Owner == "" {
		return fmt.Errorf("no migration owns %s any more", p)
	}
	return e.tell.Carry(ctx, r, from, changes, ended)
}

func (e *Edge) narrow(p routing.Prefix, d routing.Deletes) {
	if r, ok := e.Table().Lookup(p); ok {
		e.tell.Narrow(r, d)
	}
}

// Gate is what answers nginx's subrequests.
func (e *Edge) Gate() *gate.Gate { return e.gate }

// Run follows the logs and ends holds at their deadline, until ctx ends.
func (e *Edge) Run(ctx context.Context) error {
	var wait sync.WaitGroup
	wait.Go(func() { e.followJournal(ctx) })
	wait.Go(func() { e.traffic.Follow(ctx, e.Traffic, e.log) })
	wait.Go(func() { e.watchLeases(ctx) })
	wait.Go(func() { e.followFallbacks(ctx) })
	wait.Go(func() { e.stayAwake(ctx) })
	wait.Go(func() { e.watchNginx(ctx) })
	wait.Wait()
	return ctx.Err()
}

// Applied says what an edge did with a table.
type Applied struct {
	Edge       string `json:"edge"`
	Generation int64  `json:"generation"`
	// Reload is how long nginx took from the reload command until no old process took requests; 0 when nothing had to be reloaded.
	Reload time.Duration `json:"reload_ns"`
	// Freezes are the holds that the table ended.
	Freezes []routing.Freeze `json:"freezes,omitempty"`
}

// Apply takes a table, in the gate, on disk and in nginx, and confirms it. Doing it again with the same table changes nothing. Errors that
// match ErrStale, ErrHoldLost, ErrRejected or ErrUnwritable are final for this table, and leave the edge as it was.
//
// A node that does not know whether it missed a table goes on parking writes: this one may have been on its way for long.
func (e *Edge) Apply(ctx context.Context, t routing.Table) (Applied, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	before := e.state
	next, err := before.next(t, time.Now())
	if err != nil {
		return Applied{}, fmt.Errorf("edge %s: %w", e.Name, err)
	}
	applied, err := e.become(ctx, next, func() error { return stillHeld(before, next) })
	if err != nil {
		// The same goes back the way it came; the caller's context may be over, the edge's state must not depend on it.
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
		defer cancel()
		e.beginUnsure(undo) // when nginx is away, it must not come back to flags from before a flip
		if _, undoErr := e.become(undo, before, nil); undoErr != nil {
			err = errors.Join(err, fmt.Errorf("going back to generation %d: %w", before.Table.Generation, undoErr))
		}
		return Applied{}, err
	}
	return applied, nil
}

// stillHeld checks, after a step of the flip took effect, that the hold it rests on was in place until then.
func stillHeld(before, after state) error {
	for p, l := range after.Leases {
		had := before.Leases[p]
		if l.Mode != had.Mode && had.Mode == routing.Held && had.Hold == l.Hold && !time.Now().Before(had.Deadline) {
			return fmt.Errorf("%s became %s too late: %w", p, l.Mode, ErrHoldLost)
		}
	}
	return nil
}

// become puts a state in force. e.mu is held. look tells, when it is in force, whether it should have been; nil does not ask.
//
// The way out of a hold is on disk before it is in force. A step into a hold, or further into it, is on disk when it is known that the hold lasted until it was in force:
// else an edge that dies in between would take, when it starts again, a step past a hold that has run out.
func (e *Edge) become(ctx context.Context, s state, look func() error) (Applied, error) {
	applied := Applied{Edge: e.Name, Generation: s.Table.Generation}
	files, err := e.Render(s.Table)
	if err != nil {
		return applied, err
	}
	// nginx must know the prefix before its flags mean anything. Only a prefix that the configuration does not name needs this.
	if applied.Reload, s.Nginx, err = e.reloadIfChanged(ctx, files); err != nil {
		return applied, err
	}
	if !e.unsureUntil.IsZero() {
		s.Nginx = nginxProcess{} // this process may die before the node knows what it missed
	}
	applied.Freezes = e.setGate(s)
	further := s.further(e.state)
	e.state = s
	save := func() error {
		if err := s.save(e.State); err != nil {
			return fmt.Errorf("edge %s: %w: %w", e.Name, ErrUnwritable, err)
		}
		return nil
	}
	if !further {
		if err := save(); err != nil {
			return applied, err
		}
	}
	if err := e.raise(s, e.unsureUntil); err != nil {
		return applied, err
	}
	if err := e.confirmServing(ctx, s.Table.Generation); err != nil {
		return applied, err
	}
	if look != nil {
		if err := look(); err != nil {
			return applied, err
		}
	}
	if further {
		return applied, save()
	}
	return applied, nil
}

// reloadIfChanged puts files in place and has nginx read them, where it has not. It also identifies the nginx that answers; the zero value when none does.
func (e *Edge) reloadIfChanged(ctx context.Context, files map[string]string) (took time.Duration, nginx nginxProcess, err error) {
	changed, err := e.install(ctx, files)
	if err != nil {
		return 0, nginx, err
	}
	hash := hashIn(files)
	answer, err := ask[filesAnswer](ctx, e.filesURL())
	if err == nil {
		e.serves()
		nginx = processOf(answer.PID)
	}
	// Files that are on disk may not have been read: a crash may have come between that and the reload.
	if !changed && (err != nil || answer.Files == hash) {
		return 0, nginx, nil // when nginx is away, it will start with them
	}
	begin := time.Now()
	err = e.reload(ctx, hash)
	return time.Since(begin), nginx, err
}

// setGate makes the gate follow a state, and returns the holds that this ended. A prefix that is not known any more is forgotten.
func (e *Edge) setGate(s state) (freezes []routing.Freeze) {
	keep := map[routing.Prefix]bool{}
	for p, rule := range e.rules(s) {
		keep[p] = true
		have, ok := e.gate.Rule(p)
		if ok && have.Equal(rule) {
			continue
		}
		if ended, was := e.gate.Set(p, rule); was && ended.Hold != startHold {
			freezes = append(freezes, routing.Freeze{
				Edge: e.Name, Prefix: p, Hold: ended.Hold, Began: ended.Began, Lasted: ended.Lasted, Longest: ended.Longest, Parked: ended.Parked,
			})
		}
	}
	for _, p := range e.gate.Prefixes() {
		if !keep[p] {
			e.gate.Drop(p)
		}
	}
	return freezes
}

// rules are what the gate does in a state. A known prefix that nobody moves has one, too: nginx may have looked at the flags of just before.
func (e *Edge) rules(s state) map[routing.Prefix]gate.Rule {
	rules := map[routing.Prefix]gate.Rule{}
	if s.Table.Default != "" {
		for _, p := range e.known(s.Table) {
			rules[p] = gate.Rule{Mode: routing.Open, Backend: s.Table.Default}
		}
	}
	for _, r := range s.Table.Routes {
		rules[r.Prefix] = gate.Rule{Mode: routing.Open, Backend: r.Backend}
		if r.Mode != routing.Open {
			rules[r.Prefix] = s.rule(r)
		}
	}
	if !e.unsureUntil.IsZero() {
		for _, p := range e.known(s.Table) {
			rules[p] = e.unsureRule(s, p)
		}
	}
	return rules
}

// stayAwake waits for nothing but the clock, so that the gate notices when this process stood still.
func (e *Edge) stayAwake(ctx context.Context) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		e.gate.Awake()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// watchLeases ends holds at their deadline and tells of leases that ran out.
func (e *Edge) watchLeases(ctx context.Context) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	told := map[string]bool{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		e.gate.Reap(running)
		for _, r := range e.runOut(ctx) {
			if id := r.Hold + string(r.Mode); !told[id] {
				told[id] = true
				go e.tell.Expired(r)
			}
		}
	}
}

func (e *Edge) runOut(ctx context.Context) (out []routing.Route) {
	e.mu.Lock()
	defer e.mu.Unlock()
	next := e.state
	next.Leases = maps.Clone(e.state.Leases)
	changed := false
	for p, l := range e.state.Leases {
		if time.Now().Before(l.Deadline) {
			continue
		}
		r, _ := e.state.Table.Lookup(p)
		out = append(out, r)
		if l.Mode == routing.Held && !l.Lost {
			l.Lost, changed = true, true
			next.Leases[p] = l
			e.log.Warn("hold ran out, writes go on to the backend they had", "prefix", p, "hold", l.Hold, "backend", r.Backend)
		}
	}
	if changed {
		// nginx's own clock has let writes pass already.
		bounded, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		if _, err := e.become(bounded, next, nil); err != nil {
			e.log.Error("after a hold ran out", "error", err)
		}
	}
	return out
}

func (e *Edge) followJournal(ctx context.Context) {
	// Sessions that are still open were opened within the last few megabytes; the gate is told of everything from there on.
	from, err := journal.End(e.Journal)
	if err != nil {
		e.log.Error("journal", "error", err)
	}
	from.Offset = max(0, from.Offset-4<<20)
	for entry, err := range journal.Follow(ctx, e.Journal, from, 5*time.Millisecond) {
		if err != nil {
			if from.Offset == 0 || entry.Position == (journal.Position{}) {
				e.log.Warn("journal", "error", err)
			}
			continue // the first line after an offset in the middle is a part of one
		}
		e.gate.Ended(entry)
	}
}
