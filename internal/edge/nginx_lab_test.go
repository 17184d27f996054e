//go:build lab

package edge

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"transship/internal/gate"
	"transship/internal/journal"
	"transship/internal/routing"
)

func TestFilesThatNginxRejectsArePutBackAndNginxServesOn(t *testing.T) {
	n := newNode(t)
	n.apply(1, route("restricted", routing.Open, "old"))
	before, err := os.ReadFile(filepath.Join(n.Directory, FileHTTP))
	require.NoError(t, err)
	// The site has something of its own that clashes with what the next table needs.
	require.NoError(t, os.WriteFile(filepath.Join(n.dir, "extra1.conf"), []byte("no_such_directive on;\n"), 0o644))
	_, err = n.Apply(t.Context(), table(2, route("restricted", routing.Open, "old"), route("unknown-so-far", routing.Open, "new")))
	require.ErrorIs(t, err, ErrRejected)
	require.ErrorContains(t, err, "no_such_directive")
	after, err := os.ReadFile(filepath.Join(n.Directory, FileHTTP))
	require.NoError(t, err)
	require.Equal(t, string(before), string(after))
	answer, err := ask[confirmation](t.Context(), n.StatusURL)
	require.NoError(t, err)
	require.EqualValues(t, 1, answer.Generation)
	require.EqualValues(t, 1, n.Table().Generation)
	require.Equal(t, "old", n.send(http.MethodGet, "/v2/unknown-so-far/app/manifests/v1", "").body)
	require.NoError(t, os.Remove(filepath.Join(n.dir, "extra1.conf")))
	n.apply(3, route("restricted", routing.Open, "old"), route("unknown-so-far", routing.Open, "new"))
	require.Equal(t, "new", n.send(http.MethodGet, "/v2/unknown-so-far/app/manifests/v1", "").body)
}

func TestApplyingTheSameTableAgainChangesNothing(t *testing.T) {
	n := newNode(t)
	n.apply(1, route("restricted", routing.Watched, "old"))
	n.apply(2, held(20*time.Second))
	deadline := n.state.Leases["restricted"].Deadline
	again := n.apply(2, held(20*time.Second))
	require.Zero(t, again.Reload)
	require.Empty(t, again.Freezes)
	require.True(t, deadline.Equal(n.state.Leases["restricted"].Deadline))
}

func TestAJournalLineOfAWriteHasAllThatADeltaNeeds(t *testing.T) {
	n := newNode(t)
	n.apply(1, route("restricted", routing.Watched, "old"))
	require.Equal(t, http.StatusCreated, n.send(http.MethodPut, "/v2/restricted/app/blobs/uploads/session-1?digest=sha256:d", "p").status)
	e := n.journaled("/v2/restricted/app/blobs/uploads/session-1")
	require.WithinDuration(t, time.Now(), e.At, 5*time.Second)
	require.NotEmpty(t, e.ID)
	require.Equal(t, "PUT", e.Method)
	require.Equal(t, "digest=sha256:d", e.Query)
	require.Equal(t, http.StatusCreated, e.Status)
	require.Equal(t, "sha256:abc", e.Digest)
	require.Equal(t, "session-1", e.Session)
	require.Equal(t, "old", e.Backend)
	require.Equal(t, "u", e.User)
	require.NotEmpty(t, e.Agent)
	n.send(http.MethodGet, tag, "")
	n.send(http.MethodPut, "/v2/elsewhere/app/manifests/v1", "p")
	d, err := n.Journaled(t.Context(), "restricted", "old", journal.Position{}, 100)
	require.NoError(t, err)
	require.Equal(t, []journal.Change{{Kind: journal.Blob, Repository: "restricted/app", Reference: "sha256:d"}}, d.Changes)
	require.Equal(t, 1, d.Writes)
}

func TestADrainEndsWhenTheJournalHasTheEndOfEveryWrite(t *testing.T) {
	n := newNode(t)
	n.apply(1, route("restricted", routing.Watched, "old"))
	require.Equal(t, http.StatusCreated, n.send(http.MethodPut, tag, "p").status)
	n.apply(2, held(20*time.Second))
	o := gate.DrainOptions{Prefix: "restricted", Hold: "h1", Limit: 5 * time.Second, SessionIdle: time.Second}
	drained, end, err := n.Drain(t.Context(), o)
	require.NoError(t, err)
	require.Less(t, drained.Waited, 3*time.Second)
	size, err := os.Stat(n.Journal)
	require.NoError(t, err)
	require.Equal(t, size.Size(), end.Offset)
	require.Positive(t, end.Offset)
}

func TestAfterApplyNothingServesByAnOlderTable(t *testing.T) {
	for name, prefix := range map[string]string{"by flags": "restricted", "by reloads": "p"} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			var applied atomic.Int64
			var older atomic.Int64
			var failed atomic.Int64
			ctx, stop := context.WithCancel(t.Context())
			var clients sync.WaitGroup
			for range 4 {
				clients.Go(func() {
					for ctx.Err() == nil {
						least := applied.Load()
						answer, err := ask[confirmation](ctx, n.StatusURL)
						switch {
						case ctx.Err() != nil:
						case err != nil:
							failed.Add(1)
						case answer.Generation < least:
							older.Add(1)
						}
					}
				})
			}
			for i := range int64(20) {
				backend := []string{"new", "old"}[i%2]
				r := []routing.Route{route(prefix, routing.Open, backend)}
				if name == "by reloads" { // a prefix that nginx has not seen
					r = []routing.Route{route(prefix+itoa(i), routing.Open, backend)}
				}
				result := n.apply(i+1, r...)
				require.Equal(t, name == "by reloads", result.Reload > 0)
				applied.Store(i + 1)
				for range 3 {
					require.Equal(t, backend, n.send(http.MethodGet, "/v2/"+string(r[0].Prefix)+"/app/manifests/v1", "").body)
				}
			}
			stop()
			clients.Wait()
			require.Zero(t, older.Load())
			require.Zero(t, failed.Load(), "no connection was refused or cut")
		})
	}
}

func TestCheckFindsNothingWrongWithANodeThatIsWell(t *testing.T) {
	n := newNode(t)
	n.apply(1, route("restricted", routing.Watched, "old"))
	n.send(http.MethodPut, tag, "p")
	for _, f := range n.Check(t.Context()) {
		require.True(t, f.OK, "%+v", f)
	}
	s := n.Status(t.Context())
	require.EqualValues(t, 1, s.Nginx)
	files, changes, err := n.Preview(table(2, route("restricted", routing.Open, "new")))
	require.NoError(t, err)
	require.Len(t, files, 3)
	require.False(t, changes)
}
