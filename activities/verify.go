package activities

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"go.temporal.io/sdk/activity"

	"transship/internal/mirror"
	"transship/internal/registry"
)

// VerifyParams says what to compare.
type VerifyParams struct {
	From         string   `json:"from"`
	To           string   `json:"to"`
	Repositories []string `json:"repositories,omitempty"`
	// Shard, when set, is compared in the stores instead.
	Shard      *mirror.Shard `json:"shard,omitempty"`
	Jobs       int           `json:"jobs"`
	Deep       bool          `json:"deep,omitempty"`
	AllowExtra bool          `json:"allow_extra,omitempty"`
	// LeftProblems are why those in Left were left out: what needs the same broken content was left out with them.
	LeftProblems []registry.Problem `json:"left_problems,omitempty"`
	// Left names the tags, as repository:tag, that were left out because the source cannot serve them whole.
	Left []string `json:"left,omitempty"`
}

// kept bounds the lists in results: whoever reads 200 differences knows enough, and the count says how many there are.
const kept = 200

// VerifyResult is what a comparison or audit found.
type VerifyResult struct {
	Check registry.Check `json:"check"`
	// Found counts all differences; Check.Differences lists the first of them.
	Found    int                `json:"found"`
	Problems []registry.Problem `json:"problems,omitempty"`
	Next     int                `json:"next"`
}

func (v *VerifyResult) add(c registry.Check, problems []registry.Problem) {
	v.Found += len(c.Differences)
	v.Check = v.Check.Add(c)
	v.Check.Differences = v.Check.Differences[:min(len(v.Check.Differences), kept)]
	v.Problems = append(v.Problems, problems...)
	v.Next++
}

// VerifyRepositories compares repositories of two backends: every tag resolves to the same digest, and the target has all that it needs.
func (r *Registries) VerifyRepositories(ctx context.Context, p VerifyParams) (VerifyResult, error) {
	if p.Shard != nil {
		return r.verifyShard(ctx, p)
	}
	from, to, err := r.pair(p.From, p.To)
	if err != nil {
		return VerifyResult{}, err
	}
	checked := &registry.Checked{}
	return eachRepository(ctx, p.Repositories, func(repository string) ([]registry.Problem, registry.Check, error) {
		skip := map[string]bool{}
		for _, left := range p.Left {
			if tag, ok := strings.CutPrefix(left, repository+":"); ok {
				skip[tag] = true
			}
		}
		check, err := registry.Compare(ctx, from, to, repository, registry.CompareOptions{
			Deep: p.Deep, Jobs: p.Jobs, AllowExtra: p.AllowExtra, Skip: skip, Checked: checked,
		})
		return nil, check, err
	})
}

// AuditParams says what to look at.
type AuditParams struct {
	Backend      string   `json:"backend"`
	Repositories []string `json:"repositories,omitempty"`
	// Shard, when set, is looked at in the store instead.
	Shard *mirror.Shard `json:"shard,omitempty"`
	Jobs  int           `json:"jobs"`
	Deep  bool          `json:"deep,omitempty"`
}

// AuditRepositories looks whether a backend can serve every tag of its repositories whole.
func (r *Registries) AuditRepositories(ctx context.Context, p AuditParams) (VerifyResult, error) {
	if p.Shard != nil {
		return r.auditShard(ctx, p)
	}
	backend, err := r.backend(p.Backend)
	if err != nil {
		return VerifyResult{}, err
	}
	checked := &registry.Checked{}
	return eachRepository(ctx, p.Repositories, func(repository string) ([]registry.Problem, registry.Check, error) {
		return registry.Audit(ctx, backend, repository, registry.AuditOptions{Deep: p.Deep, Jobs: p.Jobs, Checked: checked})
	})
}

// eachRepository looks at repositories one after the other, heartbeats what was found, and goes on from there after a crash.
func eachRepository(ctx context.Context, repositories []string, look func(repository string) ([]registry.Problem, registry.Check, error)) (VerifyResult, error) {
	var result VerifyResult
	if activity.HasHeartbeatDetails(ctx) {
		if err := activity.GetHeartbeatDetails(ctx, &result); err != nil {
			return result, fmt.Errorf("read the cursor of the attempt before: %w", err)
		}
	}
	var mu sync.Mutex
	defer beat(ctx, func() any {
		mu.Lock()
		defer mu.Unlock()
		seen := result
		seen.Problems = slices.Clone(result.Problems)
		return seen
	})()
	for result.Next < len(repositories) {
		problems, check, err := look(repositories[result.Next])
		if err != nil {
			return result, final(err)
		}
		mu.Lock()
		result.add(check, problems)
		mu.Unlock()
	}
	return result, nil
}
