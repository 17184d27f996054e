package workflows

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"go.temporal.io/sdk/workflow"

	"transship/activities"
	"transship/internal/audit"
	"transship/internal/mirror"
	"transship/internal/policy"
)

// AuditInput says what to look at, and whether to heal it.
type AuditInput struct {
	Backend string `json:"backend"`
	// Prefix of the repositories; empty is the whole backend, whose orphans are counted then as well.
	Prefix string `json:"prefix,omitempty"`
	// Deep reads and hashes every byte.
	Deep bool `json:"deep,omitempty"`
	// Heal copies good copies from backend From over what is bad.
	Heal bool   `json:"heal,omitempty"`
	From string `json:"from,omitempty"`
	// Mirror bounds the work.
	Mirror   policy.Mirror `json:"mirror"`
	Operator string        `json:"operator"`
}

// AuditResult is what an audit found.
type AuditResult struct {
	Backend string        `json:"backend"`
	Prefix  string        `json:"prefix,omitempty"`
	Deep    bool          `json:"deep,omitempty"`
	Counts  audit.Counts  `json:"counts"`
	Shards  int           `json:"shards"`
	Done    int           `json:"done"`
	Took    time.Duration `json:"took_ns"`
	// Findings are the first that fit; Found counts all.
	Findings []audit.Finding `json:"findings,omitempty"`
	Found    int             `json:"found"`
	Healed   int             `json:"healed,omitempty"`
	// HealedFrom is the backend that the copies came from.
	HealedFrom string         `json:"healed_from,omitempty"`
	Orphans    *audit.Orphans `json:"orphans,omitempty"`
}

// Bad counts the findings that concern what clients may ask for and that were not healed.
func (r *AuditResult) Bad() int {
	bad := r.Found - len(r.Findings)
	for _, f := range r.Findings {
		if f.Category.Breaks() && !f.Healed && !(f.Derived && r.Healed > 0) {
			bad++
		}
	}
	return bad
}

// These bound a result: Temporal takes 2 MB.
const (
	maxFindings     = 2000
	maxFindingBytes = 1 << 20
)

// QueryAudit answers with the AuditResult so far.
const QueryAudit = "audit"

// AuditID is the workflow ID of the audit of a backend, or of a prefix of it: Temporal refuses a second one.
func AuditID(backend, prefix string) string {
	if prefix == "" {
		return "audit/" + backend
	}
	return "audit/" + backend + "/" + prefix
}

// Audit looks whether the object store under a backend holds what its registry needs, and heals what is bad when told to. It changes nothing otherwise.
func Audit(ctx workflow.Context, in AuditInput) (AuditResult, error) {
	result := AuditResult{Backend: in.Backend, Prefix: in.Prefix, Deep: in.Deep}
	began := workflow.Now(ctx)
	if err := workflow.SetQueryHandler(ctx, QueryAudit, func() (AuditResult, error) { return result, nil }); err != nil {
		return result, err
	}
	show := func() { workflow.SetCurrentDetails(ctx, result.details()) }
	p := policy.Policy{Mirror: in.Mirror}
	shards, err := listShards(ctx, in.Backend, in.Prefix, p)
	if err != nil {
		return result, err
	}
	if len(shards) == 0 && in.Prefix != "" {
		return result, refusal(KindNothing, "backend %s has no repository under %s: check the prefix", in.Backend, in.Prefix)
	}
	result.Shards = len(shards)
	err = inBatches(ctx, in.Mirror.Repositories, shards, func(ctx workflow.Context, s mirror.Shard) error {
		var a *activities.Registries
		var part activities.AuditStoreResult
		q := activities.AuditStoreParams{Backend: in.Backend, Shard: s, Deep: in.Deep, Jobs: in.Mirror.Jobs}
		err := workflow.ExecuteActivity(onMover(ctx, 0, "audit "+s.String()), a.AuditStore, q).Get(ctx, &part)
		if err != nil {
			return err
		}
		result.Counts = result.Counts.Add(part.Counts)
		result.Found += part.Found
		result.Findings = audit.First(append(result.Findings, part.Findings...), maxFindings, maxFindingBytes)
		result.Done++
		show()
		return nil
	})
	if err != nil {
		return result, err
	}
	slices.SortStableFunc(result.Findings, byRepository)
	if in.Heal && len(result.Findings) > 0 {
		if err := result.heal(ctx, in); err != nil {
			return result, err
		}
	}
	if in.Prefix == "" {
		var a *activities.Registries
		err := workflow.ExecuteActivity(onMover(ctx, 0, "count orphans of "+in.Backend), a.CountOrphans, activities.CountOrphansParams{Backend: in.Backend}).Get(ctx, &result.Orphans)
		if err != nil {
			return result, err
		}
	}
	result.Took = workflow.Now(ctx).Sub(began)
	show()
	return result, nil
}

func byRepository(a, b audit.Finding) int { return strings.Compare(a.Repository, b.Repository) }

// healAtOnce is how many findings one activity heals.
const healAtOnce = 100

// heal makes good what was found, causes before what follows from them.
func (r *AuditResult) heal(ctx workflow.Context, in AuditInput) error {
	r.HealedFrom = in.From
	var all []audit.Finding
	ordered := slices.Clone(r.Findings)
	slices.SortStableFunc(ordered, audit.CausesFirst)
	for part := range slices.Chunk(ordered, healAtOnce) {
		var a *activities.Registries
		var healed []audit.Finding
		p := activities.HealStoreParams{
			Backend: in.Backend, From: in.From, Findings: part, Jobs: in.Mirror.Jobs,
			Mark: "heal-" + workflow.GetInfo(ctx).WorkflowExecution.RunID,
		}
		if err := workflow.ExecuteActivity(onMover(ctx, 0, fmt.Sprintf("heal %d findings from %s", len(part), in.From)), a.HealStore, p).Get(ctx, &healed); err != nil {
			return err
		}
		all = append(all, healed...)
	}
	slices.SortStableFunc(all, byRepository)
	r.Findings, r.Healed = all, 0
	for _, f := range all {
		if f.Healed {
			r.Healed++
		}
	}
	return nil
}

// details are what the Temporal UI shows.
func (r *AuditResult) details() string {
	var b strings.Builder
	what := r.Backend
	if r.Prefix != "" {
		what += ": " + r.Prefix
	}
	fmt.Fprintf(&b, "### Audit of %s\n\n%d of %d shards. %d repositories, %d tags, %d manifests, %d blobs, %s; %d findings, %d healed.\n\n",
		what, r.Done, r.Shards, r.Counts.Repositories, r.Counts.Tags, r.Counts.Manifests, r.Counts.Blobs, humanize.IBytes(uint64(max(0, r.Counts.Bytes))), r.Found, r.Healed)
	if len(r.Findings) > 0 {
		b.WriteString("| what | where | tags | why | |\n|---|---|---|---|---|\n")
	}
	for i, f := range r.Findings {
		if i == 30 {
			fmt.Fprintf(&b, "\n… and %d more\n", r.Found-i)
			break
		}
		state := f.Unhealed
		if f.Healed {
			state = "healed"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", f.Category, brief(strings.TrimPrefix(f.Path, "repositories/")), someOf(f.Tags), brief(f.Detail), brief(state))
	}
	if o := r.Orphans; o != nil {
		fmt.Fprintf(&b, "\nReferred to by nothing: %d blobs (%s), %d segments (%s).\n", o.Blobs, humanize.IBytes(uint64(max(0, o.Bytes))), o.Segments, humanize.IBytes(uint64(max(0, o.SegmentBytes))))
	}
	return b.String()
}

// hexadecimal is what makes the keys and texts of findings too wide for the Temporal UI.
var hexadecimal = regexp.MustCompile(`([0-9a-f]{12})[0-9a-f]{52,}`)

// brief is a text for a cell of a table.
func brief(text string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ").Replace(hexadecimal.ReplaceAllString(text, "$1…"))
}

// someOf are a few names of a list.
func someOf(names []string) string {
	const few = 4
	if len(names) > few+1 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:few], ", "), len(names)-few)
	}
	return strings.Join(names, ", ")
}
