package activities

import (
	"context"
	"fmt"

	"transship/internal/mirror"
	"transship/internal/registry"
	"transship/internal/report"
)

// PlanParams says what would be moved.
type PlanParams struct {
	From         string   `json:"from"`
	To           string   `json:"to"`
	Repositories []string `json:"repositories,omitempty"`
	// Shard, when set, is a whole prefix that moves from store to store.
	Shard *mirror.Shard `json:"shard,omitempty"`
	Jobs  int           `json:"jobs"`
}

// PlanResult is what it would come to.
type PlanResult struct {
	Plan report.Plan `json:"plan"`
	// Before names the manifests that the target has already under tags, as repository@digest: they are not this migration's to delete. A
	// single "*" stands for too many to name.
	Before []string `json:"before,omitempty"`
}

// beforeLimit bounds what a workflow carries along.
const beforeLimit = 5000

// PlanRepositories reads manifests at both sides and sums up what a mirror would copy. It writes nothing.
func (r *Registries) PlanRepositories(ctx context.Context, p PlanParams) (PlanResult, error) {
	if p.Shard != nil {
		return r.planPrefix(ctx, p)
	}
	from, to, err := r.pair(p.From, p.To)
	if err != nil {
		return PlanResult{}, err
	}
	defer beat(ctx, func() any { return nil })()
	result := PlanResult{Plan: report.Plan{Repositories: int64(len(p.Repositories))}}
	blobs, present := map[string]int64{}, map[string]bool{}
	for _, repository := range p.Repositories {
		e, err := registry.Estimate(ctx, from, to, repository, p.Jobs)
		if err != nil {
			return result, final(err)
		}
		result.Plan.Tags += e.Tags
		result.Plan.TagsPresent += e.TagsPresent
		result.Plan.Manifests += int64(len(e.Manifests))
		for _, tag := range e.TagsChanged {
			result.Plan.Changed = append(result.Plan.Changed, repository+":"+tag)
		}
		for _, tag := range e.TagsOnlyAtTarget {
			result.Plan.Extra = append(result.Plan.Extra, repository+":"+tag)
		}
		for digest, size := range e.Blobs {
			blobs[digest] = size
		}
		for digest := range e.BlobsPresent {
			present[digest] = true
		}
		for _, problem := range e.Problems {
			result.Plan.Broken = append(result.Plan.Broken, problem.Error())
		}
		if err := before(ctx, to, repository, &result.Before); err != nil {
			return result, final(err)
		}
	}
	for digest, size := range blobs {
		result.Plan.Blobs++
		result.Plan.Bytes += max(size, 0)
		if present[digest] {
			result.Plan.BlobsPresent++
			result.Plan.BytesPresent += max(size, 0)
		}
	}
	return result, nil
}

// before lists the manifests that the tags of a repository refer to.
func before(ctx context.Context, r *registry.Registry, repository string, names *[]string) error {
	if len(*names) == 1 && (*names)[0] == "*" {
		return nil
	}
	tags, err := r.Tags(ctx, repository)
	if err != nil {
		return fmt.Errorf("what is there already: %w", err)
	}
	for _, tag := range tags {
		d, err := r.Resolve(ctx, repository, tag)
		if err != nil {
			return fmt.Errorf("what is there already: %w", err)
		}
		*names = append(*names, repository+"@"+d.Digest.String())
	}
	if len(*names) > beforeLimit {
		*names = []string{"*"}
	}
	return nil
}
