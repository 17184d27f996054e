package servers

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Running is a process as a later command finds it again, to end it.
type Running struct {
	Name string `json:"name"`
	PID  int    `json:"pid"`
	// Started tells the process apart from a later one with the same ID: the kernel's start time, in clock ticks since boot.
	Started string `json:"started"`
}

// Identify says which process runs; its PID is 0 when none does.
func Identify(p *Process) Running {
	pid := p.PID()
	return Running{Name: p.Name, PID: pid, Started: startTime(pid)}
}

// Alive reports whether it still runs.
func (r Running) Alive() bool {
	return r.PID != 0 && r.Started != "" && startTime(r.PID) == r.Started
}

// End ends a process of an earlier run, with its children, if it is still the same one.
func (r Running) End() error {
	if !r.Alive() {
		return nil
	}
	_ = syscall.Kill(r.PID, syscall.SIGTERM)
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline) && r.Alive(); {
		time.Sleep(20 * time.Millisecond)
	}
	// The group outlives its leader while a child does, and its ID is not given to anybody else for so long.
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
