package activities

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"transship/internal/audit"
	"transship/internal/distribution"
	"transship/internal/distribution/distributiontest"
	"transship/internal/journal"
	"transship/internal/mirror"
	"transship/internal/objectstore"
	"transship/internal/objectstore/storetest"
)

// stores are two backends with a store in memory each.
type stores struct {
	*Registries
	old, new *storetest.Memory
	tree     distributiontest.Tree
	env      *testsuite.TestActivityEnvironment
}

func newStores() *stores {
	s := &stores{old: &storetest.Memory{Name: "old"}, new: &storetest.Memory{Name: "new"}, env: newEnvironment()}
	s.tree = distributiontest.Tree{Put: func(key, content string) { s.old.PutString(key, content) }}
	s.Registries = &Registries{Stores: map[string]objectstore.Store{"old": s.old, "new": s.new}}
	s.env.RegisterActivity(s.Registries)
	return s
}

func (s *stores) image(repository, tag, layer string) digest.Digest {
	d := s.tree.Image(repository, nil, layer)
	s.tree.Tag(repository, tag, d)
	return d
}

var whole = &mirror.Shard{Prefix: "p"}

func current(repository, tag string) string {
	return distribution.Path{Kind: distribution.TagCurrent, Repository: repository, Tag: tag}.Key()
}

func TestAShardIsPlannedMirroredComparedAndAudited(t *testing.T) {
	s := newStores()
	s.image("p/a", "v1", "a")
	s.image("p/b", "v1", "b")
	shards, err := run[[]mirror.Shard](s.env, s.ListShards, ListShardsParams{Backend: "old", Prefix: "p", Shards: 8})
	require.NoError(t, err)
	require.Len(t, shards, 2)
	plan, err := run[PlanResult](s.env, s.PlanRepositories, PlanParams{From: "old", To: "new", Shard: whole, Jobs: 4})
	require.NoError(t, err)
	require.EqualValues(t, 2, plan.Plan.Tags)
	require.NotZero(t, plan.Plan.Missing())
	found, err := run[VerifyResult](s.env, s.VerifyRepositories, VerifyParams{From: "old", To: "new", Shard: whole, Jobs: 4})
	require.NoError(t, err)
	require.NotZero(t, found.Found)

	at, err := run[Cursor](s.env, s.MirrorRepositories, MirrorParams{From: "old", To: "new", Shard: whole, Mark: "m", Jobs: 4})
	require.NoError(t, err)
	require.True(t, at.Done)
	require.EqualValues(t, 2, at.Progress.Tags)
	found, err = run[VerifyResult](s.env, s.VerifyRepositories, VerifyParams{From: "old", To: "new", Shard: whole, Jobs: 4, Deep: true})
	require.NoError(t, err)
	require.Zero(t, found.Found, "%v", found.Check.Differences)

	// What only an audit of the target finds is a difference of the tags that need it.
	s.new.PutString(distribution.BlobKey(digest.FromString("a")), "A")
	found, err = run[VerifyResult](s.env, s.VerifyRepositories, VerifyParams{From: "old", To: "new", Shard: whole, Jobs: 4, Deep: true})
	require.NoError(t, err)
	require.Equal(t, 1, found.Found)
	require.Equal(t, string(audit.BlobCorrupt), found.Check.Differences[0].Kind)
	require.Equal(t, "v1", found.Check.Differences[0].Tag)
}

func TestAProblemIsToldInPlainWords(t *testing.T) {
	d := digest.FromString("a layer")
	for said, f := range map[string]audit.Finding{
		"backend old: p/a@" + d.String() + " is short: it has no bytes (tags v1)":                    {Category: audit.BlobEmpty, Path: distribution.BlobKey(d), Repository: "p/a", Digest: d, Tags: []string{"v1"}, Detail: "it has no bytes"},
		"backend old: p/a is corrupt: " + current("p/a", "v1") + ": the link has no bytes (tags v1)": {Category: audit.LinkEmpty, Path: current("p/a", "v1"), Repository: "p/a", Tags: []string{"v1"}, Detail: "the link has no bytes"},
	} {
		p := problem("old", f)
		require.Equal(t, said, p.Error())
	}
}

func TestAThrottledMirrorTakesItsTimeAndComesToItsEnd(t *testing.T) {
	s := newStores()
	s.image("p/a", "v1", strings.Repeat("a", 200<<10))
	p := MirrorParams{From: "old", To: "new", Shard: whole, Mark: "m", Jobs: 4, Throttle: Throttle{Bandwidth: 400 << 10}}
	began := time.Now()
	at, err := run[Cursor](s.env, s.MirrorRepositories, p)
	require.NoError(t, err)
	require.True(t, at.Done)
	require.Greater(t, time.Since(began), 200*time.Millisecond, "200 KiB at 400 KiB/s, of which 64 KiB may go at once")
	p.Throttle = Throttle{Requests: 1000}
	at, err = run[Cursor](s.env, s.MirrorRepositories, p)
	require.NoError(t, err)
	require.True(t, at.Done)
}

func TestABrokenImageBelowTheRegistryStopsOrIsLeftOut(t *testing.T) {
	s := newStores()
	s.image("p/a", "v1", "a")
	s.image("p/b", "v1", "b")
	s.old.PutString(distribution.BlobKey(digest.FromString("a")), "")
	found, err := run[VerifyResult](s.env, s.AuditRepositories, AuditParams{Backend: "old", Shard: whole, Jobs: 4})
	require.NoError(t, err)
	require.Len(t, found.Problems, 1)
	require.Equal(t, []string{"v1"}, found.Problems[0].Tags)

	p := MirrorParams{From: "old", To: "new", Shard: whole, Mark: "m", Jobs: 4}
	_, err = run[Cursor](s.env, s.MirrorRepositories, p)
	var final *temporal.ApplicationError
	require.ErrorAs(t, err, &final)
	require.Equal(t, KindBroken, final.Type())
	require.True(t, final.NonRetryable())
	_, there := s.new.Content(current("p/b", "v1"))
	require.True(t, there, "everything else is there")

	p.SkipBroken = true
	at, err := run[Cursor](s.env, s.MirrorRepositories, p)
	require.NoError(t, err)
	require.Len(t, at.Problems, 1)
	compared, err := run[VerifyResult](s.env, s.VerifyRepositories, VerifyParams{From: "old", To: "new", Shard: whole, Jobs: 4, LeftProblems: at.Problems})
	require.NoError(t, err)
	require.Zero(t, compared.Found, "%v", compared.Check.Differences)
}

func TestAShardGoesOnFromTheHeartbeatOfTheAttemptBefore(t *testing.T) {
	s := newStores()
	s.image("p/a", "v1", "a")
	s.image("p/b", "v1", "b")
	before := mirror.Cursor{After: distribution.Past("p/a")}
	before.Progress.Tags = 5
	s.env.SetHeartbeatDetails(Cursor{Store: before, Progress: before.Progress})
	at, err := run[Cursor](s.env, s.MirrorRepositories, MirrorParams{From: "old", To: "new", Shard: whole, Mark: "m", Jobs: 4})
	require.NoError(t, err)
	_, there := s.new.Content(current("p/a", "v1"))
	require.False(t, there, "it was done by the attempt before")
	require.EqualValues(t, 6, at.Progress.Tags)

	s.env = newEnvironment()
	s.env.RegisterActivity(s.Registries)
	s.old.PutString(distribution.BlobKey(digest.FromString("b")), "")
	s.env.SetHeartbeatDetails(AuditStoreResult{After: distribution.Past("p/a"), Found: 1, Findings: []audit.Finding{{Path: "x"}}, Counts: audit.Counts{Tags: 7}})
	found, err := run[AuditStoreResult](s.env, s.AuditStore, AuditStoreParams{Backend: "old", Shard: *whole})
	require.NoError(t, err)
	require.Equal(t, 2, found.Found)
	require.EqualValues(t, 8, found.Counts.Tags)
}

func TestADeltaBelowTheRegistry(t *testing.T) {
	s := newStores()
	d := s.image("p/a", "v1", "a")
	p := ApplyParams{From: "old", To: "new", Storage: true, Mark: "m", Jobs: 4, Changes: []journal.Change{{Kind: journal.Manifest, Repository: "p/a", Reference: "v1"}}}
	differs, err := run[[]any](s.env, s.VerifyChanges, p)
	require.NoError(t, err)
	require.Len(t, differs, 1)
	done, err := run[ApplyResult](s.env, s.ApplyChanges, p)
	require.NoError(t, err)
	require.Equal(t, 1, done.Applied)
	content, _ := s.new.Content(current("p/a", "v1"))
	require.Equal(t, d.String(), string(content))
	differs, err = run[[]any](s.env, s.VerifyChanges, p)
	require.NoError(t, err)
	require.Empty(t, differs)
}

func TestHealingWritesGoodCopiesOverBadOnes(t *testing.T) {
	s := newStores()
	s.image("p/a", "v1", "a")
	_, err := run[Cursor](s.env, s.MirrorRepositories, MirrorParams{From: "old", To: "new", Shard: whole, Mark: "m", Jobs: 4})
	require.NoError(t, err)
	s.old.PutString(distribution.BlobKey(digest.FromString("a")), "A")
	s.old.PutString(distribution.BlobKey(digest.FromString("nobody's")), "nobody's")
	found, err := run[AuditStoreResult](s.env, s.AuditStore, AuditStoreParams{Backend: "old", Shard: *whole, Deep: true})
	require.NoError(t, err)
	require.Len(t, found.Findings, 1)
	healed, err := run[[]audit.Finding](s.env, s.HealStore, HealStoreParams{Backend: "old", From: "new", Findings: found.Findings})
	require.NoError(t, err)
	require.True(t, healed[0].Healed)
	content, _ := s.old.Content(distribution.BlobKey(digest.FromString("a")))
	require.Equal(t, "a", string(content))
	orphans, err := run[audit.Orphans](s.env, s.CountOrphans, CountOrphansParams{Backend: "old"})
	require.NoError(t, err)
	require.EqualValues(t, 1, orphans.Blobs)
}

func TestAStoreThatTheWorkerDoesNotKnowIsAMatterOfConfiguration(t *testing.T) {
	m := newMovers(t)
	for _, p := range []MirrorParams{{From: "old", To: "new", Shard: whole}, {From: "nowhere", To: "new", Shard: whole}} {
		_, err := run[Cursor](m.env, m.MirrorRepositories, p)
		var final *temporal.ApplicationError
		require.ErrorAs(t, err, &final)
		require.Equal(t, KindConfig, final.Type())
	}
}

func TestAStoreThatRefusesIsFinalAndOneThatIsDownIsNot(t *testing.T) {
	s := newStores()
	s.image("p/a", "v1", "a")
	down := errors.New("connection refused")
	s.old.Fault = func(string, string) error { return down }
	_, err := run[Cursor](s.env, s.MirrorRepositories, MirrorParams{From: "old", To: "new", Shard: whole, Jobs: 4})
	var failed *temporal.ApplicationError
	require.ErrorAs(t, err, &failed)
	require.False(t, failed.NonRetryable())
	s.old.Fault = func(string, string) error { return &objectstore.StatusError{Op: "list", Status: 403} }
	_, err = run[Cursor](s.env, s.MirrorRepositories, MirrorParams{From: "old", To: "new", Shard: whole, Jobs: 4})
	require.ErrorAs(t, err, &failed)
	require.True(t, failed.NonRetryable())
	require.Equal(t, KindRefused, failed.Type())
}
