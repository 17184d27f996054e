package monitor

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func line(at int64, prefix, method string, status int, took string) []byte {
	return fmt.Appendf(nil, `{"t":"%d.123","p":%q,"m":%q,"s":%d,"rt":"0.1","ht":%q,"b":"old"}`+"\n", at, prefix, method, status, took)
}

func TestTrafficIsSummedUpByPrefixAndWindow(t *testing.T) {
	now := time.Now().Unix()
	m := NewTraffic()
	m.Add(line(now-100, "a", "GET", 200, "9.0")) // before the window
	m.Add(line(now-5, "a", "GET", 200, "0.010"))
	m.Add(line(now-5, "a", "HEAD", 404, "0.020"))
	m.Add(line(now-4, "a", "PUT", 201, "5.0"))       // a write's time is the client's
	m.Add(line(now-3, "a", "GET", 502, "0.5, 0.03")) // two upstreams were tried
	m.Add(line(now-3, "a", "GET", 503, "-"))         // none was
	m.Add(line(now-3, "b", "GET", 500, "1.0"))
	for _, bad := range []string{"", "{", `{"t":"x","p":"a"}`, `{"t":"1.0","p":""}`} {
		m.Add([]byte(bad))
	}
	s := m.Sample("a", time.Unix(now-50, 0))
	require.Equal(t, Sample{Requests: 5, Failed: 2, Reads: 3, Read95: s.Read95}, s)
	require.InDelta(t, 30, s.Read95.Milliseconds(), 1)
	require.Equal(t, Sample{}, m.Sample("c", time.Unix(0, 0)))
}

func TestTheSlowestReadsCount(t *testing.T) {
	m := NewTraffic()
	now := time.Now().Unix()
	for i := range 100 {
		took := "0.010"
		if i >= 94 {
			took = "2.000"
		}
		m.Add(line(now, "a", "GET", 200, took))
	}
	require.InDelta(t, 2000, m.Sample("a", time.Unix(now-1, 0)).Read95.Milliseconds(), 1)
}

func TestOldTrafficIsForgotten(t *testing.T) {
	m := NewTraffic()
	for i := range int64(2*kept/time.Second) + 10 {
		m.Add(line(1_000_000+i, "a", "GET", 200, "0.1"))
	}
	require.LessOrEqual(t, len(m.seconds["a"]), int(2*kept/time.Second)+1)
}

func TestJudge(t *testing.T) {
	limits := Limits{ErrorRatio: 0.01, LatencyFactor: 3, LatencyFloor: 250 * time.Millisecond, MinimumRequests: 50}
	calm := Sample{Requests: 1000, Failed: 10, Reads: 500, Read95: 100 * time.Millisecond}
	for _, c := range []struct {
		name        string
		before, now Sample
		findings    int
	}{
		{"as before", calm, calm, 0},
		{"a few more failures", calm, Sample{Requests: 1000, Failed: 19, Reads: 500, Read95: 100 * time.Millisecond}, 0},
		{"too many more failures", calm, Sample{Requests: 1000, Failed: 30, Reads: 500, Read95: 100 * time.Millisecond}, 1},
		{"too few requests to judge", calm, Sample{Requests: 49, Failed: 49}, 0},
		{"exactly enough requests", calm, Sample{Requests: 50, Failed: 50}, 1},
		{"slower, under the floor", Sample{Requests: 1000, Reads: 500, Read95: time.Millisecond}, Sample{Requests: 1000, Reads: 500, Read95: 200 * time.Millisecond}, 0},
		{"slower, within the factor", calm, Sample{Requests: 1000, Failed: 10, Reads: 500, Read95: 290 * time.Millisecond}, 0},
		{"too slow", calm, Sample{Requests: 1000, Failed: 10, Reads: 500, Read95: 301 * time.Millisecond}, 1},
		{"slow, with nothing to compare with", Sample{}, Sample{Requests: 1000, Reads: 500, Read95: time.Minute}, 0},
		{"too few reads now", calm, Sample{Requests: 1000, Reads: 10, Read95: time.Minute}, 0},
		{"too slow and failing", calm, Sample{Requests: 1000, Failed: 500, Reads: 500, Read95: time.Minute}, 2},
		{"failing without a baseline", Sample{}, Sample{Requests: 100, Failed: 5}, 1},
	} {
		t.Run(c.name, func(t *testing.T) { require.Len(t, Judge(c.before, c.now, limits), c.findings) })
	}
	require.Equal(t, "50.00 % of requests fail, 1.00 % did before the flip (limit: 1.00 % more)", Judge(calm, Sample{Requests: 100, Failed: 50}, limits)[0])
}

func TestSamplesOfSeveralEdgesAddUpAndTheSlowerOneCounts(t *testing.T) {
	s := Sample{Requests: 10, Failed: 1, Reads: 5, Read95: time.Second}.Merge(Sample{Requests: 20, Failed: 2, Reads: 6, Read95: time.Millisecond})
	require.Equal(t, Sample{Requests: 30, Failed: 3, Reads: 11, Read95: time.Second}, s)
	require.InDelta(t, 0.1, s.ErrorRatio(), 1e-9)
	require.Zero(t, Sample{}.ErrorRatio())
	require.Equal(t, "30 requests, 10.00 % failed, 95 % of reads under 1s", s.String())
}

func TestALogIsFollowedThroughRotationAndHalfLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "traffic.log")
	m := NewTraffic()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { m.Follow(ctx, path, slog.New(slog.DiscardHandler)); close(done) }()
	now := time.Now().Unix()
	seen := func(want int64) {
		t.Helper()
		require.Eventually(t, func() bool { return m.Sample("a", time.Unix(0, 0)).Requests == want }, 3*time.Second, 10*time.Millisecond)
	}
	whole := line(now, "a", "GET", 200, "0.1")
	require.NoError(t, os.WriteFile(path, append(whole, whole[:20]...), 0o600))
	seen(1)
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.Write(whole[20:])
	require.NoError(t, err)
	require.NoError(t, f.Close())
	seen(2)
	require.NoError(t, os.Rename(path, path+".1"))
	require.NoError(t, os.WriteFile(path, whole, 0o600))
	seen(3)
	stop()
	<-done
}
