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
		batches := m.batches()
		return m.inBatches(ctx, batches, func(ctx workflow.Context, b batch) error {
			var a *activities.Registries
			var part activities.VerifyResult
			p := activities.AuditParams{Backend: m.From, Repositories: b.repositories, Shard: b.shard, Jobs: m.jobs(len(batches)), Deep: m.Policy.Audit.Deep}
			err := workflow.ExecuteActivity(onMover(ctx, 0, b.summary("audit")), a.AuditRepositories, p).Get(ctx, &part)
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
			return known.Repository == p.Repository && known.Digest == p.Digest && covers(known.Tags, p.Tags)
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
	heal := "Heal or delete these"
	if m.Storage {
		heal = fmt.Sprintf("Heal these (transship audit %s %s --deep --heal), push them again, or delete them", m.From, m.Prefix)
	}
	return refusal(activities.KindBroken, "backend %s cannot serve everything under %s whole: %s. %s; or set policy.audit.broken to skip to go on without them",
		m.From, m.Prefix, strings.Join(lines, "; "), heal)
}

// covers reports whether all of some tags are among known ones: of a tag with two bad blobs the mirror names one, and the audit both.
func covers(known, tags []string) bool {
	return !slices.ContainsFunc(tags, func(tag string) bool { return !slices.Contains(known, tag) })
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
