//go:build lab

package edge

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestARealGarbageCollectionIsSeenWhileItRuns(t *testing.T) {
	seen := func(pid int) bool {
		return slices.ContainsFunc(checkGarbage("e1", "/"), func(f Finding) bool {
			return strings.HasPrefix(f.Detail, "process "+strconv.Itoa(pid)+", docker-registry, is a garbage-collect")
		})
	}
	waits := filepath.Join(t.TempDir(), "config.yml") // a pipe that nobody writes to: it goes on looking
	require.NoError(t, syscall.Mkfifo(waits, 0o600))
	cmd := exec.Command("docker-registry", "garbage-collect", waits)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	require.Eventually(t, func() bool { return seen(cmd.Process.Pid) }, 5*time.Second, 10*time.Millisecond)
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	require.False(t, seen(cmd.Process.Pid))
}
