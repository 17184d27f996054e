package activities

import (
	"context"
	"time"

	"transship/internal/edge"
	"transship/internal/gate"
	"transship/internal/journal"
	"transship/internal/monitor"
	"transship/internal/routing"
)

// Edge is what one proxy node does. Its activities run on that node's own task queue, next to its nginx.
type Edge struct{ Edge *edge.Edge }

// ApplyTable puts a routing table in force on this node: on disk, at the gate and in nginx, confirmed.
func (e *Edge) ApplyTable(ctx context.Context, t routing.Table) (edge.Applied, error) {
	defer beat(ctx, func() any { return nil })()
	applied, err := e.Edge.Apply(ctx, t)
	return applied, final(err)
}

// DrainResult is a drain that came to its end.
type DrainResult struct {
	Drained gate.Drained `json:"drained"`
	// Position is behind every write that was acknowledged before the drain was over.
	Position journal.Position `json:"position"`
}

// DrainWrites waits for the writes in flight of a held prefix.
func (e *Edge) DrainWrites(ctx context.Context, o gate.DrainOptions) (DrainResult, error) {
	defer beat(ctx, func() any { return nil })()
	drained, position, err := e.Edge.Drain(ctx, o)
	return DrainResult{drained, position}, final(err)
}

// LateUploadsParams says whose uploads to count.
type LateUploadsParams struct {
	Prefix routing.Prefix `json:"prefix"`
	// Idle is how long a session may be silent before it counts as abandoned.
	Idle time.Duration `json:"idle_ns"`
}

// LateUploads counts uploads that go on at a backend which no longer serves the prefix.
func (e *Edge) LateUploads(_ context.Context, p LateUploadsParams) (int, error) {
	return e.Edge.Gate().Late(p.Prefix, p.Idle), nil
}

// JournalEnd returns where this node's journal ends now, when it gets every write of the prefixes in the table: worker processes of nginx that do not know all of them may be at work
// for a while after a reload.
func (e *Edge) JournalEnd(ctx context.Context) (journal.Position, error) {
	defer beat(ctx, func() any { return nil })()
	if err := e.Edge.Outlast(ctx); err != nil {
		return journal.Position{}, err
	}
	return journal.End(e.Edge.Journal)
}

// ReadJournalParams says which acknowledged writes to read.
type ReadJournalParams struct {
	Prefix  routing.Prefix   `json:"prefix"`
	Backend string           `json:"backend"`
	From    journal.Position `json:"from"`
}

// journalLimit bounds what one reading returns: a thousand changes fill about 200 kB of a workflow's history.
const journalLimit = 1000

// ReadJournal returns what acknowledged writes touched since a position.
func (e *Edge) ReadJournal(ctx context.Context, p ReadJournalParams) (edge.Delta, error) {
	defer beat(ctx, func() any { return nil })()
	return e.Edge.Journaled(ctx, p.Prefix, p.Backend, p.From, journalLimit)
}

// SampleTrafficParams says whose traffic to sum up.
type SampleTrafficParams struct {
	Prefix routing.Prefix `json:"prefix"`
	Window time.Duration  `json:"window_ns"`
}

// SampleTraffic returns what clients of this node saw of a prefix lately.
func (e *Edge) SampleTraffic(_ context.Context, p SampleTrafficParams) (monitor.Sample, error) {
	return e.Edge.Sample(p.Prefix, p.Window), nil
}

// EdgeStatus returns the state of this node.
func (e *Edge) EdgeStatus(ctx context.Context) (edge.Status, error) { return e.Edge.Status(ctx), nil }

// CheckEdge looks at everything that this node needs.
func (e *Edge) CheckEdge(ctx context.Context) ([]edge.Finding, error) { return e.Edge.Check(ctx), nil }

// Preview is what the generated files of a node would become.
type Preview struct {
	Edge    string            `json:"edge"`
	Files   map[string]string `json:"files"`
	Changes bool              `json:"changes"`
}

// PreviewFiles renders this node's files for a table, without writing them.
func (e *Edge) PreviewFiles(_ context.Context, t routing.Table) (Preview, error) {
	files, changes, err := e.Edge.Preview(t)
	return Preview{Edge: e.Edge.Name, Files: files, Changes: changes}, err
}
