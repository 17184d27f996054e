package edge

import (
	"context"
	"errors"
	"fmt"
	"time"

	"transship/internal/gate"
	"transship/internal/journal"
	"transship/internal/monitor"
	"transship/internal/routing"
)

// Prepare puts the generated files in place for a node that is starting, whether or not its nginx runs already. A node that has no state yet starts with
// everything on the default backend, at generation 0.
func (e *Edge) Prepare(ctx context.Context, defaultBackend string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.state
	if s.Table.Default == "" {
		s.Table.Default = defaultBackend
	}
	files, err := e.Render(s.Table)
	if err != nil {
		return err
	}
	e.beginUnsure(ctx)
	e.setGate(s)
	if inForce := e.inForce(); inForce > s.Table.Generation {
		// The state was lost, or this worker died before a step of a hold was on disk; the flags were not lost: they go on saying who serves, until Routes hands this
		// node its table.
		e.log.Warn("the flags are newer than the state of this node: it serves by them, and asks Routes", "state", e.State, "generation", inForce)
	} else {
		e.state = s
		if err := s.save(e.State); err != nil {
			return err
		}
	}
	if err := e.raiseAnew(); err != nil {
		return err
	}
	if _, err := ask[filesAnswer](ctx, e.filesURL()); err != nil {
		e.log.Info("nginx does not answer yet; it will find the generated files when it starts", "directory", e.Directory)
		return e.place(files)
	}
	_, _, err = e.reloadIfChanged(ctx, files)
	return err
}

// Drain waits for the writes in flight of a held prefix. When it returns without error, the journal holds every acknowledged write of the prefix
// up to the position in the answer, and no further one can be acknowledged while the hold lasts.
func (e *Edge) Drain(ctx context.Context, o gate.DrainOptions) (gate.Drained, journal.Position, error) {
	drained, err := e.gate.Drain(ctx, o, running)
	if err != nil {
		return drained, journal.Position{}, fmt.Errorf("edge %s: %w", e.Name, err)
	}
	end, err := journal.End(e.Journal)
	return drained, end, err
}

// Delta is what acknowledged writes touched since a position.
type Delta struct {
	Changes []journal.Change `json:"changes,omitempty"`
	// Writes counts the acknowledged writes behind the changes.
	Writes int `json:"writes"`
	// Next is where the following delta begins.
	Next journal.Position `json:"next"`
	// More says that there were more than asked for at once.
	More bool `json:"more,omitempty"`
	// Lost says that the journal no longer goes back to the position: both sides must be compared.
	Lost bool `json:"lost,omitempty"`
}

// Journaled folds the acknowledged writes of a prefix that went to the named backend, from a position on, into a delta of at most limit changes.
func (e *Edge) Journaled(ctx context.Context, p routing.Prefix, backend string, from journal.Position, limit int) (Delta, error) {
	var changes journal.Changes
	delta := Delta{Next: from}
	for entry, err := range journal.Read(ctx, e.Journal, from) {
		if errors.Is(err, journal.ErrLost) {
			end, endErr := journal.End(e.Journal)
			return Delta{Next: end, Lost: true}, endErr
		}
		if err != nil && entry.Position == (journal.Position{}) {
			return Delta{}, fmt.Errorf("edge %s: %w", e.Name, err)
		}
		if err != nil {
			// A line that cannot be read may have been any write.
			e.log.Warn("journal", "error", err)
			delta.Lost = true
		}
		delta.Next = entry.Position
		t, ok := entry.Target()
		if !ok || !p.Contains(t.Repository) || entry.Backend != backend || !entry.MayHaveChanged() {
			continue
		}
		changes.Add(t, entry.Method)
		if changes.Len() >= limit {
			delta.More = true
			break
		}
	}
	delta.Changes, delta.Writes = changes.List(), changes.Writes
	return delta, nil
}

// Sample returns what clients saw of a prefix in the last window.
func (e *Edge) Sample(p routing.Prefix, window time.Duration) monitor.Sample {
	return e.traffic.Sample(string(p), time.Now().Add(-window))
}

// Status is an edge as an operator sees it.
type Status struct {
	Edge       string        `json:"edge"`
	Generation int64         `json:"generation"`
	Table      routing.Table `json:"table"`
	Nginx      int64         `json:"nginx_generation"`
	// Parked has the writes waiting now, by prefix.
	Parked map[routing.Prefix]int `json:"parked,omitempty"`
	// InFlight counts the writes known to be under way, by prefix.
	InFlight map[routing.Prefix]int `json:"in_flight,omitempty"`
	// Leases has when what parks a prefix runs out.
	Leases map[routing.Prefix]time.Time `json:"leases,omitempty"`
	// Fallbacks counts reads that went to a second backend, by prefix, since the edge worker started.
	Fallbacks map[routing.Prefix]Fallbacks `json:"fallbacks,omitempty"`
	// Journal is where the journal ends.
	Journal journal.Position `json:"journal"`
	// Unsure says that writes of known prefixes wait until the node has the present table.
	Unsure bool `json:"unsure,omitempty"`
	// Clock is this node's.
	Clock time.Time `json:"clock"`
}

// Status looks at the edge as it is now. Nginx is -1 when it does not answer.
func (e *Edge) Status(ctx context.Context) Status {
	e.mu.Lock()
	table, leases, unsure := e.state.Table, e.state.Leases, !e.unsureUntil.IsZero()
	e.mu.Unlock()
	s := Status{
		Edge: e.Name, Generation: table.Generation, Table: table, Nginx: -1, Parked: map[routing.Prefix]int{}, InFlight: map[routing.Prefix]int{},
		Leases: map[routing.Prefix]time.Time{}, Fallbacks: e.FellBack(), Unsure: unsure, Clock: time.Now(),
	}
	for p, l := range leases {
		s.Leases[p] = l.Deadline
	}
	s.Journal, _ = journal.End(e.Journal) // one that cannot be read is told of by Check
	if answer, err := ask[confirmation](ctx, e.StatusURL); err == nil {
		s.Nginx = answer.Generation
	}
	for _, p := range e.gate.Prefixes() {
		if r, _ := e.gate.Rule(p); r.Mode == routing.Open {
			continue
		}
		s.Parked[p], s.InFlight[p] = e.gate.Parked(p), len(e.gate.InFlight(p))
	}
	return s
}

// Preview returns what the generated files would become with a table, and whether nginx would have to be reloaded for it.
func (e *Edge) Preview(t routing.Table) (files map[string]string, changes bool, err error) {
	// What leaves the node has no token in it. The hash is of the files with it.
	shown := e.Config
	shown.token = "TOKEN"
	if files, err = e.Render(t); err != nil {
		return nil, false, err
	}
	have, err := e.installed()
	if err != nil {
		return nil, false, err
	}
	for name, content := range files {
		changes = changes || have[name] != content
	}
	files, err = shown.Render(t)
	return files, changes, err
}

// Table returns the table that is in force.
func (e *Edge) Table() routing.Table {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.state.Table
}
