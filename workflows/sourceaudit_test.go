package workflows

import (
	"testing"

	"github.com/stretchr/testify/require"

	"transship/activities"
	"transship/internal/policy"
	"transship/internal/registry"
	"transship/internal/report"
)

var bad = registry.Problem{Kind: registry.Corrupt, Backend: "old", Repository: "restricted/r3", Digest: "sha256:bad", Tags: []string{"v1"}}

func TestABrokenSourceStopsTheMigrationAndNamesTheTags(t *testing.T) {
	w := newWorld(t)
	w.broken = []registry.Problem{bad}
	r, err := w.migrate(input())
	require.ErrorContains(t, err, "restricted/r3@sha256:bad is corrupt (tags v1)")
	require.ErrorContains(t, err, "set policy.audit.broken to skip")
	require.Equal(t, report.Failed, r.Outcome)
	require.Equal(t, []registry.Problem{bad}, r.Left)
	require.Zero(t, w.count("MirrorRepositories"))
}

func TestABrokenImageIsLeftOutWherePolicySaysSo(t *testing.T) {
	w := newWorld(t)
	w.broken = []registry.Problem{bad}
	w.content["old"]["restricted/r3:v1"] = "sha256:bad"
	delete(w.acked, "restricted/r3:v1")
	w.mirroring = func(p activities.MirrorParams, at *activities.Cursor) bool {
		require.True(t, p.SkipBroken)
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.content["new"], "restricted/r3:v1")
		return true
	}
	r, err := w.migrate(input(func(in *MigrateInput) { in.Policy.Audit.Broken = policy.Skip }))
	require.NoError(t, err)
	require.Equal(t, report.Finalized, r.Outcome)
	require.Equal(t, []registry.Problem{bad}, r.Left)
	require.Equal(t, []string{"restricted/r3:v1"}, w.verified[0].Left)
	_, told := w.said("broken images are left out")
	require.True(t, told)
}

func TestAProblemThatTheMirrorFindsAfterTheAuditDidIsTakenUpOnce(t *testing.T) {
	w := newWorld(t)
	w.broken = []registry.Problem{bad}
	w.mirroring = func(p activities.MirrorParams, at *activities.Cursor) bool {
		if at.Repository == len(p.Repositories) && p.Repositories[at.Repository-1] == bad.Repository {
			at.Problems = append(at.Problems, bad)
		}
		return true
	}
	r, err := w.migrate(input(func(in *MigrateInput) { in.Policy.Audit.Broken = policy.Skip }))
	require.NoError(t, err)
	require.Len(t, r.Left, 1)
}

func TestAnAuditThatCannotBeDoneFails(t *testing.T) {
	w := newWorld(t)
	w.before["AuditRepositories"] = always(final("Refused"))
	r, err := w.migrate(input())
	require.ErrorContains(t, err, "made to fail: Refused")
	require.Equal(t, []string{Plan, Announce, SourceAudit}, took(r))
}

func TestWhatIsLeftOutIsToldOnce(t *testing.T) {
	require.True(t, covers([]string{"v1", "v2"}, []string{"v2"}))
	require.True(t, covers([]string{"v1"}, nil))
	require.False(t, covers([]string{"v1"}, []string{"v1", "v3"}))
	require.False(t, covers(nil, []string{"v1"}))
}
