package workflows

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/interceptor"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"transship/activities"
	"transship/internal/edge"
	"transship/internal/journal"
	"transship/internal/monitor"
	"transship/internal/notify"
	"transship/internal/policy"
	"transship/internal/registry"
	"transship/internal/report"
	"transship/internal/routing"
)

// world is everything outside of a migration: two backends, two edges with their journals, the routing table, chats, and clients that push all the
// while. Its activities (world_activities_test.go) have the names of the real ones. Tests turn its knobs and then look whether the promises held.
type world struct {
	t   *testing.T
	env *testsuite.TestWorkflowEnvironment

	mu sync.Mutex
	// over says that the workflow has ended.
	over    bool
	calls   map[string]int
	before  map[string]func(call int) error
	after   map[string]func(call int) error
	content map[string]map[string]string // by backend, then repository:tag
	journal map[string][]write           // by edge
	acked   map[string]string            // what clients were told is stored
	parked  []write
	pushes  int
	quiet   bool // clients push nothing by themselves
	// drainLost has drains find a write of restricted/r1:unknown whose nginx process died.
	drainLost bool
	// start is when the migration begins, for a test to which the time of day matters; zero is now.
	start time.Time
	// unattended lets the environment end while messages to people are still on their way.
	unattended bool
	lossy      bool // somebody accepted that pushes are lost

	route    routing.Route
	switches []string // who served, in order
	// holds are the names of the freezes that were begun; open is how many are in place.
	holds []string

	findings  []edge.Finding
	together  []edge.Finding // of two backends
	pushed    []string       // the repositories that these were looked at through
	room      activities.MeasureRoomResult
	plan      report.Plan
	broken    []registry.Problem // what audits find
	extra     []registry.Difference
	traffic   monitor.Sample
	lost      []string // edges whose journal has lost its past, once each
	cursors   []activities.Cursor
	mirrored  []activities.MirrorParams
	mirroring func(p activities.MirrorParams, at *activities.Cursor) (goOn bool)
	verified  []activities.VerifyParams
	applied   []activities.ApplyParams
	messages  []notify.Message
	reports   []report.Report
	// open is what drains find, late how many uploads outlast the flip at each edge, settled what was taken from the table.
	open        []routing.Upload
	stored      []routing.Upload // what the store shows
	away        []string         // edges that do not answer EdgeStatus
	late        int
	settled     []routing.Upload
	flippedWith []routing.Request
	canaries    []int // percentages; -1 is the end of one
	fallbacks   edge.Fallbacks
	// cancels has a channel for each activity that was told to stop.
	cancels map[string]chan struct{}
	stopped bool // an activity has ended because it was told to
}

type write struct {
	edge, backend, repository, tag, digest string
	deleted                                bool
}

func (x write) key() string { return x.repository + ":" + x.tag }

// newWorld has eight repositories with one tag each on "old".
func newWorld(t *testing.T) *world {
	w := &world{
		t: t, calls: map[string]int{}, before: map[string]func(int) error{}, after: map[string]func(int) error{},
		content: map[string]map[string]string{"old": {}, "new": {}}, journal: map[string][]write{}, acked: map[string]string{},
		cancels: map[string]chan struct{}{},
	}
	w.route = routing.Route{Prefix: "restricted", Backend: "old", Mode: routing.Open}
	for i := range 8 {
		w.put(write{backend: "old", repository: fmt.Sprintf("restricted/r%d", i), tag: "v1", digest: "sha256:seed"})
	}
	return w
}

// input is a migration that needs nobody: no approval, a soak of five minutes. Tests change what they are about.
func input(changes ...func(*MigrateInput)) MigrateInput {
	p := policy.Default()
	p.Approval.Required = false
	p.Soak = policy.Soak{Duration: 5 * time.Minute, Interval: 30 * time.Second, Finalize: policy.Automatic}
	p.Mirror.Repositories = 1
	p.Mirror.ListingLag = 0 // this world's listings do not lag
	in := MigrateInput{
		Prefix: "restricted", From: "old", To: "new", Probe: "restricted/transship-probe", Default: "old", Edges: []string{"edge-1", "edge-2"},
		Policy: p, Operator: "olga", Notify: []string{"chat"},
	}
	for _, change := range changes {
		change(&in)
	}
	return in
}

// migrate runs a migration to its end, through as many runs as it takes, and checks what must always hold.
func (w *world) migrate(in MigrateInput) (report.Report, error) {
	w.t.Helper()
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	w.env = suite.NewTestWorkflowEnvironment()
	w.env.SetTestTimeout(10 * time.Second)
	w.env.SetWorkerOptions(worker.Options{Interceptors: []interceptor.WorkerInterceptor{&patientCancel{world: w}}})
	w.env.SetDetachedChildWait(!w.unattended)
	if !w.start.IsZero() {
		w.env.SetStartTime(w.start)
	}
	w.env.OnSignalExternalWorkflow(mock.Anything, mock.Anything, mock.Anything, mock.Anything, mock.Anything).Return(nil) // in a continued run
	w.env.RegisterWorkflow(Announcements)
	w.env.RegisterActivity(&fakes{w})
	w.setOver(false)
	w.env.ExecuteWorkflow(Migrate, in)
	w.setOver(true)
	require.True(w.t, w.env.IsWorkflowCompleted())
	err := w.env.GetWorkflowError()
	var r report.Report
	switch {
	case err == nil:
		require.NoError(w.t, w.env.GetWorkflowResult(&r))
	case workflow.IsContinueAsNewError(err):
		return r, err
	default:
		var failed *temporal.ApplicationError
		var cancelled *temporal.CanceledError
		if errors.As(err, &failed) && failed.HasDetails() {
			require.NoError(w.t, failed.Details(&r))
		} else if errors.As(err, &cancelled) && cancelled.HasDetails() {
			require.NoError(w.t, cancelled.Details(&r))
		}
	}
	w.check()
	return r, err
}

func (w *world) setOver(over bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = over
}

// check looks at the promises: no hold is left, nobody claims the prefix, and whoever serves it has every acknowledged push.
func (w *world) check() {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	require.False(w.t, w.route.Mode.Parks(), "a hold is left: %+v", w.route)
	require.Empty(w.t, w.parked, "writes are still parked")
	require.Empty(w.t, w.route.Owner, "the claim was not given up")
	for key, digest := range w.acked {
		if w.lossy {
			break
		}
		require.Equal(w.t, digest, w.content[w.route.Backend][key], "%s, acknowledged, is not on %s, which serves it", key, w.route.Backend)
	}
}

// put stores something without any client, as if it had always been there.
func (w *world) put(x write) {
	w.content[x.backend][x.key()] = x.digest
	if x.backend == w.route.Backend {
		w.acked[x.key()] = x.digest
	}
}

// push is a client that pushes a tag through an edge. The write waits while the prefix is held.
func (w *world) push(edge, repository, tag string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pushLocked(edge, repository, tag)
}

func (w *world) pushLocked(edge, repository, tag string) {
	w.pushes++
	x := write{edge: edge, repository: repository, tag: tag, digest: fmt.Sprintf("sha256:%d", w.pushes)}
	if w.route.Mode.Parks() {
		w.parked = append(w.parked, x)
		return
	}
	w.accept(x)
}

func (w *world) accept(x write) {
	x.backend = w.route.Backend
	w.content[x.backend][x.key()] = x.digest
	w.acked[x.key()] = x.digest
	w.journal[x.edge] = append(w.journal[x.edge], x)
}

// remove is a client that deletes a tag.
func (w *world) remove(edge, repository, tag string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	x := write{edge: edge, backend: w.route.Backend, repository: repository, tag: tag, deleted: true}
	delete(w.content[x.backend], x.key())
	delete(w.acked, x.key())
	w.journal[edge] = append(w.journal[edge], x)
}

// serve sets mode and backend of the route; parked writes go on when it parks no more.
func (w *world) serve(mode routing.Mode, backend string) {
	if w.route.Backend != backend {
		w.switches = append(w.switches, backend)
		w.route.Other = w.route.Backend
	}
	w.route.Mode, w.route.Backend = mode, backend
	if mode.Parks() {
		return
	}
	w.route.Hold = ""
	for _, x := range w.parked {
		w.accept(x)
	}
	w.parked = nil
}

// loseHold is a lease that runs out.
func (w *world) loseHold() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.serve(routing.Watched, w.route.Backend)
}

func (w *world) routing() routing.Routing {
	return routing.Routing{Table: routing.Table{Generation: 1, Default: "old", Routes: []routing.Route{w.route}}}
}

func (w *world) count(name string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.calls[name]
}

// reply is what became of a command.
type reply struct {
	answer Answer
	err    error
	// heard is closed when the command was taken or refused; refused says which.
	heard    chan struct{}
	refused  bool
	finished bool
}

func (r *reply) Accept()          { close(r.heard) }
func (r *reply) Reject(err error) { r.refused, r.err = true, err; close(r.heard) }
func (r *reply) Complete(success any, err error) {
	r.err, r.finished = err, true
	if a, ok := success.(Answer); ok {
		r.answer = a
	}
}

// order tells the migration something. Called from an activity it may wait for heard.
func (w *world) order(update string, c Command) *reply {
	r := &reply{heard: make(chan struct{})}
	w.env.RegisterDelayedCallback(func() { w.env.UpdateWorkflow(update, "", r, c) }, 0)
	return r
}

// orderIn does so and waits until the migration has heard it; only for use within activities.
func (w *world) orderIn(update string, c Command) *reply {
	r := w.order(update, c)
	<-r.heard
	return r
}

// at does something when so much time has passed.
func (w *world) at(d time.Duration, do func()) {
	w.atStart(func() { w.env.RegisterDelayedCallback(do, d) })
}

// atStart does something when the first activity runs.
func (w *world) atStart(do func()) {
	was := w.before["ClaimPrefix"]
	w.before["ClaimPrefix"] = func(call int) error {
		if call == 1 {
			do()
		}
		if was != nil {
			return was(call)
		}
		return nil
	}
}

// status asks the migration how it stands.
func (w *world) status() Status {
	value, err := w.env.QueryWorkflow(QueryStatus)
	require.NoError(w.t, err)
	var s Status
	require.NoError(w.t, value.Get(&s))
	return s
}

// Knobs for before and after.

var errDown = errors.New("connection refused")

// first fails the first n calls.
func first(n int, err error) func(int) error {
	return func(call int) error {
		if call <= n {
			return err
		}
		return nil
	}
}

// on does something at one call.
func on(call int, do func()) func(int) error {
	return func(n int) error {
		if n == call {
			do()
		}
		return nil
	}
}

// final is an error that is not retried.
func final(kind string) error {
	return temporal.NewNonRetryableApplicationError("made to fail: "+kind, kind, nil)
}

func always(err error) func(int) error { return func(int) error { return err } }

// firstOfSoak is the first probe that the soak makes: the step before it has probed both edges.
const firstOfSoak = 3

// took names the steps of a report.
func took(r report.Report) []string {
	var names []string
	for _, s := range r.Steps {
		names = append(names, s.Name)
	}
	return names
}

// said tells whether a message with this title was sent, and at which level.
func (w *world) said(title string) (notify.Message, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.messages {
		if m.Title == "restricted: "+title {
			return m, true
		}
	}
	return notify.Message{}, false
}

func position(n int) journal.Position { return journal.Position{File: 1, Offset: int64(n)} }

// at0 does something when so much time has passed from now; for use within activities.
func (w *world) in(d time.Duration, do func()) { w.env.RegisterDelayedCallback(do, d) }

func (w *world) heldNow() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.route.Mode.Parks()
}
