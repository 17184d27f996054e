package edge

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"transship/internal/routing"
)

// What changes from one routing table to the next is not in nginx's configuration but in flags: empty files that nginx looks for with each request
// (if -f, a stat). A flip is the atomic replacement of one symbolic link: every worker process sees it with its next request, there is no reload, and so no old
// worker process that still has the state from before, and no idle connection that a reload closes just as its client sends a write on it (seen
// with nginx 1.22: the client gets a reset, and a PUT is not sent again by itself).
//
//	flags/current -> gen-42
//	flags/gen-42/generation.json           what the generation endpoint serves
//	flags/gen-42/KEY.route.BACKEND         who serves the prefix
//	flags/gen-42/KEY.CLASS.second.BACKEND  where digests (blobs, manifests) are read that the route's backend does not have
//	flags/gen-42/KEY.CLASS.first.BACKEND.N where they are read first: of requests in hundredth N, or from a network of the canary
//	flags/gen-42/KEY.strict                its writes are refused, not passed, when the gate does not answer
//	flags/gen-42/KEY.watched               its writes are told to the gate
//	flags/gen-42/KEY.held                  its writes are parked, until further notice
//	flags/gen-42/KEY.held.SECOND           its writes are parked during this second, so that a hold ends by nginx's own clock
//
// A request that looks while the link is replaced may see some flags of the one table and some of the other. So a table changes only one thing about a
// prefix at a time, a held prefix has its watched flag too, and nginx looks for what comes later in a cutover first.

// flagKey is a prefix as part of a file name.
func flagKey(prefix string) string { return strings.ReplaceAll(prefix, "/", "+") }

func (c Config) flags() string { return filepath.Join(c.Directory, "flags") }

// raise puts the flags of a state in force. While the node is unsure whether its table is the present one, writes of all known prefixes are held.
func (c Config) raise(s state, unsureUntil time.Time) error {
	name := fmt.Sprintf("gen-%d-%d", s.Table.Generation, time.Now().UnixNano())
	dir := filepath.Join(c.flags(), name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("edge %s: %w: %w: give the edge worker's user write access to %s", c.Name, ErrUnwritable, err, c.Directory)
	}
	flag := func(format string, args ...any) error {
		return os.WriteFile(filepath.Join(dir, fmt.Sprintf(format, args...)), nil, 0o644)
	}
	answer, err := json.Marshal(confirmation{Edge: c.Name, Generation: s.Table.Generation})
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "generation.json"), answer, 0o644)
	}
	for _, r := range s.Table.Routes {
		key := flagKey(string(r.Prefix))
		err = errors.Join(err, flag("%s.route.%s", key, r.Backend))
		if r.Mode != routing.Open {
			err = errors.Join(err, flag("%s.watched", key))
		}
		if len(r.Uploads) > 0 {
			err = errors.Join(err, flag("%s.strict", key))
		}
		err = errors.Join(err, raiseReads(flag, key, r))
		l, leased := s.Leases[r.Prefix]
		switch {
		case !r.Mode.Parks(), l.Lost:
		case r.Mode == routing.Held && leased:
			for second := time.Now().Unix(); second < l.Deadline.Unix(); second++ {
				err = errors.Join(err, flag("%s.held.%s", key, strconv.FormatInt(second, 10)))
			}
		default:
			err = errors.Join(err, flag("%s.held", key))
		}
	}
	if !unsureUntil.IsZero() {
		for p := range c.known(s.Table) {
			err = errors.Join(err, flag("%s.held", flagKey(string(p))))
		}
	}
	if err == nil {
		err = errors.Join(syncDir(dir), c.point(name))
	}
	if err != nil {
		return fmt.Errorf("edge %s: %w: %w", c.Name, ErrUnwritable, err)
	}
	return nil
}

// raiseReads raises the flags that say where digests are read.
func raiseReads(flag func(string, ...any) error, key string, r routing.Route) (err error) {
	for class, blob := range map[string]bool{"blobs": true, "manifests": false} {
		if _, second := r.Reads(blob, false); second != "" {
			err = errors.Join(err, flag("%s.%s.second.%s", key, class, second))
		}
		first, second := r.Reads(blob, true)
		if r.Canary == nil || second == "" || first == r.Backend {
			continue
		}
		for bucket := range r.Canary.Percent {
			err = errors.Join(err, flag("%s.%s.first.%s.%d", key, class, first, bucket))
		}
		if len(r.Canary.Networks) > 0 {
			err = errors.Join(err, flag("%s.%s.first.%s.net", key, class, first))
		}
	}
	return err
}

// inForce returns the generation of the flags that are in force, 0 when there are none.
func (c Config) inForce() int64 {
	var have confirmation
	raw, err := os.ReadFile(filepath.Join(c.flags(), "current", "generation.json"))
	if err != nil || json.Unmarshal(raw, &have) != nil {
		return 0
	}
	return have.Generation
}

// point replaces the link to the flags that are in force, and removes those of before.
func (c Config) point(name string) error {
	link := filepath.Join(c.flags(), "current")
	before, err := os.Readlink(link)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	next := filepath.Join(c.flags(), "next")
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := errors.Join(os.Symlink(name, next), os.Rename(next, link), syncDir(c.flags())); err != nil {
		return err
	}
	old, err := filepath.Glob(filepath.Join(c.flags(), "gen-*"))
	if err != nil {
		return err
	}
	for _, dir := range old {
		// The flags of just before stay until the next change: a request may be looking at them.
		if base := filepath.Base(dir); base != name && base != before {
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
		}
	}
	return nil
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
