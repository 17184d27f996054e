package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"transship/internal/journal"
	"transship/internal/routing"
	"transship/workflows"
)

var errNoTemporal = errors.New("there is no connection to Temporal yet")

// carry has the migration bring what a backend acknowledged to the one that serves, and waits until it has.
func (n *edgeNode) carry(ctx context.Context, r routing.Route, from string, changes []journal.Change, ended []routing.Upload) error {
	q := workflows.CarryRequest{Edge: n.name, From: from, Changes: changes, Ended: ended}
	err := n.update(ctx, r.Owner, workflows.UpdateCarry, q)
	if err != nil {
		return fmt.Errorf("ask %s to carry over: %w", r.Owner, err)
	}
	return nil
}

// update sends a workflow an Update, and waits until it has been done.
func (n *edgeNode) update(ctx context.Context, workflowID, name string, argument any) error {
	c := n.temporal.Load()
	if c == nil {
		return errNoTemporal
	}
	handle, err := (*c).UpdateWorkflow(ctx, client.UpdateWorkflowOptions{
		WorkflowID: workflowID, UpdateName: name, UpdateID: uuid.NewString(), Args: []any{argument}, WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	if err != nil {
		return err
	}
	return handle.Get(ctx, nil)
}

// narrow has Routes take from every edge what a deletion would otherwise bring back. It gives up when the deletion has.
func (n *edgeNode) narrow(r routing.Route, d routing.Deletes) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		err := n.update(ctx, routing.RoutesWorkflow, routing.UpdateNarrow, routing.Request{Prefix: r.Prefix, Owner: r.Owner, Deletes: d})
		if err == nil {
			return
		}
		n.log.Warn("a deletion waits until nothing is read from the other backend any more", "prefix", r.Prefix, "error", err)
		pause(ctx, time.Second)
	}
}

// catchUp asks for the present table whenever this node may have missed one, until it has it.
func (n *edgeNode) catchUp(ctx context.Context, c client.Client) {
	said := ""
	for ctx.Err() == nil {
		why := ""
		if n.Unsure() {
			if err := n.fetch(ctx, c); err != nil {
				why = err.Error()
			}
		}
		if why != said && why != "" {
			n.log.Warn("writes of known prefixes wait or are refused", "error", why)
		}
		said = why
		pause(ctx, time.Second)
	}
}

func (n *edgeNode) fetch(ctx context.Context, c client.Client) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	served := time.Now()
	if !n.Serves(ctx) {
		return errors.New("nginx does not answer")
	}
	value, err := c.QueryWorkflow(ctx, routing.RoutesWorkflow, "", routing.QueryTable)
	var absent *serviceerror.NotFound
	if errors.As(err, &absent) {
		return n.CaughtUp(ctx, nil, served) // nothing was ever routed
	}
	var now routing.Routing
	if err == nil {
		err = value.Get(&now)
	}
	if err != nil {
		return err
	}
	for _, e := range now.Edges {
		if e.Edge == n.name && e.LeftOut {
			return errors.New("flips go on without this node, by order, until Routes has handed it the table")
		}
	}
	if now.Table.Default == "" {
		return n.CaughtUp(ctx, nil, served)
	}
	return n.CaughtUp(ctx, &now.Table, served)
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
