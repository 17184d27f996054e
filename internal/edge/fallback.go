package edge

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"time"

	"transship/internal/journal"
	"transship/internal/routing"
)

// fallbacks counts reads of digests that the backend which serves a prefix did not have, and has what was missing carried over.
type fallbacks struct {
	mu     sync.Mutex
	counts map[routing.Prefix]Fallbacks
	asked  map[journal.Change]time.Time
	// busy counts repairs under way.
	busy int
}

// Fallbacks counts reads that went to a second backend.
type Fallbacks struct {
	// Served were answered there; Unserved were not, so that the first backend's answer was right, or both failed.
	Served   int `json:"served"`
	Unserved int `json:"unserved"`
	// Failed of Served were not missing at the first backend, which answered with a server error, or not at all.
	Failed int `json:"failed,omitempty"`
	// Last are the digests that were served last, newest first.
	Last []string `json:"last,omitempty"`
}

// fallbackLine is a read as nginx logs it; "us" has the status of both answers.
type fallbackLine struct {
	M  string `json:"m"`
	U  string `json:"u"`
	S  int    `json:"s"`
	US string `json:"us"`
}

// repairAgain is how long a repair that was asked for is not asked for again.
const repairAgain = time.Minute

func (e *Edge) followFallbacks(ctx context.Context) {
	if e.Fallbacks == "" {
		return
	}
	from, err := journal.End(e.Fallbacks)
	if err != nil {
		e.log.Error("fallbacks", "error", err)
	}
	for line, err := range journal.FollowLines(ctx, e.Fallbacks, from, 20*time.Millisecond) {
		if err != nil {
			e.log.Warn("fallbacks", "error", err)
			continue
		}
		var read fallbackLine
		if json.Unmarshal(line, &read) == nil {
			e.fellBack(ctx, read)
		}
	}
}

func (e *Edge) fellBack(ctx context.Context, read fallbackLine) {
	path, _, _ := strings.Cut(read.U, "?")
	t, ok := journal.ParseTarget(read.M, path, "")
	if !ok {
		return
	}
	route, ok := e.Table().Of(t.Repository)
	if !ok {
		return
	}
	served := read.S < 300 || read.S == 304 || read.S == 307
	missing := strings.HasPrefix(read.US, "404")
	e.fallbacks.count(route.Prefix, served, missing, t)
	// Before a flip, what the first backend lacks is the mirror's to bring.
	if served && missing && route.Fallback != routing.Nothing && t.Kind != journal.Upload {
		change := journal.Change{Kind: t.Kind, Repository: t.Repository, Reference: t.Reference}
		if e.fallbacks.due(change) {
			go e.repair(ctx, route, change)
		}
	}
}

func (f *fallbacks) count(p routing.Prefix, served, missing bool, t journal.Target) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.counts == nil {
		f.counts = map[routing.Prefix]Fallbacks{}
	}
	c := f.counts[p]
	if !served {
		c.Unserved++
	} else {
		c.Served++
		c.Last = append([]string{t.Repository + "@" + t.Reference}, c.Last[:min(len(c.Last), 9)]...)
		if !missing {
			c.Failed++
		}
	}
	f.counts[p] = c
}

// due reports whether a repair has to be asked for.
func (f *fallbacks) due(c journal.Change) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.asked == nil || len(f.asked) > 10_000 {
		f.asked = map[journal.Change]time.Time{}
	}
	if time.Since(f.asked[c]) < repairAgain || f.busy >= repairsAtOnce {
		return false
	}
	f.asked[c] = time.Now()
	f.busy++
	return true
}

// repairsAtOnce bounds what an edge asks of a migration; the rest is asked for when it is read again.
const repairsAtOnce = 4

func (e *Edge) repair(ctx context.Context, r routing.Route, c journal.Change) {
	defer func() {
		e.fallbacks.mu.Lock()
		defer e.fallbacks.mu.Unlock()
		e.fallbacks.busy--
	}()
	ctx, cancel := context.WithTimeout(ctx, repairAgain)
	defer cancel()
	if err := e.tell.Carry(ctx, r, r.Other, []journal.Change{c}, nil); err != nil && !errors.Is(err, context.Canceled) {
		e.log.Warn("a digest that "+r.Backend+" lacks could not be carried over", "repository", c.Repository, "digest", c.Reference, "error", err)
	}
}

// FellBack returns what was read from a second backend, by prefix, since this worker started.
func (e *Edge) FellBack() map[routing.Prefix]Fallbacks {
	e.fallbacks.mu.Lock()
	defer e.fallbacks.mu.Unlock()
	counts := map[routing.Prefix]Fallbacks{}
	for p, c := range e.fallbacks.counts {
		counts[p] = c
	}
	return counts
}
