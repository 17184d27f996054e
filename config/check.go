package config

import (
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"transship/internal/routing"
)

// name is what backends and edges may be called: it appears in nginx variables, task queues and file names.
var name = regexp.MustCompile(`^[a-z][a-z0-9_]{0,30}$`)

type checker struct {
	found   []Mistake
	secrets Secrets
}

func (c *checker) wrong(bad bool, key, problem string, args ...any) {
	if bad {
		c.found = append(c.found, Mistake{Key: key, Problem: fmt.Sprintf(problem, args...)})
	}
}

func (c *checker) address(key, s string) {
	u, err := url.Parse(s)
	bad := err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.User != nil
	c.wrong(bad, key, "is %q; write http://host:port or https://host, without path or password", s)
}

func (c *checker) hostPort(key, s string) {
	_, port, err := net.SplitHostPort(s)
	c.wrong(err != nil || port == "", key, "is %q; write host:port", s)
}

func (c *checker) secret(key string, s Secret) {
	if !c.secrets && (s.Env == "" || s.File == "") {
		return
	}
	_, err := s.Value()
	c.wrong(err != nil, key, "%v", err)
}

func (c *checker) file(key, path string) {
	if path == "" {
		return
	}
	_, err := os.Stat(path)
	c.wrong(err != nil, key, "%v; name a file that exists", err)
}

// check returns every mistake that the types do not rule out.
func (c *Config) check(secrets Secrets) []Mistake {
	k := &checker{secrets: secrets}
	k.hostPort("temporal.address", c.Temporal.Address)
	k.wrong(c.Temporal.Namespace == "", "temporal.namespace", "is empty; write the namespace to work in")
	_, err := c.Temporal.APIKey.Value()
	k.wrong(err != nil, "temporal.api_key", "%v", err)
	k.file("temporal.tls.ca_file", c.Temporal.TLS.CAFile)
	k.file("temporal.tls.cert_file", c.Temporal.TLS.CertFile)
	k.file("temporal.tls.key_file", c.Temporal.TLS.KeyFile)
	k.wrong((c.Temporal.TLS.CertFile == "") != (c.Temporal.TLS.KeyFile == ""), "temporal.tls.cert_file", "and key_file belong together; write both or none")

	k.wrong(len(c.Backends) < 2, "backends", "has %d entries; a migration needs two: the registry that serves now, and the one to move to", len(c.Backends))
	known := strings.Join(slices.Sorted(maps.Keys(c.Backends)), ", ")
	for _, n := range slices.Sorted(maps.Keys(c.Backends)) {
		c.checkBackend(k, "backends."+n, n, c.Backends[n])
	}
	_, ok := c.Backends[c.DefaultBackend]
	k.wrong(!ok, "default_backend", "is %q; write the backend that serves what no route names: one of %s", c.DefaultBackend, known)

	k.wrong(len(c.Edges) == 0, "edges", "is empty; name each proxy node in front of the backends")
	for _, n := range slices.Sorted(maps.Keys(c.Edges)) {
		c.checkEdge(k, "edges."+n, n, c.Edges[n])
	}
	c.checkPrefixes(k, known)
	for _, m := range c.Policy.Check() {
		k.wrong(true, "policy."+m.Key, "%s", m.Problem)
	}
	c.checkNotifications(k)
	k.wrong(!slices.Contains([]string{"debug", "info", "warn", "error"}, c.Log.Level), "log.level", "is %q; write debug, info, warn or error", c.Log.Level)
	k.wrong(c.Log.Format != "text" && c.Log.Format != "json", "log.format", "is %q; write text or json", c.Log.Format)
	return k.found
}

func (c *Config) checkBackend(k *checker, key, n string, b Backend) {
	k.wrong(!name.MatchString(n), key, "is no name for a backend; use a letter and then letters, digits and _, 31 at most")
	k.address(key+".url", b.URL)
	if b.Upstream != "" {
		k.hostPort(key+".upstream", b.Upstream)
	}
	k.secret(key+".password", b.Password)
	k.wrong(b.Username == "" && b.Password.Set(), key+".username", "is missing, but there is a password")
	k.file(key+".ca_file", b.CAFile)
	k.store(key+".store", b.Store)
}

func (c *Config) checkEdge(k *checker, key, n string, e Edge) {
	k.wrong(!name.MatchString(n), key, "is no name for an edge; use a letter and then letters, digits and _, 31 at most")
	k.address(key+".url", e.URL)
	k.secret(key+".password", e.Password)
	k.wrong(e.Username == "" && e.Password.Set(), key+".username", "is missing, but there is a password")
	k.file(key+".ca_file", e.CAFile)
	if path, ok := strings.CutPrefix(e.Gate, "unix:"); ok {
		k.wrong(!filepath.IsAbs(path), key+".gate", "is %q; write unix: and an absolute path", e.Gate)
	} else {
		k.wrong(!loopback(e.Gate), key+".gate", "is %q; write unix:/path or a loopback address such as 127.0.0.1:9099: only this node's nginx may ask it", e.Gate)
	}
	k.wrong(!loopback(e.Nginx.Reads), key+".nginx.reads", "is %q; write a loopback address that is free, such as 127.0.0.1:9098: nginx itself listens there", e.Nginx.Reads)
	k.wrong(e.Nginx.Reads == e.Gate, key+".nginx.reads", "is the address of the gate; write another")
	for field, path := range map[string]string{"journal": e.Journal, "traffic": e.Traffic, "fallbacks": e.Fallbacks, "state": e.State, "nginx.directory": e.Nginx.Directory} {
		k.wrong(!filepath.IsAbs(path), key+"."+field, "is %q; write an absolute path", path)
	}
	k.wrong(e.URL != "" && !strings.HasSuffix(e.Nginx.StatusURL, "/_transship/generation"), key+".nginx.status_url", "is %q; write this node's nginx with the path /_transship/generation, such as http://127.0.0.1/_transship/generation", e.Nginx.StatusURL)
	k.wrong(e.Journal == e.Traffic, key+".traffic", "is the same file as journal; write another")
	k.wrong(e.Fallbacks == e.Traffic || e.Fallbacks == e.Journal, key+".fallbacks", "is the same file as journal or traffic; write another")
}

func loopback(address string) bool {
	host, port, err := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	return err == nil && port != "" && ip != nil && ip.IsLoopback()
}

func (c *Config) checkPrefixes(k *checker, known string) {
	for i, p := range c.Prefixes {
		key := fmt.Sprintf("prefixes[%d]", i)
		parsed, err := routing.ParsePrefix(p.Prefix)
		k.wrong(err != nil, key+".prefix", "%v", err)
		for field, backend := range map[string]string{"from": p.From, "to": p.To} {
			_, ok := c.Backends[backend]
			k.wrong(!ok, key+"."+field, "is %q; write one of the backends: %s", backend, known)
		}
		k.wrong(p.From == p.To, key+".to", "is the same backend as from, %q; write the one to move to", p.To)
		for _, r := range p.Repositories {
			k.wrong(err == nil && !parsed.Contains(r), key+".repositories", "has %q, which is not under %s", r, parsed)
		}
		k.wrong(p.Probe != "" && err == nil && !parsed.Contains(p.Probe), key+".probe", "is %q, which is not under %s", p.Probe, parsed)
		for j, other := range c.Prefixes[:i] {
			q, otherErr := routing.ParsePrefix(other.Prefix)
			k.wrong(err == nil && otherErr == nil && parsed.Overlaps(q), key+".prefix", "overlaps prefixes[%d], %s; a repository can belong to one of them only", j, q)
		}
	}
}

func (c *Config) checkNotifications(k *checker) {
	for i, n := range c.Notifications {
		key := fmt.Sprintf("notifications[%d]", i)
		switch n.Kind {
		case "log":
		case "webhook", "slack":
			k.wrong(!n.URL.Set(), key+".url", "is missing; refer to the address with {env: NAME} or {file: PATH}, it is a secret")
			k.secret(key+".url", n.URL)
			for header, value := range n.Headers {
				k.secret(key+".headers."+header, value)
			}
		default:
			k.wrong(true, key+".kind", "is %q; write log, webhook or slack", n.Kind)
		}
		k.wrong(n.Name == "", key+".name", "is missing; name it as the logs should call it")
	}
}
