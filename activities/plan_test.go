package activities

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"transship/internal/edge"
	"transship/internal/gate"
	"transship/internal/notify"
	"transship/internal/policy"
	"transship/internal/registry"
	"transship/internal/report"
	"transship/internal/routing"
)

func TestAPlanSaysWhatIsThereAndWhatWouldBeCopiedAndWritesNothing(t *testing.T) {
	m := newMovers(t)
	m.old.image("p/a", "v1", "a")
	m.old.image("p/a", "v2", "shared")
	m.old.image("p/b", "v1", "shared")
	present := m.new.image("p/a", "v1", "a")
	changed := m.new.image("p/b", "v1", "else")
	extra := m.new.image("p/b", "only-here", "x")
	m.new.forget()
	r, err := run[PlanResult](m.env, m.PlanRepositories, PlanParams{From: "old", To: "new", Repositories: []string{"p/a", "p/b"}, Jobs: 2})
	require.NoError(t, err)
	require.EqualValues(t, 2, r.Plan.Repositories)
	require.EqualValues(t, 3, r.Plan.Tags)
	require.EqualValues(t, 1, r.Plan.TagsPresent)
	require.EqualValues(t, 2, r.Plan.Blobs, "of the tags that are not there; a blob that two repositories share is counted once")
	require.Zero(t, r.Plan.BlobsPresent)
	require.Equal(t, []string{"p/b:v1"}, r.Plan.Changed)
	require.Equal(t, []string{"p/b:only-here"}, r.Plan.Extra)
	require.ElementsMatch(t, []string{"p/a@" + present, "p/b@" + changed, "p/b@" + extra}, r.Before)
	for _, method := range []string{"PUT", "POST", "PATCH", "DELETE"} {
		require.Zero(t, m.new.requests(method, ""), method)
	}
}

func TestRepositoriesAreThoseOfThePrefix(t *testing.T) {
	m := newMovers(t)
	for _, name := range []string{"restricted/a", "restricted/b/c", "restricted2/a", "other"} {
		m.old.image(name, "v1", "x")
	}
	found, err := run[[]string](m.env, m.ListRepositories, ListRepositoriesParams{Backend: "old", Prefix: "restricted"})
	require.NoError(t, err)
	require.Equal(t, []string{"restricted/a", "restricted/b/c"}, found)
	_, err = m.env.ExecuteActivity(m.CheckBackend, CheckBackendParams{Backend: "old"})
	require.NoError(t, err)
}

func TestVerifyLeavesOutTheTagsThatWereLeftAndGoesOnAfterACrash(t *testing.T) {
	m := newMovers(t)
	m.old.image("p/a", "v1", "a")
	m.old.image("p/b", "v1", "b")
	p := VerifyParams{From: "old", To: "new", Repositories: []string{"p/a", "p/b"}, Jobs: 2}
	r, err := run[VerifyResult](m.env, m.VerifyRepositories, p)
	require.NoError(t, err)
	require.Equal(t, 2, r.Found)
	p.Left = []string{"p/a:v1", "p/bb:v1"}
	r, err = run[VerifyResult](m.env, m.VerifyRepositories, p)
	require.NoError(t, err)
	require.Len(t, r.Check.Differences, 1)
	require.Equal(t, "p/b", r.Check.Differences[0].Repository)
	m.env.SetHeartbeatDetails(VerifyResult{Next: 1, Found: 7})
	r, err = run[VerifyResult](m.env, m.VerifyRepositories, p)
	require.NoError(t, err)
	require.Equal(t, 8, r.Found)
}

func TestAnAuditNamesWhatTheSourceCannotServe(t *testing.T) {
	m := newMovers(t)
	m.old.image("p/a", "v1", "a")
	m.old.setFault(answerWith(http.StatusNotFound, "HEAD", "/blobs/"))
	r, err := run[VerifyResult](m.env, m.AuditRepositories, AuditParams{Backend: "old", Repositories: []string{"p/a"}, Jobs: 1})
	require.NoError(t, err)
	require.NotEmpty(t, r.Problems)
	require.Equal(t, []string{"v1"}, r.Problems[0].Tags)
}

func TestErrorsThatTryingAgainCannotHelpHaveTheirKind(t *testing.T) {
	answered := func(status int, temporary bool) error {
		return &registry.Error{Status: status, Temporary: temporary, Err: errors.New("x")}
	}
	for _, c := range []struct {
		err  error
		kind string
	}{
		{&registry.BrokenError{Problems: []registry.Problem{{Kind: registry.Short}}}, KindBroken},
		{fmt.Errorf("copy: %w", &registry.Problem{Kind: registry.Corrupt}), KindBroken},
		{fmt.Errorf("x: %w", edge.ErrHoldLost), routing.RefusedHoldLost},
		{fmt.Errorf("x: %w", gate.ErrNotDrained), routing.RefusedNotDrained},
		{fmt.Errorf("x: %w", edge.ErrStale), routing.RefusedStale},
		{fmt.Errorf("x: %w", edge.ErrRejected), routing.RefusedFiles},
		{fmt.Errorf("x: %w", edge.ErrUnwritable), routing.RefusedFiles},
		{answered(http.StatusForbidden, false), KindRefused},
		{&notify.StatusError{Status: http.StatusForbidden}, KindRefused},
		{answered(http.StatusBadGateway, true), ""},
		{&notify.StatusError{Status: http.StatusBadGateway}, ""},
		{io.ErrUnexpectedEOF, ""},
		{context.Canceled, ""},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), ""},
	} {
		err := final(c.err)
		var failed *temporal.ApplicationError
		if c.kind == "" {
			require.Equal(t, c.err, err, "left to the retry policy")
			continue
		}
		require.True(t, errors.As(err, &failed), "%v", c.err)
		require.Equal(t, c.kind, failed.Type(), "%v", c.err)
		require.True(t, failed.NonRetryable())
	}
	require.NoError(t, final(nil))
}

func TestAReportIsWrittenTwiceTheSameAndNowhereWithoutADirectory(t *testing.T) {
	env := newEnvironment()
	of := report.Report{Prefix: "a/b", Began: time.Date(2026, 3, 14, 9, 0, 0, 0, time.UTC), Outcome: report.Finalized}
	r := &Reports{Directory: filepath.Join(t.TempDir(), "reports")}
	env.RegisterActivity(r)
	for range 2 {
		path, err := run[string](env, r.WriteReport, of)
		require.NoError(t, err)
		require.Equal(t, filepath.Join(r.Directory, "20260314-090000-a-b.md"), path)
		raw, err := os.ReadFile(strings.TrimSuffix(path, ".md") + ".json")
		require.NoError(t, err)
		require.Contains(t, string(raw), `"outcome": "finalized"`)
	}
	path, err := (&Reports{}).WriteReport(t.Context(), of)
	require.NoError(t, err)
	require.Empty(t, path)
}

type sender struct{ err error }

func (sender) Name() string                                 { return "chat" }
func (s sender) Send(context.Context, notify.Message) error { return s.err }

func TestANotificationIsThrottledAsTheChatAsksAndRefusedWhereUnknown(t *testing.T) {
	env := newEnvironment()
	n := &Notifier{Senders: map[string]notify.Sender{"chat": sender{&notify.StatusError{Status: http.StatusTooManyRequests, After: time.Minute}}, "ok": sender{}}}
	env.RegisterActivity(n)
	_, err := env.ExecuteActivity(n.SendNotification, NotifyParams{Sender: "ok"})
	require.NoError(t, err)
	_, err = env.ExecuteActivity(n.SendNotification, NotifyParams{Sender: "chat"})
	var failed *temporal.ApplicationError
	require.True(t, errors.As(err, &failed))
	require.False(t, failed.NonRetryable())
	require.Equal(t, time.Minute, failed.NextRetryDelay())
	_, err = env.ExecuteActivity(n.SendNotification, NotifyParams{Sender: "unknown"})
	require.True(t, errors.As(err, &failed))
	require.Equal(t, KindConfig, failed.Type())
}

func TestACheckOfTheSiteMustAnswerWell(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/ok" {
			w.WriteHeader(http.StatusTeapot)
		}
	}))
	defer server.Close()
	p := &Probes{}
	require.NoError(t, p.AskCheck(t.Context(), policy.HTTPCheck{Name: "smoke", URL: server.URL + "/ok"}))
	require.ErrorContains(t, p.AskCheck(t.Context(), policy.HTTPCheck{Name: "smoke", URL: server.URL}), "check smoke: "+server.URL+" answers 418")
}
