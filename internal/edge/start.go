package edge

import (
	"context"
	"fmt"
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

// awayLong is for how long a node may serve nobody, or stand still, before an operator can have ordered to go on without it, and a flip can have gone on.
const awayLong = 10 * time.Second

// watchNginx looks whether this node serves. One that did not, for so long that flips may have gone on without it by order, takes no write when it is back until it has
// the present table: this process may have been cut off from Temporal all the while, or stood still together with its nginx.
func (e *Edge) watchNginx(ctx context.Context) {
	const every = time.Second
	clock := func() time.Time { return time.Now().Round(0) } // not the monotonic one, which stands still with a machine
	served, looked := clock(), clock()
	for {
		asking, cancel := context.WithTimeout(ctx, 2*every)
		_, err := ask[confirmation](asking, e.StatusURL)
		cancel()
		now := clock()
		switch {
		case err == nil:
			served = now
		case now.Sub(served) >= awayLong:
			e.mayHaveMissed(ctx) // again and again, so that writes wait when it is back, and are not refused at once
		}
		if now.Sub(looked) >= awayLong {
			e.mayHaveMissed(ctx)
		}
		looked = now
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
	e.unsureUntil = time.Now().Add(catchUpPatience)
	e.setGate(e.state)
	if err := e.raise(e.state, e.unsureUntil); err != nil {
		e.log.Error("hold the writes of known prefixes", "error", err)
	}
}

// Unsure reports whether this node may have missed a table: writes of known prefixes wait, and are then refused, until CaughtUp.
func (e *Edge) Unsure() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return !e.unsureUntil.IsZero()
}

// CaughtUp says that the node has the present table: t, or nothing was ever routed, when it is nil. Writes go on by it.
func (e *Edge) CaughtUp(ctx context.Context, t *routing.Table) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.unsureUntil.IsZero() {
		return nil
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
	if _, err := e.become(ctx, s, nil); err != nil {
		e.unsureUntil = unsure
		return err
	}
	e.log.Info("caught up", "generation", s.Table.Generation)
	return nil
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
