package workflows

import (
	"fmt"
	"slices"
	"time"

	"go.temporal.io/sdk/workflow"

	"transship/activities"
	"transship/internal/policy"
	"transship/internal/registry"
	"transship/internal/routing"
)

// VerifyInput says what to compare, outside of a migration.
type VerifyInput struct {
	Prefix routing.Prefix `json:"prefix"`
	From   string         `json:"from"`
	To     string         `json:"to"`
	// Storage says that both backends have an object store that movers reach.
	Storage      bool     `json:"storage,omitempty"`
	Repositories []string `json:"repositories,omitempty"`
	// Probe is the repository that probes push to: what only one side has of it is no difference.
	Probe string `json:"probe,omitempty"`
	// Deep reads and hashes every byte at To.
	Deep     bool          `json:"deep,omitempty"`
	Policy   policy.Policy `json:"policy"`
	Operator string        `json:"operator"`
}

// VerifyID is the workflow ID of the comparison of a prefix.
func VerifyID(p routing.Prefix) string { return "verify/" + p.String() }

// VerifyResult is what a comparison came to.
type VerifyResult struct {
	Check registry.Check `json:"check"`
	// Found counts the differences; Check lists the first of them.
	Found int           `json:"found"`
	Took  time.Duration `json:"took_ns"`
}

// KindNothing is the type of the failure of a verify or an audit that finds no repository under its prefix.
const KindNothing = "Nothing"

// betweenLooks is how long a difference may take to vanish by itself: a push under way reaches both sides one after the other.
const betweenLooks = 5 * time.Second

// VerifyPrefix compares both sides of a prefix: every tag has the same digest, and To has all that it needs. What differs is looked at a second time. It changes nothing.
func VerifyPrefix(ctx workflow.Context, in VerifyInput) (VerifyResult, error) {
	began := workflow.Now(ctx)
	m := &migration{MigrateInput: MigrateInput{
		Prefix: in.Prefix, From: in.From, To: in.To, Storage: in.Storage, Repositories: in.Repositories, Policy: in.Policy,
	}}
	m.Policy.Verify.Deep = in.Deep
	m.state.Repositories = in.Repositories
	if err := m.list(ctx, in.From); err != nil {
		return VerifyResult{}, err
	}
	if len(m.batches()) == 0 {
		return VerifyResult{}, refusal(KindNothing, "backend %s has no repository under %s: check the prefix", in.From, in.Prefix)
	}
	first, err := m.look(ctx, m.batches())
	if err != nil {
		return VerifyResult{}, err
	}
	result := VerifyResult{Check: first, Found: len(first.Differences)}
	if result.Found > 0 {
		if err := workflow.Sleep(ctx, betweenLooks); err != nil {
			return result, err
		}
		var repositories []string
		for _, d := range first.Differences {
			if !slices.Contains(repositories, d.Repository) {
				repositories = append(repositories, d.Repository)
			}
		}
		second, err := m.look(ctx, m.batchesOf(repositories))
		if err != nil {
			return result, err
		}
		result.Check.Differences = slices.DeleteFunc(second.Differences, func(d registry.Difference) bool {
			return !slices.Contains(first.Differences, d) || d.Kind == registry.ExtraTag && d.Repository == in.Probe
		})
		result.Found = len(result.Check.Differences)
	}
	result.Took = workflow.Now(ctx).Sub(began)
	workflow.SetCurrentDetails(ctx, fmt.Sprintf("### %s: %s and %s\n\n%d tags, %d manifests, %d blobs; %d differences.\n",
		in.Prefix, in.From, in.To, result.Check.Tags, result.Check.Manifests, result.Check.Blobs, result.Found))
	return result, nil
}

// look compares batches.
func (m *migration) look(ctx workflow.Context, batches []batch) (registry.Check, error) {
	var sum registry.Check
	err := m.inBatches(ctx, batches, func(ctx workflow.Context, b batch) error {
		part, err := m.compareBatch(ctx, b, len(batches))
		sum = sum.Add(part)
		return err
	})
	if err != nil {
		return sum, fmt.Errorf("compare %s with %s: %w", m.From, m.To, err)
	}
	return sum, nil
}

// compareBatch compares one batch of n.
func (m *migration) compareBatch(ctx workflow.Context, b batch, n int) (registry.Check, error) {
	var a *activities.Registries
	var part activities.VerifyResult
	p := activities.VerifyParams{
		From: m.From, To: m.To, Repositories: b.repositories, Shard: b.shard, Jobs: m.jobs(n),
		Deep: m.Policy.Verify.Deep, AllowExtra: m.Policy.Verify.AllowExtra, Left: m.left(),
	}
	if b.shard != nil {
		p.LeftProblems = m.state.Report.Left
	}
	err := workflow.ExecuteActivity(onMover(ctx, 0, b.summary("verify")), a.VerifyRepositories, p).Get(ctx, &part)
	return part.Check, err
}
