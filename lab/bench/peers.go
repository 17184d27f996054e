package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"transship/lab/seed"
)

// tool is something that copies a set.
type tool struct {
	name string
	// registries says that it copies from registry to registry, and not from store to store.
	registries bool
	// slow says that it takes so long that once is enough, and that it is not asked about thousands of tags.
	slow bool
	copy func(b *benchmark, ctx context.Context, p place) (float64, error)
}

// place is a set with a target.
type place struct {
	seed.Set
	container, bucket string
	// from and to are registries on them.
	from, to string
}

const ours = "transship"

var tools = []tool{
	{ours, false, false, func(b *benchmark, ctx context.Context, p place) (float64, error) {
		o, err := measure(ctx, b.job("mirror", p))
		return o.Wall, err
	}},
	{"rclone copy", false, false, (*benchmark).rclone},
	{"crane cp -a", true, false, (*benchmark).crane},
	{"regsync", true, false, (*benchmark).regsync},
	{"skopeo sync", true, true, (*benchmark).skopeo},
}

// racers are the tools that were asked for.
func (b *benchmark) racers() (asked []tool) {
	for _, t := range tools {
		if strings.Contains(t.name, b.tool) {
			asked = append(asked, t)
		}
	}
	return asked
}

func (b *benchmark) havePeers() error {
	var missing []error
	for _, name := range []string{"skopeo", "rclone", filepath.Join(b.bin, "crane"), filepath.Join(b.bin, "regsync")} {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, fmt.Errorf("%w: `make bench` provides it", err))
		}
	}
	return errors.Join(missing...)
}

// versions names the peers as they were measured.
func (b *benchmark) versions(ctx context.Context) string {
	var names []string
	for _, args := range [][]string{{"skopeo", "--version"}, {"rclone", "--version"}, {filepath.Join(b.bin, "crane"), "version"}, {filepath.Join(b.bin, "regsync"), "version"}} {
		out, err := exec.CommandContext(ctx, args[0], args[1:]...).Output()
		if err == nil {
			first, _, _ := strings.Cut(string(out), "\n")
			names = append(names, strings.TrimSpace(filepath.Base(args[0])+" "+strings.TrimPrefix(strings.TrimPrefix(first, "skopeo version "), "rclone ")))
		}
	}
	return strings.Join(names, ", ")
}

// timed runs commands one after the other.
func (b *benchmark) timed(ctx context.Context, commands ...[]string) (float64, error) {
	began := time.Now()
	for _, args := range commands {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		// A set AWS_CA_BUNDLE makes rclone fail at start.
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + b.dir, "TMPDIR=" + b.dir}
		if out, err := cmd.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out[max(0, len(out)-1000):])
		}
	}
	return time.Since(began).Seconds(), nil
}

func (b *benchmark) rclone(ctx context.Context, p place) (float64, error) {
	s, c := b.stores.Swift, b.stores.Ceph
	config := filepath.Join(b.dir, "rclone.conf")
	err := os.WriteFile(config, fmt.Appendf(nil, `[old]
type = swift
auth = %s
user = %s
key = %s
[new]
type = s3
provider = Ceph
endpoint = %s
access_key_id = %s
secret_access_key = %s
`, s.AuthURL, s.Username, s.Password, c.Endpoint, c.AccessKey, c.SecretKey), 0o600)
	if err != nil {
		return 0, err
	}
	return b.timed(ctx, []string{"rclone", "--config", config, "copy", "--transfers", "8", "--checkers", "8", "--s3-no-check-bucket",
		"old:" + p.container + "/files/docker/registry/v2", "new:" + p.bucket + "/docker/registry/v2"})
}

func (b *benchmark) crane(ctx context.Context, p place) (float64, error) {
	var commands [][]string
	for _, name := range p.Names() {
		commands = append(commands, []string{filepath.Join(b.bin, "crane"), "cp", "--insecure", "-a", p.from + "/" + name, p.to + "/" + name})
	}
	return b.timed(ctx, commands...)
}

func (b *benchmark) regsync(ctx context.Context, p place) (float64, error) {
	var text strings.Builder
	fmt.Fprintf(&text, "version: 1\ncreds:\n  - {registry: %q, tls: disabled, reqConcurrent: 16}\n  - {registry: %q, tls: disabled, reqConcurrent: 16}\ndefaults: {parallel: 4}\nsync:\n", p.from, p.to)
	for _, name := range p.Names() {
		fmt.Fprintf(&text, "  - {source: %q, target: %q, type: repository}\n", p.from+"/"+name, p.to+"/"+name)
	}
	config := filepath.Join(b.dir, "regsync.yml")
	if err := os.WriteFile(config, []byte(text.String()), 0o600); err != nil {
		return 0, err
	}
	return b.timed(ctx, []string{filepath.Join(b.bin, "regsync"), "once", "-c", config, "-v", "error"})
}

func (b *benchmark) skopeo(ctx context.Context, p place) (float64, error) {
	policy := filepath.Join(b.dir, "policy.json")
	if err := os.WriteFile(policy, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o600); err != nil {
		return 0, err
	}
	var commands [][]string
	for _, name := range p.Names() {
		commands = append(commands, []string{"skopeo", "--policy", policy, "sync", "--all", "--src-tls-verify=false", "--dest-tls-verify=false", "--src", "docker", "--dest", "docker",
			p.from + "/" + name, p.to + "/" + p.Prefix})
	}
	return b.timed(ctx, commands...)
}
