package workflows

import (
	"errors"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"
)

// The retry policies of all activities are here. Final errors are marked by the activities themselves.

// small is for activities that take seconds, on the queue of workflows: a check, a message, writing a report. They are retried for up to limit.
func small(ctx workflow.Context, limit time.Duration, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: Queue, ScheduleToCloseTimeout: limit, StartToCloseTimeout: min(limit, time.Minute), Summary: summary,
		RetryPolicy: &temporal.RetryPolicy{InitialInterval: 250 * time.Millisecond, BackoffCoefficient: 2, MaximumInterval: 5 * time.Second},
	})
}

// looking is for checks on the queue of workflows that take longer than seconds: a worker that dies meanwhile is noticed by its heartbeat.
func looking(ctx workflow.Context, limit time.Duration, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: Queue, ScheduleToCloseTimeout: limit, StartToCloseTimeout: limit, HeartbeatTimeout: 5 * time.Second, Summary: summary,
		RetryPolicy: &temporal.RetryPolicy{InitialInterval: 250 * time.Millisecond, BackoffCoefficient: 2, MaximumInterval: 5 * time.Second},
	})
}

// toRoutes is for asking Routes for a change: the answer takes as long as the edges do, and a worker that dies meanwhile is noticed by its
// heartbeat.
func toRoutes(ctx workflow.Context, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: Queue, StartToCloseTimeout: 5 * time.Minute, HeartbeatTimeout: 5 * time.Second, Summary: summary,
		RetryPolicy: &temporal.RetryPolicy{InitialInterval: 250 * time.Millisecond, BackoffCoefficient: 2, MaximumInterval: 5 * time.Second},
	})
}

// onMover is for activities that carry or compare data. They are retried as long as it takes, within limit; 0 is no limit.
func onMover(ctx workflow.Context, limit time.Duration, summary string) workflow.Context {
	attempt := 7 * 24 * time.Hour // one attempt heartbeats all the while: it may take as long as it moves
	if limit > 0 {
		attempt = limit
	}
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: MoverQueue, StartToCloseTimeout: attempt, ScheduleToCloseTimeout: limit, HeartbeatTimeout: 10 * time.Second, Summary: summary,
		WaitForCancellation: true, // so that a pause learns how far the copy came
		RetryPolicy:         &temporal.RetryPolicy{InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: time.Minute},
	})
}

// onEdge is for activities on one proxy node. An edge that does not answer within limit is away.
func onEdge(ctx workflow.Context, edge string, limit time.Duration, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: EdgeQueue(edge), ScheduleToCloseTimeout: limit, StartToCloseTimeout: limit, HeartbeatTimeout: 5 * time.Second, Summary: summary,
		RetryPolicy: &temporal.RetryPolicy{InitialInterval: 100 * time.Millisecond, BackoffCoefficient: 2, MaximumInterval: 2 * time.Second},
	})
}

// waitingOnEdge is for what one proxy node may have to wait for, up to limit. An edge that does not begin with it within reach is away.
func waitingOnEdge(ctx workflow.Context, edge string, limit time.Duration, summary string) workflow.Context {
	ctx = onEdge(ctx, edge, reach+limit, summary)
	o := workflow.GetActivityOptions(ctx)
	o.ScheduleToStartTimeout = reach
	return workflow.WithActivityOptions(ctx, o)
}

// kindOf is the type of the application error in a failure, or "".
func kindOf(err error) string {
	var refused *temporal.ApplicationError
	if errors.As(err, &refused) {
		return refused.Type()
	}
	return ""
}

// because is the cause of a failure in words, without the wrapping of the machinery.
func because(err error) string {
	var refused *temporal.ApplicationError
	var late *temporal.TimeoutError
	switch {
	case errors.As(err, &refused):
		return refused.Message()
	case errors.As(err, &late):
		var inner *temporal.TimeoutError
		switch cause := errors.Unwrap(late); {
		case errors.As(cause, &inner):
			return "a worker took it, but it did not come to an end in time"
		case cause != nil:
			return "no success in time; the last try: " + because(cause)
		case late.TimeoutType() == enumspb.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE, late.TimeoutType() == enumspb.TIMEOUT_TYPE_SCHEDULE_TO_START:
			return "no answer in time: does its worker run?"
		}
		return "it did not come to an end in time"
	}
	return err.Error()
}

// oneTry is for checks and probes: a failure is an answer, and the round after it is the next try.
func oneTry(limit time.Duration, summary string) workflow.ActivityOptions {
	return workflow.ActivityOptions{
		TaskQueue: Queue, ScheduleToCloseTimeout: limit, Summary: summary, RetryPolicy: &temporal.RetryPolicy{MaximumAttempts: 1},
	}
}
