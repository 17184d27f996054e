package workflows

import (
	"time"

	"go.temporal.io/sdk/workflow"

	"transship/activities"
	"transship/internal/edge"
	"transship/internal/journal"
	"transship/internal/policy"
	"transship/internal/registry"
	"transship/internal/report"
)

// kindJournalLost: a journal does not go back far enough, so only comparing both sides finds what changed.
const kindJournalLost = "JournalLost"

// carried is what a delta brought.
type carried struct {
	changes []journal.Change
	writes  int
}

// delta carries over what was acknowledged by the serving backend since the last delta. Within a freeze, limit bounds it; 0 is no freeze.
func (m *migration) delta(ctx workflow.Context, limit time.Duration) (carried, error) {
	return m.carry(ctx, m.serving(), m.other(), limit)
}

func (m *migration) carry(ctx workflow.Context, from, to string, limit time.Duration) (carried, error) {
	var sum carried
	stats := m.deltas(from)
	stats.Rounds++
	for _, name := range m.edges() {
		for more := true; more; {
			d, err := m.read(ctx, name, from, limit)
			if err != nil {
				return sum, err
			}
			if d.Lost {
				if limit > 0 {
					return sum, refusal(kindJournalLost, "the journal of edge %s lost what it held since the last delta", name)
				}
				if err := m.compareInstead(ctx, from, to, noJournal(name)); err != nil {
					return sum, err
				}
			}
			if err := m.apply(ctx, from, to, d.Changes, limit); err != nil {
				return sum, err
			}
			m.state.Positions[from][name] = d.Next
			sum.changes = append(sum.changes, d.Changes...)
			sum.writes += d.Writes
			stats.Writes += d.Writes
			stats.Changes += len(d.Changes)
			more = d.More
		}
	}
	return sum, nil
}

// deltas are the counts of the direction that begins at a backend.
func (m *migration) deltas(from string) *report.Deltas {
	if from == m.From {
		return &m.state.Report.Deltas
	}
	return &m.state.Report.Reverse
}

// edgeAway is how long a delta outside of a freeze waits for an edge that does not answer.
const edgeAway = 15 * time.Minute

// read returns what a backend acknowledged through an edge and was not carried yet.
func (m *migration) read(ctx workflow.Context, edgeName, backend string, limit time.Duration) (edge.Delta, error) {
	return m.readFrom(ctx, edgeName, backend, m.state.Positions[backend][edgeName], limit)
}

func (m *migration) readFrom(ctx workflow.Context, edgeName, backend string, from journal.Position, limit time.Duration) (edge.Delta, error) {
	var a *activities.Edge
	var d edge.Delta
	p := activities.ReadJournalParams{Prefix: m.Prefix, Backend: backend, From: from}
	if limit == 0 {
		limit = edgeAway
	}
	err := workflow.ExecuteActivity(onEdge(ctx, edgeName, limit, "writes acknowledged by "+backend), a.ReadJournal, p).Get(ctx, &d)
	return d, err
}

// apply brings changes to the other side.
func (m *migration) apply(ctx workflow.Context, from, to string, changes []journal.Change, limit time.Duration) error {
	if len(changes) == 0 {
		return nil
	}
	var a *activities.Registries
	var result activities.ApplyResult
	// The source may have had what is deleted there before this migration began; the old backend, going back, always had.
	p := activities.ApplyParams{
		From: from, To: to, Changes: changes, Jobs: m.Policy.Mirror.Jobs, Deletes: from == m.From, KeptBefore: m.state.Before,
		SkipBroken: m.Policy.Audit.Broken == policy.Skip, Storage: m.Storage, Mark: m.mark(),
	}
	err := workflow.ExecuteActivity(onMover(ctx, limit, "carry over from "+from), a.ApplyChanges, p).Get(ctx, &result)
	m.deltas(from).Bytes += result.Progress.Bytes
	m.state.Report.NotDeleted = append(m.state.Report.NotDeleted, result.NotDeleted...)
	if err != nil {
		return err
	}
	return m.judgeBroken(ctx, result.Problems)
}

func noJournal(edgeName string) string {
	return "the journal of edge " + edgeName + " does not go back to the last delta"
}

// compareInstead is the delta without a journal: it copies whatever differs.
func (m *migration) compareInstead(ctx workflow.Context, from, to, why string) error {
	m.deltas(from).Comparisons++
	m.decide("transship", "compares "+from+" with "+to+" instead of reading the journal", why)
	if err := m.list(ctx, from); err != nil {
		return err
	}
	done, problems, err := m.copyAll(ctx, from, to, func(registry.Progress) {})
	m.deltas(from).Bytes += done.Bytes
	if err != nil {
		return err
	}
	return m.judgeBroken(ctx, problems)
}

// converge repeats deltas until one brings so little that the next can be the last, under the freeze.
func (m *migration) converge(ctx workflow.Context) error {
	for round := 1; ; round++ {
		var brought carried
		err := m.pausable(ctx, func(ctx workflow.Context) (err error) {
			brought, err = m.delta(ctx, 0)
			return err
		})
		if err != nil {
			return err
		}
		if n := len(brought.changes); n <= m.Policy.Converge.Changes {
			m.note("%d rounds; the last brought %d changes", round, n)
			return m.readCanary(ctx)
		} else if round >= m.Policy.Converge.Rounds {
			return refusal("Diverges", "after %d deltas, one still brought %d changes: more is pushed than can be carried over; raise policy.mirror.jobs, add movers, or raise policy.converge.changes", round, n)
		}
	}
}
