package edge

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"transship/internal/gate"
	"transship/internal/routing"
)

// nginxProcess tells one run of nginx apart from all others: a node whose nginx was away may have missed a flip.
type nginxProcess struct {
	Boot   string `json:"boot,omitempty"`
	Master int    `json:"master,omitempty"`
	// Started is in clock ticks since the boot (proc(5), starttime).
	Started uint64 `json:"started,omitempty"`
}

// nginxNow identifies the nginx that answers now. It is zero where none does, or where /proc does not show it.
func (c Config) nginxNow(ctx context.Context) (p nginxProcess) {
	answer, err := ask[filesAnswer](ctx, c.filesURL())
	if err != nil {
		return p
	}
	return processOf(answer.PID)
}

// processOf identifies the nginx to which a worker process belongs.
func processOf(worker int) (p nginxProcess) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	master := parent(worker)
	if err != nil || master == 0 {
		return p
	}
	started := startTime(master)
	if started == 0 {
		return p
	}
	return nginxProcess{strings.TrimSpace(string(boot)), master, started}
}

// startTime returns when a process started, in clock ticks since the boot; 0 when that cannot be told.
func startTime(pid int) uint64 {
	fields := statFields(pid)
	if len(fields) < 20 {
		return 0
	}
	n, _ := strconv.ParseUint(fields[19], 10, 64) // field 22 of proc(5); the first two are cut off
	return n
}

// catchUpPatience is how long writes wait while the node that starts asks for its table; then they are refused.
const catchUpPatience = 15 * time.Second

// beginUnsure parks the writes of every known prefix, unless nginx has been serving all the while: then no flip can have gone on without this node.
func (e *Edge) beginUnsure(ctx context.Context) {
	now := e.nginxNow(ctx)
	if now != (nginxProcess{}) && now == e.state.Nginx {
		return
	}
	e.unsureUntil = time.Now().Add(catchUpPatience)
	e.log.Info("writes of known prefixes wait until this node has the present routing table")
}

// awayLong is for how long a node may serve nobody, or stand still, before it takes no more writes on its own. No operator orders to go on without it in less than ten
// seconds, and no flip can have gone on without that.
const awayLong = 8 * time.Second

// serves notes that nginx serves now.
func (e *Edge) serves() {
	now := time.Now().Round(0) // not the monotonic clock, which stands still with a machine
	e.served.Store(&now)
}

// awayFor is for how long nginx has not been seen to serve.
func (e *Edge) awayFor() time.Duration {
	if served := e.served.Load(); served != nil {
		return time.Since(*served)
	}
	return 0
}

// errAway says that nginx was away for so long that the node no longer knows whether its table is the present one.
var errAway = errors.New("nginx was away for so long that flips may have gone on without this node")

// confirmServing waits until nginx serves by a generation. A node that is sure of its table is no longer, once nginx was away for long.
func (e *Edge) confirmServing(ctx context.Context, generation int64) error {
	if !e.unsureUntil.IsZero() {
		return e.confirm(ctx, generation)
	}
	limit := awayLong - e.awayFor()
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errAway)
	defer cancel()
	began := time.Now().Round(0)
	err := e.confirm(ctx, generation)
	if err == nil && time.Since(began) >= limit {
		err = errAway
	}
	if err != nil && context.Cause(ctx) == errAway {
		err = errors.Join(errAway, err)
	}
	return err
}

// watchNginx looks whether this node serves. One that did not, for so long that flips may have gone on without it by order, takes no write when it is back until it has
// the present table: this process may have been cut off from Temporal all the while, or stood still together with its nginx.
func (e *Edge) watchNginx(ctx context.Context) {
	const every = time.Second
	e.serves()
	for looked := time.Now().Round(0); ; {
		asking, cancel := context.WithTimeout(ctx, every)
		serves := e.Serves(asking)
		cancel()
		stoodStill := time.Since(looked) >= awayLong
		if looked = time.Now().Round(0); stoodStill || !serves && e.awayFor() >= awayLong {
			e.mayHaveMissed(ctx) // again and again, so that writes wait when it is back, and are not refused at once
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(every):
		}
	}
}

// mayHaveMissed parks the writes of every known prefix until CaughtUp, or anew when they are.
func (e *Edge) mayHaveMissed(ctx context.Context) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	if e.unsureUntil.IsZero() {
		e.log.Warn("this node served nobody for a while: writes of known prefixes wait until it has the present routing table")
	}
	if err := e.doubt(time.Now().Add(catchUpPatience)); err != nil {
		e.log.Error("hold the writes of known prefixes", "error", err)
	}
}

// doubt parks the writes of every known prefix, until a moment at which they are refused. e.mu is held.
func (e *Edge) doubt(until time.Time) error {
	e.unsureUntil = until
	e.state.Nginx = nginxProcess{} // the next process, too, must ask
	e.setGate(e.state)
	return errors.Join(e.raiseAnew(), e.state.save(e.State))
}

// Unsure reports whether this node may have missed a table: writes of known prefixes wait, and are then refused, until CaughtUp.
func (e *Edge) Unsure() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return !e.unsureUntil.IsZero()
}

// Serves reports whether nginx answers, whatever it says.
func (e *Edge) Serves(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, e.StatusURL, nil)
	if err != nil {
		return false
	}
	resp, err := newConnections().Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	e.serves()
	return true
}

// CaughtUp says that the node has the present table: t, or nothing was ever routed, when it is nil. Writes go on by it. served is when the node was last seen to serve before
// it was asked for the table. An operator leaves a node out that has served nobody for long, so none can have done so since, unless that is long ago as well.
func (e *Edge) CaughtUp(ctx context.Context, t *routing.Table, served time.Time) error {
	ctx, cancel := context.WithDeadline(ctx, served.Add(awayLong))
	defer cancel()
	tooLate := func() bool { return time.Since(served.Round(0)) >= awayLong } // the monotonic clock stands still with a machine
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.unsureUntil.IsZero() {
		return nil
	}
	if tooLate() {
		return fmt.Errorf("edge %s: %w", e.Name, errTooLate)
	}
	s := e.state
	if t != nil && t.Generation >= s.Table.Generation {
		next, err := s.next(*t, time.Now())
		if err != nil {
			return fmt.Errorf("edge %s: %w", e.Name, err)
		}
		s = next
	}
	unsure := e.unsureUntil
	e.unsureUntil = time.Time{}
	_, err := e.become(ctx, s, func() error {
		if tooLate() {
			return errTooLate
		}
		return nil
	})
	if err != nil {
		return errors.Join(fmt.Errorf("edge %s: %w", e.Name, err), e.doubt(unsure))
	}
	e.log.Info("caught up", "generation", s.Table.Generation)
	return nil
}

var errTooLate = errors.New("it took so long to ask for the routing table that flips may have gone on without this node since")

// raiseAnew has the flags say whether the node is unsure. Those that are newer than its state stay, with a hold when it is.
func (e *Edge) raiseAnew() error {
	switch {
	case e.inForce() <= e.state.Table.Generation:
		return e.raise(e.state, e.unsureUntil)
	case e.unsureUntil.IsZero():
		return nil
	}
	return e.holdAll()
}

// known are the prefixes of the configuration and of a table, sorted.
func (c Config) known(t routing.Table) []routing.Prefix {
	known := slices.Clone(c.Prefixes)
	for _, r := range t.Routes {
		known = append(known, r.Prefix)
	}
	slices.Sort(known)
	return slices.Compact(known)
}

// startHold names what parks writes while a node starts: no freeze of any migration.
const startHold = "start"

// unsureRule parks the writes of a prefix while the node does not know whether its table is the present one.
func (e *Edge) unsureRule(s state, p routing.Prefix) gate.Rule {
	rule := gate.Rule{Mode: routing.Prepared, Backend: s.Table.Backend(string(p)), Hold: startHold, Unsure: true, Deadline: e.unsureUntil}
	if r, ok := s.Table.Lookup(p); ok {
		rule.Other, rule.Uploads, rule.Scope, rule.Fallback = r.Other, r.Uploads, r.Scope(), r.Fallback
	}
	return rule
}
