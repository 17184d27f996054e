package activities

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"transship/internal/audit"
	"transship/internal/distribution"
	"transship/internal/mirror"
	"transship/internal/objectstore"
	"transship/internal/registry"
	"transship/internal/report"
	"transship/internal/routing"
)

// This file is the storage plane of the activities in Registries: where both backends have an object store that we reach, the same activities work on a mirror.Shard,
// below the registries. A worker's stores are those of its configuration.

// Throttle bounds what one activity asks of the stores, on top of what the worker's configuration allows; 0 is no bound.
type Throttle struct {
	// Bandwidth in bytes per second, Requests per second, of each store.
	Bandwidth int64 `json:"bandwidth,omitempty"`
	Requests  int   `json:"requests,omitempty"`
}

// Each divides a bound among n activities.
func (t Throttle) Each(n int) Throttle {
	share := Throttle{Bandwidth: t.Bandwidth / int64(max(1, n)), Requests: t.Requests / max(1, n)}
	if t.Bandwidth > 0 {
		share.Bandwidth = max(1, share.Bandwidth)
	}
	if t.Requests > 0 {
		share.Requests = max(1, share.Requests)
	}
	return share
}

func (r *Registries) store(backend string) (objectstore.Store, error) {
	if s, ok := r.Stores[backend]; ok {
		return s, nil
	}
	if _, err := r.backend(backend); err != nil {
		return nil, err
	}
	return nil, temporal.NewNonRetryableApplicationError(
		fmt.Sprintf("backend %q has no store in the configuration of this worker: add backends.%s.store and restart the worker", backend, backend), KindConfig, nil)
}

// sides are both ends of a mirror, throttled.
func (r *Registries) sides(from, to string, t Throttle) (source, target mirror.Side, err error) {
	side := func(backend string) (mirror.Side, error) {
		store, err := r.store(backend)
		if err == nil && t != (Throttle{}) {
			store = objectstore.Throttled(store, objectstore.NewLimits(t.Bandwidth, t.Requests))
		}
		return mirror.Side{Backend: backend, Store: store}, err
	}
	if source, err = side(from); err != nil {
		return source, target, err
	}
	target, err = side(to)
	return source, target, err
}

// known is what the activities of one workflow that fill a target at the same time share on this worker. It is forgotten when the last of them ends.
func (r *Registries) known(ctx context.Context, to string) (known *mirror.Known, release func()) {
	key := activity.GetInfo(ctx).WorkflowExecution.RunID + " " + to
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.shared == nil {
		r.shared = map[string]*sharedKnown{}
	}
	if r.shared[key] == nil {
		r.shared[key] = &sharedKnown{}
	}
	s := r.shared[key]
	s.users++
	var once sync.Once
	return &s.Known, func() {
		once.Do(func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			if s.users--; s.users == 0 {
				delete(r.shared, key)
			}
		})
	}
}

type sharedKnown struct {
	mirror.Known
	users int
}

// ListShardsParams says what to divide, and into how many shards at most.
type ListShardsParams struct {
	Backend string `json:"backend"`
	Prefix  string `json:"prefix"`
	Shards  int    `json:"shards"`
}

// ListShards divides the repositories of a prefix into ranges of keys.
func (r *Registries) ListShards(ctx context.Context, p ListShardsParams) ([]mirror.Shard, error) {
	store, err := r.store(p.Backend)
	if err != nil {
		return nil, err
	}
	defer beat(ctx, func() any { return nil })()
	shards, err := mirror.Shards(ctx, store, p.Prefix, p.Shards)
	return shards, final(err)
}

// mirrorShard is MirrorRepositories below the registries.
func (r *Registries) mirrorShard(ctx context.Context, p MirrorParams) (Cursor, error) {
	from, to, err := r.sides(p.From, p.To, p.Throttle)
	if err != nil {
		return p.Cursor, err
	}
	at := p.Cursor
	if activity.HasHeartbeatDetails(ctx) {
		if err := activity.GetHeartbeatDetails(ctx, &at); err != nil {
			return at, fmt.Errorf("read the cursor of the attempt before: %w", err)
		}
	}
	known, release := r.known(ctx, p.To)
	defer release()
	var mu sync.Mutex
	now := shardCursor(at.Store)
	m := &mirror.Mirror{
		From: from, To: to, Mark: p.Mark, Jobs: p.Jobs, Deletes: true, SkipBroken: true, Known: known,
		Observe: func(c mirror.Cursor) { mu.Lock(); now = shardCursor(c); mu.Unlock() },
	}
	defer beat(ctx, func() any { mu.Lock(); defer mu.Unlock(); return now })()
	done, err := m.Run(ctx, *p.Shard, at.Store)
	end := shardCursor(done)
	switch {
	case ctx.Err() != nil:
		return end, temporal.NewCanceledError(end)
	case err != nil:
		return end, final(err)
	case len(end.Problems) > 0 && !p.SkipBroken:
		return end, final(&registry.BrokenError{Problems: end.Problems})
	}
	end.Done = true
	return end, nil
}

// shardCursor shows the cursor of a shard as that of repositories.
func shardCursor(c mirror.Cursor) Cursor {
	return Cursor{Progress: c.Progress, Problems: c.Problems, Store: c}
}

// planPrefix is PlanRepositories below the registries.
func (r *Registries) planPrefix(ctx context.Context, p PlanParams) (PlanResult, error) {
	from, to, err := r.sides(p.From, p.To, Throttle{})
	if err != nil {
		return PlanResult{}, err
	}
	defer beat(ctx, func() any { return nil })()
	m := &mirror.Mirror{From: from, To: to, Jobs: p.Jobs}
	planned, err := m.Plan(ctx, p.Shard.Prefix)
	if err != nil {
		return PlanResult{}, final(err)
	}
	result := PlanResult{Plan: report.Plan{
		Plane: report.Storage, Repositories: planned.Repositories, Tags: planned.Tags, TagsPresent: planned.TagsPresent, Manifests: planned.Manifests,
		Objects: planned.Objects, ObjectsPresent: planned.ObjectsPresent, Blobs: planned.Blobs, Bytes: planned.Bytes, BlobsPresent: planned.BlobsPresent,
		BytesPresent: planned.BytesPresent, BytesShared: planned.BytesShared, Takes: planned.Takes, Sample: planned.Sample,
		Changed: planned.Changed, Extra: planned.Extra, Unexpected: planned.Unexpected,
	}}
	for _, problem := range planned.Problems {
		result.Plan.Broken = append(result.Plan.Broken, problem.Error())
	}
	return result, nil
}

// verifyShard is VerifyRepositories below the registries: the links of both sides are compared, and then it is audited whether the target can serve all of them.
func (r *Registries) verifyShard(ctx context.Context, p VerifyParams) (VerifyResult, error) {
	from, to, err := r.sides(p.From, p.To, Throttle{})
	if err != nil {
		return VerifyResult{}, err
	}
	defer beat(ctx, func() any { return nil })()
	m := &mirror.Mirror{From: from, To: to, Jobs: p.Jobs}
	check, err := m.Compare(ctx, *p.Shard, mirror.CompareOptions{AllowExtra: p.AllowExtra, Left: p.LeftProblems})
	if err != nil {
		return VerifyResult{}, final(err)
	}
	a := &audit.Audit{Side: to, Deep: p.Deep, Jobs: p.Jobs}
	findings, counts, err := a.Run(ctx, *p.Shard)
	if err != nil {
		return VerifyResult{}, final(err)
	}
	check.Blobs, check.Bytes = counts.Blobs+counts.Manifests, counts.Bytes
	for _, f := range findings {
		if f.Category.Breaks() {
			check.Differences = append(check.Differences, differences(f)...)
		}
	}
	var result VerifyResult
	result.add(check, nil)
	return result, nil
}

// differences show what an audit found at the target, by tag.
func differences(f audit.Finding) []registry.Difference {
	d := registry.Difference{Repository: f.Repository, Kind: string(f.Category), Want: f.Digest.String(), Detail: f.Detail}
	if len(f.Tags) == 0 {
		return []registry.Difference{d}
	}
	var all []registry.Difference
	for _, tag := range f.Tags {
		d.Tag = tag
		all = append(all, d)
	}
	return all
}

// auditShard is AuditRepositories below the registries.
func (r *Registries) auditShard(ctx context.Context, p AuditParams) (VerifyResult, error) {
	found, err := r.AuditStore(ctx, AuditStoreParams{Backend: p.Backend, Shard: *p.Shard, Deep: p.Deep, Jobs: p.Jobs})
	if err != nil {
		return VerifyResult{}, err
	}
	c := found.Counts
	var result VerifyResult
	result.add(registry.Check{Repositories: c.Repositories, Tags: c.Tags, Manifests: c.Manifests, Blobs: c.Blobs, Bytes: c.Bytes}, nil)
	for _, f := range found.Findings {
		if f.Category.Breaks() && !f.Derived {
			result.Problems = append(result.Problems, problem(p.Backend, f))
		}
	}
	return result, nil
}

// problem is a finding as those who know nothing of stores are told of it.
func problem(backend string, f audit.Finding) registry.Problem {
	kind := registry.Corrupt
	switch f.Category {
	case audit.BlobMissing, audit.ListedGone, audit.LinkMissing, audit.LayerLinkMissing, audit.TagManifestMissing, audit.ManifestPartMissing:
		kind = registry.Missing
	case audit.BlobEmpty, audit.BlobShort, audit.SegmentsMissing:
		kind = registry.Short
	case audit.BlobLong:
		kind = registry.Long
	}
	detail := f.Detail
	if distribution.Parse(f.Path).Kind != distribution.Blob {
		detail = f.Path + ": " + detail
	}
	return registry.Problem{Kind: kind, Backend: backend, Repository: f.Repository, Digest: f.Digest.String(), Tags: f.Tags, Detail: detail}
}

// AuditStoreParams says what to look at.
type AuditStoreParams struct {
	Backend string       `json:"backend"`
	Shard   mirror.Shard `json:"shard"`
	Deep    bool         `json:"deep,omitempty"`
	Jobs    int          `json:"jobs,omitempty"`
}

// AuditStoreResult is what an audit of a shard found.
type AuditStoreResult struct {
	Counts   audit.Counts    `json:"counts"`
	Findings []audit.Finding `json:"findings,omitempty"`
	// Found counts all findings; the list ends after the first foundLimit, or foundBytes.
	Found int `json:"found"`
	// After is the cursor: the key up to which everything was looked at.
	After string `json:"after,omitempty"`
}

// These bound the findings that one shard hands to the workflow: whoever reads 500 has enough to do, and Temporal takes 2 MB. One base layer may affect thousands of tags.
const (
	foundLimit = 500
	foundBytes = 512 << 10
)

func (a *AuditStoreResult) add(findings []audit.Finding) {
	a.Found += len(findings)
	if len(a.Findings)+len(findings) < a.Found {
		return // the list has ended
	}
	a.Findings = audit.First(append(a.Findings, findings...), foundLimit, foundBytes)
}

// AuditStore looks at the store under a backend. It goes on from its heartbeat after a crash.
func (r *Registries) AuditStore(ctx context.Context, p AuditStoreParams) (AuditStoreResult, error) {
	store, err := r.store(p.Backend)
	if err != nil {
		return AuditStoreResult{}, err
	}
	var result AuditStoreResult
	if activity.HasHeartbeatDetails(ctx) {
		if err := activity.GetHeartbeatDetails(ctx, &result); err != nil {
			return result, fmt.Errorf("read the cursor of the attempt before: %w", err)
		}
	}
	before := result.Counts
	shard := p.Shard
	shard.After = max(shard.After, result.After)
	var mu sync.Mutex
	a := &audit.Audit{Side: mirror.Side{Backend: p.Backend, Store: store}, Deep: p.Deep, Jobs: p.Jobs}
	a.RepositoryDone = func(after string, counts audit.Counts, found []audit.Finding) {
		mu.Lock()
		defer mu.Unlock()
		result.After, result.Counts = after, before.Add(counts)
		result.add(found)
	}
	defer beat(ctx, func() any {
		mu.Lock()
		defer mu.Unlock()
		seen := result
		seen.Findings = slices.Clone(result.Findings)
		return seen
	})()
	all, _, err := a.Run(ctx, shard)
	if err != nil {
		return result, final(err)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, f := range all { // what belongs to no repository
		if f.Repository == "" {
			result.add([]audit.Finding{f})
		}
	}
	return result, nil
}

// HealStoreParams says what to heal, and from where.
type HealStoreParams struct {
	Backend  string          `json:"backend"`
	From     string          `json:"from"`
	Findings []audit.Finding `json:"findings"`
	Mark     string          `json:"mark,omitempty"`
	Jobs     int             `json:"jobs,omitempty"`
}

// HealStore makes findings good with verified copies from another backend. Doing it again changes nothing.
func (r *Registries) HealStore(ctx context.Context, p HealStoreParams) ([]audit.Finding, error) {
	good, bad, err := r.sides(p.From, p.Backend, Throttle{})
	if err != nil {
		return nil, err
	}
	defer beat(ctx, func() any { return nil })()
	healed, err := (&audit.Healer{Good: good, Bad: bad, Jobs: p.Jobs, Mark: p.Mark}).Heal(ctx, p.Findings)
	return healed, final(err)
}

// CountOrphansParams names a backend.
type CountOrphansParams struct {
	Backend string `json:"backend"`
}

// CountOrphans counts what nothing in the store of a backend refers to.
func (r *Registries) CountOrphans(ctx context.Context, p CountOrphansParams) (audit.Orphans, error) {
	store, err := r.store(p.Backend)
	if err != nil {
		return audit.Orphans{}, err
	}
	defer beat(ctx, func() any { return nil })()
	o, err := audit.CountOrphans(ctx, store)
	return o, final(err)
}

// applyStored is ApplyChanges below the registries.
func (r *Registries) applyStored(ctx context.Context, p ApplyParams) (ApplyResult, error) {
	from, to, err := r.sides(p.From, p.To, Throttle{})
	if err != nil {
		return ApplyResult{}, err
	}
	defer beat(ctx, func() any { return nil })()
	m := &mirror.Mirror{From: from, To: to, Mark: p.Mark, Jobs: p.Jobs, Deletes: true, SkipBroken: p.SkipBroken}
	done, err := m.Apply(ctx, p.Changes)
	return ApplyResult{
		Applied: done.Changes, Deleted: done.Deleted, Progress: done.Progress, NotDeleted: done.NotDeleted, Problems: done.Problems,
	}, final(err)
}

// ListUploadsParams says whose open uploads to list.
type ListUploadsParams struct {
	Backend string `json:"backend"`
	Prefix  string `json:"prefix"`
	// Idle is how long a session may be silent before it counts as abandoned.
	Idle time.Duration `json:"idle_ns"`
}

// ListUploads lists the upload sessions that a store shows to be at work.
func (r *Registries) ListUploads(ctx context.Context, p ListUploadsParams) ([]routing.Upload, error) {
	store, err := r.store(p.Backend)
	if err != nil {
		return nil, err
	}
	defer beat(ctx, func() any { return nil })()
	open, err := mirror.OpenUploads(ctx, store, p.Prefix, time.Now().Add(-p.Idle))
	return open, final(err)
}

// compareStored is VerifyChanges below the registries.
func (r *Registries) compareStored(ctx context.Context, p ApplyParams) ([]registry.Difference, error) {
	from, to, err := r.sides(p.From, p.To, Throttle{})
	if err != nil {
		return nil, err
	}
	defer beat(ctx, func() any { return nil })()
	found, err := (&mirror.Mirror{From: from, To: to, Jobs: p.Jobs}).CompareChanges(ctx, p.Changes)
	return found, final(err)
}
