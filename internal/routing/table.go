package routing

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Mode says what an edge does with the writes of a prefix. DESIGN.md, "The cutover protocol", has the table.
type Mode string

const (
	// Open passes writes to the route's backend, unseen.
	Open Mode = "open"
	// Watched passes writes to the route's backend; each is told to the gate first and is in the journal when it ends.
	Watched Mode = "watched"
	// Held parks writes. When the lease runs out unrenewed, they go on to the route's backend: nothing was decided.
	Held Mode = "held"
	// Prepared parks writes. When the lease runs out, they are refused (503, Retry-After): a flip may have been decided elsewhere.
	Prepared Mode = "prepared"
	// Switched parks writes as Prepared does; reads already go to the new backend, which is the route's backend now.
	Switched Mode = "switched"
)

// Parks reports whether writes wait at the gate in this mode.
func (m Mode) Parks() bool { return m == Held || m == Prepared || m == Switched }

// Route is where the traffic of one prefix goes.
type Route struct {
	Prefix Prefix `json:"prefix"`
	// Backend serves reads, and writes unless Mode parks them.
	Backend string `json:"backend"`
	// Other is the backend on the far side of the migration that claimed the prefix: the target before the flip, the
	// source after it. Empty when no migration has claimed it.
	Other string `json:"other,omitempty"`
	Mode  Mode   `json:"mode"`
	// Hold names the freeze that parks the writes; only set while Mode parks. An edge counts the lease from when it first
	// saw this Hold in this Mode, so a retry does not prolong it.
	Hold string `json:"hold,omitempty"`
	// Lease is how long the edge may stay in a parking mode without hearing from Routes again.
	Lease time.Duration `json:"lease,omitempty"`
	// Owner is the workflow that claimed the prefix.
	Owner string `json:"owner,omitempty"`
	// Fallback says which digests that Backend does not know are read from Other: since the flip, as long as the migration lasts.
	Fallback Scope `json:"fallback,omitempty"`
	// Narrowing says that edges may still read from Other by a wider scope than Fallback and Canary have: deletions wait.
	Narrowing bool `json:"narrowing,omitempty"`
	// Canary sends reads by digest to Other first, and to Backend what Other does not have.
	Canary *Canary `json:"canary,omitempty"`
	// Uploads are the upload sessions that were open at the flip. They live on Other, and finish there.
	Uploads []Upload `json:"uploads,omitempty"`
}

// Table is all routes. Its generation only grows: an edge refuses a table older than the one it has.
type Table struct {
	Generation int64 `json:"generation"`
	// Default is the backend of every repository that no route names.
	Default string  `json:"default"`
	Routes  []Route `json:"routes"`
}

// Lookup returns the route of exactly this prefix.
func (t Table) Lookup(p Prefix) (Route, bool) {
	for _, r := range t.Routes {
		if r.Prefix == p {
			return r, true
		}
	}
	return Route{}, false
}

// Of returns the route to which a repository belongs.
func (t Table) Of(repository string) (Route, bool) {
	for _, r := range t.Routes {
		if r.Prefix.Contains(repository) {
			return r, true
		}
	}
	return Route{}, false
}

// Backend returns the backend that serves the repository.
func (t Table) Backend(repository string) string {
	if r, ok := t.Of(repository); ok {
		return r.Backend
	}
	return t.Default
}

// Overlapping returns a route that shares repository names with p without being p itself.
func (t Table) Overlapping(p Prefix) (Route, bool) {
	for _, r := range t.Routes {
		if r.Prefix != p && r.Prefix.Overlaps(p) {
			return r, true
		}
	}
	return Route{}, false
}

// With returns the next generation of the table, with the route put in or replacing that of its prefix. The receiver is left as it was.
func (t Table) With(r Route) Table {
	next := t.Without(r.Prefix)
	next.Routes = append(next.Routes, r)
	slices.SortFunc(next.Routes, func(a, b Route) int { return strings.Compare(string(a.Prefix), string(b.Prefix)) })
	return next
}

// Without returns the next generation of the table, with no route for the prefix.
func (t Table) Without(p Prefix) Table {
	next := Table{Generation: t.Generation + 1, Default: t.Default}
	for _, r := range t.Routes {
		if r.Prefix != p {
			next.Routes = append(next.Routes, r)
		}
	}
	return next
}

// Contradicts reports whether two tables send the writes of a prefix different ways. Two of the same generation never do, unless there were two writers.
func (t Table) Contradicts(other Table) bool {
	return slices.ContainsFunc(t.Routes, func(r Route) bool {
		o, ok := other.Lookup(r.Prefix)
		return ok && (r.Backend != o.Backend || r.Mode != o.Mode || r.Hold != o.Hold)
	})
}

// Check tells what is wrong with a table before an edge takes it.
func (t Table) Check() error {
	if t.Default == "" {
		return fmt.Errorf("routing table generation %d names no default backend", t.Generation)
	}
	for _, r := range t.Routes {
		if _, err := ParsePrefix(string(r.Prefix)); err != nil {
			return fmt.Errorf("routing table generation %d: %w", t.Generation, err)
		}
		if r.Backend == "" {
			return fmt.Errorf("routing table generation %d: route of %s names no backend", t.Generation, r.Prefix)
		}
		if problem := r.extras(); problem != "" {
			return fmt.Errorf("routing table generation %d: route of %s %s", t.Generation, r.Prefix, problem)
		}
		switch r.Mode {
		case Open, Watched:
		case Held, Prepared, Switched:
			if r.Hold == "" || r.Lease <= 0 {
				return fmt.Errorf("routing table generation %d: route of %s is %s without a hold and its lease", t.Generation, r.Prefix, r.Mode)
			}
		default:
			return fmt.Errorf("routing table generation %d: route of %s has the unknown mode %q", t.Generation, r.Prefix, r.Mode)
		}
	}
	return t.overlap()
}

// overlap finds routes that share repository names. It looks up every leading part of each prefix, so that a table of thousands takes milliseconds.
func (t Table) overlap() error {
	routed := make(map[Prefix]int, len(t.Routes))
	for _, r := range t.Routes {
		routed[r.Prefix]++
	}
	for _, r := range t.Routes {
		if routed[r.Prefix] > 1 {
			return fmt.Errorf("routing table generation %d: %s and %s overlap", t.Generation, r.Prefix, r.Prefix)
		}
		for i, c := range r.Prefix {
			if c == '/' && routed[r.Prefix[:i]] > 0 {
				return fmt.Errorf("routing table generation %d: %s and %s overlap", t.Generation, r.Prefix[:i], r.Prefix)
			}
		}
	}
	return nil
}
