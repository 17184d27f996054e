package edge

import (
	"bytes"
	"fmt"
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
// machines as their proxies. It tells where, and not what the command is: there may be secrets in it.
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
			add(fmt.Sprintf("process %s, %s, is a %s", filepath.Base(filepath.Dir(path)), filepath.Base(args[0]), collection), "wait for its end before you move anything to or from that registry")
		}
	}
	for _, pattern := range scheduled {
		paths, _ := filepath.Glob(filepath.Join(root, pattern))
		for _, path := range paths {
			if line := mentions(path); line > 0 {
				add(fmt.Sprintf("%s:%d has a %s", path, line, collection), "switch it off until the migration has been finalized")
			}
		}
	}
	if len(findings) == 0 {
		f.OK = true
		return []Finding{f}
	}
	return findings
}

// mentions returns the number of the first line of a file, comments aside, that collects garbage; 0 when there is none.
func mentions(path string) int {
	content, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	n := 0
	for line := range bytes.Lines(content) {
		n++
		line = bytes.TrimSpace(line)
		if bytes.Contains(line, []byte(collection)) && !bytes.HasPrefix(line, []byte("#")) {
			return n
		}
	}
	return 0
}
