package activities

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"

	"transship/internal/registry"
)

func TestAMirrorCopiesEveryTagAndARerunSendsNothing(t *testing.T) {
	m := newMovers(t)
	a, b := m.old.image("p/a", "v1", "a"), m.old.image("p/b", "v1", "b")
	p := MirrorParams{From: "old", To: "new", Repositories: []string{"p/a", "p/b"}, Jobs: 2}
	at, err := run[Cursor](m.env, m.MirrorRepositories, p)
	require.NoError(t, err)
	require.Equal(t, 2, at.Repository)
	require.EqualValues(t, 2, at.Progress.Tags)
	require.Equal(t, a, m.new.has("p/a", "v1"))
	require.Equal(t, b, m.new.has("p/b", "v1"))
	m.new.forget()
	at, err = run[Cursor](m.env, m.MirrorRepositories, p)
	require.NoError(t, err)
	require.EqualValues(t, 2, at.Progress.TagsUnchanged)
	require.Zero(t, m.new.requests("PUT", ""))
	require.Zero(t, m.new.requests("POST", ""))
}

func TestAMirrorGoesOnFromTheHeartbeatOfTheAttemptBefore(t *testing.T) {
	m := newMovers(t)
	for _, tag := range []string{"v1", "v2", "v3"} {
		m.old.image("p/a", tag, tag)
		m.old.image("p/b", tag, tag)
	}
	m.env.SetHeartbeatDetails(Cursor{Repository: 1, After: "v2", Progress: registry.Progress{Tags: 5, Bytes: 100}})
	at, err := run[Cursor](m.env, m.MirrorRepositories, MirrorParams{From: "old", To: "new", Repositories: []string{"p/a", "p/b"}, Jobs: 1})
	require.NoError(t, err)
	require.Empty(t, m.new.has("p/a", "v1"), "it was done by the attempt before")
	require.Empty(t, m.new.has("p/b", "v2"))
	require.NotEmpty(t, m.new.has("p/b", "v3"))
	require.EqualValues(t, 6, at.Progress.Tags, "what was done before still counts")
	require.Greater(t, at.Progress.Bytes, int64(100))
}

func TestAMirrorGoesOnFromTheCursorOfAPause(t *testing.T) {
	m := newMovers(t)
	m.old.image("p/a", "v1", "a")
	m.old.image("p/b", "v1", "b")
	_, err := run[Cursor](m.env, m.MirrorRepositories, MirrorParams{From: "old", To: "new", Repositories: []string{"p/a", "p/b"}, Jobs: 1, Cursor: Cursor{Repository: 1}})
	require.NoError(t, err)
	require.Empty(t, m.new.has("p/a", "v1"))
	require.NotEmpty(t, m.new.has("p/b", "v1"))
}

func TestAMirrorThatIsCancelledEndsSoonWithItsCursor(t *testing.T) {
	m := newMovers(t)
	m.old.image("p/a", "v1", "a")
	m.old.image("p/b", "v1", "b")
	ctx, cancel := context.WithCancelCause(t.Context())
	m.old.setFault(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.URL.Path, "/v2/p/b/") {
			cancel(temporal.NewCanceledError()) // as the SDK does when a heartbeat says so
			<-r.Context().Done()
		}
		return false
	})
	m.env.SetWorkerOptions(worker.Options{BackgroundActivityContext: ctx})
	begin := time.Now()
	_, err := run[Cursor](m.env, m.MirrorRepositories, MirrorParams{From: "old", To: "new", Repositories: []string{"p/a", "p/b"}, Jobs: 1})
	require.Less(t, time.Since(begin), 3*time.Second)
	var canceled *temporal.CanceledError
	require.True(t, errors.As(err, &canceled), "%v", err)
	var at Cursor
	require.NoError(t, canceled.Details(&at))
	require.Equal(t, 1, at.Repository)
	require.EqualValues(t, 1, at.Progress.Tags)
}

func TestABrokenImageEndsTheMirrorAfterTheOthersWereLookedAt(t *testing.T) {
	m := newMovers(t)
	m.old.image("p/a", "v1", "a")
	m.old.image("p/b", "v1", "b")
	m.old.image("p/c", "v1", "c")
	m.old.setFault(answerWith(http.StatusNotFound, "GET", "/v2/p/b/blobs/"))
	p := MirrorParams{From: "old", To: "new", Repositories: []string{"p/a", "p/b", "p/c"}, Jobs: 1}
	_, err := run[Cursor](m.env, m.MirrorRepositories, p)
	var failed *temporal.ApplicationError
	require.True(t, errors.As(err, &failed), "%v", err)
	require.Equal(t, KindBroken, failed.Type())
	require.True(t, failed.NonRetryable())
	var problems []registry.Problem
	require.NoError(t, failed.Details(&problems))
	require.NotEmpty(t, problems)
	require.Equal(t, "p/b", problems[0].Repository)
	require.Equal(t, []string{"v1"}, problems[0].Tags)
	require.NotEmpty(t, m.new.has("p/c", "v1"))
	require.Empty(t, m.new.has("p/b", "v1"), "a tag never refers to what is not there")

	p.SkipBroken = true
	at, err := run[Cursor](m.env, m.MirrorRepositories, p)
	require.NoError(t, err)
	require.Equal(t, problems[0].Digest, at.Problems[0].Digest)
}

func TestATargetThatIsDownIsARetryableError(t *testing.T) {
	m := newMovers(t)
	m.old.image("p/a", "v1", "a")
	m.new.setFault(answerWith(http.StatusServiceUnavailable, "PUT", "/manifests/"))
	_, err := run[Cursor](m.env, m.MirrorRepositories, MirrorParams{From: "old", To: "new", Repositories: []string{"p/a"}, Jobs: 1})
	var failed *temporal.ApplicationError
	require.True(t, errors.As(err, &failed))
	require.False(t, failed.NonRetryable(), "%v", err)
}

func TestABackendThatTheWorkerDoesNotKnowIsAFinalErrorWithTheCure(t *testing.T) {
	m := newMovers(t)
	for _, p := range []MirrorParams{{From: "elsewhere", To: "new"}, {From: "old", To: "elsewhere"}} {
		_, err := run[Cursor](m.env, m.MirrorRepositories, p)
		var failed *temporal.ApplicationError
		require.True(t, errors.As(err, &failed))
		require.Equal(t, KindConfig, failed.Type())
		require.True(t, failed.NonRetryable())
		require.Contains(t, failed.Message(), `backend "elsewhere" is not in the configuration of this worker: add it to backends and restart the worker`)
	}
}
