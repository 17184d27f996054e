package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"

	"transship/lab/history"
)

// Skopeo pushes and pulls with skopeo, a process for each, until ctx ends. It tells no status, so its failures have no excuse but that of an edge that was down.
func (l *Load) Skopeo(ctx context.Context, dir string) error {
	for n := 0; ctx.Err() == nil; n++ {
		img := Image(2, 64<<10)
		digest, err := img.Digest()
		if err != nil {
			return err
		}
		at, back := filepath.Join(dir, "image"), filepath.Join(dir, "back")
		if err := os.RemoveAll(at); err != nil {
			return err
		}
		path, err := layout.Write(at, empty.Index)
		if err != nil {
			return err
		}
		if err := path.AppendImage(img); err != nil {
			return err
		}
		edge := l.edges[l.int(len(l.edges))]
		o := history.Operation{
			Client: "skopeo", Edge: edge, Repository: l.prefix + "/skopeo", Tag: fmt.Sprintf("v%d", n), Digest: digest.String(),
		}
		reference := "docker://" + strings.TrimPrefix(edge, "http://") + "/" + o.Repository + ":" + o.Tag
		credentials := PushUser + ":" + Password
		o.Kind, o.Began = history.PushTag, time.Now()
		if !l.record(ctx, o, l.skopeo(ctx, edge, "copy", "--preserve-digests", "--dest-tls-verify=false", "--dest-creds", credentials, "oci:"+at, reference)) {
			continue
		}
		o.Kind, o.Began = history.PullTag, time.Now()
		l.record(ctx, o, l.skopeo(ctx, edge, "copy", "--preserve-digests", "--src-tls-verify=false", "--src-creds", credentials, reference, "dir:"+back))
		if err := os.RemoveAll(back); err != nil {
			return err
		}
		pause(ctx, 300*time.Millisecond)
	}
	return nil
}

func (l *Load) skopeo(ctx context.Context, edge string, args ...string) error {
	out, err := exec.CommandContext(ctx, "skopeo", append([]string{"--insecure-policy"}, args...)...).CombinedOutput()
	if err == nil {
		return nil
	}
	f := &Failure{Edge: edge, Method: "skopeo", Path: args[len(args)-1], Said: strings.TrimSpace(string(out))}
	if strings.Contains(f.Said, "503 ") || strings.Contains(f.Said, "being moved to another backend") {
		f.Status, f.RetryAfter = 503, "?"
	}
	return f
}
