package report

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"transship/internal/monitor"
	"transship/internal/registry"
	"transship/internal/routing"
)

func full() Report {
	at := time.Date(2026, 3, 14, 9, 0, 0, 0, time.UTC)
	return Report{
		Prefix: "restricted", From: "old", To: "new", Operator: "olga", Workflow: "migrate/restricted", Run: "run-1", Began: at, Ended: at.Add(time.Hour),
		Outcome: RolledBack, Reason: "rolls back: probes fail",
		Plan: Plan{Repositories: 6, Tags: 60, Blobs: 100, Bytes: 3 << 20, BytesPresent: 1 << 20},
		Steps: []Step{
			{Name: "mirror", Began: at, Ended: at.Add(2 * time.Second), Note: "60 tags"},
			{Name: "probe", Began: at.Add(time.Minute), Ended: at.Add(61 * time.Second), Error: "one | two\nthree"},
			{Name: "rollback", Began: at.Add(2 * time.Minute)},
		},
		Decisions: []Decision{{At: at, By: "olga", What: "asked for the migration", Reason: "swift | fails"}},
		Mirror:    registry.Progress{Tags: 60, Bytes: 2 << 20},
		Deltas:    Deltas{Rounds: 3, Writes: 5, Changes: 4}, Reverse: Deltas{Rounds: 1},
		Checks: Checks{
			Probes: 4, ProbesFailed: 1, SlowestProbe: 1234 * time.Microsecond, Rounds: 2, Before: monitor.Sample{Requests: 10},
			Differences: []registry.Difference{{Repository: "restricted/a", Tag: "v1", Kind: registry.MissingTag, Want: "sha256:w"}},
		},
		Freezes: []routing.Freeze{
			{Edge: "e1", Hold: "h1", Began: at, Lasted: 800 * time.Millisecond, Longest: 300 * time.Millisecond, Parked: 3},
			{Edge: "e2", Hold: "h1", Began: at, Lasted: 700 * time.Millisecond, Longest: 650 * time.Millisecond, Parked: 1},
		},
		Attempts:       2,
		Left:           []registry.Problem{{Kind: registry.Corrupt, Backend: "old", Repository: "restricted/b", Digest: "sha256:b", Tags: []string{"v2"}}},
		NotDeleted:     []string{"restricted/c@sha256:c"},
		NotCarriedBack: []string{"manifest restricted/d v3"},
	}
}

func TestTheMarkdownOfAFullReportHasEverything(t *testing.T) {
	r := full()
	text, err := r.Markdown()
	require.NoError(t, err)
	for _, want := range []string{
		"# Migration of restricted from old to new: rolled-back\n\nrolls back: probes fail\n",
		"| asked for by | olga |\n", "| workflow | migrate/restricted, run run-1 |\n",
		"| began | 2026-03-14 09:00:00.000 UTC |\n| ended | 2026-03-14 10:00:00.000 UTC |\n| planned |",
		"6 repositories, 60 tags, 100 blobs, 3.0 MiB (2.0 MiB not at new yet)",
		"2.0 MiB at 1.0 MiB/s", "3, with 5 acknowledged writes to 4 things", "| cutovers tried | 2 |", "| probes | 4, 1 failed, slowest 1ms |",
		"| mirror | 2026-03-14 09:00:00.000 | 2s | 60 tags |\n",
		"| probe | 2026-03-14 09:01:00.000 | 1s |  **one \\| two three** |\n",
		"| e1 | h1 | 2026-03-14 09:00:00.000 | 800ms | 300ms | 3 |\n",
		"| 2026-03-14 09:00:00.000 | olga | asked for the migration | swift \\| fails |\n",
		"- backend old: restricted/b@sha256:b is corrupt (tags v2)\n",
		"- missing-tag: restricted/a v1: want sha256:w, have",
		"## Deleted on the serving side, kept on the other\n\n- restricted/c@sha256:c\n",
		"## Not carried back\n\n- manifest restricted/d v3\n",
	} {
		require.Contains(t, text, want)
	}
}

func TestAReportOfAMigrationThatHasJustBegunHasNoEmptySections(t *testing.T) {
	r := Report{Prefix: "a", From: "old", To: "new", Began: time.Now(), Outcome: Running}
	text, err := r.Markdown()
	require.NoError(t, err)
	for _, absent := range []string{"## Freezes", "## Decisions", "## Left out", "## Differences", "## Deleted", "## Not carried back", "| ended |"} {
		require.NotContains(t, text, absent)
	}
}

func TestTheFreezeIsTheLongestOfAnyEdgeAndTheRateThatOfTheMirror(t *testing.T) {
	r := full()
	lasted, longest := r.Freeze()
	require.Equal(t, 800*time.Millisecond, lasted)
	require.Equal(t, 650*time.Millisecond, longest)
	require.EqualValues(t, 1<<20, r.Rate())
	require.Zero(t, (&Report{}).Rate())
	require.Zero(t, r.Steps[2].Took(), "it is still running")
}

func TestPlansOfTwoListsAddUp(t *testing.T) {
	p := Plan{Tags: 1, Bytes: 10, Extra: []string{"a"}}.Add(Plan{Tags: 2, Bytes: 5, BytesPresent: 5, Extra: []string{"b"}, Blockers: []string{"x"}})
	require.Equal(t, Plan{Tags: 3, Bytes: 15, BytesPresent: 5, Extra: []string{"a", "b"}, Blockers: []string{"x"}}, p)
	require.EqualValues(t, 10, p.Missing())
}

func TestAReportSurvivesJSON(t *testing.T) {
	r := full()
	raw, err := json.Marshal(r)
	require.NoError(t, err)
	var again Report
	require.NoError(t, json.Unmarshal(raw, &again))
	require.Equal(t, r, again)
}
