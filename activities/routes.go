package activities

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"golang.org/x/sync/semaphore"

	enumspb "go.temporal.io/api/enums/v1"

	"transship/internal/routing"
)

// Routes asks the Routes workflow, the only writer of the routing table, for changes. Temporal gives a workflow ten places for Updates under way; who is frozen must never wait for one.
type Routes struct {
	Client client.Client
	// Queue is the task queue of workflows.
	Queue string

	once sync.Once
	// turn is had by the one prefix that asks whether it may freeze, places by those that ask for what holds no writes.
	turn, places *semaphore.Weighted
}

// places is how many of this process ask Routes at once for what can wait.
const places = 4

func (r *Routes) init() {
	r.once.Do(func() { r.turn, r.places = semaphore.NewWeighted(1), semaphore.NewWeighted(places) })
}

// place waits for one of the places of those that can wait.
func (r *Routes) place(ctx context.Context) (leave func(), err error) {
	r.init()
	if err := r.places.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	return func() { r.places.Release(1) }, nil
}

// ClaimPrefix gives a prefix to a migration. It starts Routes when it is not there yet.
func (r *Routes) ClaimPrefix(ctx context.Context, q routing.Request) (routing.Routing, error) {
	defer beat(ctx, func() any { return nil })()
	leave, err := r.place(ctx)
	if err != nil {
		return routing.Routing{}, err
	}
	defer leave()
	start := r.Client.NewWithStartWorkflowOperation(client.StartWorkflowOptions{
		ID: routing.RoutesWorkflow, TaskQueue: r.Queue, WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		StaticSummary: "the routing table",
		StaticDetails: "The only writer of the routing table: it hands tables to the edges and reconciles edges that were away. It runs for as long as there are routes.",
	}, "Routes", routing.Routing{})
	handle, err := r.Client.UpdateWithStartWorkflow(ctx, client.UpdateWithStartWorkflowOptions{
		StartWorkflowOperation: start, UpdateOptions: r.update(ctx, routing.UpdateClaim, q),
	})
	return answer(ctx, handle, err)
}

// WatchPrefix has every edge watch the writes of a claimed prefix.
func (r *Routes) WatchPrefix(ctx context.Context, q routing.Request) (routing.Routing, error) {
	return r.patient(ctx, routing.UpdateWatch, q)
}

// HoldWrites has every edge park the writes of a watched prefix. Freezes come one at a time: Routes refuses one while another is under way, and is asked again, by one prefix of
// this process while the others wait here.
func (r *Routes) HoldWrites(ctx context.Context, q routing.Request) (routing.Routing, error) {
	defer beat(ctx, func() any { return nil })()
	r.init()
	begun := time.Now()
	waiting, cancel := context.WithTimeout(ctx, turnLimit)
	err := r.turn.Acquire(waiting, 1)
	cancel()
	if ctx.Err() != nil {
		return routing.Routing{}, ctx.Err()
	}
	if err == nil {
		defer r.turn.Release(1)
	}
	attempt := activity.GetInfo(ctx).Attempt
	for n := 0; ; n++ {
		q.Beside = time.Since(begun) > turnLimit
		o := r.update(ctx, routing.UpdateHold, q)
		o.UpdateID = fmt.Sprintf("%s/%d.%d", o.UpdateID, attempt, n) // asking again for the same hold changes nothing
		handle, err := r.Client.UpdateWorkflow(ctx, o)
		after, err := answer(ctx, handle, err)
		var refused *temporal.ApplicationError
		if !errors.As(err, &refused) || refused.Type() != routing.RefusedBusy {
			return after, err
		}
		select {
		case <-time.After(turnEvery/2 + rand.N(turnEvery)): //nolint:gosec // it only has to differ
		case <-ctx.Done():
			return after, ctx.Err()
		}
	}
}

const (
	// turnEvery is how often it is asked whether it is this prefix's turn to freeze.
	turnEvery = 100 * time.Millisecond
	// turnLimit is how long a freeze waits for those of other prefixes. One of them may be stuck until somebody looks after it.
	turnLimit = 2 * time.Minute
)

// FlipPrefix switches a held prefix to the other backend on every edge. Reads go there when it returns; writes are still parked.
func (r *Routes) FlipPrefix(ctx context.Context, q routing.Request) (routing.Routing, error) {
	return r.ask(ctx, routing.UpdateFlip, q)
}

// ReleaseWrites lets parked writes go on, to the backend that the prefix has.
func (r *Routes) ReleaseWrites(ctx context.Context, q routing.Request) (routing.Routing, error) {
	return r.ask(ctx, routing.UpdateRelease, q)
}

// DisownPrefix ends a migration's claim. The prefix stays where it is, open.
func (r *Routes) DisownPrefix(ctx context.Context, q routing.Request) (routing.Routing, error) {
	return r.askIfThere(ctx, routing.UpdateDisown, q)
}

// SettleUploads takes uploads from the routing table that have ended and were carried over.
func (r *Routes) SettleUploads(ctx context.Context, q routing.Request) (routing.Routing, error) {
	return r.askIfThere(ctx, routing.UpdateSettle, q)
}

// LeaveOutEdges has Routes go on without edges that an operator says are down.
func (r *Routes) LeaveOutEdges(ctx context.Context, q routing.Request) (routing.Routing, error) {
	return r.ask(ctx, routing.UpdateLeaveOut, q)
}

// SetCanary sets, changes or ends a read canary on every edge.
func (r *Routes) SetCanary(ctx context.Context, q routing.Request) (routing.Routing, error) {
	return r.patient(ctx, routing.UpdateCanary, q)
}

// ReadTable returns the present routing table. It is empty when nothing was ever routed.
func (r *Routes) ReadTable(ctx context.Context) (routing.Routing, error) {
	defer beat(ctx, func() any { return nil })()
	var now routing.Routing
	value, err := r.Client.QueryWorkflow(ctx, routing.RoutesWorkflow, "", routing.QueryTable)
	var absent *serviceerror.NotFound
	if errors.As(err, &absent) {
		return now, nil
	}
	if err != nil {
		return now, fmt.Errorf("ask %s for the routing table: %w", routing.RoutesWorkflow, err)
	}
	return now, value.Get(&now)
}

// update identifies an update by the activity that asks for it, so that a retry gets the answer of the first try.
func (r *Routes) update(ctx context.Context, name string, q routing.Request) client.UpdateWorkflowOptions {
	info := activity.GetInfo(ctx)
	return client.UpdateWorkflowOptions{
		WorkflowID: routing.RoutesWorkflow, UpdateName: name, Args: []any{q}, WaitForStage: client.WorkflowUpdateStageCompleted,
		UpdateID: fmt.Sprintf("%s/%s/%s", info.WorkflowExecution.ID, info.WorkflowExecution.RunID, info.ActivityID),
	}
}

func (r *Routes) ask(ctx context.Context, name string, q routing.Request) (routing.Routing, error) {
	defer beat(ctx, func() any { return nil })()
	return r.send(ctx, name, q)
}

func (r *Routes) send(ctx context.Context, name string, q routing.Request) (routing.Routing, error) {
	handle, err := r.Client.UpdateWorkflow(ctx, r.update(ctx, name, q))
	return answer(ctx, handle, err)
}

// patient is ask for what holds no writes.
func (r *Routes) patient(ctx context.Context, name string, q routing.Request) (routing.Routing, error) {
	defer beat(ctx, func() any { return nil })()
	leave, err := r.place(ctx)
	if err != nil {
		return routing.Routing{}, err
	}
	defer leave()
	return r.send(ctx, name, q)
}

// askIfThere is patient for what is so anyway without Routes: then there is no table, and no claim.
func (r *Routes) askIfThere(ctx context.Context, name string, q routing.Request) (routing.Routing, error) {
	after, err := r.patient(ctx, name, q)
	var absent *serviceerror.NotFound
	if errors.As(err, &absent) {
		return after, nil
	}
	return after, err
}

func answer(ctx context.Context, handle client.WorkflowUpdateHandle, err error) (routing.Routing, error) {
	var after routing.Routing
	if err == nil {
		err = handle.Get(ctx, &after)
	}
	var refused *temporal.ApplicationError
	if errors.As(err, &refused) {
		// What Routes refuses, it refuses for good; its kind tells the migration what to do.
		return after, temporal.NewNonRetryableApplicationError(refused.Message(), refused.Type(), nil)
	}
	if err != nil {
		return after, fmt.Errorf("ask %s: %w", routing.RoutesWorkflow, err)
	}
	return after, nil
}
