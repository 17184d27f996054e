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
		if err := replace(filepath.Join(c.Directory, name), []byte(content)); err != nil {
			return false, fmt.Errorf("edge %s: %w: %w: give the edge worker's user write access to %s", c.Name, ErrUnwritable, err, c.Directory)
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

// installed returns the generated files as they are on disk.
func (c Config) installed() (map[string]string, error) {
	files := map[string]string{}
	for _, name := range []string{FileHTTP, FileServer, FileLocation} {
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
	for _, name := range []string{FileHTTP, FileServer, FileLocation} {
		path := filepath.Join(c.Directory, name)
		if content, ok := before[name]; ok {
			errs = append(errs, replace(path, []byte(content)))
		} else if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// replace writes a file so that a reader, or a crash, finds either the old content or the new.
func replace(path string, content []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(content)
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Sync(), tmp.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
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
func (c Config) reload(ctx context.Context, generation int64) error {
	client := newConnections()
	var old []int
	if answer, err := c.ask(ctx, client); err == nil {
		old = workers(answer.PID)
	}
	if err := c.run(ctx, c.ReloadCommand); err != nil {
		return fmt.Errorf("edge %s: %w", c.Name, err)
	}
	return c.confirm(ctx, client, generation, old)
}

// settled is how long nginx must have answered with the new generation only, where its processes cannot be seen. nginx starts new workers, waits
// 100 ms, and only then tells the old ones to stop (ngx_master_process_cycle), so both take connections meanwhile: seen here until 105 to 111 ms
// after the reload command.
const settled = 250 * time.Millisecond

// confirm asks nginx over HTTP, each time on a new connection, until it answers with the generation and none of its old worker processes
// takes connections any more.
func (c Config) confirm(ctx context.Context, client *http.Client, generation int64, old []int) error {
	var since time.Time
	var last error
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("edge %s: nginx did not confirm generation %d: %w (last answer: %v)", c.Name, generation, err, last)
		}
		answer, err := c.ask(ctx, client)
		if err == nil && answer.Generation != generation {
			err = fmt.Errorf("generation %d", answer.Generation)
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

// generation is nginx's answer to the question which files it has.
type generation struct {
	Edge       string `json:"edge"`
	Generation int64  `json:"generation"`
	PID        int    `json:"pid"`
}

func (c Config) ask(ctx context.Context, client *http.Client) (generation, error) {
	var g generation
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.StatusURL, nil)
	if err != nil {
		return g, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return g, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return g, fmt.Errorf("%s answers %s: include %s in that server block", c.StatusURL, resp.Status, FileServer)
	}
	if err := json.NewDecoder(resp.Body).Decode(&g); err != nil {
		return g, fmt.Errorf("%s: %w", c.StatusURL, err)
	}
	return g, nil
}

// confirmedOnce asks a single time whether nginx has the generation.
func (c Config) confirmedOnce(ctx context.Context, want int64) bool {
	answer, err := c.ask(ctx, newConnections())
	return err == nil && answer.Generation == want
}
