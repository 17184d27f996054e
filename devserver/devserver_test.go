package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.temporal.io/sdk/client"
	temporallog "go.temporal.io/sdk/log"
)

// binary builds the program once for all tests: kill -9 needs a process of its own.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "transship-devserver")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "transship-devserver")
	out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput()
	if err != nil {
		return "", errors.New(string(out))
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := binary(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// process is a running devserver.
type process struct {
	readyInfo
	cmd    *exec.Cmd
	ready  string
	exited chan error
	stderr *strings.Builder // to be read after exited
}

// launch starts a devserver on the database db and waits until its ready file appears.
func launch(t *testing.T, db string, flags ...string) *process {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatalf("build: %v", err)
	}
	p := &process{ready: db + ".ready.json", exited: make(chan error, 1), stderr: &strings.Builder{}}
	args := append([]string{"--listen", "127.0.0.1:0", "--ui", "127.0.0.1:0", "--data", db, "--ready-file", p.ready}, flags...)
	p.cmd = exec.Command(path, args...)
	p.cmd.Stderr = p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.exited <- p.cmd.Wait() }()
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })

	deadline := time.After(90 * time.Second)
	for {
		text, err := os.ReadFile(p.ready)
		if err == nil {
			if err := json.Unmarshal(text, &p.readyInfo); err != nil {
				t.Fatalf("ready file %q: %v", text, err)
			}
			if p.PID == p.cmd.Process.Pid { // not the one that a killed predecessor left
				return p
			}
		} else if !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		select {
		case err := <-p.exited:
			t.Fatalf("ended before it was ready: %v\n%s", err, p.stderr)
		case <-deadline:
			t.Fatal("not ready in time")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// stop sends a signal and waits for the end, which it returns.
func (p *process) stop(t *testing.T, signal os.Signal) error {
	t.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-p.exited:
		return err
	case <-time.After(30 * time.Second):
		t.Fatalf("still running 30 s after %v", signal)
		return nil
	}
}

// dial makes a client of the process.
func (p *process) dial(t *testing.T) client.Client {
	t.Helper()
	c, err := client.Dial(client.Options{
		HostPort: p.Address, Namespace: p.Namespace,
		Logger: temporallog.NewStructuredLogger(slog.New(slog.DiscardHandler)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// within is a context for one test's requests.
func within(t *testing.T, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

func TestStopsCleanlyOnSignal(t *testing.T) {
	for _, signal := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		p := launch(t, filepath.Join(t.TempDir(), "temporal.db"))
		if err := p.stop(t, signal); err != nil {
			t.Errorf("%v: exit %v, want 0\n%s", signal, err, p.stderr)
		}
		if _, err := os.Stat(p.ready); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v: the ready file is still there (%v)", signal, err)
		}
		if conn, err := net.Dial("tcp", p.Address); err == nil {
			_ = conn.Close()
			t.Errorf("%v: %s still accepts connections", signal, p.Address)
		}
	}
}

// Found by chaos, whose second stack lies in a folder that Go's testing calls so.
func TestADatabaseMayLieAnywhere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a#01 b?c%20d", "temporal.db")
	p := launch(t, path)
	if err := p.stop(t, syscall.SIGTERM); err != nil {
		t.Errorf("exit %v, want 0\n%s", err, p.stderr)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

func TestSideBySideButNotOnOneFile(t *testing.T) {
	dir := t.TempDir()
	first := launch(t, filepath.Join(dir, "first.db"))
	second := launch(t, filepath.Join(dir, "second.db"), "--namespace", "other")
	if first.Address == second.Address || first.UI == second.UI {
		t.Errorf("both at %s and %s", first.Address, first.UI)
	}
	if second.Namespace != "other" {
		t.Errorf("namespace %q", second.Namespace)
	}

	path, _ := binary()
	out, err := exec.Command(path, "--listen", "127.0.0.1:0", "--ui", "127.0.0.1:0", "--data", filepath.Join(dir, "first.db")).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "another transship-devserver is using it") {
		t.Errorf("third on the first's file: %v, %s", err, out)
	}
	out, err = exec.Command(path, "--listen", first.Address, "--ui", "127.0.0.1:0", "--data", filepath.Join(dir, "third.db")).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "--listen "+first.Address+" cannot be had") {
		t.Errorf("third on the first's port: %v, %s", err, out)
	}
}

func TestFlagMistakes(t *testing.T) {
	for args, want := range map[string]string{
		"stray":                 "unexpected argument",
		"--data=":               "--data is empty",
		"--namespace=":          "--namespace is empty",
		"--retention=5m":        "too short",
		"--log-level=chatty":    "want debug, info, warn or error",
		"--retention=90 days":   "invalid value",
		"--listen-everywhere=1": "not defined",
	} {
		_, err := parseFlags([]string{args}, new(strings.Builder))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
	if _, err := pickPorts("localhost", "127.0.0.1:0"); err == nil || !strings.Contains(err.Error(), "want IP:PORT") {
		t.Errorf("--listen localhost: %v", err)
	}
}
