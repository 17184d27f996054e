//go:build lab

package lab

import (
	"os"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"transship/internal/report"
	"transship/workflows"
)

// failed waits for a migration that cannot succeed, and returns why.
func (s *Stack) failed(t *testing.T) report.Report {
	t.Helper()
	r, err := s.Outcome(within(t, 2*time.Minute), "restricted")
	require.NoError(t, err)
	require.Equal(t, report.Failed, r.Outcome)
	return r
}

func TestATargetThatIsDownAtTheStartStopsThePlan(t *testing.T) {
	s := start(t, nil)
	require.NoError(t, NewClients(s.Addresses.Edge, "restricted").Seed(t.Context(), Small))
	s.New.Stop()
	s.must(t, "migrate", "restricted")
	r := s.failed(t)
	assert.Contains(t, r.Reason, "backend new cannot be used")
	table, err := s.Routing(t.Context())
	require.NoError(t, err)
	assert.Empty(t, table.Table.Routes, "nothing was touched")

	out, err := s.Transship(t.Context(), "plan", "restricted")
	require.Error(t, err)
	assert.Contains(t, out, "backend new cannot be used")
}

func TestATargetThatGoesDownInTheMiddleIsWaitedFor(t *testing.T) {
	s := start(t, func(s *Settings) { s.ApprovalRequired, s.Soak, s.Jobs = false, 2*time.Second, 1 })
	c := NewClients(s.Addresses.Edge, "restricted")
	require.NoError(t, c.Seed(t.Context(), Amount{Repositories: 4, Tags: 60}))
	ctx := within(t, 4*time.Minute)
	s.must(t, "migrate", "restricted")
	_, err := s.Await(ctx, "restricted", func(w workflows.Status) bool { return w.Phase == workflows.Mirror && s.blobs(t) > 5 })
	require.NoError(t, err)
	s.New.Kill()
	time.Sleep(5 * time.Second)
	status, err := s.Status(ctx, "restricted")
	require.NoError(t, err)
	assert.Equal(t, workflows.Mirror, status.Phase)
	require.NoError(t, s.New.Start(ctx))
	r, err := s.Outcome(ctx, "restricted")
	require.NoError(t, err)
	assert.Equal(t, report.Finalized, r.Outcome)
	nothingLost(t, c, s.Addresses.New)
}

// plant pushes an image and removes its layer from the old registry's disk.
func (s *Stack) plant(t *testing.T, c *Clients) {
	t.Helper()
	layer := Layer(4096)
	digest, err := layer.Digest()
	require.NoError(t, err)
	require.NoError(t, c.PushImage(t.Context(), "restricted/app-0:broken", With(Image(1, 512), layer)))
	s.remove(t, "old/docker/registry/v2/blobs/sha256/"+digest.Hex[:2]+"/"+digest.Hex)
}

func TestAMissingLayerStopsTheMigrationWithItsTags(t *testing.T) {
	s := start(t, nil)
	c := NewClients(s.Addresses.Edge, "restricted")
	require.NoError(t, c.Seed(t.Context(), Small))
	s.plant(t, c)
	s.must(t, "migrate", "restricted")
	r := s.failed(t)
	assert.Contains(t, r.Reason, "restricted/app-0")
	assert.Contains(t, r.Reason, "broken")
	assert.Contains(t, r.Reason, "policy.audit.broken")
	require.NotEmpty(t, r.Left)
	assert.Equal(t, []string{"broken"}, r.Left[0].Tags)
	lost, tags := c.Check(t.Context(), s.Addresses.New) // the plan's own checks leave small blobs
	assert.Len(t, lost, tags, "nothing was copied")
}

func TestAMissingLayerIsLeftOutWhenPolicySaysSo(t *testing.T) {
	s := start(t, func(s *Settings) { s.ApprovalRequired, s.Soak, s.Broken = false, 2*time.Second, "skip" })
	c := NewClients(s.Addresses.Edge, "restricted")
	require.NoError(t, c.Seed(t.Context(), Small))
	s.plant(t, c)
	s.must(t, "migrate", "restricted")
	r, err := s.Outcome(within(t, 2*time.Minute), "restricted")
	require.NoError(t, err)
	assert.Equal(t, report.Finalized, r.Outcome)
	require.NotEmpty(t, r.Left)
	assert.Equal(t, []string{"broken"}, r.Left[0].Tags)
	lost, _ := c.Check(t.Context(), s.Addresses.New)
	require.Len(t, lost, 1, "only what the source could not serve")
	assert.Contains(t, lost[0], "broken")
}

func TestATagThatIsDeletedWhileItIsCopiedIsNoTrouble(t *testing.T) {
	s := start(t, func(s *Settings) { s.Soak, s.Jobs = 2*time.Second, 1 })
	c := NewClients(s.Addresses.Edge, "restricted")
	require.NoError(t, c.Seed(t.Context(), Amount{Repositories: 2, Tags: 60}))
	gone := NewClients(s.Addresses.Edge, "restricted")
	images := map[string]v1.Image{}
	for _, tag := range []string{"restricted/app-1:zz-1", "restricted/app-1:zz-2", "restricted/app-0:aa-1"} {
		images[tag] = Image(1, 2048)
		require.NoError(t, gone.PushImage(t.Context(), tag, images[tag]))
	}
	ctx := within(t, 2*time.Minute)
	s.must(t, "migrate", "restricted")
	_, err := s.Await(ctx, "restricted", func(w workflows.Status) bool { return w.Phase == workflows.Mirror && s.blobs(t) > 2 })
	require.NoError(t, err)
	for tag, img := range images {
		digest, err := img.Digest()
		require.NoError(t, err)
		require.NoError(t, gone.Delete(ctx, tag, digest))
	}
	_, err = s.Await(ctx, "restricted", Phase(workflows.Approval))
	require.NoError(t, err)
	s.must(t, "approve", "restricted")
	r, err := s.Outcome(ctx, "restricted")
	require.NoError(t, err)
	assert.Equal(t, report.Finalized, r.Outcome)
	nothingLost(t, c, s.Addresses.New)
	lost, _ := gone.Check(ctx, s.Addresses.New)
	assert.Len(t, lost, len(images), "what was deleted during the migration is not there afterwards")
}

func TestNginxRejectingTheFilesStopsTheMigrationAndKeepsServing(t *testing.T) {
	s := start(t, nil)
	c := NewClients(s.Addresses.Edge, "restricted")
	require.NoError(t, c.Seed(t.Context(), Small))
	// A site's own mistake, made while nginx runs: the next test of its configuration fails, whatever we write.
	site, err := os.ReadFile(s.path("nginx/nginx.conf"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(s.path("nginx/nginx.conf"), append(site, "a mistake;\n"...), 0o600))
	s.must(t, "migrate", "restricted")
	r := s.failed(t)
	assert.Contains(t, r.Reason, "nginx accepts its configuration")
	assert.Contains(t, r.Reason, "unknown directive")
	require.NoError(t, c.Pull(t.Context(), "restricted/app-0:v0"))
	require.NoError(t, c.PushImage(t.Context(), "restricted/live:after", Image(1, 512)))
}

func TestNginxFilesThatCannotBeWrittenStopThePlan(t *testing.T) {
	s := start(t, nil)
	c := NewClients(s.Addresses.Edge, "restricted")
	require.NoError(t, c.Seed(t.Context(), Small))
	require.NoError(t, os.Rename(s.path("nginx/generated"), s.path("nginx/elsewhere"))) // root may write anything, so the folder is gone instead
	s.must(t, "migrate", "restricted")
	r := s.failed(t)
	assert.Contains(t, r.Reason, "give the edge worker's user write access to")
	require.NoError(t, c.PushImage(t.Context(), "restricted/live:after", Image(1, 512)))
}

func TestBadRequestsAreRefusedBeforeAnythingIsTouched(t *testing.T) {
	s := start(t, nil)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"migrate", ""}, "prefix is empty"},
		{[]string{"migrate", "/restricted"}, "starts with a slash"},
		{[]string{"migrate", "restricted/../platform"}, `path component ".."`},
		{[]string{"migrate", "restricted/a"}, "overlaps restricted"},
		{[]string{"migrate", "restricted", "--from", "old", "--to", "elsewhere"}, "unknown backend"},
		{[]string{"migrate", "restricted", "--from", "old", "--to", "old"}, "same backend"},
		{[]string{"--temporal-address", "127.0.0.1:1", "status"}, "temporal.address"},
		{[]string{"approve", "restricted"}, "restricted"},
	} {
		out, err := s.Transship(t.Context(), c.args...)
		require.Error(t, err, "%v", c.args)
		assert.Contains(t, out, c.want)
	}
	_, err := s.Status(t.Context(), "restricted")
	require.Error(t, err, "no migration was started")
}

func TestASecondMigrationOfThePrefixIsRefusedAndNamesTheFirst(t *testing.T) {
	s := start(t, nil)
	require.NoError(t, NewClients(s.Addresses.Edge, "restricted").Seed(t.Context(), Small))
	s.must(t, "--as", "alice", "migrate", "restricted")
	_, err := s.Await(within(t, time.Minute), "restricted", Phase(workflows.Approval))
	require.NoError(t, err)
	out, err := s.Transship(t.Context(), "--as", "bob", "migrate", "restricted")
	require.Error(t, err)
	assert.Contains(t, out, "migrate/restricted")
	assert.Contains(t, out, "alice")
	s.must(t, "abort", "restricted")
	_, err = s.Outcome(within(t, time.Minute), "restricted")
	require.NoError(t, err)
}

// A chat that is down never stops a migration, and gets the messages when it is back.
func TestAChatThatIsDownIsToldLater(t *testing.T) {
	chat := &chat{}
	url := chat.listen(t)
	s := start(t, func(s *Settings) { s.ApprovalRequired, s.Soak, s.Chat = false, 2*time.Second, url })
	require.NoError(t, NewClients(s.Addresses.Edge, "restricted").Seed(t.Context(), Small))
	s.must(t, "migrate", "restricted")
	r, err := s.Outcome(within(t, time.Minute), "restricted")
	require.NoError(t, err)
	assert.Equal(t, report.Finalized, r.Outcome)
	assert.Empty(t, chat.told())
	chat.up.Store(true)
	assert.Eventually(t, func() bool { return strings.Contains(strings.Join(chat.told(), "\n"), "finalized") }, 30*time.Second, 100*time.Millisecond)
	history := s.must(t, "history", "restricted")
	assert.NotContains(t, history, url, "the address of a chat is a secret")
}
