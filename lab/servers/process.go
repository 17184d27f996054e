package servers

import (
	"context"
	"fmt"
	"os"
	"os/exec"
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
	cmd.Env = clean(p.Env)
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
			return fmt.Errorf("%s ended at once; its log %s ends with: %s", p.Name, p.Log, Tail(p.Log))
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w; its log %s ends with: %s", p.Name, err, p.Log, Tail(p.Log))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// clean is an environment with nothing of ours: the S3 driver of Distribution and rclone break on a set AWS_CA_BUNDLE. Only a temporary folder that
// somebody chose is kept.
func clean(more []string) []string {
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "USER=lab"}
	if dir := os.Getenv("TMPDIR"); dir != "" {
		env = append(env, "TMPDIR="+dir)
	}
	return append(env, more...)
}

// Kill ends the process and its children at once, as a crash or a power cut would.
func (p *Process) Kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end(syscall.SIGKILL)
}

// Pause stops the process and its children where they are, as a machine that swaps or moves does.
func (p *Process) Pause() { p.signal(syscall.SIGSTOP) }

// Resume lets a paused process go on.
func (p *Process) Resume() { p.signal(syscall.SIGCONT) }

func (p *Process) signal(signal syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		_ = syscall.Kill(-p.cmd.Process.Pid, signal) // it may just have died
	}
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
	// Its children end a moment after it, and until then answer on the port that its successor listens on as well.
	for deadline := time.Now().Add(10 * time.Second); syscall.Kill(-pid, 0) == nil && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
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
