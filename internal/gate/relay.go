package gate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"
	"time"

	"transship/internal/distribution"
	"transship/internal/journal"
	"transship/internal/routing"
)

// carryPatience is how long a relayed write waits for what it depends on. nginx itself waits a minute for an answer, unless the site says otherwise.
const carryPatience = 45 * time.Second

// relay passes a write on to a backend, with what must come before the write or before its answer:
//
//   - A request that commits a blob on a backend that does not serve the prefix, or will not when the freeze is over, is answered when the blob has been carried over.
//     So no client, through whatever edge, can push a manifest before the blobs that it needs are where the manifest goes.
//   - A manifest that needs a blob whose commit was under way at the freeze waits until that has ended and was carried over.
//   - A manifest of which the backend that serves says that it lacks something is pushed again when that was carried over from the other one (lend.go).
//
// rest is BACKEND/v2/….
func (g *Gate) relay(w http.ResponseWriter, r *http.Request, rest string) {
	backend, path, _ := strings.Cut(rest, "/")
	path = "/" + path
	address := g.Backends[backend]
	t, ok := journal.ParseTarget(r.Method, path, r.URL.RawQuery)
	if address == nil || !ok {
		http.NotFound(w, r)
		return
	}
	g.mu.Lock()
	prefix, _ := g.prefixOf(t.Repository)
	g.mu.Unlock()
	proxy := &httputil.ReverseProxy{
		Transport: g.transport,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host = address.Scheme, address.Host
			p.Out.URL.Path, p.Out.URL.RawPath, p.Out.URL.RawQuery = path, "", p.In.URL.RawQuery
			p.Out.Host = p.In.Host
			for _, h := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
				p.Out.Header[h] = p.In.Header[h] // they are the site's business
			}
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			g.log.Warn("relayed write", "method", r.Method, "path", path, "backend", backend, "error", err)
			if errors.Is(err, errNotCarried) {
				g.later(w, err)
				return
			}
			w.WriteHeader(http.StatusBadGateway)
		},
	}
	if t.Kind == journal.Manifest {
		raw, m, ok, err := manifestOf(r)
		if err == nil && ok {
			err = g.awaitBlobs(r.Context(), prefix, t.Repository, m)
			proxy.Transport = &lender{Gate: g, prefix: prefix, backend: backend, repository: t.Repository, raw: raw, needs: m}
		}
		if err != nil {
			g.later(w, err)
			return
		}
		proxy.ServeHTTP(w, r)
		return
	}
	change := journal.Change{Kind: journal.Blob, Repository: t.Repository, Reference: t.Commits}
	if g.hasCommitted(t) { // its client was told to come back
		if err := g.carry(r.Context(), prefix, backend, change); err != nil {
			g.later(w, err)
			return
		}
		w.Header().Set("Location", fmt.Sprintf("/v2/%s/blobs/%s", t.Repository, t.Commits))
		w.Header().Set("Docker-Content-Digest", t.Commits)
		w.WriteHeader(http.StatusCreated)
		return
	}
	proxy.ModifyResponse = func(resp *http.Response) error {
		if resp.StatusCode != http.StatusCreated {
			return nil
		}
		g.mu.Lock()
		g.committed[t.Reference] = commit{t.Commits, g.Now()}
		g.mu.Unlock()
		return g.carry(resp.Request.Context(), prefix, backend, change)
	}
	proxy.ServeHTTP(w, r)
}

// errNotCarried says that what a write needs is not where it belongs yet.
var errNotCarried = errors.New("not carried over yet")

func (g *Gate) later(w http.ResponseWriter, err error) {
	g.unavailable(w, err.Error())
}

func (g *Gate) hasCommitted(t journal.Target) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return t.Reference != "" && g.committed[t.Reference].digest == t.Commits
}

// carry returns when changes are where the prefix is served, or when the prefix turns out to be served from where they were made.
func (g *Gate) carry(ctx context.Context, p routing.Prefix, from string, changes ...journal.Change) error {
	ctx, cancel := context.WithTimeout(ctx, carryPatience)
	defer cancel()
	carried := make(chan error, 1)
	try := func() { go func() { carried <- g.Carry(ctx, p, from, changes, nil) }() }
	try()
	var again <-chan time.Time
	for {
		g.mu.Lock()
		r := g.rules[p]
		parks := r != nil && r.Mode.Parks()
		home := r == nil || !parks && r.Backend == from
		var changed chan struct{}
		if r != nil {
			changed = r.changed
		}
		g.mu.Unlock()
		if home {
			return nil
		}
		select {
		case err := <-carried:
			switch {
			case err == nil:
				return nil
			case !parks || ctx.Err() != nil:
				return fmt.Errorf("%s of %s: %w: %w", changes[0].Reference, changes[0].Repository, errNotCarried, err)
			}
			again = time.After(time.Second) // the migration may be gone; then its hold ends, and the prefix stays where it was
		case <-again:
			again = nil
			try()
		case <-changed:
		}
	}
}

// manifestOf reads a manifest from the body of its PUT, and puts it back. ok is false for what is none: the registry says what is wrong with it.
func manifestOf(r *http.Request) (raw []byte, m distribution.Manifest, ok bool, err error) {
	raw, err = io.ReadAll(io.LimitReader(r.Body, distribution.MaxManifest+1))
	if err != nil {
		return nil, m, false, fmt.Errorf("read the manifest: %w", err)
	}
	r.Body = unread(raw, r.Body)
	m, err = distribution.ParseManifest(raw)
	return raw, m, err == nil && len(raw) <= distribution.MaxManifest, nil
}

// unread puts back what was read of a body.
func unread(raw []byte, body io.ReadCloser) io.ReadCloser {
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(raw), body), body}
}

// awaitBlobs waits until no blob that a manifest needs is still being committed elsewhere.
func (g *Gate) awaitBlobs(ctx context.Context, p routing.Prefix, repository string, m distribution.Manifest) error {
	needs := func(u routing.Upload) bool {
		return u.Repository == repository && slices.ContainsFunc(m.Blobs, func(b distribution.Reference) bool { return string(b.Digest) == u.Commits })
	}
	deadline := time.NewTimer(carryPatience)
	defer deadline.Stop()
	for {
		g.mu.Lock()
		rule := g.rules[p]
		if rule == nil || !slices.ContainsFunc(rule.Uploads, needs) {
			g.mu.Unlock()
			return nil
		}
		changed := rule.changed
		g.mu.Unlock()
		select {
		case <-changed:
		case <-deadline.C:
			return fmt.Errorf("a blob of the manifest: %w", errNotCarried)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// endedLate has what an upload of the table committed carried over, now that its request has ended. g.mu is held.
func (g *Gate) endedLate(p routing.Prefix, t journal.Target, e journal.Entry) {
	r := g.rules[p]
	if r == nil || g.Carry == nil || t.Commits == "" {
		return
	}
	if r.Mode.Parks() && e.Backend == r.before() { // the drain has listed it, and the table that names it is on its way
		if g.late[p] == nil {
			g.late[p] = map[routing.Upload]bool{}
		}
		g.late[p][routing.Upload{Repository: t.Repository, Session: t.Reference, Commits: t.Commits}] = e.MayHaveChanged()
	}
	i := slices.IndexFunc(r.Uploads, func(u routing.Upload) bool {
		return u.Repository == t.Repository && u.Session == t.Reference && u.Commits == t.Commits
	})
	if i < 0 || e.Backend != r.Other {
		return
	}
	g.settle(p, r.Other, r.Uploads[i], e.MayHaveChanged())
}

// before is the backend that served before a freeze.
func (r Rule) before() string {
	if r.Mode == routing.Switched {
		return r.Other
	}
	return r.Backend
}

// settleLate settles what ended between the drain's last look and the table that names it. g.mu is held.
func (g *Gate) settleLate(p routing.Prefix, r *ruleState) {
	for _, u := range r.Uploads {
		if changed, ok := g.late[p][u]; ok && g.Carry != nil {
			delete(g.late[p], u)
			g.settle(p, r.Other, u, changed)
		}
	}
	if !r.Mode.Parks() {
		delete(g.late, p)
	}
}

// settle carries over what an upload may have committed and has it taken from the table. g.mu is held.
func (g *Gate) settle(p routing.Prefix, from string, u routing.Upload, changed bool) {
	var changes []journal.Change
	if changed {
		changes = []journal.Change{{Kind: journal.Blob, Repository: u.Repository, Reference: u.Commits}}
	}
	if g.settling[p] == nil {
		g.settling[p] = map[routing.Upload]bool{}
	}
	g.settling[p][u] = true
	go func() {
		defer func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			delete(g.settling[p], u)
		}()
		for wait := time.Second; ; wait = min(2*wait, time.Minute) {
			ctx, cancel := context.WithTimeout(context.Background(), carryPatience)
			err := g.Carry(ctx, p, from, changes, []routing.Upload{u})
			cancel()
			if err == nil {
				return
			}
			g.log.Warn("an upload that outlasted the freeze", "repository", u.Repository, "digest", u.Commits, "error", err)
			g.mu.Lock()
			r := g.rules[p]
			open := r != nil && slices.Contains(r.Uploads, u)
			g.mu.Unlock()
			if !open {
				return
			}
			time.Sleep(wait)
		}
	}()
}

// Reap looks for uploads of the table whose nginx process died before it could journal their end.
func (g *Gate) Reap(alive func(pid int) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, w := range g.writes {
		if w.PID == 0 || alive(w.PID) {
			continue
		}
		r := g.rules[w.Prefix]
		u, is := uploads(w)
		if r == nil || r.Mode.Parks() {
			continue // a drain tells of them
		}
		delete(g.writes, id)
		// A session goes on, through this nginx or another.
		if is && u.Commits != "" && g.Carry != nil && slices.Contains(r.Uploads, u) {
			g.settle(w.Prefix, r.Other, u, true)
		}
	}
}

// Late counts uploads that go on at a backend which no longer serves a prefix, or that have ended and are not carried over yet. A session that is silent for idle is not
// counted. A gate that started less than that ago does not know what goes on: all uploads of the table count.
func (g *Gate) Late(p routing.Prefix, idle time.Duration) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.rules[p]
	if r == nil {
		return 0
	}
	late := map[routing.Upload]bool{}
	for id, s := range g.sessions {
		if s.prefix == p && s.backend != r.Backend && g.since(s.active) < idle {
			late[routing.Upload{Repository: s.repository, Session: id}] = true
		}
	}
	for _, w := range g.writes {
		if u, is := uploads(w); is && w.Prefix == p && (u.Session != "" && g.home(u.Session, r) != r.Backend || slices.Contains(r.Uploads, u)) {
			late[routing.Upload{Repository: u.Repository, Session: u.Session}] = true
		}
	}
	for u := range g.settling[p] {
		late[routing.Upload{Repository: u.Repository, Session: u.Session}] = true
	}
	if g.since(g.started) < idle {
		for _, u := range r.Uploads {
			late[routing.Upload{Repository: u.Repository, Session: u.Session}] = true
		}
	}
	return len(late)
}
