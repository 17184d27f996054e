//go:build lab

package lab

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"transship/internal/report"
	"transship/workflows"
)

// What doctor and plan push to look at the site is no trouble to the migration after them.
func TestADoctorAndPlansLeaveNothingThatTheMigrationMinds(t *testing.T) {
	s := Start(t, SecondEdge, Adapt(func(s *Settings) { s.ApprovalRequired, s.Soak = false, 2*time.Second }))
	c, stop := atWork(t, s, Small)
	out := s.must(t, "doctor")
	t.Logf("doctor:\n%s", out)
	assert.NotContains(t, out, "FAIL")
	for _, line := range []string{
		"ok    edge edge1: the site's nginx configuration routes and holds what it should", "ok    edge edge2: nginx has what holding and routing need",
		"ok    backend new knows only blobs of its own, none of backend old", "ok    an upload begun through edge edge1 goes on through edge edge2 and back",
		"ok    backend old: it deletes what clients delete",
	} {
		assert.Contains(t, out, line)
	}
	for range 2 {
		planned := decode[workflows.DryRunResult](t, s.must(t, "plan", "restricted", "-o", "json"))
		assert.Empty(t, planned.Plan.Blockers)
		assert.Equal(t, []string{"whether backend new has room for"}, begins(planned.Plan.Warnings, len("whether backend new has room for")), "registries without a store say nothing of room")
	}
	s.must(t, "--as", "sre", "migrate", "restricted")
	r, err := s.Outcome(within(t, 3*time.Minute), "restricted")
	require.NoError(t, err)
	stop()
	assert.Equal(t, report.Finalized, r.Outcome)
	assert.Empty(t, c.Failures())
	nothingLost(t, c, s.Addresses.New)
}

func begins(list []string, n int) (short []string) {
	for _, s := range list {
		short = append(short, s[:min(n, len(s))])
	}
	return short
}

func TestAQuotaThatIsTooSmallAndARuleThatExpiresTheTargetStopThePlan(t *testing.T) {
	s := Start(t, Swift, Ceph)
	require.NoError(t, NewClientsOf(s.Addresses.Edges, "restricted").PushImage(t.Context(), "restricted/a:v1", With(Image(1, 512), Layer(3<<20))))
	begin := time.Now()
	seen := s.must(t, "doctor")
	t.Logf("the doctor took %s", time.Since(begin))
	assert.NotContains(t, seen, "FAIL")
	bucket := s.Addresses.Stores.Bucket
	require.NoError(t, s.Ceph.Limit(t.Context(), bucket, 1<<20))
	require.NoError(t, s.Ceph.Expire(t.Context(), bucket, types.LifecycleRule{
		ID: aws.String("tidy"), Status: types.ExpirationStatusEnabled, Filter: &types.LifecycleRuleFilter{Prefix: aws.String("docker/")}, Expiration: &types.LifecycleExpiration{Days: aws.Int32(90)},
	}))
	out := s.exits(t, 5, "plan", "restricted")
	assert.Contains(t, out, "backend new has no room: 3.0 MiB are to be copied")
	assert.Contains(t, out, "the quota of bucket "+bucket)
	assert.Contains(t, out, `backend new: its store keeps what it is given: rule "tidy" of bucket `+bucket+` deletes objects below "docker/" 90 days after they were written`)
}

// Promise 1: a push through a location that somebody forgot would be lost at the flip.
func TestALocationWithoutTheHoldStopsThePlanAndIsNamed(t *testing.T) {
	s := start(t, nil)
	require.NoError(t, NewClientsOf(s.Addresses.Edges, "restricted").Seed(t.Context(), Amount{Repositories: 1, Tags: 1}))
	e := s.Edges[0]
	path := e.path("nginx.conf")
	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	lines := strings.Split(string(raw), "\n")
	at := 0
	for i, line := range lines {
		if strings.Contains(line, "location /v2/restricted/") {
			at = i + 1
		}
		if at > 0 && strings.Contains(line, "transship_location.conf") {
			lines[i] = ""
			break
		}
	}
	require.NoError(t, os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o644))
	require.NoError(t, exec.Command("nginx", "-p", e.Dir, "-c", path, "-s", "reload").Run())
	said := path + ":" + strconv.Itoa(at) + ": location /v2/restricted/ takes writes (POST, PUT, PATCH, DELETE) without the hold"
	for _, verb := range [][]string{{"doctor"}, {"plan", "restricted"}} {
		out, err := s.Transship(t.Context(), verb...)
		require.Error(t, err)
		assert.Contains(t, out, said, verb)
		assert.Contains(t, out, "write include "+e.path("generated/transship_location.conf")+"; into it", verb)
	}
}
