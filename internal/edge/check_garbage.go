package edge

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// collection is the subcommand of Docker Distribution that deletes blobs which nothing refers to: those, too, that a mirror has just brought.
const collection = "garbage-collect"

// scheduled are the places from which a machine starts things by itself. Those that are not there, or not ours to read, are passed over.
var scheduled = []string{"etc/crontab", "etc/cron.*/*", "var/spool/cron/*", "var/spool/cron/crontabs/*", "etc/systemd/system/*.service", "etc/systemd/system/*/*.conf", "lib/systemd/system/*.service"}

// checkGarbage looks below root, which is "/" but in tests, for a garbage collection that runs, or would by itself: registries often run on the same
// machines as their proxies.
func checkGarbage(name, root string) []Finding {
	f := Finding{What: "edge " + name + ": no garbage collection runs or would begin by itself on this node"}
	var findings []Finding
	add := func(detail, cure string) {
		g := f
		g.Detail, g.Cure, g.Warning = detail, cure, true
		findings = append(findings, g)
	}
	commands, _ := filepath.Glob(filepath.Join(root, "proc/[0-9]*/cmdline"))
	for _, path := range commands {
		command, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		args := strings.Split(strings.TrimRight(string(command), "\x00"), "\x00")
		if slices.Contains(args, collection) {
			add("process "+filepath.Base(filepath.Dir(path))+" is "+strings.Join(args, " "), "wait for its end before you move anything to or from that registry")
		}
	}
	for _, pattern := range scheduled {
		paths, _ := filepath.Glob(filepath.Join(root, pattern))
		for _, path := range paths {
			if line := mentions(path); line != "" {
				add(path+" has: "+line, "switch it off until the migration has been finalized")
			}
		}
	}
	if len(findings) == 0 {
		f.OK = true
		return []Finding{f}
	}
	return findings
}

// mentions returns the first line of a file, comments aside, that collects garbage.
func mentions(path string) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range bytes.Lines(content) {
		line = bytes.TrimSpace(line)
		if bytes.Contains(line, []byte(collection)) && !bytes.HasPrefix(line, []byte("#")) {
			return string(line)
		}
	}
	return ""
}
