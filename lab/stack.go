// Package lab runs the real thing on one machine: registries, an nginx edge, Temporal and workers, as processes on free loopback ports in one
// folder. The demo, the tests and the benchmarks share it. It stops exactly what it started.
package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"go.temporal.io/sdk/client"
	"golang.org/x/sync/errgroup"

	"transship/config"
	"transship/lab/servers"
)

// Process is one program of the lab. It may be killed and started again.
type Process = servers.Process

// Options say what to run.
type Options struct {
	// Dir takes everything: data, logs, configuration.
	Dir string
	// Bin is the folder of transship, transship-worker and transship-devserver.
	Bin string
	// Adapt changes the configuration before it is written; it may be nil.
	Adapt Adapt
	// Parts are what runs beyond two registries on local disk behind one edge.
	Parts Parts
	// Edges is how many there are, at least.
	Edges Edges
	// Lag is how far the listings of Swift lag behind that workers see; the registry itself sees it as it is.
	Lag Lag
	// Swift and Ceph are stores that run already, for those parts; the stack starts its own when they are nil.
	Swift *servers.Swift
	Ceph  *servers.Ceph
}

// Stack is a running lab.
type Stack struct {
	Options
	Addresses Addresses
	Temporal  client.Client
	// Edges are the proxy nodes; Nginx and EdgeWorker belong to the first.
	Edges []*Edge

	Old, New, Devserver, Nginx, Worker, EdgeWorker *Process
	// stores end after everything that was started, because that uses them.
	stores, started servers.Group
	ownCeph         bool
	// lagging is what workers see Swift through; nil without Lag.
	lagging *servers.Lagging
	// metrics are what Prometheus asks, by job.
	metrics map[string]string
}

// Addresses is where everything is, for people and scripts.
type Addresses struct {
	Config    string `json:"config"`
	Temporal  string `json:"temporal"`
	Namespace string `json:"namespace"`
	UI        string `json:"ui"`
	// Edge is the first of Edges.
	Edge  string   `json:"edge"`
	Edges []string `json:"edges"`
	Old   string   `json:"old"`
	New   string   `json:"new"`
	// Stores are nil when the registries keep what they have on local disk.
	Stores     *Stores `json:"stores,omitempty"`
	Prometheus string  `json:"prometheus,omitempty"`
	// IRC is host:port.
	IRC       string            `json:"irc,omitempty"`
	Reports   string            `json:"reports"`
	PushUser  string            `json:"push_user"`
	PullUser  string            `json:"pull_user"`
	Password  string            `json:"password"`
	Processes []servers.Running `json:"processes"`
}

// The users of the lab's edge. They guard nothing but loopback ports.
const (
	PushUser = "ci"
	PullUser = "node"
	Password = "lab"
)

// Up brings a stack up, with everything ready to serve. Tests call Start.
func Up(ctx context.Context, o Options) (*Stack, error) {
	if err := present(o.Bin); err != nil {
		return nil, err
	}
	s := &Stack{Options: o}
	if err := s.layOut(); err != nil {
		return nil, err
	}
	err := s.start(ctx)
	if err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

func present(bin string) error {
	var missing []error
	for _, name := range []string{"nginx", "docker-registry", filepath.Join(bin, "transship"), filepath.Join(bin, "transship-worker"), filepath.Join(bin, "transship-devserver")} {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, fmt.Errorf("%w: `make packages build devserver` provides it", err))
		}
	}
	return errors.Join(missing...)
}

// layOut makes the folders and chooses the addresses.
func (s *Stack) layOut() error {
	for _, dir := range []string{"log", "old", "new", "temporal", "edge", "reports", "secrets"} {
		if err := os.MkdirAll(s.path(dir), 0o755); err != nil {
			return fmt.Errorf("lay out the lab: %w", err)
		}
	}
	free, err := servers.FreePorts(4)
	if err != nil {
		return err
	}
	s.Addresses = Addresses{
		Config: s.path("transship.yaml"), Temporal: free[0], Namespace: "transship", UI: "http://" + free[1],
		Old: "http://" + free[2], New: "http://" + free[3], Reports: s.path("reports"),
		PushUser: PushUser, PullUser: PullUser, Password: Password,
	}
	if err := s.layOutEdges(); err != nil {
		return fmt.Errorf("lay out the lab: %w", err)
	}
	return nil
}

func (s *Stack) path(name string) string { return filepath.Join(s.Dir, name) }

func (s *Stack) process(name string, ready func(context.Context) error, args ...string) *Process {
	return &Process{Name: name, Args: args, Log: s.path("log/" + name + ".log"), Ready: ready}
}

func (s *Stack) start(ctx context.Context) error {
	s.Devserver = s.devserver()
	var starting errgroup.Group
	starting.Go(func() error { return s.started.Start(ctx, s.Devserver) })
	starting.Go(func() error { return s.startStores(ctx) })
	if err := starting.Wait(); err != nil {
		return err
	}
	if err := errors.Join(s.writeConfig(), s.writeSites(), s.prepareRegistries()); err != nil {
		return err
	}
	if err := s.started.Start(ctx, s.Old, s.New); err != nil {
		return err
	}
	if err := s.startEdges(ctx); err != nil {
		return err
	}
	s.Worker = s.process("worker", nil, filepath.Join(s.Bin, "transship-worker"), "--config", s.Addresses.Config, "--role", "workflows", "--role", "mover")
	if err := s.started.Start(ctx, s.Worker); err != nil {
		return err
	}
	if err := s.startExtras(ctx); err != nil {
		return err
	}
	var err error
	s.Temporal, err = client.DialContext(ctx, client.Options{HostPort: s.Addresses.Temporal, Namespace: s.Addresses.Namespace, Logger: quiet{}})
	if err != nil {
		return fmt.Errorf("connect to the devserver: %w", err)
	}
	s.Addresses.Processes = append(s.stores.Running(), s.started.Running()...)
	return nil
}

func (s *Stack) devserver() *Process {
	ready := s.path("temporal/ready.json")
	return s.process("devserver", func(context.Context) error {
		_, err := os.Stat(ready)
		return err
	}, filepath.Join(s.Bin, "transship-devserver"), "--listen", s.Addresses.Temporal, "--ui", s.Addresses.UI[len("http://"):],
		"--data", s.path("temporal/temporal.db"), "--namespace", s.Addresses.Namespace, "--ready-file", ready)
}

// Stop ends everything, the last started first.
func (s *Stack) Stop() {
	if s.Temporal != nil {
		s.Temporal.Close()
	}
	s.started.Stop()
	if s.lagging != nil {
		s.lagging.Close()
	}
	s.stores.Stop()
	for _, e := range s.Edges {
		if e.Link != nil {
			e.Link.Close()
		}
	}
}

// Leave writes the addresses to a file and leaves everything running.
func (s *Stack) Leave(path string) error {
	raw, err := json.MarshalIndent(s.Addresses, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(raw, '\n'), 0o644)
}

// Down stops a stack that was left running.
func Down(path string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("nothing to stop: %w", err)
	}
	var a Addresses
	if err := json.Unmarshal(raw, &a); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	var errs []error
	for _, r := range slices.Backward(a.Processes) {
		errs = append(errs, r.End())
	}
	return errors.Join(append(errs, os.Remove(path))...)
}

// Transship runs the command line against the stack, and returns what it printed.
func (s *Stack) Transship(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(s.Bin, "transship"), append([]string{"--config", s.Addresses.Config}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("transship %v: %w: %s", args, err, out)
	}
	return string(out), nil
}

// Configuration loads the configuration that the stack runs with.
func (s *Stack) Configuration() (*config.Config, error) {
	return config.Load(s.Addresses.Config, nil, config.NeedSecrets)
}

// quiet keeps the Temporal client from logging into the demo's output.
type quiet struct{}

func (quiet) Debug(string, ...any) {}
func (quiet) Info(string, ...any)  {}
func (quiet) Warn(string, ...any)  {}
func (quiet) Error(string, ...any) {}
