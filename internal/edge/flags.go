package edge

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
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
//	flags/generation.json          what the generation endpoint serves; replaced when all else is in place
//	flags/at/KEY -> ../sets/KEY.42 of each known prefix; only those that change are replaced, so that a flip costs the same among two prefixes or a thousand
//	  route.BACKEND                who serves the prefix
//	  CLASS.second.BACKEND         where digests (blobs, manifests) are read that the route's backend does not have
//	  CLASS.first.BACKEND.N        where they are read first: of requests in hundredth N, or from a network of the canary
//	  strict                       its writes are refused, not passed, when the gate does not answer
//	  watched                      its writes are told to the gate
//	  held                         its writes are parked, until further notice
//	  held.SECOND                  its writes are parked during this second, so that a hold ends by nginx's own clock
//
// A request that looks while the link is replaced may see some flags of the one table and some of the other. So a table changes only one thing about a
// prefix at a time, a held prefix has its watched flag too, and nginx looks for what comes later in a cutover first.

// flagKey is a prefix as part of a file name.
func flagKey(prefix string) string { return strings.ReplaceAll(prefix, "/", "+") }

func (c Config) flags() string { return filepath.Join(c.Directory, "flags") }

func (c Config) unwritable(err error) error {
	return fmt.Errorf("edge %s: %w: %w: give the edge worker's user write access to %s", c.Name, ErrUnwritable, err, c.Directory)
}

// raise puts the flags of a state in force. While the node is unsure whether its table is the present one, writes of all known prefixes are held.
func (c Config) raise(s state, unsureUntil time.Time) error {
	for _, dir := range []string{"at", "sets"} {
		if err := os.MkdirAll(filepath.Join(c.flags(), dir), 0o755); err != nil {
			return c.unwritable(err)
		}
	}
	changed := false
	wanted := c.wanted(s, unsureUntil)
	for key, flags := range wanted {
		if have, err := os.ReadDir(filepath.Join(c.flags(), "at", key)); err == nil && slices.EqualFunc(have, flags, func(h os.DirEntry, f string) bool { return h.Name() == f }) {
			continue
		}
		changed = true
		if err := c.raiseOne(key, flags); err != nil {
			return c.unwritable(err)
		}
	}
	if changed {
		if err := c.forget(wanted); err != nil {
			return c.unwritable(err)
		}
	}
	answer, err := json.Marshal(confirmation{Edge: c.Name, Generation: s.Table.Generation})
	if err == nil {
		err = replace(filepath.Join(c.flags(), "generation.json"), answer, 0o644)
	}
	if err != nil {
		return c.unwritable(err)
	}
	return nil
}

// clockStep is by how many seconds a node's clock may be set back within a hold. Without flags for the seconds before it, nginx would let writes pass there when the gate
// does not answer.
const clockStep = 10

// wanted are the flags of every known prefix, by key, sorted.
func (c Config) wanted(s state, unsureUntil time.Time) map[string][]string {
	wanted := map[string][]string{}
	for _, p := range c.known(s.Table) {
		wanted[flagKey(string(p))] = nil
	}
	for _, r := range s.Table.Routes {
		flags := append([]string{"route." + r.Backend}, readFlags(r)...)
		if r.Mode != routing.Open {
			flags = append(flags, "watched")
		}
		if len(r.Uploads) > 0 {
			flags = append(flags, "strict")
		}
		l, leased := s.Leases[r.Prefix]
		switch {
		case !r.Mode.Parks(), l.Lost:
		case r.Mode == routing.Held && leased:
			for second := time.Now().Unix() - clockStep; second < l.Deadline.Unix(); second++ {
				flags = append(flags, "held."+strconv.FormatInt(second, 10))
			}
		default:
			flags = append(flags, "held")
		}
		wanted[flagKey(string(r.Prefix))] = flags
	}
	for key, flags := range wanted {
		if !unsureUntil.IsZero() && !slices.Contains(flags, "held") {
			flags = append(flags, "held")
		}
		slices.Sort(flags)
		wanted[key] = flags
	}
	return wanted
}

// readFlags say where digests are read.
func readFlags(r routing.Route) (flags []string) {
	for class, blob := range map[string]bool{"blobs": true, "manifests": false} {
		if _, second := r.Reads(blob, false); second != "" {
			flags = append(flags, class+".second."+second)
		}
		first, second := r.Reads(blob, true)
		if r.Canary == nil || second == "" || first == r.Backend {
			continue
		}
		for bucket := range r.Canary.Percent {
			flags = append(flags, fmt.Sprintf("%s.first.%s.%d", class, first, bucket))
		}
		if len(r.Canary.Networks) > 0 {
			flags = append(flags, fmt.Sprintf("%s.first.%s.net", class, first))
		}
	}
	return flags
}

// raiseOne replaces the flags of one prefix, atomically. Those of just before stay until the next change: a request may be looking at them.
func (c Config) raiseOne(key string, flags []string) error {
	sets, link := filepath.Join(c.flags(), "sets"), filepath.Join(c.flags(), "at", key)
	name := fmt.Sprintf("%s.%d", key, time.Now().UnixNano())
	dir := filepath.Join(sets, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for _, flag := range flags {
		if err := os.WriteFile(filepath.Join(dir, flag), nil, 0o644); err != nil {
			return err
		}
	}
	before, err := os.Readlink(link)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	next := filepath.Join(sets, "next")
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err = errors.Join(syncDir(dir), os.Symlink(filepath.Join("..", "sets", name), next), os.Rename(next, link), syncDir(filepath.Dir(link)))
	if err != nil {
		return err
	}
	old, err := filepath.Glob(filepath.Join(sets, key+".*"))
	if err != nil {
		return err
	}
	for _, dir := range old {
		if base := filepath.Base(dir); base != name && base != filepath.Base(before) && !strings.ContainsAny(base[len(key)+1:], ".") {
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// holdAll parks the writes of every prefix that has flags, whatever else they say.
func (c Config) holdAll() error {
	keys, err := os.ReadDir(filepath.Join(c.flags(), "at"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("edge %s: flags: %w", c.Name, err)
	}
	for _, key := range keys {
		have, err := os.ReadDir(filepath.Join(c.flags(), "at", key.Name()))
		if err != nil {
			return fmt.Errorf("edge %s: flags of %s: %w", c.Name, key.Name(), err)
		}
		flags := []string{"held"}
		for _, h := range have {
			flags = append(flags, h.Name())
		}
		slices.Sort(flags)
		if err := c.raiseOne(key.Name(), slices.Compact(flags)); err != nil {
			return c.unwritable(err)
		}
	}
	return nil
}

// forget removes the flags of prefixes that are not known any more.
func (c Config) forget(wanted map[string][]string) error {
	links, err := os.ReadDir(filepath.Join(c.flags(), "at"))
	for _, l := range links {
		if _, ok := wanted[l.Name()]; !ok {
			target, _ := os.Readlink(filepath.Join(c.flags(), "at", l.Name()))
			err = errors.Join(err, os.Remove(filepath.Join(c.flags(), "at", l.Name())), os.RemoveAll(filepath.Join(c.flags(), "sets", filepath.Base(target))))
		}
	}
	return err
}

// inForce returns the generation of the flags that are in force, 0 when there are none.
func (c Config) inForce() int64 {
	var have confirmation
	raw, err := os.ReadFile(filepath.Join(c.flags(), "generation.json"))
	if err != nil || json.Unmarshal(raw, &have) != nil {
		return 0
	}
	return have.Generation
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
