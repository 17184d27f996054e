package main

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"

	"transship/activities"
	"transship/config"
	"transship/internal/connect"
	"transship/workflows"
)

// work polls the task queues of the roles until ctx ends.
func work(ctx context.Context, c *config.Config, temporal client.Client, roles []string, node *edgeNode, log *slog.Logger) error {
	backends, err := connect.Backends(c)
	if err != nil {
		return err
	}
	stores, err := connect.Stores(ctx, c)
	if err != nil {
		return err
	}
	var workers []worker.Worker
	add := func(queue string, options worker.Options) worker.Worker {
		// Heartbeats carry a pause to long copies: they may not be saved up for long.
		options.MaxHeartbeatThrottleInterval = 2 * time.Second
		options.DefaultHeartbeatThrottleInterval = 2 * time.Second
		options.WorkerStopTimeout = 5 * time.Second
		w := worker.New(temporal, queue, options)
		workers = append(workers, w)
		return w
	}
	if slices.Contains(roles, roleWorkflows) {
		edges, err := connect.Edges(c)
		if err != nil {
			return err
		}
		senders, err := connect.Senders(c, log)
		if err != nil {
			return err
		}
		w := add(workflows.Queue, worker.Options{})
		workflows.Register(w)
		w.RegisterActivity(&activities.Routes{Client: temporal, Queue: workflows.Queue})
		w.RegisterActivity(&activities.Probes{Edges: edges, Backends: backends})
		w.RegisterActivity(&activities.Notifier{Senders: senders})
		w.RegisterActivity(&activities.Reports{Directory: c.Reports})
	}
	if slices.Contains(roles, roleMover) {
		w := add(workflows.MoverQueue, worker.Options{MaxConcurrentActivityExecutionSize: 16, DisableWorkflowWorker: true})
		w.RegisterActivity(&activities.Registries{Backends: backends, Stores: stores})
	}
	if node != nil {
		w := add(workflows.EdgeQueue(node.name), worker.Options{DisableWorkflowWorker: true})
		w.RegisterActivity(&activities.Edge{Edge: node.Edge})
		go node.askRoutes(ctx, temporal)
	}
	for _, w := range workers {
		if err := w.Start(); err != nil {
			return err
		}
		defer w.Stop()
	}
	log.Info("working", "roles", roles, "temporal", c.Temporal.Address, "namespace", c.Temporal.Namespace)
	<-ctx.Done()
	log.Info("stopping")
	return nil
}
