package workflows

import (
	"fmt"
	"slices"

	"go.temporal.io/sdk/workflow"

	"transship/activities"
	"transship/internal/journal"
	"transship/internal/registry"
)

// verifyRounds is how often differences are looked at again before they count.
const verifyRounds = 4

// verify compares both sides: every tag resolves to the same digest, and the target has all that it needs. The source is in use, so there is always something
// that was pushed after the delta and before the look. What counts is a difference that is still the same after the next delta; a tag that moved
// again is left to the deltas to come, the last of which is compared under the freeze.
func (m *migration) verify(ctx workflow.Context) error {
	repositories, before := m.state.Repositories, []registry.Difference(nil)
	for round := 0; ; round++ {
		if _, err := m.delta(ctx, 0); err != nil {
			return err
		}
		found, err := m.compare(ctx, repositories)
		if err != nil {
			return err
		}
		if round == 0 {
			m.state.Report.Checks.Verified = found
			m.state.Report.Checks.Verified.Differences = nil
		}
		lasting := slices.DeleteFunc(slices.Clone(found.Differences), func(d registry.Difference) bool { return round > 0 && !slices.Contains(before, d) })
		m.state.Report.Checks.Differences = lasting
		if len(lasting) == 0 {
			v := m.state.Report.Checks.Verified
			m.note("%d tags, %d manifests, %d blobs agree; %d were being pushed", v.Tags, v.Manifests, v.Blobs, len(found.Differences))
			return nil
		}
		if round == verifyRounds {
			d := lasting[0]
			return refusal("Differs", "%s and %s still differ in %d places after %d looks, such as %s %s:%s: want %q, have %q %s",
				m.From, m.To, len(lasting), verifyRounds+1, d.Kind, d.Repository, d.Tag, d.Want, d.Have, d.Detail)
		}
		repositories, before = nil, found.Differences
		for _, d := range found.Differences {
			if !slices.Contains(repositories, d.Repository) {
				repositories = append(repositories, d.Repository)
			}
		}
		m.note("%d differences; looking again", len(found.Differences))
		if err := m.heal(ctx, found.Differences); err != nil {
			return err
		}
	}
}

// heal brings tags that differ although no journal named them: their push began before the prefix was watched, and ended after its repository had been
// copied.
func (m *migration) heal(ctx workflow.Context, differences []registry.Difference) error {
	var changes []journal.Change
	for _, d := range differences {
		if d.Kind == registry.MissingTag || d.Kind == registry.DifferentTag {
			changes = append(changes, journal.Change{Kind: journal.Manifest, Repository: d.Repository, Reference: d.Tag})
		}
	}
	for batch := range slices.Chunk(changes, 1000) {
		if err := m.apply(ctx, m.From, m.To, batch, 0); err != nil {
			return err
		}
	}
	return nil
}

func (m *migration) compare(ctx workflow.Context, repositories []string) (registry.Check, error) {
	var sum registry.Check
	err := m.pausable(ctx, func(ctx workflow.Context) error {
		sum = registry.Check{}
		return m.inBatches(ctx, repositories, func(ctx workflow.Context, batch []string) error {
			var a *activities.Registries
			var part activities.VerifyResult
			p := activities.VerifyParams{
				From: m.From, To: m.To, Repositories: batch, Jobs: m.Policy.Mirror.Jobs,
				Deep: m.Policy.Verify.Deep, AllowExtra: m.Policy.Verify.AllowExtra, Left: m.left(),
			}
			err := workflow.ExecuteActivity(onMover(ctx, 0, summarize("verify", batch)), a.VerifyRepositories, p).Get(ctx, &part)
			sum = sum.Add(part.Check)
			return err
		})
	})
	// Probes of an earlier migration may be on one side only.
	sum.Differences = slices.DeleteFunc(sum.Differences, func(d registry.Difference) bool { return d.Kind == registry.ExtraTag && d.Repository == m.Probe })
	if err != nil {
		return sum, fmt.Errorf("compare %s with %s: %w", m.From, m.To, err)
	}
	return sum, nil
}
