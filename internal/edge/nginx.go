package edge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// ErrRejected says that nginx does not accept the generated files in its configuration. The files from before are back in place.
var ErrRejected = errors.New("nginx rejects the new files")

// ErrUnwritable says that the generated files cannot be written.
var ErrUnwritable = errors.New("the generated files cannot be written")

// private is for what has the gate's token in it: nginx reads its configuration as the user who started it.
const private = 0o600

// install puts files in place and asks nginx whether it would accept them; if not, the files from before are put back. It reports whether
// anything changed.
func (c Config) install(ctx context.Context, files map[string]string) (changed bool, err error) {
	before, err := c.installed()
	if err != nil {
		return false, err
	}
	for name, content := range files {
		if before[name] == content {
			continue
		}
		changed = true
		if err := replace(filepath.Join(c.Directory, name), []byte(content), private); err != nil {
			return false, c.unwritable(err)
		}
	}
	if !changed {
		return false, nil
	}
	if err := c.run(ctx, c.TestCommand); err != nil {
		if restoreErr := c.restore(before); restoreErr != nil {
			return false, fmt.Errorf("edge %s: %w: %w; and the files from before could not be put back: %w", c.Name, ErrRejected, err, restoreErr)
		}
		return false, fmt.Errorf("edge %s: %w: %w", c.Name, ErrRejected, err)
	}
	return true, nil
}

// place writes files for an nginx that does not run yet, and so cannot be asked about them.
func (c Config) place(files map[string]string) error {
	for name, content := range files {
		if err := replace(filepath.Join(c.Directory, name), []byte(content), private); err != nil {
			return c.unwritable(err)
		}
	}
	return nil
}

// hashIn finds the hash that the files answer with.
func hashIn(files map[string]string) string {
	_, rest, _ := strings.Cut(files[FileServer], `"files":"`)
	hash, _, _ := strings.Cut(rest, `"`)
	return hash
}

// installed returns the generated files as they are on disk.
func (c Config) installed() (map[string]string, error) {
	files := map[string]string{}
	for _, name := range fileNames {
		content, err := os.ReadFile(filepath.Join(c.Directory, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("edge %s: %w", c.Name, err)
		}
		files[name] = string(content)
	}
	return files, nil
}

func (c Config) restore(before map[string]string) error {
	var errs []error
	for _, name := range fileNames {
		path := filepath.Join(c.Directory, name)
		if content, ok := before[name]; ok {
			errs = append(errs, replace(path, []byte(content), private))
		} else if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// replace writes a file so that a reader, or a crash, finds either the old content or the new.
func replace(path string, content []byte, mode os.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(content)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func (c Config) run(ctx context.Context, command []string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, strings.TrimSpace(out.String()))
	}
	return nil
}

// reload tells nginx to take its files, and returns when no process that has older ones takes new requests.
func (c Config) reload(ctx context.Context, hash string) error {
	var old []int
	if answer, err := ask[filesAnswer](ctx, c.filesURL()); err == nil {
		old = siblings(answer.PID, accepts)
	}
	if err := c.run(ctx, c.ReloadCommand); err != nil {
		return fmt.Errorf("edge %s: %w", c.Name, err)
	}
	return c.confirmFiles(ctx, hash, old)
}

// settled is how long nginx must have answered with the new files only, where its processes cannot be seen. nginx starts new workers, waits
// 100 ms, and only then tells the old ones to stop (ngx_master_process_cycle), so both take connections meanwhile: seen here until 105 to 111 ms
// after the reload command.
const settled = 250 * time.Millisecond

// confirmFiles asks nginx over HTTP, each time on a new connection, until it answers with the new files and none of its old worker processes
// takes connections any more.
func (c Config) confirmFiles(ctx context.Context, hash string, old []int) error {
	var since time.Time
	var last error
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("edge %s: nginx did not confirm its files: %w (last answer: %v)", c.Name, err, last)
		}
		answer, err := ask[filesAnswer](ctx, c.filesURL())
		if err == nil && answer.Files != hash {
			err = fmt.Errorf("files %s instead of %s", answer.Files, hash)
		}
		switch {
		case err != nil:
			since, last = time.Time{}, err
		case since.IsZero():
			since = time.Now()
		}
		if !since.IsZero() && (len(old) > 0 && !slices.ContainsFunc(old, accepts) || time.Since(since) > settled) {
			return nil
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// confirmation is nginx's answer to the question which routing table it serves by.
type confirmation struct {
	Edge       string `json:"edge"`
	Generation int64  `json:"generation"`
}

// filesAnswer is nginx's answer to the question which generated files it has.
type filesAnswer struct {
	Edge  string `json:"edge"`
	Files string `json:"files"`
	PID   int    `json:"pid"`
}

func (c Config) filesURL() string {
	return strings.TrimSuffix(c.StatusURL, "generation") + "files"
}

// confirm asks nginx over HTTP until it serves by the generation. Flags are in force at once, so this takes one question, unless nginx is away.
func (c Config) confirm(ctx context.Context, generation int64) error {
	for {
		answer, err := ask[confirmation](ctx, c.StatusURL)
		switch {
		case err == nil && answer.Edge != c.Name:
			return fmt.Errorf("edge %s: %s answers as edge %q: point edges.%s.nginx.status_url at this node's nginx", c.Name, c.StatusURL, answer.Edge, c.Name)
		case err == nil && answer.Generation == generation:
			return nil
		case err == nil:
			err = fmt.Errorf("generation %d", answer.Generation)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("edge %s: nginx did not confirm generation %d: %w (last answer: %w)", c.Name, generation, ctx.Err(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// ask asks nginx one of the questions that the generated files answer.
func ask[T any](ctx context.Context, url string) (answer T, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return answer, err
	}
	resp, err := newConnections().Do(req)
	if err != nil {
		return answer, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return answer, fmt.Errorf("%s answers %s: include %s in that server block", url, resp.Status, FileServer)
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return answer, fmt.Errorf("%s: %w", url, err)
	}
	return answer, nil
}
