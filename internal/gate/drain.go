package gate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
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
	// SessionIdle is how long an upload session may be silent before it is taken for abandoned, and forgotten by edges that it did not go through.
	SessionIdle time.Duration
}

// Drained says how a drain ended.
type Drained struct {
	Waited time.Duration `json:"waited_ns"`
	// Lost are writes whose nginx process died before it could journal their end. Their outcome is unknown: what they name must be compared.
	Lost []Write `json:"lost,omitempty"`
	// Uploads are open: idle sessions, and requests that upload a blob and have not ended.
	Uploads []routing.Upload `json:"open,omitempty"`
	// Closed are sessions that ended here lately: other edges, through which they went, may not know.
	Closed []string `json:"closed,omitempty"`
}

// uploadGrace is how long a drain waits for uploads that are about to end: most then need no more than the last delta.
const uploadGrace = 100 * time.Millisecond

// Drain waits until no write is in flight that changes a name or opens an upload session. Uploads are not waited for, but for a moment: they finish where they are.
// alive tells whether an nginx process still runs.
func (g *Gate) Drain(ctx context.Context, o DrainOptions, alive func(pid int) bool) (Drained, error) {
	begin := g.Now()
	var lost []Write
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		waited := g.since(begin)
		step, err := g.look(o, waited, alive)
		lost = append(lost, step.lost...)
		if err != nil {
			return Drained{Lost: lost}, fmt.Errorf("drain of %s: %w", o.Prefix, err)
		}
		if step.over {
			return Drained{Waited: waited, Lost: lost, Uploads: step.uploads, Closed: step.closed}, nil
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
	over    bool
	uploads []routing.Upload
	closed  []string
	lost    []Write
}

func (g *Gate) look(o DrainOptions, waited time.Duration, alive func(pid int) bool) (look, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.wake()
	r := g.rules[o.Prefix]
	if r == nil || r.Hold != o.Hold || !g.Now().Before(r.Deadline) {
		return look{}, ErrHoldLost
	}
	var l look
	var names []Write
	uploading := 0
	open := map[routing.Upload]bool{}
	for id, w := range g.writes {
		if w.Prefix != o.Prefix {
			continue
		}
		if w.PID != 0 && !alive(w.PID) {
			delete(g.writes, id)
			l.lost = append(l.lost, w)
			continue
		}
		u, is := uploads(w)
		if !is {
			names = append(names, w)
			continue
		}
		if u.Session != "" && g.home(u.Session, r) != r.Backend { // on the way back: it lives where the prefix goes
			continue
		}
		if w.relayed { // it commits nothing that would not be carried over first
			u.Commits = ""
		} else if u.Commits != "" {
			uploading++
		}
		open[u] = true
	}
	for id, s := range g.sessions {
		if s.prefix == o.Prefix && s.backend == r.Backend && g.since(s.active) < o.SessionIdle {
			open[routing.Upload{Repository: s.repository, Session: id}] = true
		}
	}
	trusted := g.since(g.started) >= o.Settle && g.since(g.unannounced[o.Prefix]) >= o.Settle
	late := waited >= o.Limit
	switch {
	case trusted && len(names) == 0 && (uploading == 0 || waited >= min(uploadGrace, o.Limit)):
		l.over, l.uploads = true, listed(open)
		for id, at := range g.closed {
			if g.since(at) < o.SessionIdle {
				l.closed = append(l.closed, id)
			}
		}
		slices.Sort(l.closed)
	case late && !trusted:
		return l, fmt.Errorf("%w: the gate has not seen every write for %s yet", ErrNotDrained, o.Settle)
	case late:
		return l, fmt.Errorf("%w: %s", ErrNotDrained, describe(names))
	}
	return l, nil
}

// listed sorts uploads, and leaves out idle sessions that also have a request under way.
func listed(open map[routing.Upload]bool) []routing.Upload {
	committing := map[string]bool{}
	for u := range open {
		committing[u.Session] = committing[u.Session] || u.Commits != ""
	}
	var list []routing.Upload
	for u := range open {
		if u.Session == "" || u.Commits != "" || !committing[u.Session] {
			list = append(list, u)
		}
	}
	slices.SortFunc(list, func(a, b routing.Upload) int {
		return cmp.Or(strings.Compare(a.Repository, b.Repository), strings.Compare(a.Session, b.Session), strings.Compare(a.Commits, b.Commits))
	})
	return list
}

// uploads tells which upload a write belongs to. It is false for writes that change what a name refers to, and for those that open a session: nobody knows yet
// which.
func uploads(w Write) (routing.Upload, bool) {
	t, ok := journal.ParseTarget(w.Method, w.Path, w.Query)
	if !ok || t.Kind != journal.Upload {
		return routing.Upload{}, false
	}
	args, _ := url.ParseQuery(w.Query) // what cannot be parsed is no digest
	return routing.Upload{Repository: t.Repository, Session: t.Reference, Commits: t.Commits}, t.Reference != "" || args.Has("digest")
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
