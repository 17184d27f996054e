// Package lab runs the real thing on one machine: registries, an nginx edge, Temporal and workers, as processes on free loopback ports in one
// folder. The demo, the tests and the benchmarks share it. It stops exactly what it started.
package lab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Process is one program of the lab. It may be killed and started again.
type Process struct {
	Name string
	// Args is the command line.
	Args []string
	// Env is added to a clean environment.
	Env []string
	// Log takes what it prints.
	Log string
	// Ready reports whether it does its work.
	Ready func(context.Context) error

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{}
}

// Start starts the process and waits until it is ready.
func (p *Process) Start(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		return fmt.Errorf("%s runs already", p.Name)
	}
	log, err := os.OpenFile(p.Log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	defer log.Close()
	cmd := exec.Command(p.Args[0], p.Args[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "USER=lab"}, p.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // its children end with it, and a terminal's ^C does not reach it
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	done := make(chan struct{})
	p.cmd, p.done = cmd, done
	go func() { _ = cmd.Wait(); close(done) }()
	if err := p.await(ctx); err != nil {
		p.end(syscall.SIGKILL)
		return err
	}
	return nil
}

func (p *Process) await(ctx context.Context) error {
	if p.Ready == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	for {
		err := p.Ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended at once; its log %s ends with: %s", p.Name, p.Log, tail(p.Log))
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w; its log %s ends with: %s", p.Name, err, p.Log, tail(p.Log))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Kill ends the process and its children at once, as a crash or a power cut would.
func (p *Process) Kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end(syscall.SIGKILL)
}

// Stop asks the process to end, and kills it when it does not within a few seconds.
func (p *Process) Stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end(syscall.SIGTERM)
}

func (p *Process) end(signal syscall.Signal) {
	if p.cmd == nil {
		return
	}
	pid := p.cmd.Process.Pid
	target := pid
	if signal == syscall.SIGKILL {
		target = -pid // the whole group: an nginx master that is killed alone leaves its workers with the port
	}
	_ = syscall.Kill(target, signal)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
	}
	_ = syscall.Kill(-pid, syscall.SIGKILL)
	<-p.done
	p.cmd = nil
}

// PID is the process ID, 0 when it does not run.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

func tail(path string) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(raw[max(0, len(raw)-1500):])
}

// answers is a Ready that waits for a TCP port.
func answers(address string) func(context.Context) error {
	return func(ctx context.Context) error {
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}

// freePorts returns n addresses on the loopback interface that nobody listens on. They are below the range from which the kernel takes ports for outgoing
// connections, or one of those might take a port before its server does.
func freePorts(n int) ([]string, error) {
	var addresses []string
	for range 1000 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(20_000))) //nolint:gosec // no secret
		if err != nil {
			continue
		}
		defer l.Close()
		if addresses = append(addresses, l.Addr().String()); len(addresses) == n {
			return addresses, nil
		}
	}
	return nil, errors.New("found no free ports from 10000 to 30000")
}

// Running is a process as `make down` finds it again.
type Running struct {
	Name string `json:"name"`
	PID  int    `json:"pid"`
	// Started tells the process apart from a later one with the same ID: the kernel's start time, in clock ticks since boot.
	Started string `json:"started"`
}

func running(p *Process) Running {
	pid := p.PID()
	return Running{Name: p.Name, PID: pid, Started: startTime(pid)}
}

// End ends a process of an earlier run, if it is still the same one.
func (r Running) End() error {
	if r.PID == 0 || r.Started == "" || startTime(r.PID) != r.Started {
		return nil
	}
	_ = syscall.Kill(r.PID, syscall.SIGTERM)
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if startTime(r.PID) != r.Started {
			return nil
		}
	}
	if err := syscall.Kill(-r.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("end %s: %w", r.Name, err)
	}
	return nil
}

// startTime is field 22 of /proc/PID/stat (proc(5)), or "" when there is no such process.
func startTime(pid int) string {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return ""
	}
	fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" {
		return ""
	}
	return fields[19]
}
