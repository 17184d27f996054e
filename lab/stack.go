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
	Adapt func(*Settings)
}

// Stack is a running lab.
type Stack struct {
	Options
	Addresses Addresses
	Temporal  client.Client

	Old, New, Devserver, Nginx, Worker, EdgeWorker *Process
	started                                        []*Process
}

// Addresses is where everything is, for people and scripts.
type Addresses struct {
	Config    string            `json:"config"`
	Temporal  string            `json:"temporal"`
	Namespace string            `json:"namespace"`
	UI        string            `json:"ui"`
	Edge      string            `json:"edge"`
	Old       string            `json:"old"`
	New       string            `json:"new"`
	Gate      string            `json:"gate"`
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

// Start brings a stack up, with everything ready to serve.
func Start(ctx context.Context, o Options) (*Stack, error) {
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
			missing = append(missing, fmt.Errorf("%w: `make build` and `make tools` provide it", err))
		}
	}
	return errors.Join(missing...)
}

// layOut makes the folders and chooses the addresses.
func (s *Stack) layOut() error {
	for _, dir := range []string{"log", "old", "new", "temporal", "nginx/generated", "nginx/temp", "edge", "reports", "secrets"} {
		if err := os.MkdirAll(filepath.Join(s.Dir, dir), 0o755); err != nil {
			return fmt.Errorf("lay out the lab: %w", err)
		}
	}
	free, err := servers.FreePorts(6)
	if err != nil {
		return err
	}
	s.Addresses = Addresses{
		Config: s.path("transship.yaml"), Temporal: free[0], Namespace: "transship", UI: "http://" + free[1], Edge: "http://" + free[2],
		Old: "http://" + free[3], New: "http://" + free[4], Gate: free[5], Reports: s.path("reports"),
		PushUser: PushUser, PullUser: PullUser, Password: Password,
	}
	return nil
}

func (s *Stack) path(name string) string { return filepath.Join(s.Dir, name) }

func (s *Stack) process(name string, ready func(context.Context) error, args ...string) *Process {
	return &Process{Name: name, Args: args, Log: s.path("log/" + name + ".log"), Ready: ready}
}

func (s *Stack) run(ctx context.Context, p *Process) error {
	s.started = append(s.started, p)
	return p.Start(ctx)
}

func (s *Stack) start(ctx context.Context) error {
	if err := errors.Join(s.writeConfig(), s.writeSite()); err != nil {
		return err
	}
	var err error
	if s.Old, err = s.registry("old", s.Addresses.Old); err != nil {
		return err
	}
	if s.New, err = s.registry("new", s.Addresses.New); err != nil {
		return err
	}
	s.Devserver = s.devserver()
	s.EdgeWorker = s.process("edge-worker", s.generated, filepath.Join(s.Bin, "transship-worker"), "--config", s.Addresses.Config, "--edge", EdgeName)
	s.Nginx = s.nginx()
	s.Worker = s.process("worker", nil, filepath.Join(s.Bin, "transship-worker"), "--config", s.Addresses.Config, "--role", "workflows", "--role", "mover")
	// The edge worker writes the files without which nginx does not start.
	for _, p := range []*Process{s.Devserver, s.Old, s.New, s.EdgeWorker, s.Nginx, s.Worker} {
		if err := s.run(ctx, p); err != nil {
			return err
		}
	}
	s.Temporal, err = client.DialContext(ctx, client.Options{HostPort: s.Addresses.Temporal, Namespace: s.Addresses.Namespace, Logger: quiet{}})
	if err != nil {
		return fmt.Errorf("connect to the devserver: %w", err)
	}
	for _, p := range s.started {
		s.Addresses.Processes = append(s.Addresses.Processes, servers.Identify(p))
	}
	return nil
}

// generated waits for the files that the edge worker writes.
func (s *Stack) generated(context.Context) error {
	for _, name := range []string{"transship_http.conf", "transship_server.conf", "transship_location.conf"} {
		if _, err := os.Stat(s.path("nginx/generated/" + name)); err != nil {
			return err
		}
	}
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
	for _, p := range slices.Backward(s.started) {
		p.Stop()
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
