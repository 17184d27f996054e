//go:build lab

package lab

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"transship/internal/routing"
	"transship/workflows"
)

var (
	chaosSchedules = flag.Int("schedules", 0, "how many random schedules of chaos; 0 is the three of every test run")
	chaosSeed      = flag.Uint64("chaos-seed", 0, "run this schedule of chaos alone")
)

const (
	chaosLease = 8 * time.Second
	longestFor = 6 * time.Second
	// longestWait is how long a push of a manifest may take while things break: a hold, a trouble that lasts through its end, and what a busy machine adds.
	longestWait = chaosLease + longestFor + 20*time.Second
)

// Promise 6, with promises 1, 2 and 4 checked by history: whatever dies, hangs or is cut off at random moments of a migration and its rollback. Writes may be asked to come back
// (503 with Retry-After) or wait; reads fail only when the nginx or the registry in their path is dead; afterwards all is well by itself.
func TestChaos(t *testing.T) {
	seeds := []uint64{1, 2, 3}
	switch {
	case *chaosSeed != 0:
		seeds = []uint64{*chaosSeed}
	case *chaosSchedules > 0:
		seeds = nil
		for range *chaosSchedules {
			seeds = append(seeds, rand.Uint64N(1<<32)) //nolint:gosec // a schedule is no secret
		}
	}
	tally := map[string]int{}
	var odd, even []uint64 // images go through the registries, or on their storage
	for _, seed := range seeds {
		if seed%2 == 0 {
			even = append(even, seed)
		} else {
			odd = append(odd, seed)
		}
	}
	stacks := 0
	for batch := range slices.Chunk(odd, schedulesOfAStack) {
		stacks++
		t.Run(fmt.Sprintf("registries %d", stacks), func(t *testing.T) { chaosInOneStack(t, batch, tally) })
	}
	for batch := range slices.Chunk(even, schedulesOfAStack) {
		stacks++
		t.Run(fmt.Sprintf("storage %d", stacks), func(t *testing.T) { chaosInOneStack(t, batch, tally, Folders) })
	}
	t.Logf("%d schedules: %v", len(seeds), tally)
}

// schedulesOfAStack bounds what a stack has to carry along: each schedule leaves its images behind.
const schedulesOfAStack = 3

// chaosInOneStack runs schedules one after the other, until one breaks a promise.
func chaosInOneStack(t *testing.T, seeds []uint64, tally map[string]int, more ...Part) {
	s := Start(t, Edges(3), Links, Parts(more), Adapt(func(s *Settings) {
		s.ApprovalRequired, s.Lease, s.Drain, s.FreezePause, s.Attempts, s.Failures = false, chaosLease, 3*time.Second, time.Second, 50, 1000
		// What an earlier schedule deleted after its rollback is still at the new backend; its own history was judged.
		s.Soak, s.Interval, s.Finalize, s.AllowExtra = time.Hour, time.Second, "ask", true
	}))
	for _, seed := range seeds {
		if !t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) { s.chaos(t, seed, tally) }) {
			t.Fatalf("again: go test -race -tags lab -run TestChaos ./lab -chaos-seed %d (it was schedule %d of its stack)", seed, slices.Index(seeds, seed)+1)
		}
	}
}

// chaosTrouble is a way to break a thing, and to mend it.
type chaosTrouble struct {
	what        string
	begin       func()
	end         func(context.Context) error
	of          *Process // what clients notice, else nil
	mu          *sync.Mutex
	nginx, data bool
}

type chaos struct {
	s        *Stack
	random   *rand.Rand
	troubles []chaosTrouble

	mu     sync.Mutex
	ended  time.Time
	broken []brokenFor
}

// brokenFor says when something was broken that requests go through: an edge's nginx, or a registry, which all edges share.
type brokenFor struct {
	during
	edge string
}

func (s *Stack) newChaos(seed uint64) *chaos {
	c := &chaos{s: s, random: rand.New(rand.NewPCG(seed, 3))} //nolint:gosec // it must be repeatable
	add := func(p *Process, edge string, data bool) {
		mu := &sync.Mutex{}
		restart := func(ctx context.Context) error {
			if p == s.Devserver {
				_ = os.Remove(s.path("temporal/ready.json"))
			}
			return p.Start(ctx)
		}
		c.troubles = append(c.troubles,
			chaosTrouble{what: "kill " + p.Name, begin: p.Kill, end: restart, mu: mu, data: data, nginx: edge != "", of: p},
			chaosTrouble{what: "pause " + p.Name, begin: p.Pause, end: func(context.Context) error { p.Resume(); return nil }, mu: mu, data: data, nginx: edge != "", of: p})
	}
	add(s.Worker, "", false)
	add(s.Devserver, "", false)
	add(s.Old, "", true)
	add(s.New, "", true)
	for _, e := range s.Edges {
		add(e.Worker, "", false)
		add(e.Nginx, e.URL, false)
		c.troubles = append(c.troubles, chaosTrouble{
			what: "cut " + e.Name + " off from Temporal", begin: e.Link.Cut, end: func(context.Context) error { e.Link.Mend(); return nil }, mu: &sync.Mutex{},
		})
	}
	return c
}

// edgeOf is the edge whose nginx a trouble hits.
func (c *chaos) edgeOf(p *Process) string {
	for _, e := range c.s.Edges {
		if e.Nginx == p {
			return e.URL
		}
	}
	return ""
}

// plan draws the troubles of one line of them: what, after which pause, and for how long.
func (c *chaos) plan(n int) (list []func(context.Context, *testing.T)) {
	for range n {
		x := c.troubles[c.random.IntN(len(c.troubles))]
		after := time.Duration(c.random.Int64N(int64(1500 * time.Millisecond)))
		lasts := 200*time.Millisecond + time.Duration(c.random.Int64N(int64(longestFor)))
		list = append(list, func(ctx context.Context, t *testing.T) {
			pause(ctx, after)
			x.mu.Lock()
			defer x.mu.Unlock()
			from := time.Now()
			t.Logf("%s: %s for %s", from.Format("15:04:05.000"), x.what, lasts.Round(time.Millisecond))
			c.mark(x, from, from.Add(time.Hour))
			x.begin()
			pause(ctx, lasts)
			assert.NoError(t, x.end(context.WithoutCancel(ctx)), x.what)
			c.mark(x, from, time.Now())
		})
	}
	return list
}

func (c *chaos) mark(x chaosTrouble, from, to time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = time.Now()
	if !x.data && !x.nginx {
		return
	}
	// What nginx or a registry had accepted when it stopped, and what waits in line when it is back, is hit as well.
	b := brokenFor{during{from.Add(-100 * time.Millisecond), to.Add(500 * time.Millisecond)}, c.edgeOf(x.of)}
	c.broken = slices.DeleteFunc(c.broken, func(o brokenFor) bool { return o.from.Equal(b.from) && o.edge == b.edge })
	c.broken = append(c.broken, b)
}

// excuse says why a failure was to be expected.
func (c *chaos) excuse(f Failure, began, ended time.Time) string {
	if f.Method != http.MethodGet && f.Status == http.StatusServiceUnavailable && f.RetryAfter != "" {
		return "asked to come back"
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range c.broken {
		if began.Before(b.to) && ended.After(b.from) && (f.Status == 0 || f.Status >= 500) {
			switch b.edge {
			case f.Edge:
				return "nginx was dead"
			case "":
				return "a registry was dead"
			}
		}
	}
	return ""
}

func (s *Stack) chaos(t *testing.T, seed uint64, tally map[string]int) {
	began := time.Now()
	c := s.newChaos(seed)
	atOnce, atTheFreeze, onTheWayBack := c.plan(1), c.plan(2), c.plan(2)
	l, stop := s.underLoad(t, fmt.Sprintf("restricted/s%d", seed), seed, c.excuse)
	ctx := within(t, 6*time.Minute)
	pause(ctx, time.Second)
	s.must(t, "--as", "sre", "migrate", "restricted")
	var breaking sync.WaitGroup
	breakThings := func(line []func(context.Context, *testing.T)) {
		breaking.Go(func() {
			for _, x := range line {
				x(ctx, t)
			}
		})
	}
	breakThings(atOnce)
	over := func(w workflows.Status) bool { return w.Phase == workflows.Done }
	var flipped during
	soaking, giveUp := context.WithTimeout(ctx, 2*time.Minute)
	_, _ = s.Await(soaking, "restricted", func(w workflows.Status) bool {
		if flipped.from.IsZero() && w.Report.Attempts > 0 {
			flipped.from = time.Now().Add(-time.Second)
			breakThings(atTheFreeze)
		}
		return over(w) || w.Report.Checks.Rounds > 0
	})
	giveUp()
	before, _ := s.Status(ctx, "restricted")
	breakThings(onTheWayBack)
	var status workflows.Status
	for { // Temporal may be down, and a migration that failed by itself is over
		_, err := s.Transship(ctx, "--as", "sre", "rollback", "restricted", "--reason", "chaos")
		if status, _ = s.Status(ctx, "restricted"); err == nil || over(status) {
			break
		}
		require.NoError(t, ctx.Err(), "the rollback was never accepted: %v", err)
		pause(ctx, time.Second)
	}
	breaking.Wait()
	r, err := s.Outcome(ctx, "restricted")
	require.NoError(t, err)
	recovered := time.Now()
	flipped.to = time.Now()
	if flipped.from.IsZero() {
		flipped.from = flipped.to
	}
	var now routing.Routing
	require.Eventually(t, func() bool {
		now, err = s.Routing(ctx)
		if err != nil {
			return false
		}
		for _, route := range now.Table.Routes {
			if route.Mode.Parks() {
				return false
			}
		}
		return !slices.ContainsFunc(now.Edges, func(e routing.EdgeState) bool { return e.Generation < now.Table.Generation })
	}, time.Minute, 100*time.Millisecond, "a hold is left, or an edge is behind")
	pause(ctx, time.Second)
	stop()
	for _, o := range l.Recorder.Operations() {
		if o.Kind == "push-tag" && strings.HasPrefix(o.Client, "pusher") && o.Ended.Sub(o.Began) > longestWait {
			assert.Fail(t, "a write waited too long", o.String())
		}
	}
	t.Logf("%s from %s, after %d cutovers to it: %s; %d cutovers back; well again %s after the last trouble; %s in all", r.Outcome, before.Phase, before.Report.Attempts, r.Reason, r.Attempts-before.Report.Attempts,
		recovered.Sub(c.ended).Round(time.Millisecond), time.Since(began).Round(time.Second))
	tally[fmt.Sprintf("%s from %s", r.Outcome, before.Phase)]++
	tally["cutovers begun"] += r.Attempts
	tally["operations"] += len(l.Recorder.Operations())
	s.judged(t, l.Recorder.Operations(), now.Table.Backend("restricted/x"), []during{flipped})
}
