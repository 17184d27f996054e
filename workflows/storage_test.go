package workflows

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/testsuite"

	"transship/activities"
	"transship/internal/audit"
	"transship/internal/mirror"
	"transship/internal/policy"
	"transship/internal/registry"
	"transship/internal/report"
)

func stored(in *MigrateInput) { in.Storage = true }

// The same list of steps moves a prefix below the registries: in shards, marked, with nothing listed through the registry.
func TestAMigrationFromStoreToStore(t *testing.T) {
	w := newWorld(t)
	w.before["SampleTraffic"] = on(1, func() { w.remove("edge-1", "restricted/r1", "v1") })
	r, err := w.migrate(input(stored))
	require.NoError(t, err)
	require.Equal(t, report.Finalized, r.Outcome)
	require.Zero(t, w.calls["ListRepositories"])
	require.NotEmpty(t, w.mirrored)
	for _, p := range w.mirrored {
		require.NotNil(t, p.Shard)
		require.Empty(t, p.Repositories)
		require.Equal(t, "migration-"+r.Run, p.Mark)
	}
	require.NotEmpty(t, w.applied)
	for _, p := range w.applied {
		require.True(t, p.Storage)
		require.Equal(t, "migration-"+r.Run, p.Mark)
	}
	for _, p := range w.verified {
		require.NotNil(t, p.Shard)
	}
}

func TestAStoreMigrationThatIsPausedGoesOnFromItsCursors(t *testing.T) {
	w := newWorld(t)
	w.before["MirrorRepositories"] = on(2, func() { w.orderIn(UpdatePause, ann); w.in(time.Minute, func() { w.order(UpdateResume, ann) }) })
	r, err := w.migrate(input(stored))
	require.NoError(t, err)
	require.Equal(t, report.Finalized, r.Outcome)
	first := w.mirrored[0].Shard.First
	again := 0
	for _, p := range w.mirrored {
		if p.Shard.First == first {
			again++
		}
	}
	require.Equal(t, 1, again, "a shard that was done before the pause is not begun again")
}

func TestThrottleChangesWhileShardsAreCopied(t *testing.T) {
	w := newWorld(t)
	bound := activities.Throttle{Bandwidth: 1 << 20, Requests: 100}
	var told, twice, wrong *reply
	w.before["MirrorRepositories"] = on(2, func() {
		wrong = w.order(UpdateThrottle, Command{By: "ann", Throttle: activities.Throttle{Requests: -1}})
		<-wrong.heard
		told = w.order(UpdateThrottle, Command{By: "ann", Reason: "the store is slow", Throttle: bound})
		<-told.heard
		twice = w.order(UpdateThrottle, Command{By: "ann", Throttle: bound})
		<-twice.heard
	})
	r, err := w.migrate(input(stored, func(in *MigrateInput) { in.Policy.Mirror.Requests = 7 }))
	require.NoError(t, err)
	require.True(t, wrong.refused)
	require.False(t, told.refused, "%v", told.err)
	require.True(t, twice.refused)
	require.Equal(t, report.Finalized, r.Outcome)
	require.Equal(t, activities.Throttle{Requests: 7}, w.mirrored[0].Throttle, "what policy.mirror says at first")
	require.Equal(t, bound, w.mirrored[len(w.mirrored)-1].Throttle)
	require.Contains(t, r.Decisions[1].What, "1.0 MiB/s, 100 requests/s")
}

func TestThrottleIsRefusedWhereItBoundsNothing(t *testing.T) {
	w := newWorld(t)
	var told *reply
	w.before["MirrorRepositories"] = on(1, func() {
		told = w.order(UpdateThrottle, Command{By: "ann", Throttle: activities.Throttle{Requests: 1}})
		<-told.heard
	})
	_, err := w.migrate(input())
	require.NoError(t, err)
	require.True(t, told.refused)
}

func TestEachSharesABoundWithoutLosingIt(t *testing.T) {
	require.Equal(t, activities.Throttle{Bandwidth: 25, Requests: 1}, activities.Throttle{Bandwidth: 100, Requests: 3}.Each(4))
	require.Equal(t, activities.Throttle{}, activities.Throttle{}.Each(4))
}

// looks are the activities of audits and comparisons: the test environment runs several at once.
type looks struct {
	mutex  sync.Mutex
	found  map[string][]audit.Finding // by repository
	healed []activities.HealStoreParams
	differ [][]registry.Difference // one list for each look
	looked int
}

func (l *looks) ListShards(_ context.Context, p activities.ListShardsParams) ([]mirror.Shard, error) {
	if p.Prefix == "nothing" {
		return nil, nil
	}
	return []mirror.Shard{mirror.Only(p.Prefix, "restricted/a"), mirror.Only(p.Prefix, "restricted/b")}, nil
}

func (l *looks) AuditStore(_ context.Context, p activities.AuditStoreParams) (activities.AuditStoreResult, error) {
	found := l.found[p.Shard.First]
	return activities.AuditStoreResult{Findings: found, Found: len(found), Counts: audit.Counts{Repositories: 1}}, nil
}

func (l *looks) HealStore(_ context.Context, p activities.HealStoreParams) ([]audit.Finding, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.healed = append(l.healed, p)
	for i := range p.Findings {
		p.Findings[i].Healed = p.Findings[i].Category != audit.Unexpected
	}
	return p.Findings, nil
}

func (l *looks) CountOrphans(context.Context, activities.CountOrphansParams) (audit.Orphans, error) {
	return audit.Orphans{Blobs: 3}, nil
}

func (l *looks) VerifyRepositories(_ context.Context, p activities.VerifyParams) (activities.VerifyResult, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.looked++
	var r activities.VerifyResult
	r.Check.Tags = 1
	if p.Shard.First == "restricted/a" && len(l.differ) > 0 {
		r.Check.Differences, l.differ = l.differ[0], l.differ[1:]
	}
	return r, nil
}

func environment(l *looks) *testsuite.TestWorkflowEnvironment {
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	env := suite.NewTestWorkflowEnvironment()
	env.RegisterActivity(l)
	return env
}

func TestAnAuditFindsHealsOnlyWhenToldAndCountsOrphansOfAWholeBackend(t *testing.T) {
	finding := audit.Finding{Category: audit.BlobCorrupt, Path: "blobs/x", Repository: "restricted/b", Tags: []string{"v1"}}
	strange := audit.Finding{Category: audit.Unexpected, Path: "stray"}
	for _, in := range []AuditInput{
		{Backend: "old", Prefix: "restricted", Mirror: policy.Default().Mirror},
		{Backend: "old", Heal: true, From: "new", Mirror: policy.Default().Mirror},
	} {
		l := &looks{found: map[string][]audit.Finding{"restricted/b": {finding, strange}}}
		env := environment(l)
		env.ExecuteWorkflow(Audit, in)
		require.NoError(t, env.GetWorkflowError())
		var r AuditResult
		require.NoError(t, env.GetWorkflowResult(&r))
		require.Equal(t, 2, r.Found)
		require.EqualValues(t, 2, r.Counts.Repositories)
		if !in.Heal {
			require.Empty(t, l.healed)
			require.Nil(t, r.Orphans)
			require.Equal(t, 1, r.Bad(), "an unexpected key breaks nothing")
			continue
		}
		require.Len(t, l.healed, 1)
		require.Equal(t, "new", l.healed[0].From)
		require.Equal(t, 1, r.Healed)
		require.Zero(t, r.Bad())
		require.EqualValues(t, 3, r.Orphans.Blobs)
	}
}

func TestAnAuditOfNothingSaysSo(t *testing.T) {
	for _, run := range []func(env *testsuite.TestWorkflowEnvironment){
		func(env *testsuite.TestWorkflowEnvironment) {
			env.ExecuteWorkflow(Audit, AuditInput{Backend: "old", Prefix: "nothing", Mirror: policy.Default().Mirror})
		},
		func(env *testsuite.TestWorkflowEnvironment) {
			env.ExecuteWorkflow(VerifyPrefix, VerifyInput{Prefix: "nothing", From: "old", To: "new", Storage: true, Policy: policy.Default()})
		},
	} {
		env := environment(&looks{})
		run(env)
		require.ErrorContains(t, env.GetWorkflowError(), "check the prefix")
	}
}

func TestVerifyCountsOnlyDifferencesThatLast(t *testing.T) {
	passing := registry.Difference{Repository: "restricted/a", Tag: "pushed just now", Kind: registry.MissingTag}
	lasting := registry.Difference{Repository: "restricted/a", Tag: "v1", Kind: registry.DifferentTag}
	l := &looks{differ: [][]registry.Difference{{passing, lasting}, {lasting, {Repository: "restricted/a", Tag: "new"}}}}
	env := environment(l)
	env.ExecuteWorkflow(VerifyPrefix, VerifyInput{Prefix: "restricted", From: "old", To: "new", Storage: true, Policy: policy.Default()})
	require.NoError(t, env.GetWorkflowError())
	var r VerifyResult
	require.NoError(t, env.GetWorkflowResult(&r))
	require.Equal(t, []registry.Difference{lasting}, r.Check.Differences)
	require.Equal(t, 1, r.Found)
	require.Equal(t, 3, l.looked, "the second look is at the repository that differs")
}
