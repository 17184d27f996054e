package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.temporal.io/sdk/client"

	"transship/config"
	"transship/internal/edge"
	"transship/internal/routing"
	"transship/workflows"
)

// edgeNode is the edge role: the gate, and what follows this node's logs and leases.
type edgeNode struct {
	*edge.Edge
	name   string
	log    *slog.Logger
	server *http.Server
	stop   context.CancelFunc
	wait   sync.WaitGroup

	// asks takes the questions for Routes until there is a connection to ask them over.
	asks chan routing.EdgeAsks
	// temporal is nil until there is a connection.
	temporal atomic.Pointer[client.Client]
}

// newEdgeNode puts the generated files in place and starts the gate. It needs no Temporal: a hold of this node ends even when there is none.
func newEdgeNode(ctx context.Context, c *config.Config, name string, log *slog.Logger) (*edgeNode, error) {
	e := c.Edges[name]
	node := &edgeNode{name: name, log: log, asks: make(chan routing.EdgeAsks, 16)}
	settings := edge.Config{
		Name: name, Directory: e.Nginx.Directory, TestCommand: e.Nginx.TestCommand, ReloadCommand: e.Nginx.ReloadCommand,
		StatusURL: e.Nginx.StatusURL, GateAddress: e.GateAddress(), Journal: e.Journal, Traffic: e.Traffic, Fallbacks: e.Fallbacks,
		Reads: e.Nginx.Reads, State: e.State, RetryAfter: config.RefusedFor,
	}
	for _, backend := range c.BackendNames() {
		address, tls := c.Backends[backend].UpstreamAddress()
		settings.Upstreams = append(settings.Upstreams, edge.Upstream{Name: backend, Address: address, TLS: tls})
	}
	for _, p := range c.Prefixes {
		settings.Prefixes = append(settings.Prefixes, routing.Prefix(strings.TrimSuffix(p.Prefix, "/")))
	}
	var err error
	node.Edge, err = edge.New(settings, log, edge.Tell{Expired: func(r routing.Route) { node.ask(r.Hold) }, Carry: node.carry, Narrow: node.narrow})
	if err != nil {
		return nil, err
	}
	listener, err := listen(e.Gate)
	if err != nil {
		return nil, fmt.Errorf("edges.%s.gate: %w", name, err)
	}
	node.server = &http.Server{Handler: node.Gate(), ReadHeaderTimeout: 10 * time.Second}
	node.wait.Go(func() {
		if err := node.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("gate", "error", err)
		}
	})
	if err := node.Prepare(ctx, c.DefaultBackend); err != nil {
		node.close()
		return nil, err
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	node.stop = stop
	node.wait.Go(func() { _ = node.Run(running) })
	return node, nil
}

func listen(address string) (net.Listener, error) {
	path, unix := strings.CutPrefix(address, "unix:")
	if !unix {
		return net.Listen("tcp", address)
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	// Its group, which it has from a folder with the setgid bit, is nginx's: nobody else may ask.
	if err := os.Chmod(path, 0o660); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (n *edgeNode) close() {
	if n.stop != nil {
		n.stop()
	}
	_ = n.server.Close()
	n.wait.Wait()
}

// ask has Routes say what this node should be doing.
func (n *edgeNode) ask(ranOut string) {
	select {
	case n.asks <- routing.EdgeAsks{Edge: n.name, Table: n.Table(), RanOut: ranOut}:
	default: // there are questions enough in line
	}
}

// askRoutes passes questions on to Routes, the first of them at once: a node that starts may have missed a table.
func (n *edgeNode) askRoutes(ctx context.Context, c client.Client) {
	n.temporal.Store(&c)
	go n.catchUp(ctx, c)
	n.ask("")
	for {
		select {
		case <-ctx.Done():
			return
		case q := <-n.asks:
			for !n.signal(ctx, c, q) {
				select {
				case <-ctx.Done():
					return
				case <-time.After(time.Second):
				}
			}
		}
	}
}

func (n *edgeNode) signal(ctx context.Context, c client.Client, q routing.EdgeAsks) bool {
	attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err := c.SignalWithStartWorkflow(attempt, routing.RoutesWorkflow, routing.SignalEdgeAsks, q, client.StartWorkflowOptions{
		ID: routing.RoutesWorkflow, TaskQueue: workflows.Queue,
	}, workflows.Routes, routing.Routing{})
	if err != nil {
		n.log.Warn("Routes cannot be asked", "error", err)
	}
	return err == nil
}
