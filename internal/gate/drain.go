package gate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"transship/internal/journal"
	"transship/internal/routing"
)

// ErrNotDrained says that writes were still in flight when the time was up. The freeze is given up then, never forced.
var ErrNotDrained = errors.New("writes in flight did not end in time")

// ErrHoldLost says that the prefix is not held under the name that was given: the hold ran out, or never was.
var ErrHoldLost = errors.New("the hold is no longer in place")

// DrainOptions bound a drain.
type DrainOptions struct {
	Prefix routing.Prefix
	Hold   string
	// Limit is how long to wait in all.
	Limit time.Duration
	// Settle is how long the gate must have seen every write before its count is believed. It matters after a restart of the gate, and after a
	// write that got past it.
	Settle time.Duration
	// SessionIdle is how long an upload session may be silent before it is taken for abandoned.
	SessionIdle time.Duration
}

// Drained says how a drain ended.
type Drained struct {
	Waited time.Duration `json:"waited_ns"`
	// Lost are writes whose nginx process died before it could journal their end. Their outcome is unknown: what they name must be compared.
	Lost []Write `json:"lost,omitempty"`
	// Uploads are sessions that were still open at the limit. They are unknown to the new backend, so their clients begin them again.
	Uploads int `json:"uploads"`
}

// Drain waits until no write that changes a name or commits a blob is in flight, and, within the limit, until open upload sessions have
// finished. From then on sessions are parked as well. alive tells whether an nginx process still runs.
func (g *Gate) Drain(ctx context.Context, o DrainOptions, alive func(pid int) bool) (Drained, error) {
	begin := time.Now()
	var lost []Write
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		waited := time.Since(begin)
		step, err := g.look(o, waited >= o.Limit, alive)
		lost = append(lost, step.lost...)
		if err != nil {
			return Drained{Lost: lost}, fmt.Errorf("drain of %s: %w", o.Prefix, err)
		}
		if step.sealed {
			return Drained{Waited: waited, Lost: lost, Uploads: step.sessions}, nil
		}
		select {
		case <-ctx.Done():
			return Drained{Lost: lost}, ctx.Err()
		case <-tick.C:
		}
	}
}

// look is one look at what is in flight.
type look struct {
	sealed   bool
	sessions int
	lost     []Write
}

// look seals the hold when nothing needs to be waited for any more, in the same moment in which it finds that out.
func (g *Gate) look(o DrainOptions, late bool, alive func(pid int) bool) (look, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.rules[o.Prefix]
	if r == nil || r.Hold != o.Hold || !time.Now().Before(r.Deadline) {
		return look{}, ErrHoldLost
	}
	var l look
	var writes []Write
	for id, w := range g.writes {
		switch {
		case w.Prefix != o.Prefix:
		case w.PID != 0 && !alive(w.PID):
			delete(g.writes, id)
			l.lost = append(l.lost, w)
		default:
			writes = append(writes, w)
		}
	}
	for _, s := range g.sessions {
		if s.prefix == o.Prefix && time.Since(s.active) < o.SessionIdle {
			l.sessions++
		}
	}
	trusted := time.Since(g.started) >= o.Settle && time.Since(g.unannounced[o.Prefix]) >= o.Settle
	names := naming(writes)
	switch {
	case trusted && len(names) == 0 && (late || l.sessions == 0 && len(writes) == 0):
		r.Sessions, l.sealed = "", true
	case late && !trusted:
		return l, fmt.Errorf("%w: the gate has not seen every write for %s yet", ErrNotDrained, o.Settle)
	case late:
		return l, fmt.Errorf("%w: %s", ErrNotDrained, describe(names))
	}
	return l, nil
}

// naming keeps the writes that change what a name refers to. Blob uploads in flight at the limit may finish on the old backend: blobs are named by
// their content.
func naming(writes []Write) []Write {
	var names []Write
	for _, w := range writes {
		t, ok := journal.ParseTarget(w.Method, w.Path, w.Query)
		if !ok || t.Kind != journal.Upload {
			names = append(names, w)
		}
	}
	return names
}

func describe(writes []Write) string {
	var b strings.Builder
	for i, w := range writes {
		if i == 3 {
			fmt.Fprintf(&b, " and %d more", len(writes)-i)
			break
		}
		fmt.Fprintf(&b, "%s %s since %s; ", w.Method, w.Path, time.Since(w.Began).Round(time.Millisecond))
	}
	return strings.TrimSuffix(b.String(), "; ")
}

// InFlight returns the announced writes of a prefix that have not ended.
func (g *Gate) InFlight(p routing.Prefix) []Write {
	g.mu.Lock()
	defer g.mu.Unlock()
	var writes []Write
	for _, w := range g.writes {
		if w.Prefix == p {
			writes = append(writes, w)
		}
	}
	return writes
}
