package edge

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// siblings returns those worker processes of the nginx master of the worker pid, which takes connections, that are as asked for; pid may be one of them. It is empty where /proc
// does not show them, as from another container.
func siblings(pid int, which func(pid int) bool) []int {
	if !accepts(pid) {
		return nil
	}
	master := parent(pid)
	var pids []int
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, stat := range stats {
		if other, err := strconv.Atoi(filepath.Base(filepath.Dir(stat))); err == nil && parent(other) == master && which(other) {
			pids = append(pids, other)
		}
	}
	return pids
}

// accepts reports whether a process is an nginx worker that has not been told to stop: nginx says so in the process title.
func accepts(pid int) bool { return titled(pid, false) }

// stopping reports whether a process is an nginx worker that was told to stop, and has not.
func stopping(pid int) bool { return titled(pid, true) }

func titled(pid int, stopping bool) bool {
	title, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	return err == nil && bytes.HasPrefix(title, []byte("nginx: worker process")) && bytes.Contains(title, []byte("shutting down")) == stopping
}

// running reports whether a process exists. It is true where that cannot be told.
func running(pid int) bool {
	_, err := os.Stat(filepath.Join("/proc", strconv.Itoa(pid)))
	return !os.IsNotExist(err) || pid == 0
}

// parent returns the parent process, or 0.
func parent(pid int) int {
	fields := statFields(pid)
	if len(fields) < 2 {
		return 0
	}
	ppid, _ := strconv.Atoi(fields[1])
	return ppid
}

// statFields are those of proc(5)'s stat from the state on; none when the process cannot be seen. The name before them, in parentheses, may hold anything.
func statFields(pid int) []string {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return nil
	}
	return strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
}
