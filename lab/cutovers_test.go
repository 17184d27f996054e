//go:build lab

package lab

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"transship/internal/report"
	"transship/lab/history"
	"transship/workflows"
)

var (
	cutovers = flag.Int("cutovers", 3, "how often a prefix is flipped and rolled back under load")
	largest  = flag.String("largest", "16MiB", "the largest blob of the load")
)

// underLoad has clients of all kinds at work until the returned function is called.
func (s *Stack) underLoad(t *testing.T, prefix string, seed uint64, excuse func(Failure, time.Time, time.Time) string) (l *Load, stop func()) {
	t.Helper()
	recorder, err := history.Record(filepath.Join(t.TempDir(), "history.jsonl"))
	require.NoError(t, err)
	l = NewLoad(s.Addresses.Edges, prefix, recorder, seed)
	l.Excuse = excuse
	bytes, err := humanize.ParseBytes(*largest)
	require.NoError(t, err)
	l.Largest = int64(bytes)
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	wait.Go(func() { l.Run(ctx, 3, 4) })
	wait.Go(func() {
		dir, err := os.MkdirTemp(s.Dir, "commands-")
		if assert.NoError(t, err) {
			assert.NoError(t, l.Commands(ctx, dir, filepath.Join(bin, "crane")))
		}
	})
	var once sync.Once
	stop = func() { once.Do(func() { cancel(); wait.Wait() }) }
	t.Cleanup(func() { stop(); _ = recorder.Close() })
	return l, stop
}

// judged wants a history without an anomaly. A known limit (ARCHITECTURE.md) is counted and no more: what is deleted at the new backend comes back after a rollback, because
// transship deletes nothing that it did not write.
func (s *Stack) judged(t *testing.T, all []history.Operation, serves string, flipped []during) {
	t.Helper()
	undeleted := 0
	limit := func(tag string) bool {
		for _, o := range all {
			if o.Kind == history.Delete && o.Repository+":"+o.Tag == tag && slices.ContainsFunc(flipped, func(d during) bool { return o.Ended.After(d.from) && o.Began.Before(d.to) }) {
				undeleted++
				return true
			}
		}
		return false
	}
	final, err := s.Final(t.Context(), all, serves)
	require.NoError(t, err)
	found, err := history.Check(all, final)
	require.NoError(t, err)
	count := map[history.Kind]int{}
	excused := map[string]int{}
	who := map[string]int{}
	var slowest time.Duration
	var pushed, biggest int64
	for _, o := range all {
		count[o.Kind]++
		who[strings.Fields(o.Client)[0]]++
		if o.Kind == history.UploadBlob && o.Outcome == history.OK {
			pushed, biggest = pushed+o.Bytes, max(biggest, o.Bytes)
		}
		if o.Excuse != "" {
			excused[o.Excuse]++
		}
		if o.Kind == history.PushTag {
			slowest = max(slowest, o.Ended.Sub(o.Began))
		}
	}
	t.Logf("%d operations %v by %v, %d tags, %s of blobs pushed, the largest of %s; excused %v; the slowest put of a tag took %s", len(all), count, who, len(final.Backends[serves].Tags),
		humanize.IBytes(uint64(pushed)), humanize.IBytes(uint64(biggest)), excused, slowest.Round(time.Millisecond))
	found = slices.DeleteFunc(found, func(a history.Anomaly) bool { return a.What == history.Undeleted && limit(a.Tag) })
	for i, a := range found {
		if i == 20 {
			t.Logf("and %d more", len(found)-i)
			break
		}
		t.Log(a)
	}
	t.Logf("%d tags that were deleted at the new backend came back by the rollback", undeleted)
	assert.Zero(t, len(found), "promises that were broken")
}

// during is a time in which something was so.
type during struct{ from, to time.Time }

// flipAndBack migrates restricted, waits for a round of the soak, and rolls back.
func (s *Stack) flipAndBack(ctx context.Context, t *testing.T, l *Load) (r report.Report, flipped during) {
	t.Helper()
	s.must(t, "--as", "sre", "migrate", "restricted")
	_, err := s.Await(ctx, "restricted", Phase(workflows.Approval))
	require.NoError(t, err)
	l.Keeps.Store(false)
	flipped.from = time.Now()
	s.must(t, "--as", "releng", "approve", "restricted")
	_, err = s.Await(ctx, "restricted", func(w workflows.Status) bool { return w.Report.Checks.Rounds > 0 })
	require.NoError(t, err)
	// What is deleted at the old backend while nothing is migrated stays at the new one, and stops the next migration ("has tags that old does not have").
	l.Keeps.Store(true)
	pause(ctx, 200*time.Millisecond)
	s.must(t, "--as", "sre", "rollback", "restricted", "--reason", "there and back again")
	r, err = s.Outcome(ctx, "restricted")
	require.NoError(t, err)
	require.Equal(t, report.RolledBack, r.Outcome, r.Reason)
	flipped.to = time.Now()
	return r, flipped
}

// Promises 1, 2, 4 and 5, again and again: a prefix goes to and fro behind three edges, and of all that clients do meanwhile nothing fails, is lost or goes back in time.
func TestTwentyFlipsAndTwentyRollbacksUnderLoad(t *testing.T) {
	s := Start(t, Edges(3), Adapt(func(s *Settings) { s.Soak, s.Interval, s.Finalize, s.Failures = time.Hour, time.Second, "ask", 1000 }))
	l, stop := s.underLoad(t, "restricted", 1, nil)
	ctx := within(t, time.Duration(*cutovers)*3*time.Minute)
	pause(ctx, 3*time.Second)
	var flipped []during
	for n := range *cutovers {
		began := time.Now()
		r, during := s.flipAndBack(ctx, t, l)
		flipped = append(flipped, during)
		lasted, waited := r.Freeze()
		t.Logf("round %d took %s, with %d cutovers; writes were held for %s on the way back, one waited for %s; %d operations",
			n+1, time.Since(began).Round(time.Millisecond), r.Attempts, lasted.Round(time.Millisecond), waited.Round(time.Millisecond), len(l.Recorder.Operations()))
	}
	stop()
	noHold(t, s)
	s.judged(t, l.Recorder.Operations(), "old", flipped)
}
