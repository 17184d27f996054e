//go:build lab

package lab

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"transship/internal/audit"
	"transship/internal/connect"
	"transship/internal/distribution"
	"transship/internal/objectstore"
	"transship/internal/registry"
	"transship/internal/report"
	"transship/workflows"
)

// exits runs the command line, wants its exit code, and returns what it printed.
func (s *Stack) exits(t *testing.T, code int, args ...string) string {
	t.Helper()
	out, err := s.Transship(t.Context(), args...)
	got := 0
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		got = failed.ExitCode()
	} else {
		require.NoError(t, err)
	}
	require.Equal(t, code, got, "transship %v: %s", args, out)
	return out
}

// agrees verifies both sides while clients push: on a busy machine what they pushed last may not have been carried back yet, twice in a row.
func (s *Stack) agrees(t *testing.T) (out string) {
	t.Helper()
	require.Eventually(t, func() bool {
		var err error
		out, err = s.Transship(t.Context(), "verify", "restricted", "--deep")
		return err == nil
	}, 2*time.Minute, time.Second, "both sides should agree")
	return out
}

// decode decodes the first JSON value of an output; what is wrong follows it as another.
func decode[T any](t *testing.T, out string) (value T) {
	t.Helper()
	require.NoError(t, json.NewDecoder(strings.NewReader(out)).Decode(&value), out)
	return value
}

// store is the object store of a backend, to damage what it holds.
func (s *Stack) store(t *testing.T, backend string) objectstore.Store {
	t.Helper()
	c, err := s.Configuration()
	require.NoError(t, err)
	stores, err := connect.Stores(t.Context(), c)
	require.NoError(t, err)
	return stores[backend]
}

// damage overwrites a blob with other bytes of the same length.
func (s *Stack) damage(t *testing.T, backend string, layer v1.Layer) string {
	t.Helper()
	hash, err := layer.Digest()
	require.NoError(t, err)
	size, err := layer.Size()
	require.NoError(t, err)
	key := distribution.BlobKey(digest.Digest(hash.String()))
	_, err = s.store(t, backend).Put(t.Context(), key, io.LimitReader(zeros{}, size), size, objectstore.PutOptions{})
	require.NoError(t, err)
	return key
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func oci() v1.Image { return mutate.MediaType(empty.Image, types.OCIManifestSchema1) }

// Promises 1, 2, 5, 6, 8 below the registries, with clients at work at two edges: slowed down, with its mover killed in the middle of a large blob, to the end; looked at from
// outside; and back again.
func TestAPrefixMovesFromStoreToStoreAndBackAndNobodyNotices(t *testing.T) {
	s := Start(t, Swift, Ceph, SecondEdge, Adapt(func(s *Settings) { s.Soak, s.Finalize = time.Hour, "ask" }))
	shared, kept, huge := Layer(1<<20), Layer(30<<10), Layer(160<<20)
	other := NewClientsOf(s.Addresses.Edges, "platform")
	require.NoError(t, other.PushImage(t.Context(), "platform/base:v1", With(oci(), shared)))
	fixed := NewClientsOf(s.Addresses.Edges, "restricted") // what is damaged on purpose is not pulled by those at work
	require.NoError(t, fixed.PushImage(t.Context(), "restricted/fixed:v1", With(With(oci(), shared), kept)))
	require.NoError(t, fixed.PushImage(t.Context(), "restricted/fixed:huge", With(With(oci(), shared), huge)))
	c, stop := atWork(t, s, Amount{Repositories: 2, Tags: 3, Special: true})
	ctx := within(t, 15*time.Minute)

	out := s.must(t, "plan", "restricted")
	t.Logf("plan:\n%s", out)
	for _, want := range []string{"objects", "other prefixes of old share", "from store to store, below the registries", "takes", "about "} {
		assert.Contains(t, out, want)
	}
	planned := decode[workflows.DryRunResult](t, s.must(t, "plan", "restricted", "-o", "json"))
	assert.Equal(t, report.Storage, planned.Plan.Plane)
	assert.Greater(t, planned.Plan.Objects, planned.Plan.Tags+planned.Plan.Blobs)
	assert.GreaterOrEqual(t, planned.Plan.BytesShared, int64(1<<20))
	assert.NotZero(t, planned.Plan.Takes)

	s.must(t, "--as", "sre", "migrate", "restricted")
	t.Log(s.must(t, "--as", "sre", "throttle", "restricted", "--bandwidth", "8MiB", "--reason", "the store is busy"))
	_, err := s.Await(ctx, "restricted", func(w workflows.Status) bool {
		return w.Phase == workflows.Mirror && s.copied(t, "restricted") > 24<<20
	})
	require.NoError(t, err)
	s.Worker.Kill()
	require.NoError(t, c.Pull(ctx, "restricted/app-0:v0"), "no client needs the mover")
	require.NoError(t, s.Worker.Start(ctx))
	status, err := s.Await(ctx, "restricted", func(w workflows.Status) bool {
		return s.copied(t, "restricted") > 32<<20 || w.Phase != workflows.Mirror
	})
	require.NoError(t, err)
	assert.Equal(t, workflows.Mirror, status.Phase, "the large blob came over before it could be looked at")
	t.Logf("status:\n%s", s.must(t, "status", "restricted"))
	t.Log(s.must(t, "--as", "sre", "throttle", "restricted"))
	s.exits(t, 3, "throttle", "restricted") // it is so already
	_, err = s.Await(ctx, "restricted", Phase(workflows.Approval))
	require.NoError(t, err)

	s.must(t, "--as", "releng", "approve", "restricted")
	_, err = s.Await(ctx, "restricted", func(w workflows.Status) bool { return w.Report.Checks.Rounds > 1 })
	require.NoError(t, err)
	out = s.agrees(t)
	t.Logf("verify, with clients at work:\n%s", out)
	assert.Contains(t, out, "every byte at new was read and hashed")

	key := s.damage(t, "new", kept)
	out = s.exits(t, 5, "verify", "restricted", "--deep")
	t.Logf("verify, with a planted difference:\n%s", out)
	assert.Contains(t, out, "restricted/fixed:v1")
	assert.NotContains(t, out, "restricted/fixed:huge")
	verified := decode[workflows.VerifyResult](t, s.exits(t, 5, "verify", "restricted", "--deep", "-o", "json"))
	verified.Check.Differences = slices.DeleteFunc(verified.Check.Differences, func(d registry.Difference) bool { return d.Repository == "restricted/live" })
	require.Len(t, verified.Check.Differences, 1)
	assert.Equal(t, registry.Difference{
		Repository: "restricted/fixed", Tag: "v1", Kind: string(audit.BlobCorrupt), Want: "sha256:" + strings.Split(key, "/")[3], Detail: verified.Check.Differences[0].Detail,
	}, verified.Check.Differences[0])
	t.Logf("audit with healing:\n%s", s.must(t, "audit", "new", "restricted", "--deep", "--heal"))
	s.agrees(t)

	s.must(t, "--as", "sre", "finalize", "restricted")
	r, err := s.Outcome(ctx, "restricted")
	require.NoError(t, err)
	require.Equal(t, report.Finalized, r.Outcome, r.Reason)
	assert.Equal(t, report.Storage, r.Plan.Plane)
	assert.Contains(t, s.must(t, "report", "restricted"), "from store to store")
	assert.Equal(t, []string{"bounds the copies: 8.0 MiB/s, any number of requests", "bounds the copies: any bandwidth, any number of requests"}, decisions(r, "bounds"))
	nothingLost(t, fixed, s.Addresses.New)
	require.NoError(t, fixed.Pull(ctx, "restricted/fixed:huge"))
	noHold(t, s)

	s.must(t, "--as", "sre", "migrate", "restricted", "--from", "new", "--to", "old")
	_, err = s.Await(ctx, "restricted", Phase(workflows.Approval))
	require.NoError(t, err)
	s.must(t, "--as", "releng", "approve", "restricted")
	_, err = s.Await(ctx, "restricted", func(w workflows.Status) bool { return w.Report.Checks.Rounds > 0 })
	require.NoError(t, err)
	s.must(t, "--as", "sre", "finalize", "restricted")
	back, err := s.Outcome(ctx, "restricted")
	require.NoError(t, err)
	stop()
	require.Equal(t, report.Finalized, back.Outcome, back.Reason)
	assert.Less(t, back.Mirror.Bytes, r.Mirror.Bytes/2, "what old has still was not sent again")
	assert.Empty(t, c.Failures())
	nothingLost(t, c, s.Addresses.Old)
	nothingLost(t, fixed, s.Addresses.Old)
	noHold(t, s)
}

// copied is how many bytes the mirror has brought, as its heartbeats say.
func (s *Stack) copied(t *testing.T, prefix string) int64 {
	t.Helper()
	out, err := s.Transship(t.Context(), "status", prefix, "-o", "json")
	if err != nil {
		return 0 // its worker is dead
	}
	seen := decode[struct {
		Copy registry.Progress `json:"copy"`
	}](t, out)
	return seen.Copy.Bytes
}

// decisions are those that begin in a way.
func decisions(r report.Report, begin string) (all []string) {
	for _, d := range r.Decisions {
		if strings.HasPrefix(d.What, begin) {
			all = append(all, d.What)
		}
	}
	return all
}

// Promise 3, by command: a bad blob is found, stops a migration before anything is switched, is healed from a good copy, and the migration goes on.
func TestABadBlobIsFoundStopsTheMigrationAndIsHealed(t *testing.T) {
	s := Start(t, Swift, Ceph, SecondEdge, Adapt(func(s *Settings) { s.ApprovalRequired, s.Soak = false, 2*time.Second }))
	c, stop := atWork(t, s, Amount{Repositories: 1, Tags: 3, Special: false})
	ctx := within(t, 8*time.Minute)
	layer := Layer(40 << 10)
	img := With(oci(), layer)
	fixed := NewClientsOf(s.Addresses.Edges, "restricted")
	for _, tag := range []string{"v1", "latest"} {
		require.NoError(t, fixed.PushImage(ctx, "restricted/fixed:"+tag, img))
	}
	t.Logf("audit of what is whole:\n%s", s.must(t, "audit", "old", "--deep"))

	key := s.damage(t, "old", layer)
	s.must(t, "audit", "old", "restricted") // which looks at sizes only
	out := s.exits(t, 5, "audit", "old", "restricted", "--deep")
	t.Logf("audit:\n%s", out)
	for _, want := range []string{"blob-corrupt", key, "latest, v1", "--heal"} {
		assert.Contains(t, out, want)
	}
	found := decode[workflows.AuditResult](t, s.exits(t, 5, "audit", "old", "restricted", "--deep", "-o", "json"))
	require.Len(t, found.Findings, 1)
	assert.Equal(t, audit.BlobCorrupt, found.Findings[0].Category)
	assert.Equal(t, []string{"latest", "v1"}, found.Findings[0].Tags)

	s.must(t, "migrate", "restricted")
	r := s.failed(t)
	assert.Contains(t, r.Reason, "restricted/fixed")
	assert.Contains(t, r.Reason, "latest, v1")
	assert.Zero(t, r.Attempts, "nothing was switched")
	routes, err := s.Routing(ctx)
	require.NoError(t, err)
	route, _ := routes.Table.Lookup("restricted")
	assert.NotEqual(t, "new", route.Backend)

	out = s.exits(t, 5, "audit", "old", "restricted", "--deep", "--heal")
	t.Logf("healing without a good copy:\n%s", out)
	assert.Contains(t, out, "new has no good copy")
	require.NoError(t, NewClients(s.Addresses.New, "elsewhere").PushImage(ctx, "elsewhere/copy:v1", img))
	out = s.must(t, "audit", "old", "restricted", "--deep", "--heal")
	t.Logf("healing:\n%s", out)
	assert.Contains(t, out, "1, from new")
	t.Logf("audit of what was healed:\n%s", s.must(t, "audit", "old", "restricted", "--deep"))
	require.NoError(t, fixed.Pull(ctx, "restricted/fixed:v1"))

	s.must(t, "migrate", "restricted")
	r, err = s.Outcome(ctx, "restricted")
	require.NoError(t, err)
	stop()
	require.Equal(t, report.Finalized, r.Outcome, r.Reason)
	assert.Empty(t, c.Failures())
	nothingLost(t, c, s.Addresses.New)
	nothingLost(t, fixed, s.Addresses.New)

	t.Log(s.must(t, "audit", "old", "--every", "24h"))
	schedule := s.Temporal.ScheduleClient().GetHandle(ctx, workflows.AuditID("old", ""))
	described, err := schedule.Describe(ctx)
	require.NoError(t, err)
	require.Len(t, described.Schedule.Spec.Intervals, 1)
	assert.Equal(t, 24*time.Hour, described.Schedule.Spec.Intervals[0].Every)
	s.must(t, "audit", "old", "--every", "12h", "--deep") // changes it
	described, err = schedule.Describe(ctx)
	require.NoError(t, err)
	assert.Equal(t, 12*time.Hour, described.Schedule.Spec.Intervals[0].Every)
	t.Log(s.must(t, "audit", "old", "--unschedule"))
	_, err = schedule.Describe(ctx)
	require.Error(t, err)
	s.exits(t, 3, "audit", "old", "--unschedule")
}
