package workflows

import (
	"errors"
	"slices"

	"github.com/dustin/go-humanize"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"transship/activities"
	"transship/internal/journal"
	"transship/internal/policy"
	"transship/internal/registry"
	"transship/internal/siteconf"
)

// mirror copies everything that the prefix has now. Its writes are watched from before the first listing, so that what is pushed meanwhile is in the
// journals and the deltas bring it.
func (m *migration) mirror(ctx workflow.Context) error {
	if err := m.watch(ctx); err != nil {
		return err
	}
	if err := m.list(ctx, m.From); err != nil {
		return err
	}
	done, problems, err := m.copyAll(ctx, m.From, m.To, func(p registry.Progress) {
		m.state.Report.Mirror = p
		m.show()
	})
	m.state.Report.Mirror = done
	if err != nil {
		return err
	}
	m.note("%d tags (%d unchanged), %d blobs sent, %d shared, %s", done.Tags, done.TagsUnchanged, done.Blobs, done.BlobsMounted, humanize.IBytes(uint64(done.Bytes)))
	return m.judgeBroken(ctx, problems)
}

// watch has the edges announce and journal the writes of the prefix, and notes where their journals are now.
func (m *migration) watch(ctx workflow.Context) error {
	var r *activities.Routes
	if err := workflow.ExecuteActivity(toRoutes(ctx, "watch the writes of "+m.Prefix.String()), r.WatchPrefix, m.request()).Get(ctx, nil); err != nil {
		return err
	}
	var a *activities.Edge
	for _, name := range m.edges() {
		var end journal.Position
		if err := workflow.ExecuteActivity(waitingOnEdge(ctx, name, siteconf.LongestKept, "where the journal of "+name+" ends"), a.JournalEnd).Get(ctx, &end); err != nil {
			return err
		}
		m.state.Positions[m.From][name] = end
	}
	m.state.Watched = workflow.Now(ctx)
	return nil
}

// list finds out what there is to copy at a backend.
func (m *migration) list(ctx workflow.Context, backend string) (err error) {
	if m.Storage {
		m.state.Shards, err = listShards(ctx, backend, m.Prefix.String(), m.Policy)
		return err
	}
	if len(m.Repositories) == 0 {
		m.state.Repositories, err = listRepositories(ctx, backend, m.Prefix)
	}
	return err
}

// copyAll copies every repository from one backend to the other. It may be paused: what is under way stops within seconds, and goes on from its
// cursor when the migration is resumed.
func (m *migration) copyAll(ctx workflow.Context, from, to string, progress func(registry.Progress)) (registry.Progress, []registry.Problem, error) {
	cursors := map[string]activities.Cursor{} // by batch
	sum := func() (total registry.Progress, problems []registry.Problem) {
		for _, first := range workflow.DeterministicKeys(cursors) {
			total = total.Add(cursors[first].Progress)
			problems = append(problems, cursors[first].Problems...)
		}
		return total, problems
	}
	batches := m.batches()
	bring := func(ctx workflow.Context, b batch) error {
		at := cursors[b.name()]
		if at.Done || b.shard == nil && at.Repository >= len(b.repositories) {
			return nil // before the interruption
		}
		p := activities.MirrorParams{
			From: from, To: to, Repositories: b.repositories, Shard: b.shard, Throttle: m.state.Throttle.Each(min(len(batches), m.Policy.Mirror.Repositories)),
			Mark: m.mark(), Jobs: m.jobs(len(batches)), SkipBroken: m.Policy.Audit.Broken == policy.Skip, Cursor: at,
		}
		var a *activities.Registries
		err := workflow.ExecuteActivity(onMover(ctx, 0, b.summary("mirror")), a.MirrorRepositories, p).Get(ctx, &at)
		var canceled *temporal.CanceledError
		if errors.As(err, &canceled) && canceled.HasDetails() {
			if err := canceled.Details(&at); err != nil {
				return err
			}
		}
		cursors[b.name()] = at
		m.noteUncopied(at)
		total, _ := sum()
		progress(total)
		return err
	}
	err := m.pausable(ctx, func(ctx workflow.Context) error {
		return m.throttled(ctx, func(ctx workflow.Context) error { return m.inBatches(ctx, batches, bring) })
	})
	total, problems := sum()
	return total, problems, err
}

// noteUncopied takes into the report what a shard has that is not copied, or that only the target has.
func (m *migration) noteUncopied(at activities.Cursor) {
	add := func(to *[]string, names []string) {
		for _, name := range names {
			if !slices.Contains(*to, name) && len(*to) < maxNamed {
				*to = append(*to, name)
			}
		}
	}
	add(&m.state.Report.Unexpected, at.Store.Unexpected)
	add(&m.state.Report.NotDeleted, at.Store.NotDeleted)
}
