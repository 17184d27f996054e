package workflows

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"transship/activities"
	"transship/internal/edge"
	"transship/internal/objectstore"
	"transship/internal/report"
)

func TestWhatTheSiteAsAWholeGetsWrongBlocksAMigration(t *testing.T) {
	for _, c := range []struct {
		name   string
		knob   func(*world)
		reason string
	}{
		{"a failed check", func(w *world) {
			w.together = []edge.Finding{{What: "fine", OK: true}, {What: "backend new knows only blobs of its own", Detail: "it shares a cache", Cure: "part them"}}
		}, "backend new knows only blobs of its own: it shares a cache: part them"},
		{"no room", func(w *world) {
			w.plan.Bytes, w.plan.BytesPresent = 3<<30, 1<<30
			w.room.Room = objectstore.Room{Known: true, Bytes: 1 << 30, Says: "the quota of the bucket is 1 GiB"}
		}, "backend new has no room: 2.0 GiB are to be copied, and 1.0 GiB fit (the quota of the bucket is 1 GiB)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			c.knob(w)
			r, err := w.migrate(input())
			require.ErrorContains(t, err, c.reason)
			require.Equal(t, report.Failed, r.Outcome)
			require.Zero(t, w.count("WatchPrefix"))
		})
	}
}

func TestWarningsStopNothingAndAreInTheReport(t *testing.T) {
	w := newWorld(t)
	w.findings = []edge.Finding{{What: "edge edge-1: no garbage collection", Detail: "cron has one", Cure: "switch it off", Warning: true}}
	w.together = []edge.Finding{{What: "backend old: it deletes", Detail: "switched off", Cure: "switch it on", Warning: true}}
	w.plan.TagsPresent, w.plan.Changed = 3, []string{"restricted/a:x"}
	w.room = activities.MeasureRoomResult{Repositories: 2}
	w.before["CheckEdges"] = always(final("Refused"))
	r, err := w.migrate(input())
	require.NoError(t, err)
	require.Equal(t, report.Finalized, r.Outcome)
	require.Equal(t, []string{
		"edge edge-1: no garbage collection: cron has one: switch it off", "edge edge-1: no garbage collection: cron has one: switch it off", // of each edge
		"backend old: it deletes: switched off: switch it on",
		"the edges together: could not be looked at: made to fail: Refused: see that a worker of each role runs, of the same version",
		"whether backend new has room for 0 B is unknown: neither its store nor a quota says",
		"backend new is not empty under restricted: it has 4 tags in 2 repositories; 3 are the same as at old, 1 have another digest and are replaced, 0 are only there",
	}, r.Plan.Warnings)
	text, err := r.Markdown()
	require.NoError(t, err)
	require.Contains(t, text, "## Known before it began\n\n- edge edge-1: no garbage collection")
}

func TestTheDoctorLooksOnceAtEachPairOfBackendsThroughAPrefixThatIsAtRest(t *testing.T) {
	moves := []Move{{"restricted", "old", "new", "restricted/transship-probe"}, {"b", "old", "new", "b/transship-probe"}, {"c", "old", "new", "c/transship-probe"}}
	in := DoctorInput{Backends: []string{"old", "new"}, Edges: []string{"edge-1"}, Moves: moves}
	w := newWorld(t)
	w.together = []edge.Finding{{What: "backend old: it deletes", Warning: true}}
	w.route.Owner = "migrate/restricted"
	found, err := look[[]edge.Finding](w, Doctor, in)
	require.NoError(t, err)
	require.Contains(t, found, w.together[0])
	require.Equal(t, []string{"b/transship-probe"}, w.pushed)
	require.Equal(t, 1, w.count("CheckEdges"))

	w.pushed, in.Moves = nil, moves[:1]
	found, err = look[[]edge.Finding](w, Doctor, in)
	require.NoError(t, err)
	require.Empty(t, w.pushed, "what is pushed beside the journal would be missing at the other backend")
	require.True(t, slices.ContainsFunc(found, func(f edge.Finding) bool { return f.Warned() && strings.Contains(f.Detail, notNow) }), "%v", found)
}

func TestAPlanOfAPrefixThatIsBeingMovedPushesNothing(t *testing.T) {
	w := newWorld(t)
	w.route.Owner = MigrateID("restricted")
	r, err := look[DryRunResult](w, DryRun, input())
	require.NoError(t, err)
	require.Empty(t, w.pushed)
	require.Zero(t, w.count("CheckEdges"))
	require.Contains(t, strings.Join(r.Plan.Warnings, "\n"), notNow)
	w.route.Owner = ""
	_, err = look[DryRunResult](w, DryRun, input())
	require.NoError(t, err)
	require.Equal(t, []string{"restricted/transship-probe"}, w.pushed)
}
