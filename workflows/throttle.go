package workflows

import (
	"fmt"

	"github.com/dustin/go-humanize"
	"go.temporal.io/sdk/workflow"

	"transship/activities"
)

// DecisionBounds is how the decision to bound the copies begins in a report.
const DecisionBounds = "bounds the copies: "

func (m *migration) mayThrottle(_ workflow.Context, c Command) error {
	if err := m.over(); err != nil {
		return err
	}
	switch t := c.Throttle; {
	case !m.Storage:
		return refusal("Command", "the images of %s move through the registries, where copies are bounded by policy.mirror only", m.Prefix)
	case t.Bandwidth < 0 || t.Requests < 0:
		return refusal("Command", "throttle: bandwidth is %d and requests is %d; neither may be below 0", t.Bandwidth, t.Requests)
	case t == m.state.Throttle:
		return refusal("Command", "the copies of %s are bounded so already: %s", m.Prefix, bounds(t))
	}
	return nil
}

// throttle bounds copies from now on: those under way stop, and go on from where they were with the new bounds.
func (m *migration) throttle(_ workflow.Context, c Command) (string, error) {
	m.decide(c.By, DecisionBounds+bounds(c.Throttle), c.Reason)
	m.state.Throttle = c.Throttle
	return "copies go on with " + bounds(c.Throttle), nil
}

func bounds(t activities.Throttle) string {
	bandwidth, requests := "any bandwidth", "any number of requests"
	if t.Bandwidth > 0 {
		bandwidth = humanize.IBytes(uint64(t.Bandwidth)) + "/s"
	}
	if t.Requests > 0 {
		requests = fmt.Sprintf("%d requests/s", t.Requests)
	}
	return bandwidth + ", " + requests
}

// throttled does something long that is begun again, from where it was, whenever the bounds change.
func (m *migration) throttled(ctx workflow.Context, work func(workflow.Context) error) error {
	for {
		bound, done := m.state.Throttle, false
		inner, cancel := workflow.WithCancel(ctx)
		workflow.Go(inner, func(ctx workflow.Context) {
			if workflow.Await(ctx, func() bool { return done || m.state.Throttle != bound }) == nil && !done {
				cancel()
			}
		})
		err := work(inner)
		done = true
		changed := inner.Err() != nil && ctx.Err() == nil
		cancel()
		if err == nil || !changed {
			return err
		}
	}
}
