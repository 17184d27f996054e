package workflows

import (
	"fmt"
	"slices"
	"time"

	"go.temporal.io/sdk/workflow"

	"transship/internal/journal"
	"transship/internal/mirror"
	"transship/internal/registry"
)

// verifyRounds is how often differences are looked at again before they count.
const verifyRounds = 4

// verify compares both sides: every tag resolves to the same digest, and the target has all that it needs. The source is in use, so there is always something
// that was pushed after the delta and before the look. What counts is a difference that is still the same after the next delta; a tag that moved
// again is left to the deltas to come, the last of which is compared under the freeze.
func (m *migration) verify(ctx workflow.Context) error {
	if err := m.letListingsCatchUp(ctx, m.state.Watched); err != nil {
		return err
	}
	batches, before := m.batches(), []registry.Difference(nil)
	for round := 0; ; round++ {
		if _, err := m.delta(ctx, 0); err != nil {
			return err
		}
		found, err := m.compare(ctx, batches)
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
			left := ""
			if names := m.left(); len(names) > 0 {
				slices.Sort(names)
				left = fmt.Sprintf("; %d tags are left out", len(slices.Compact(names)))
			}
			m.note("%d tags, %d manifests, %d blobs agree; %d were being pushed%s", v.Tags, v.Manifests, v.Blobs, len(found.Differences), left)
			return nil
		}
		if round == verifyRounds {
			d := lasting[0]
			return refusal("Differs", "%s and %s still differ in %d places after %d looks, such as %s %s:%s: want %q, have %q %s",
				m.From, m.To, len(lasting), verifyRounds+1, d.Kind, d.Repository, d.Tag, d.Want, d.Have, d.Detail)
		}
		var repositories []string
		before = found.Differences
		for _, d := range found.Differences {
			if !slices.Contains(repositories, d.Repository) {
				repositories = append(repositories, d.Repository)
			}
		}
		batches = m.batchesOf(repositories)
		m.note("%d differences; looking again", len(found.Differences))
		if err := m.heal(ctx, found.Differences); err != nil {
			return err
		}
	}
}

// letListingsCatchUp waits until listings show what was acknowledged before a moment, such as when the prefix was watched. No journal has that, so a mirror whose listing did not
// show it cannot have brought it, and no delta will: a comparison finds it.
func (m *migration) letListingsCatchUp(ctx workflow.Context, since time.Time) error {
	until := since.Add(m.Policy.Mirror.ListingLag)
	for m.Policy.Mirror.ListingLag > 0 && workflow.Now(ctx).Before(until) {
		m.waits = "listings of " + m.From + " that may lag behind (policy.mirror.listing_lag), until " + until.UTC().Format("2006-01-02 15:04:05 UTC")
		m.show()
		if err := m.sleep(ctx, until.Sub(workflow.Now(ctx)), func() bool { return false }); err != nil {
			return err
		}
		if err := m.boundary(ctx); err != nil {
			return err
		}
		m.waits = ""
	}
	return nil
}

// heal brings tags that differ although no journal named them: their push began before the prefix was watched, and ended after its repository had been
// copied, or before and was not listed then.
func (m *migration) heal(ctx workflow.Context, differences []registry.Difference) error {
	var changes []journal.Change
	for _, d := range differences {
		switch d.Kind {
		case registry.MissingTag, registry.DifferentTag:
			changes = append(changes, journal.Change{Kind: journal.Manifest, Repository: d.Repository, Reference: d.Tag})
		case registry.ExtraTag:
			if m.Storage { // a listing may have shown what had been deleted just before; what others put there has no mark of ours, and stays
				changes = append(changes, journal.Change{Kind: journal.Manifest, Repository: d.Repository, Reference: d.Tag})
			}
		case mirror.MissingManifest:
			changes = append(changes, journal.Change{Kind: journal.Manifest, Repository: d.Repository, Reference: d.Want})
		case mirror.MissingLayer:
			changes = append(changes, journal.Change{Kind: journal.Blob, Repository: d.Repository, Reference: d.Want})
		}
	}
	for batch := range slices.Chunk(changes, 1000) {
		if err := m.apply(ctx, m.From, m.To, batch, 0); err != nil {
			return err
		}
	}
	return nil
}

func (m *migration) compare(ctx workflow.Context, batches []batch) (registry.Check, error) {
	var sum registry.Check
	err := m.pausable(ctx, func(ctx workflow.Context) (err error) {
		sum, err = m.look(ctx, batches)
		return err
	})
	// Probes of an earlier migration may be on one side only.
	sum.Differences = slices.DeleteFunc(sum.Differences, func(d registry.Difference) bool { return d.Kind == registry.ExtraTag && d.Repository == m.Probe })
	return sum, err
}
