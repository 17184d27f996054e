package workflows

import (
	"fmt"
	"slices"
	"strings"

	"go.temporal.io/sdk/workflow"

	"transship/activities"
	"transship/internal/notify"
	"transship/internal/policy"
	"transship/internal/registry"
)

// auditSource looks whether the source can serve every tag whole, and lets policy decide what to do about those it cannot.
func (m *migration) auditSource(ctx workflow.Context) error {
	var problems []registry.Problem
	var found activities.VerifyResult
	err := m.pausable(ctx, func(ctx workflow.Context) error {
		problems, found = nil, activities.VerifyResult{}
		return m.inBatches(ctx, m.state.Repositories, func(ctx workflow.Context, batch []string) error {
			var a *activities.Registries
			var part activities.VerifyResult
			p := activities.AuditParams{Backend: m.From, Repositories: batch, Jobs: m.Policy.Mirror.Jobs, Deep: m.Policy.Audit.Deep}
			err := workflow.ExecuteActivity(onMover(ctx, 0, summarize("audit", batch)), a.AuditRepositories, p).Get(ctx, &part)
			problems = append(problems, part.Problems...)
			found.Check = found.Check.Add(part.Check)
			return err
		})
	})
	if err != nil {
		return err
	}
	m.state.Report.Checks.Audited = found.Check
	m.note("%d tags, %d manifests, %d blobs; %d problems", found.Check.Tags, found.Check.Manifests, found.Check.Blobs, len(problems))
	return m.judgeBroken(ctx, problems)
}

// judgeBroken stops the migration for images that the source cannot serve whole, or leaves them out.
func (m *migration) judgeBroken(ctx workflow.Context, problems []registry.Problem) error {
	fresh := slices.DeleteFunc(slices.Clone(problems), func(p registry.Problem) bool {
		return slices.ContainsFunc(m.state.Report.Left, func(known registry.Problem) bool {
			return known.Repository == p.Repository && known.Digest == p.Digest && slices.Equal(known.Tags, p.Tags)
		})
	})
	if len(fresh) == 0 {
		return nil
	}
	lines := make([]string, len(fresh))
	for i := range fresh {
		lines[i] = fresh[i].Error()
	}
	m.state.Report.Left = append(m.state.Report.Left, fresh...)
	if m.Policy.Audit.Broken == policy.Skip {
		m.decide("transship", fmt.Sprintf("left out %d broken images, as policy.audit.broken says", len(fresh)), strings.Join(lines, "; "))
		m.tell(ctx, notify.Warning, "broken images are left out", strings.Join(lines, "\n"))
		return nil
	}
	return refusal(activities.KindBroken, "backend %s cannot serve everything under %s whole: %s. Heal or delete these, or set policy.audit.broken to skip to go on without them",
		m.From, m.Prefix, strings.Join(lines, "; "))
}

// left names the tags that are left out, as repository:tag.
func (m *migration) left() []string {
	var names []string
	for _, p := range m.state.Report.Left {
		for _, tag := range p.Tags {
			names = append(names, p.Repository+":"+tag)
		}
	}
	return names
}

// inBatches spreads repositories over movers: a few batches are under way at once, and the first failure ends the others.
func (m *migration) inBatches(ctx workflow.Context, repositories []string, work func(workflow.Context, []string) error) error {
	ctx, cancel := workflow.WithCancel(ctx)
	defer cancel()
	parallel := m.Policy.Mirror.Repositories
	size := min(50, max(1, len(repositories)/(4*parallel)))
	slots := workflow.NewSemaphore(ctx, int64(parallel))
	pending := workflow.NewWaitGroup(ctx)
	var failed error
	for batch := range slices.Chunk(repositories, size) {
		if err := slots.Acquire(ctx, 1); err != nil || failed != nil {
			break
		}
		pending.Add(1)
		workflow.Go(ctx, func(ctx workflow.Context) {
			defer pending.Done()
			defer slots.Release(1)
			if err := work(ctx, batch); err != nil && failed == nil {
				failed = err
				cancel()
			}
		})
	}
	pending.Wait(ctx)
	if failed == nil {
		failed = ctx.Err()
	}
	return failed
}

func summarize(what string, batch []string) string {
	if len(batch) == 1 {
		return what + " " + batch[0]
	}
	return fmt.Sprintf("%s %s and %d more", what, batch[0], len(batch)-1)
}
