package edge

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAGarbageCollectionThatRunsOrIsPlannedIsFound(t *testing.T) {
	root := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
		return path
	}
	write("proc/7/cmdline", "docker-registry\x00serve\x00/etc/docker/registry/config.yml\x00")
	write("proc/8/cmdline", "vi\x00garbage-collect.md\x00")
	write("etc/cron.d/registry", "# 0 3 * * * root docker-registry garbage-collect /etc/docker/registry/config.yml\n")
	require.Equal(t, []Finding{{What: "edge e1: no garbage collection runs or would begin by itself on this node", OK: true}}, checkGarbage("e1", root))

	for name, planted := range map[string][2]string{
		"a process":        {"proc/9/cmdline", "docker-registry\x00garbage-collect\x00--delete-untagged\x00/etc/docker/registry/config.yml\x00"},
		"cron.d":           {"etc/cron.d/gc", "PATH=/bin\n0 3 * * 0 root REGISTRY_HTTP_SECRET=secret docker-registry garbage-collect /c.yml\n"},
		"crontab":          {"etc/crontab", "0 3 * * 0 root docker exec registry bin/registry garbage-collect /c.yml\n"},
		"a user's crontab": {"var/spool/cron/crontabs/root", "0 3 * * 0 registry garbage-collect /c.yml\n"},
		"cron.daily":       {"etc/cron.daily/registry", "#!/bin/sh\nexec docker-registry garbage-collect /c.yml\n"},
		"a unit":           {"etc/systemd/system/registry-gc.service", "[Service]\nExecStart=/usr/bin/docker-registry garbage-collect /c.yml\n"},
	} {
		t.Run(name, func(t *testing.T) {
			path := write(planted[0], planted[1])
			defer os.Remove(path)
			found := checkGarbage("e1", root)
			require.Len(t, found, 1)
			if name == "cron.d" {
				require.Contains(t, found[0].Detail, path+":2 has")
			}
			require.True(t, found[0].Warned())
			require.Contains(t, found[0].Detail, "garbage-collect")
			require.NotContains(t, found[0].Detail, "secret")
		})
	}
}
