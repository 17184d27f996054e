// Package servers runs the real services around transship as processes on free loopback ports, each kind in one folder: Swift, Ceph with its S3
// gateway, Docker Distribution, Prometheus, an IRC server. Tests, the demo and the benchmarks share them. Each stops exactly what it started.
package servers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Group is a set of processes that end together.
type Group struct {
	mu      sync.Mutex
	started []*Process
}

// Add takes in processes that were started elsewhere.
func (g *Group) Add(processes ...*Process) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.started = append(g.started, processes...)
}

// Processes are the members, in the order in which they were started.
func (g *Group) Processes() []*Process {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.started)
}

// Start starts processes side by side, and waits until all are ready.
func (g *Group) Start(ctx context.Context, processes ...*Process) error {
	g.Add(processes...)
	var starting errgroup.Group // without a shared context: the first failure must not blame the others
	for _, p := range processes {
		starting.Go(func() error { return p.Start(ctx) })
	}
	return starting.Wait()
}

// Stop ends everything, the last started first.
func (g *Group) Stop() {
	for _, p := range slices.Backward(g.Processes()) {
		p.Stop()
	}
}

// Running lists what runs, in the order in which it was started.
func (g *Group) Running() []Running {
	var all []Running
	for _, p := range g.Processes() {
		if r := Identify(p); r.PID != 0 {
			all = append(all, r)
		}
	}
	return all
}

// present checks that programs are installed, and names the Debian packages that provide those which are not.
func present(packageOf map[string]string) error {
	var missing []error
	for program, name := range packageOf {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, fmt.Errorf("%w: `make packages packages-lab` installs it (Debian package %s)", err, name))
		}
	}
	return errors.Join(missing...)
}

func makeDirs(dir string, names ...string) error {
	for _, name := range names {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			return err
		}
	}
	return nil
}

func writeFiles(dir string, files map[string]string) error {
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// command runs a short program of a set-up to its end.
func command(ctx context.Context, env []string, args ...string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = clean(env)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(args[0]), err, out)
	}
	return nil
}

// Answers is a Ready that waits for a TCP port.
func Answers(address string) func(context.Context) error {
	return func(ctx context.Context) error {
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}

// AnswersHTTP is a Ready that waits for an HTTP answer below 500.
func AnswersHTTP(url string) func(context.Context) error {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode >= http.StatusInternalServerError {
			return fmt.Errorf("%s answers %s", url, resp.Status)
		}
		return nil
	}
}

// Tail is how a log ends.
func Tail(path string) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(raw[max(0, len(raw)-1500):])
}
