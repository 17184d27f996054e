package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"transship/config"
	"transship/internal/connect"
	"transship/internal/routing"
	"transship/workflows"
)

// desk is an open connection with the configuration that led to it.
type desk struct {
	client.Client
	config  *config.Config
	timeout time.Duration
}

// open loads the configuration and connects to Temporal. The caller closes it.
func (a *app) open(ctx context.Context) (*desk, error) {
	c, err := a.load(config.IgnoreSecrets)
	if err != nil {
		return nil, err
	}
	return a.connect(ctx, c)
}

func (a *app) connect(ctx context.Context, c *config.Config) (*desk, error) {
	// The SDK's own log is of no use to somebody who typed one command: errors are returned.
	temporal, err := connect.Temporal(ctx, c.Temporal, slog.New(slog.NewTextHandler(io.Discard, nil)), connect.Once)
	if err != nil {
		return nil, unreachable("%w", err)
	}
	return &desk{Client: temporal, config: c, timeout: a.timeout}, nil
}

// link is where the Temporal UI shows a workflow; run may be empty for the latest.
func link(c *config.Config, id, run string) string {
	if c.Temporal.UI == "" {
		return ""
	}
	l := strings.TrimSuffix(c.Temporal.UI, "/") + "/namespaces/" + url.PathEscape(c.Temporal.Namespace) + "/workflows/" + url.PathEscape(id)
	if run != "" {
		l += "/" + url.PathEscape(run) + "/user-metadata"
	}
	return l
}

// fresh is how long ago a poll may have begun for its poller to count as there: an empty long poll lasts about a minute.
const fresh = 70 * time.Second

// polled reports whether a worker polls a task queue.
func (d *desk) polled(ctx context.Context, queue string, kind enumspb.TaskQueueType) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	answer, err := d.DescribeTaskQueue(ctx, queue, kind)
	if err != nil {
		return false, fmt.Errorf("who polls the task queue %s: %w", queue, err)
	}
	for _, p := range answer.GetPollers() {
		if time.Since(p.GetLastAccessTime().AsTime()) < fresh {
			return true, nil
		}
	}
	return false, nil
}

const cureWorkflows = "start one: transship-worker --config FILE --role workflows"

// silent explains why a workflow did not answer in time.
func (d *desk) silent(ctx context.Context, what string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	polled, err := d.polled(ctx, workflows.Queue, enumspb.TASK_QUEUE_TYPE_WORKFLOW)
	switch {
	case err != nil:
		return unreachable("%s: Temporal no longer answers: %w", what, err)
	case !polled:
		return unreachable("%s: no worker polls the task queue %s; %s", what, workflows.Queue, cureWorkflows)
	}
	return unreachable("%s: no answer within %s, although a worker polled the task queue %s lately: does it still run?", what, d.timeout, workflows.Queue)
}

// late reports whether an error says that nobody answered in time.
func late(err error) bool {
	var deadline *serviceerror.DeadlineExceeded
	var update *client.WorkflowUpdateServiceTimeoutOrCanceledError
	return errors.As(err, &deadline) || errors.As(err, &update) || errors.Is(err, context.DeadlineExceeded)
}

// absent reports whether an error says that there is no such workflow, or none that runs.
func absent(err error) bool {
	var notFound *serviceerror.NotFound
	return errors.As(err, &notFound)
}

// query asks a workflow until ctx ends: the server gives up on a silent worker long before.
func (d *desk) query(ctx context.Context, id, run, name string) (converter.EncodedValue, error) {
	for {
		value, err := d.QueryWorkflow(ctx, id, run, name)
		if !late(err) || ctx.Err() != nil {
			return value, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// routing asks Routes for the present table. It is empty when nothing was ever routed.
func (d *desk) routing(ctx context.Context) (routing.Routing, bool, error) {
	var now routing.Routing
	const what = "the routing table"
	bounded, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	value, err := d.query(bounded, routing.RoutesWorkflow, "", routing.QueryTable)
	switch {
	case absent(err):
		return now, false, nil
	case late(err) && ctx.Err() == nil:
		return now, false, d.silent(ctx, what)
	case err != nil:
		return now, false, fmt.Errorf("%s: %w", what, err)
	}
	if err := value.Get(&now); err != nil {
		return now, false, fmt.Errorf("%s: %w", what, err)
	}
	return now, true, nil
}
