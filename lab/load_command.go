package lab

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"golang.org/x/sync/errgroup"

	"transship/lab/history"
)

// command is a client that is a program: people push and pull with it, each time with a process of its own.
type command struct {
	name string
	// prepare makes a new image below a folder and returns the digest under which it is pushed.
	prepare func(ctx context.Context, dir string) (digest string, err error)
	// push and pull go through an edge, to REGISTRY/REPOSITORY:TAG. What is pulled is checked against its digests by the program.
	push, pull func(ctx context.Context, dir, reference string) ([]byte, error)
}

// commands are the programs of the load. The path to crane is given, as Debian has none.
func commands(crane string) []command {
	credentials := PushUser + ":" + Password
	skopeo := program("skopeo", "--insecure-policy", "copy", "--preserve-digests")
	return []command{
		{
			"skopeo", ociImage,
			func(ctx context.Context, dir, reference string) ([]byte, error) {
				return skopeo(ctx, dir, "--dest-tls-verify=false", "--dest-creds", credentials, "oci:image", "docker://"+reference)
			},
			func(ctx context.Context, dir, reference string) ([]byte, error) {
				return skopeo(ctx, dir, "--src-tls-verify=false", "--src-creds", credentials, "docker://"+reference, "dir:back")
			},
		},
		{
			"crane", ociImage,
			func(ctx context.Context, dir, reference string) ([]byte, error) {
				return program(crane, "push", "--insecure")(ctx, dir, "image", reference)
			},
			func(ctx context.Context, dir, reference string) ([]byte, error) {
				return program(crane, "pull", "--insecure", "--format", "oci")(ctx, dir, reference, "back")
			},
		},
		{
			"buildah", buildahImage,
			func(ctx context.Context, dir, reference string) ([]byte, error) {
				return buildah(dir)(ctx, dir, "push", "--tls-verify=false", "--creds", credentials, "load", "docker://"+reference)
			},
			func(ctx context.Context, dir, reference string) ([]byte, error) {
				return buildah(dir)(ctx, dir, "pull", "--policy", "always", "--tls-verify=false", "--creds", credentials, "docker://"+reference)
			},
		},
	}
}

// program runs a program in a folder, where it finds its credentials unless they are among its arguments.
func program(path string, first ...string) func(ctx context.Context, dir string, args ...string) ([]byte, error) {
	return func(ctx context.Context, dir string, args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, path, append(first[:len(first):len(first)], args...)...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "DOCKER_CONFIG="+dir)
		return cmd.CombinedOutput()
	}
}

// buildah keeps all that it has below a folder.
func buildah(dir string) func(ctx context.Context, dir string, args ...string) ([]byte, error) {
	return program("buildah", "--root", filepath.Join(dir, "storage"), "--runroot", filepath.Join(dir, "run"), "--storage-driver", "vfs")
}

func ociImage(_ context.Context, dir string) (string, error) {
	img := Image(2, 64<<10)
	digest, err := img.Digest()
	if err != nil {
		return "", err
	}
	path, err := layout.Write(filepath.Join(dir, "image"), empty.Index)
	if err != nil {
		return "", err
	}
	return digest.String(), path.AppendImage(img)
}

// buildahImage builds an image as a build machine would. Its digest is known before it is pushed, so that a push without an answer can be judged.
func buildahImage(ctx context.Context, dir string) (string, error) {
	digest := filepath.Join(dir, "digest")
	content := filepath.Join(dir, "content")
	random := make([]byte, 64<<10)
	_, _ = rand.Read(random) // never fails
	if err := os.WriteFile(content, random, 0o644); err != nil {
		return "", err
	}
	run := buildah(dir)
	for _, args := range [][]string{
		{"from", "--name", "work", "scratch"}, {"copy", "work", content, "/content"}, {"commit", "--rm", "work", "load"}, {"push", "--digestfile", digest, "load", "oci:" + filepath.Join(dir, "oci")},
	} {
		if out, err := run(ctx, dir, args...); err != nil {
			return "", fmt.Errorf("buildah %s: %w: %s", args[0], err, out)
		}
	}
	raw, err := os.ReadFile(digest)
	return strings.TrimSpace(string(raw)), err
}

// Commands has each program push new images and pull them back until ctx ends, in a folder of its own below dir. They tell no status, so their failures have no excuse
// but that of an edge that was down.
func (l *Load) Commands(ctx context.Context, dir, crane string) error {
	var working errgroup.Group
	for _, c := range commands(crane) {
		working.Go(func() error { return l.command(ctx, filepath.Join(dir, c.name), c) })
	}
	if err := working.Wait(); ctx.Err() == nil {
		return err
	}
	return nil
}

func (l *Load) command(ctx context.Context, dir string, c command) error {
	for n := 0; ctx.Err() == nil; n++ {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		if err := l.login(dir); err != nil {
			return err
		}
		digest, err := c.prepare(ctx, dir)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		edge := l.edges[l.int(len(l.edges))]
		o := history.Operation{Client: c.name, Edge: edge, Repository: l.prefix + "/" + c.name, Tag: fmt.Sprintf("v%d", n%50), Digest: digest}
		reference := strings.TrimPrefix(edge, "http://") + "/" + o.Repository + ":" + o.Tag
		o.Kind, o.Began = history.PushTag, time.Now()
		if !l.record(ctx, o, told(edge, c.name)(c.push(ctx, dir, reference))) {
			continue
		}
		o.Kind, o.Began = history.PullTag, time.Now()
		l.record(ctx, o, told(edge, c.name)(c.pull(ctx, dir, reference)))
		pause(ctx, 500*time.Millisecond)
	}
	return nil
}

// login writes the credentials for programs that take none as arguments.
func (l *Load) login(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	type auth struct {
		Username string `json:"username"`
		Password string `json:"password"`
	}
	auths := map[string]auth{}
	for _, edge := range l.edges {
		auths[strings.TrimPrefix(edge, "http://")] = auth{PushUser, Password}
	}
	raw, err := json.Marshal(map[string]any{"auths": auths})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), raw, 0o600)
}

// told makes a failure of what a program said at its end.
func told(edge, name string) func(out []byte, err error) error {
	return func(out []byte, err error) error {
		if err == nil {
			return nil
		}
		f := &Failure{Edge: edge, Method: name, Said: fmt.Sprintf("%v: %s", err, strings.TrimSpace(string(out)))}
		if strings.Contains(f.Said, "503 ") || strings.Contains(f.Said, "being moved to another backend") {
			f.Status, f.RetryAfter = 503, "?"
		}
		return f
	}
}
