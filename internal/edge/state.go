package edge

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"transship/internal/gate"
	"transship/internal/routing"
)

// state is what an edge remembers across restarts. It is on disk, synced, before a table is acknowledged.
type state struct {
	Table routing.Table `json:"table"`
	// Leases has, for each parked prefix, when its present mode runs out.
	Leases map[routing.Prefix]lease `json:"leases,omitempty"`
	// Token is what nginx shows the gate.
	Token string `json:"token,omitempty"`
	// Nginx is the process that served by this table.
	Nginx nginxProcess `json:"nginx,omitzero"`
}

type lease struct {
	Hold string       `json:"hold"`
	Mode routing.Mode `json:"mode"`
	// Deadline is a whole second, so that nginx and the gate end a hold at the same moment.
	Deadline time.Time `json:"deadline"`
	// Lost says that the hold ran out: the table may still call the prefix held, but its writes go on.
	Lost bool `json:"lost,omitempty"`
}

func loadState(path string) (state, error) {
	var s state
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &s)
	}
	if err != nil {
		return s, fmt.Errorf("edge state %s: %w", path, err)
	}
	return s, nil
}

func (s state) save(path string) error {
	raw, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := replace(path, raw, private); err != nil {
		return fmt.Errorf("edge state %s: %w", path, err)
	}
	return nil
}

// rule is what the gate does with a route in this state.
func (s state) rule(r routing.Route) gate.Rule {
	rule := gate.Rule{Mode: routing.Watched, Backend: r.Backend, Other: r.Other, Scope: r.Scope(), Narrowing: r.Narrowing, Fallback: r.Fallback, Uploads: r.Uploads}
	if l, parked := s.Leases[r.Prefix]; parked && !l.Lost {
		rule.Mode, rule.Hold, rule.Deadline = r.Mode, l.Hold, l.Deadline
	}
	return rule
}

// further reports whether a state is a step into a hold, or further into one, from another.
func (s state) further(from state) bool {
	for p, l := range s.Leases {
		had, ok := from.Leases[p]
		if !ok || had.Hold != l.Hold || had.Mode != l.Mode {
			return true
		}
	}
	return false
}

// next works out what an edge in state s would be in with table t. It refuses what the protocol does not allow: an older table, and a step
// past a hold that has run out.
func (s state) next(t routing.Table, now time.Time) (state, error) {
	if err := t.Check(); err != nil {
		return s, err
	}
	if t.Generation < s.Table.Generation {
		return s, fmt.Errorf("%w: it has generation %d, the edge has %d", ErrStale, t.Generation, s.Table.Generation)
	}
	if t.Generation == s.Table.Generation && t.Contradicts(s.Table) {
		return s, fmt.Errorf("%w: both have generation %d, and they differ: there were two writers of the table", ErrStale, t.Generation)
	}
	n := state{Table: t, Leases: map[routing.Prefix]lease{}, Token: s.Token, Nginx: s.Nginx}
	for _, r := range t.Routes {
		if !r.Mode.Parks() {
			continue
		}
		had, ok := s.Leases[r.Prefix]
		ok = ok && had.Hold == r.Hold
		switch {
		case ok && had.Mode == r.Mode:
			n.Leases[r.Prefix] = had
			continue
		case r.Mode == routing.Held:
		case !ok, had.Lost, had.Mode == routing.Held && !now.Before(had.Deadline):
			return s, fmt.Errorf("%s cannot become %s: %w", r.Prefix, r.Mode, ErrHoldLost)
		}
		end := now.Add(r.Lease)
		if whole := end.Truncate(time.Second); whole.Before(end) {
			end = whole.Add(time.Second)
		}
		n.Leases[r.Prefix] = lease{Hold: r.Hold, Mode: r.Mode, Deadline: end}
	}
	return n, nil
}
