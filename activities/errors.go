// Package activities is everything a workflow does to the world: one struct per concern, holding its clients. What an activity
// does is in internal/…; retries, heartbeats and the kinds of errors belong here.
package activities

import (
	"context"
	"errors"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"transship/internal/edge"
	"transship/internal/gate"
	"transship/internal/notify"
	"transship/internal/objectstore"
	"transship/internal/registry"
	"transship/internal/routing"
)

// Kinds of final errors, as Temporal application error types, beside those of internal/routing.
const (
	// KindBroken: the source cannot serve an image whole. Its details are the []registry.Problem.
	KindBroken = "BrokenSource"
	// KindRefused: a registry or chat refuses in a way that trying again does not change.
	KindRefused = "Refused"
	// KindConfig: the worker's configuration lacks something that the workflow names.
	KindConfig = "Configuration"
)

// final gives errors that cannot be helped by trying again their kind, and leaves the others to the retry policy.
func final(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	var broken *registry.BrokenError
	var problem *registry.Problem
	var answered *registry.Error
	as := func(kind string, details ...any) error {
		return temporal.NewNonRetryableApplicationError(err.Error(), kind, err, details...)
	}
	switch {
	case errors.As(err, &broken):
		return as(KindBroken, broken.Problems)
	case errors.As(err, &problem):
		return as(KindBroken, []registry.Problem{*problem})
	case errors.Is(err, edge.ErrHoldLost):
		return as(routing.RefusedHoldLost)
	case errors.Is(err, gate.ErrNotDrained):
		return as(routing.RefusedNotDrained)
	case errors.Is(err, edge.ErrStale):
		return as(routing.RefusedStale)
	case errors.Is(err, edge.ErrRejected), errors.Is(err, edge.ErrUnwritable):
		return as(routing.RefusedFiles)
	case errors.As(err, &answered) && !registry.IsTemporary(err), objectstore.IsFinal(err), notify.IsFinal(err):
		return as(KindRefused)
	}
	return err
}

// beat heartbeats every second with what details returns, until stop is called, so that a pause or a cancellation reaches a long activity
// soon, and the next attempt knows how far this one came.
func beat(ctx context.Context, details func() any) (stop func()) {
	done := make(chan struct{})
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			activity.RecordHeartbeat(ctx, details())
			select {
			case <-done:
				return
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
	return func() { close(done); <-finished }
}
