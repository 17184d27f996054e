package workflows

import (
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"transship/activities"
)

// patientCancel gives the test environment what it lacks: an activity with WaitForCancellation is told to stop, and the workflow waits for what it
// says then.
type patientCancel struct {
	interceptor.WorkerInterceptorBase
	world *world
}

func (p *patientCancel) InterceptWorkflow(_ workflow.Context, next interceptor.WorkflowInboundInterceptor) interceptor.WorkflowInboundInterceptor {
	in := &patientInbound{world: p.world}
	in.Next = next
	return in
}

type patientInbound struct {
	interceptor.WorkflowInboundInterceptorBase
	world *world
}

func (p *patientInbound) Init(next interceptor.WorkflowOutboundInterceptor) error {
	out := &patientOutbound{world: p.world}
	out.Next = next
	return p.Next.Init(out)
}

type patientOutbound struct {
	interceptor.WorkflowOutboundInterceptorBase
	world *world
}

func (p *patientOutbound) ExecuteActivity(ctx workflow.Context, name string, args ...any) workflow.Future {
	if !workflow.GetActivityOptions(ctx).WaitForCancellation || ctx.Err() != nil {
		return p.Next.ExecuteActivity(ctx, name, args...)
	}
	apart, cancel := workflow.NewDisconnectedContext(ctx)
	running := p.Next.ExecuteActivity(apart, name, args...)
	future, settle := workflow.NewFuture(ctx)
	workflow.Go(ctx, func(ctx workflow.Context) {
		defer cancel()
		told := workflow.Await(ctx, running.IsReady) != nil
		if told {
			p.world.stop(name)
		}
		var at activities.Cursor
		own, drop := workflow.NewDisconnectedContext(ctx) // a context belongs to its coroutine
		defer drop()
		if err := running.Get(own, &at); told && err == nil && p.world.hasStopped() {
			settle.SetError(temporal.NewCanceledError(at))
			return
		}
		settle.Chain(running)
	})
	return future
}

// told is the channel on which the activities of a name are told that they are cancelled.
func (w *world) told(name string) chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cancels[name] == nil {
		w.cancels[name] = make(chan struct{}, 10)
	}
	return w.cancels[name]
}

// stop may come before anybody waits for it.
func (w *world) stop(name string) {
	select {
	case w.told(name) <- struct{}{}:
	default:
	}
}

// untilStopped waits until an activity of a name is told to stop. What the caller returns is then where it stopped.
func (w *world) untilStopped(name string) {
	<-w.told(name)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
}

func (w *world) hasStopped() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	was := w.stopped
	w.stopped = false
	return was
}
