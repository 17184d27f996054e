package edge

import (
	"flag"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var modelSchedules = flag.Int("model.schedules", 0, "how many random schedules the model of the cutover runs through; 0 is 3,000, and 1,000 with the race detector or -short")

// rules are the protocol as it is when all are false.
type rules struct {
	tell bool
	holes
	mutations
}

// holes are what the protocol did until this model found it.
type holes struct {
	// oneStepForOne: a single edge goes from held to switched at once.
	oneStepForOne bool
	// backAtOnce: after a switch that failed, all edges are told to write to the old backend while some still read from the new one.
	backAtOnce bool
	// diskFirst: a step past the hold is on disk before it is known that the hold lasted until it was in force.
	diskFirst bool
	// deafToPauses: a gate that was stopped for more than a second believes that it saw every write.
	deafToPauses bool
	// switchedMeansOld: a switched edge looks for every session that it does not know on the old backend. Load found it, before uploads were in this model.
	switchedMeansOld bool
	// listsWhatIsElsewhere: a drain of a rollback lists requests of sessions that never left the backend to which the prefix goes back.
	listsWhatIsElsewhere bool
	// reapsSessions: when nginx dies, a session of the table that it served counts as over.
	reapsSessions bool
	// trustsSwitched: what a switched edge commits on the backend that is to serve is not carried over, although all edges may yet go back.
	trustsSwitched bool
	// settlesWhatIsCarried: a migration takes a commit from the table while an edge still has it carried over.
	settlesWhatIsCarried bool
	// heldFromNow: nginx holds writes from the second in which the hold began, although its clock may be set back to before that.
	heldFromNow bool
	// trustsItself: an edge worker that runs on while its nginx is away believes that it missed nothing.
	trustsItself bool
	// believesWhatItIsHanded: a node that may have missed a table takes any that it is handed for the present one, however long that was on its way.
	believesWhatItIsHanded bool
	// skipsUnread: a migration that goes on without an edge forgets what that had acknowledged.
	skipsUnread bool
}

// mutations are what nobody would do.
type mutations struct {
	skipsPrepared, opensEarly, backAfterRelease, alwaysForward, neverDrains                      bool // Routes and the migration
	ignoresDeadline, neverLooksBack, acksEarly, forgetsDisk, forgetsState, takesStale, neverAsks bool // edges
	fallsOpen, holdsForever                                                                      bool // gate and nginx

	listsNoSessions, listsNoCommits, ignoresClosed, dropsUploads, settlesFirst, neverAwaitsUploads bool // uploads: the migration and Routes
	neverRelays, answersBeforeCarry, namesAtOnce, forgetsLate, neverStrict                         bool // uploads: gate and nginx
}

// schedules draws one. Faults hit events, not times, so that most come between two steps of a cutover.
func schedules(t *rapid.T) schedule {
	s := schedule{
		Lease: rapid.SampledFrom([]int64{4_000, 8_000, 15_000}).Draw(t, "lease"),
		Write: rapid.SampledFrom([]int64{0, 300, inFlight}).Draw(t, "write"),
	}
	for range rapid.IntRange(1, 4).Draw(t, "edges") {
		s.Clocks = append(s.Clocks, clock{Offset: rapid.Int64Range(-5_000, 5_000).Draw(t, "offset"), Drift: rapid.Int64Range(-500, 500).Draw(t, "drift")})
	}
	events := 100 * len(s.Clocks) // about as many as two cutovers have
	if rapid.Bool().Draw(t, "early") {
		events = 30 * len(s.Clocks)
	}
	s.Faults = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) fault {
		return fault{
			Event: rapid.IntRange(1, events).Draw(t, "event"),
			Wait:  rapid.SampledFrom([]int64{0, 1, 3, 500, 2_500, 4_000}).Draw(t, "wait"),
			What:  rapid.SampledFrom(troubles).Draw(t, "what"),
			Edge:  rapid.IntRange(0, len(s.Clocks)-1).Draw(t, "edge"),
			For:   rapid.SampledFrom([]int64{2, 30, 400, 1_200, 3_000, 6_000, 12_000, 25_000}).Draw(t, "for"),
			By:    rapid.SampledFrom([]int64{-clockStep * 1_000, -2_500, -400, 400, 2_500, clockStep * 1_000}).Draw(t, "by"),
		}
	}), 0, 6).Draw(t, "faults")
	s.Pushes = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) push {
		p := push{Event: rapid.IntRange(0, events).Draw(t, "begins")}
		for i := range requests {
			p.Waits[i] = rapid.SampledFrom([]int64{0, 1, 3, 10, 30, 100, 600, 1_100, 2_500, sessionIdle + 2_000}).Draw(t, "waits")
			p.Takes[i] = rapid.SampledFrom([]int64{0, 4, 60, 120, 300, inFlight}).Draw(t, "takes")
			p.Edges[i] = rapid.IntRange(0, len(s.Clocks)-1).Draw(t, "through")
		}
		return p
	}), 0, 2).Draw(t, "pushes")
	return s
}

// want is how many schedules a test runs through.
func want() int {
	switch {
	case *modelSchedules > 0:
		return *modelSchedules
	case raced, testing.Short():
		return 1_000
	}
	return 3_000
}

// checks sets how many schedules rapid draws.
func checks(t testing.TB, n int) {
	t.Helper()
	if testing.Short() {
		n *= 5 // rapid runs a fifth then
	}
	for name, value := range map[string]string{"rapid.checks": strconv.Itoa(n), "rapid.nofailfile": "true", "rapid.shrinktime": "400ms"} {
		was := flag.Lookup(name).Value.String()
		require.NoError(t, flag.Set(name, value))
		t.Cleanup(func() { _ = flag.Set(name, was) })
	}
}

// Promises 1, 2, 4 and 6, whatever happens when: nobody writes to or reads from a backend that lacks what was acknowledged before, and every hold ends.
func TestNoScheduleBreaksTheCutover(t *testing.T) {
	const side = 2 // by side
	checks(t, (want()+side-1)/side)
	var ran, flips, events, longest atomic.Int64
	begin := time.Now()
	t.Run("schedules", func(t *testing.T) {
		for i := range side {
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				t.Parallel()
				rapid.Check(t, func(t *rapid.T) {
					w := run(schedules(t), rules{})
					ran.Add(1)
					flips.Add(int64(w.flips))
					events.Add(int64(w.events))
					for was := longest.Load(); w.longer > was && !longest.CompareAndSwap(was, w.longer); was = longest.Load() {
					}
					if w.wrong != "" {
						t.Fatal(told(w.schedule, rules{}))
					}
				})
			})
		}
	})
	require.GreaterOrEqual(t, int(ran.Load()), want())
	t.Logf("%d schedules with %d events and %d flips in %s; writes were held for at most %d ms after the last fault", ran.Load(), events.Load(), flips.Load(), time.Since(begin).Round(time.Millisecond), longest.Load())
}

// What the protocol did wrong until this model was written is found again.
func TestHolesOfTheProtocol(t *testing.T) {
	for _, c := range []struct {
		name string
		holes
	}{
		{"a single edge that was stopped reads from the new backend after its hold ran out", holes{oneStepForOne: true}},
		{"after a switch that failed, an edge still reads from the new backend while another writes to the old one", holes{backAtOnce: true}},
		{"a session that was opened at an edge which has opened to the new backend is unknown at one that has not", holes{switchedMeansOld: true}},
		{"on the way back, a session that never left is looked for on the backend that is left", holes{listsWhatIsElsewhere: true}},
		{"an edge worker that was cut off lets its nginx come back to the table from before a flip that went on without it", holes{trustsItself: true}},
		{"a node that may have missed a table takes one for the present that was on its way for long", holes{believesWhatItIsHanded: true}},
		{"what an edge acknowledged before it was left out is not carried over", holes{skipsUnread: true}},
	} {
		t.Run(c.name, func(t *testing.T) { caught(t, rules{holes: c.holes}) })
	}
	// Too seldom to look for them each time.
	for _, c := range []struct {
		name string
		holes
		schedule
	}{
		{
			"an edge that dies within a step past its hold takes that step although the hold ran out", holes{diskFirst: true},
			// Found by random schedule 9,340: edge 2 dies after the state is on disk and before the flags are raised.
			schedule{Clocks: make([]clock, 2), Lease: 4_000, Write: 300, Faults: []fault{{43, 0, crashWorker, 1, 4_700, 0}}},
		},
		{
			"a gate that was stopped does not know of a write in flight", holes{deafToPauses: true},
			schedule{Clocks: make([]clock, 1), Lease: 8_000, Write: inFlight, Faults: []fault{{3, 3, pauseWorker, 0, 6_000, 0}}},
		},
		{
			"the clock of a node is set back to before the hold, and its gate does not answer", holes{heldFromNow: true},
			schedule{
				Clocks: make([]clock, 2), Lease: 15_000, Write: 300,
				Faults: []fault{{30, 0, pauseRoutes, 0, 12_000, 0}, {15, 500, stepClock, 1, 0, -2_500}, {15, 503, crashWorker, 1, 1_200, 0}},
			},
		},
		{
			"a session that goes on is taken from the table because the nginx of one edge died", holes{reapsSessions: true},
			schedule{
				Clocks: make([]clock, 3), Lease: 4_000, Faults: []fault{{1, 500, crashNginx, 1, 400, 0}},
				Pushes: []push{{Edges: [requests]int{continues: 1}, Takes: [requests]int64{continues: inFlight}}},
			},
		},
		{
			"a commit is taken from the table before it was carried over, because no request goes on", holes{settlesWhatIsCarried: true},
			schedule{Clocks: make([]clock, 1), Lease: 4_000, Pushes: []push{{Waits: [requests]int64{600, 0, 0, 1}, Takes: [requests]int64{60, 300, 300, 120}}}},
		},
		{
			"on the way back, a switched edge answers a commit that is not carried over, and all return", holes{trustsSwitched: true},
			// Edge 2 does not switch, because its nginx is away.
			schedule{Clocks: make([]clock, 2), Lease: 15_000, Faults: []fault{{137, 0, crashNginx, 1, 25_000, 0}}, Pushes: []push{{Waits: [requests]int64{commits: 1_200}}}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.NotEmpty(t, run(c.schedule, rules{holes: c.holes}).wrong)
			t.Log(told(c.schedule, rules{holes: c.holes}))
			require.Empty(t, run(c.schedule, rules{}).wrong)
		})
	}
}

func TestBrokenProtocolsAreCaught(t *testing.T) {
	for _, c := range []struct {
		name string
		mutations
	}{
		{"held edges are switched without being prepared", mutations{skipsPrepared: true}},
		{"Routes opens the new backend though an edge did not switch", mutations{opensEarly: true}},
		{"Routes goes back after the release", mutations{backAfterRelease: true}},
		{"Routes goes forward whenever a hold runs out", mutations{alwaysForward: true}},
		{"a migration does not wait for writes in flight", mutations{neverDrains: true}},
		{"an edge takes a step past a hold that ran out", mutations{ignoresDeadline: true}},
		{"an edge does not look whether the hold lasted until the step", mutations{neverLooksBack: true}},
		{"an edge confirms before its state is on disk", mutations{acksEarly: true}},
		{"an edge does not write its state to disk", mutations{forgetsDisk: true}},
		{"an edge starts with the default backend", mutations{forgetsState: true}},
		{"an edge takes a table older than its own", mutations{takesStale: true}},
		{"an edge does not ask when its lease runs out", mutations{neverAsks: true}},
		{"prepared and switched edges open when their lease runs out", mutations{fallsOpen: true}},
		{"nginx does not end a hold by its own clock", mutations{holdsForever: true}},
		{"a flip takes no idle sessions along", mutations{listsNoSessions: true}},
		{"a flip takes no commits along", mutations{listsNoCommits: true}},
		{"a flip takes sessions along that have ended", mutations{ignoresClosed: true}},
		{"a release drops the uploads from the table", mutations{dropsUploads: true}},
		{"an upload is taken from the table before it was carried over", mutations{settlesFirst: true}},
		{"a migration ends while uploads go on", mutations{neverAwaitsUploads: true}},
		{"a gate lets commits pass", mutations{neverRelays: true}},
		{"a gate answers a commit before it was carried over", mutations{answersBeforeCarry: true}},
		{"a manifest does not wait for blobs that are being committed", mutations{namesAtOnce: true}},
		{"a gate forgets what ended between the drain and the table", mutations{forgetsLate: true}},
		{"nginx lets writes pass a gate that is away although uploads live elsewhere", mutations{neverStrict: true}},
	} {
		t.Run(c.name, func(t *testing.T) { caught(t, rules{mutations: c.mutations}) })
	}
}

// caught wants a schedule to be found that breaks the promises under these rules, and shows the shortest.
func caught(t *testing.T, r rules) {
	t.Helper()
	checks(t, max(want(), 30_000)) // the rarest was found after 8,356
	ran := 0
	var shortest schedule
	found := &finding{name: t.Name()}
	done := make(chan struct{})
	go func() { // rapid ends the goroutine of a test that fails
		defer close(done)
		rapid.Check(found, func(t *rapid.T) {
			w := run(schedules(t), r)
			if !found.Failed() && shortest.Lease == 0 {
				ran++
			}
			if w.wrong != "" {
				shortest = w.schedule
				t.Fatal("found")
			}
		})
	}()
	<-done
	require.NotZero(t, shortest.Lease, "%d schedules, and none of them shows it", ran)
	t.Logf("found by schedule %d:\n%s", ran, told(shortest, r))
}

func told(s schedule, r rules) string {
	r.tell = true
	w := run(s, r)
	return fmt.Sprintf("%s\n%s%s", w.wrong, s, strings.Join(w.trace, "\n"))
}

// finding is the test that rapid fails when it finds what it shall find.
type finding struct {
	rapid.TB
	name   string
	failed bool
}

func (f *finding) Name() string          { return f.name }
func (f *finding) Helper()               {}
func (f *finding) Logf(string, ...any)   {}
func (f *finding) Log(...any)            {}
func (f *finding) Errorf(string, ...any) { f.failed = true }
func (f *finding) Failed() bool          { return f.failed }
func (f *finding) FailNow()              { f.failed = true; runtime.Goexit() }
