package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"transship/activities"
	"transship/internal/edge"
	"transship/internal/journal"
	"transship/internal/registry"
	"transship/internal/report"
	"transship/internal/routing"
	"transship/workflows"
)

var began = time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)

func example() view {
	v := view{Workflow: "migrate/restricted", Run: "r1"}
	v.Phase, v.Serving, v.Waits = workflows.Mirror, "old", ""
	v.Report = report.Report{
		Prefix: "restricted", From: "old", To: "new", Operator: "alice", Began: began, Outcome: report.Running,
		Steps: []report.Step{
			{Name: workflows.Plan, Began: began, Ended: began.Add(time.Second), Note: "2 repositories"},
			{Name: workflows.Mirror, Began: began.Add(time.Second)},
		},
		Decisions: []report.Decision{{At: began, By: "alice", What: "asked for the migration"}},
	}
	return v
}

func TestStatusOfAMigration(t *testing.T) {
	v := example()
	v.Copy = &progress{Progress: registry.Progress{Bytes: 512, Tags: 3, Blobs: 4}, Total: 1024, Rate: 256, Left: 2 * time.Second}
	v.Activities = []pending{{Type: mirrorActivity, Attempt: 3, Started: true, Since: time.Now(), Failure: "connection\x1b[2J refused"}}
	var b bytes.Buffer
	require.NoError(t, v.write(&b))
	for _, want := range []string{
		"migration  restricted: old → new, asked for by alice", "phase      mirror", "served by  old",
		"512 B of at most 1.0 KiB (50%), 3 tags, 4 blobs sent, 256 B/s, about 2s left",
		"retrying   MirrorRepositories: attempt 3", "plan    03:04:05  1s    2 repositories", "mirror  03:04:06  …",
	} {
		assert.Contains(t, b.String(), want)
	}
	assert.NotContains(t, b.String(), "\x1b", "what a server says must not steer a terminal")
}

func TestChangesAreToldOnce(t *testing.T) {
	var b bytes.Buffer
	c := &changes{w: &b}
	v := example()
	require.NoError(t, c.show(v))
	assert.Equal(t, `03:04:05  restricted: old → new, asked for by alice, run r1
03:04:05  alice asked for the migration
03:04:06  plan took 1s: 2 repositories
03:04:06  mirror …
`, b.String())
	b.Reset()
	require.NoError(t, c.show(v))
	assert.Empty(t, b.String())

	v.Report.Steps[1].Ended, v.Report.Steps[1].Error = began.Add(3*time.Second), "disk full"
	v.Report.Ended, v.Report.Outcome, v.Report.Reason, v.Over = began.Add(4*time.Second), report.Failed, "failed: disk full", true
	require.NoError(t, c.show(v))
	assert.Equal(t, "03:04:08  mirror took 2s FAILED: disk full\n03:04:09  over: failed: disk full; served by old\n", b.String())
}

func TestATerminalIsRedrawnInPlace(t *testing.T) {
	var b bytes.Buffer
	show := redraw(&b)
	require.NoError(t, show(example()))
	lines := strings.Count(b.String(), "\n")
	require.NoError(t, show(example()))
	assert.Contains(t, b.String(), "\x1b["+string(rune('0'+lines))+"A\r\x1b[J")
}

func TestMomentsAreInTheOrderInWhichTheyHappened(t *testing.T) {
	r := example().Report
	r.Decisions = append(r.Decisions, report.Decision{At: began.Add(500 * time.Millisecond), By: "bob", What: "paused", Reason: "lunch"})
	r.Ended, r.Outcome = began.Add(time.Minute), report.Aborted
	var order []string
	for _, m := range moments(r) {
		order = append(order, m.Step+m.By+" "+m.What)
	}
	assert.Equal(t, []string{"plan 2 repositories", "alice asked for the migration", "bob paused: lunch", "mirror ", "end aborted after 1m0s"}, order)
}

func TestPlanForPeople(t *testing.T) {
	r := workflows.DryRunResult{
		Plan:  report.Plan{Repositories: 2, Tags: 5, Bytes: 2048, BytesPresent: 1024, Extra: make([]string, 25), Blockers: []string{"edge edge1 cannot be used"}},
		Edges: []activities.Preview{{Edge: "edge1", Changes: true, Files: map[string]string{"b.conf": "two", "a.conf": "one"}}},
	}
	var b bytes.Buffer
	require.NoError(t, writePlan(&b, r, "old", "new", false))
	for _, want := range []string{"to copy       1.0 KiB at most", "edge edge1    its nginx gets new files", "BLOCKED: 1\n  edge edge1 cannot be used", "… and 5 more"} {
		assert.Contains(t, b.String(), want)
	}
	assert.NotContains(t, b.String(), "a.conf")
	require.NoError(t, writePlan(&b, r, "old", "new", true))
	assert.Contains(t, b.String(), "--- edge edge1: a.conf\none\n\n--- edge edge1: b.conf\ntwo\n")
}

func TestRoutesForPeople(t *testing.T) {
	moving := routing.Route{
		Prefix: "restricted", Backend: "new", Other: "old", Mode: routing.Watched, Owner: "migrate/restricted", Fallback: routing.Digests,
		Uploads: []routing.Upload{{Repository: "restricted/a", Session: "u1"}},
	}
	v := routesView{
		Routing: routing.Routing{
			Table: routing.Table{Generation: 3, Default: "old", Routes: []routing.Route{moving}},
			Edges: []routing.EdgeState{{Edge: "edge1", Generation: 3}, {Edge: "edge2", Generation: 2, Trouble: "no answer in time", LeftOut: true}},
		},
		routed: true, fallback: "old",
		Carried: map[routing.Prefix]map[string]journal.Position{"restricted": {"edge1": {File: 7, Offset: 100}}},
	}
	held := moving
	held.Mode = routing.Switched
	clock := time.Now()
	v.Now = []workflows.EdgeLook{
		{Edge: "edge1", Status: &edge.Status{
			Generation: 3, Nginx: 3, Table: routing.Table{Routes: []routing.Route{held}}, Parked: map[routing.Prefix]int{"restricted": 4}, InFlight: map[routing.Prefix]int{"restricted": 2},
			Journal: journal.Position{File: 7, Offset: 150}, Leases: map[routing.Prefix]time.Time{"restricted": clock.Add(9 * time.Second)}, Clock: clock,
			Fallbacks: map[routing.Prefix]edge.Fallbacks{"restricted": {Served: 5}},
		}},
		{Edge: "edge2", Trouble: "no answer in time"},
		{Edge: "edge3", Status: &edge.Status{Nginx: -1, Unsure: true}},
	}
	var b bytes.Buffer
	require.NoError(t, v.write(&b))
	for _, want := range []string{
		`restricted +new +watched +old +digests that are missing +1 +migrate/restricted`, `everything else +old +open`,
		`edge1 +3 +3 +150`, `edge2 +2 \(behind\) \(left out\) +- +- +- +no answer in time`, `edge3 +0 \(behind\) +away +0 +- +may have missed a table`,
		`restricted +edge1 +switched\(new\) +9s +4 +2 +50 B +5`,
	} {
		assert.Regexp(t, want, b.String())
	}
	b.Reset()
	require.NoError(t, routesView{fallback: "old"}.write(&b))
	assert.Equal(t, "nothing was ever routed: every repository is served by old, as default_backend says\n", b.String())
}

func TestAFindingWithItsCure(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, writeFinding(&b, misconfigured(assert.AnError)[0]))
	assert.Equal(t, "FAIL  configuration: "+assert.AnError.Error()+"\n", b.String())
}

func TestADifferenceIsNamedByItsTag(t *testing.T) {
	d := registry.Difference{Repository: "restricted/a", Tag: "v1", Kind: "different tag", Want: "sha256:1"}
	assert.Equal(t, "different tag  restricted/a:v1  want sha256:1, have nothing", differenceLine(d))
	d = registry.Difference{Repository: "restricted/a", Kind: "blob-corrupt", Want: "sha256:1", Detail: "its 3 bytes do not hash to its name"}
	assert.Equal(t, "blob-corrupt  restricted/a  sha256:1: its 3 bytes do not hash to its name", differenceLine(d))
}

func TestDurationsAndNumbersAsPeopleWriteThem(t *testing.T) {
	for d, want := range map[time.Duration]string{24 * time.Hour: "24h", 90 * time.Minute: "1h30m", 90 * time.Second: "1m30s", time.Hour + time.Second: "1h0m1s", 10 * time.Second: "10s"} {
		assert.Equal(t, want, written(d))
	}
	assert.Equal(t, "1 place", counted(1, "place"))
	assert.Equal(t, "0 places", counted(0, "place"))
	assert.Equal(t, "2 things are", counted(2, "thing is", "things are"))
}

func TestDifferencesOfTagsComeFirstAndOnce(t *testing.T) {
	r := workflows.VerifyResult{Check: registry.Check{Differences: []registry.Difference{
		{Repository: "p/b", Kind: "missing-layer", Want: "sha256:1"}, {Repository: "p/b", Tag: "v1", Kind: "missing-tag", Want: "sha256:2"},
		{Repository: "p/a", Tag: "v1", Kind: "missing-tag", Want: "sha256:3"}, {Repository: "p/b", Tag: "v1", Kind: "missing-manifest", Want: "sha256:2"},
	}}}
	var b bytes.Buffer
	require.NoError(t, writeDifferences(&b, r))
	assert.Equal(t, `
  missing-tag  p/a:v1  want sha256:3, have nothing
  missing-tag  p/b:v1  want sha256:2, have nothing
  missing-layer  p/b  want sha256:1, have nothing
`, b.String())
	r.Check.Differences = nil
	for i := range 50 {
		r.Check.Differences = append(r.Check.Differences, registry.Difference{Repository: "p/a", Tag: strings.Repeat("v", i+1)})
	}
	b.Reset()
	require.NoError(t, writeDifferences(&b, r))
	assert.Contains(t, b.String(), "… and 30 more; --output json has all")
}
