package workflows

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"transship/activities"
	"transship/internal/edge"
	"transship/internal/mirror"
	"transship/internal/report"
	"transship/internal/routing"
)

// plan finds out what the migration would copy and what stands in its way, before anything is touched.
func (m *migration) plan(ctx workflow.Context) error {
	if err := m.claim(ctx); err != nil {
		return err
	}
	in := m.MigrateInput
	in.Edges = m.edges()
	planned, err := makePlan(ctx, in, false)
	if err != nil {
		return err
	}
	m.state.Repositories, m.state.Shards, m.state.Before = planned.repositories, planned.shards, planned.before
	m.state.Report.Plan = planned.Plan
	if len(planned.Blockers) > 0 {
		return refusal("Blocked", "%s", strings.Join(planned.Blockers, "; "))
	}
	m.note("%d repositories, %d tags, %s to copy", planned.Repositories, planned.Tags, humanize.IBytes(uint64(max(0, planned.Missing()))))
	return nil
}

// claim makes the prefix ours in the routing table: from here on, no other migration may touch it.
func (m *migration) claim(ctx workflow.Context) error {
	var r *activities.Routes
	err := workflow.ExecuteActivity(toRoutes(ctx, "claim "+m.Prefix.String()), r.ClaimPrefix, m.request()).Get(ctx, nil)
	// Interrupted, nobody knows whether Routes has noted the claim.
	m.state.Claimed = err == nil || temporal.IsCanceledError(err)
	return err
}

func (m *migration) request() routing.Request {
	return routing.Request{
		Prefix: m.Prefix, Owner: m.state.Report.Workflow, Hold: m.state.Hold, Lease: m.Policy.Freeze.Lease,
		From: m.From, To: m.To, Default: m.Default, Edges: m.Edges, Without: m.state.Without,
	}
}

// planned is a plan with what the steps after it need.
type planned struct {
	report.Plan
	repositories, before []string
	shards               []mirror.Shard
	// running says that a migration of the prefix is at work already.
	running bool
}

// reach is how long a backend or edge may be silent before a plan calls it unreachable.
const reach = 20 * time.Second

// makePlan looks at everything a migration rests on. What would stop it is in the plan's blockers; an error means that nobody knows.
func makePlan(ctx workflow.Context, in MigrateInput, running bool) (planned, error) {
	p := planned{running: running}
	if problems := in.Policy.Check(); len(problems) > 0 {
		return p, refusal("Policy", "policy.%v", problems[0])
	}
	p.Blockers = reachBackends(ctx, in)
	var unfit []string
	unfit, p.Warnings = reachEdges(ctx, in)
	if p.Blockers = append(p.Blockers, unfit...); len(p.Blockers) > 0 {
		return p, nil
	}
	size := sizeRepositories
	if in.Storage {
		size = sizeShards
	}
	if err := size(ctx, in, &p); err != nil {
		return p, err
	}
	if len(p.repositories)+len(p.shards) == 0 {
		p.Blockers = append(p.Blockers, fmt.Sprintf("backend %s has no repository under %s: check the prefix; where the registry has no catalog, name them in prefixes.repositories", in.From, in.Prefix))
		return p, nil
	}
	probes := in.Probe + ":"
	p.Extra = slices.DeleteFunc(p.Extra, func(tag string) bool { return strings.HasPrefix(tag, probes) })
	if n := len(p.Extra); n > 0 && !in.Policy.Verify.AllowExtra {
		p.Blockers = append(p.Blockers, fmt.Sprintf("backend %s has %d tags under %s that %s does not have, such as %s: delete them there, or set policy.verify.allow_extra", in.To, n, in.Prefix, in.From, p.Extra[0]))
	}
	checkMove(ctx, in, &p)
	return p, nil
}

// sizeRepositories finds out what there is to copy through the registries.
func sizeRepositories(ctx workflow.Context, in MigrateInput, p *planned) (err error) {
	if p.repositories = in.Repositories; len(p.repositories) == 0 {
		if p.repositories, err = listRepositories(ctx, in.From, in.Prefix); err != nil {
			return err
		}
	}
	var a *activities.Registries
	for batch := range slices.Chunk(p.repositories, 50) {
		var part activities.PlanResult
		q := activities.PlanParams{From: in.From, To: in.To, Repositories: batch, Jobs: in.Policy.Mirror.Jobs}
		summary := fmt.Sprintf("size up %d repositories from %s", len(batch), batch[0])
		if err := workflow.ExecuteActivity(onMover(ctx, time.Hour, summary), a.PlanRepositories, q).Get(ctx, &part); err != nil {
			return err
		}
		p.Plan = p.Plan.Add(part.Plan)
		p.before = append(p.before, part.Before...)
	}
	return nil
}

// sizeShards finds out what there is to copy from store to store.
func sizeShards(ctx workflow.Context, in MigrateInput, p *planned) (err error) {
	if p.shards, err = listShards(ctx, in.From, in.Prefix.String(), in.Policy); err != nil || len(p.shards) == 0 {
		return err
	}
	var a *activities.Registries
	var whole activities.PlanResult
	q := activities.PlanParams{From: in.From, To: in.To, Shard: &mirror.Shard{Prefix: in.Prefix.String()}, Jobs: in.Policy.Mirror.Jobs * in.Policy.Mirror.Repositories}
	if err := workflow.ExecuteActivity(onMover(ctx, 24*time.Hour, "size up "+in.Prefix.String()), a.PlanRepositories, q).Get(ctx, &whole); err != nil {
		return err
	}
	whole.Plan.Blockers, whole.Plan.Warnings = p.Blockers, p.Warnings
	p.Plan = whole.Plan
	return nil
}

func reachBackends(ctx workflow.Context, in MigrateInput) (blockers []string) {
	var a *activities.Registries
	for _, name := range []string{in.From, in.To} {
		err := workflow.ExecuteActivity(onMover(ctx, reach, "reach backend "+name), a.CheckBackend, activities.CheckBackendParams{Backend: name}).Get(ctx, nil)
		if err != nil {
			blockers = append(blockers, fmt.Sprintf("backend %s cannot be used: %s", name, because(err)))
		}
	}
	return blockers
}

// edgeLooks is how often an edge is looked at before a plan calls it unfit: its nginx may just be restarting.
const edgeLooks = 3

func reachEdges(ctx workflow.Context, in MigrateInput) (blockers, warnings []string) {
	for look := range edgeLooks {
		if blockers, warnings = checkEdges(ctx, in); len(blockers) == 0 {
			break
		}
		if look < edgeLooks-1 && workflow.Sleep(ctx, 2*time.Second) != nil {
			break
		}
	}
	return blockers, warnings
}

func checkEdges(ctx workflow.Context, in MigrateInput) (blockers, warnings []string) {
	var a *activities.Edge
	for _, name := range in.Edges {
		var findings []edge.Finding
		err := workflow.ExecuteActivity(onEdge(ctx, name, reach, "check edge "+name), a.CheckEdge).Get(ctx, &findings)
		if err != nil {
			blockers = append(blockers, fmt.Sprintf("edge %s cannot be used: %s", name, because(err)))
		}
		b, w := sorted(findings)
		blockers, warnings = append(blockers, b...), append(warnings, w...)
	}
	return blockers, warnings
}

// sorted says in words what findings stop, and what people should know.
func sorted(findings []edge.Finding) (blockers, warnings []string) {
	for _, f := range findings {
		words := fmt.Sprintf("%s: %s: %s", f.What, f.Detail, f.Cure)
		switch {
		case f.Failed():
			blockers = append(blockers, words)
		case f.Warned():
			warnings = append(warnings, words)
		}
	}
	return blockers, warnings
}
