package config

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"transship/internal/routing"
)

// Move is one prefix with the backends it moves between.
type Move struct {
	Prefix       routing.Prefix
	From, To     string
	Repositories []string
	Probe        string
}

// Move finds out what migrating a prefix means: what the file says of it, with from and to overridden where they are not empty.
// A prefix that the file does not name needs both.
func (c *Config) Move(prefix, from, to string) (Move, error) {
	p, err := routing.ParsePrefix(prefix)
	if err != nil {
		return Move{}, err
	}
	m := Move{Prefix: p, From: from, To: to, Probe: p.String() + "/transship-probe"}
	for _, configured := range c.Prefixes {
		q, err := routing.ParsePrefix(configured.Prefix)
		switch {
		case err != nil:
			return Move{}, err
		case q == p:
			if m.From == "" && m.To == "" {
				m.From, m.To = configured.From, configured.To
			}
			m.Repositories = configured.Repositories
			if configured.Probe != "" {
				m.Probe = configured.Probe
			}
		case q.Overlaps(p):
			return Move{}, fmt.Errorf("prefix %s overlaps %s, which the configuration names: a repository can belong to one of them only", p, q)
		}
	}
	if m.From == "" {
		m.From = c.DefaultBackend
	}
	known := strings.Join(slices.Sorted(maps.Keys(c.Backends)), ", ")
	for field, name := range map[string]string{"from": m.From, "to": m.To} {
		if name == "" {
			return Move{}, fmt.Errorf("prefix %s: no %s: name it with --%s or in the configuration's prefixes; the backends are %s", p, field, field, known)
		}
		if _, ok := c.Backends[name]; !ok {
			return Move{}, fmt.Errorf("prefix %s: --%s names the unknown backend %q; the backends are %s", p, field, name, known)
		}
	}
	if m.From == m.To {
		return Move{}, fmt.Errorf("prefix %s: from and to are the same backend, %q: name the one to move to with --to", p, m.To)
	}
	return m, nil
}

// Stored reports whether a move can go below the registries: both backends have an object store.
func (c *Config) Stored(m Move) bool {
	return c.Backends[m.From].Store.Set() && c.Backends[m.To].Store.Set()
}

// EdgeNames returns the names of all edges, sorted.
func (c *Config) EdgeNames() []string { return slices.Sorted(maps.Keys(c.Edges)) }

// UpstreamAddress is the backend as nginx reaches it, host:port, and whether it speaks TLS.
func (b Backend) UpstreamAddress() (address string, tls bool) {
	u, err := url.Parse(b.URL)
	if err != nil {
		return b.Upstream, false // the checks refuse it
	}
	tls = u.Scheme == "https"
	switch {
	case b.Upstream != "":
		return b.Upstream, tls
	case u.Port() != "":
		return u.Host, tls
	case tls:
		return u.Host + ":443", tls
	}
	return u.Host + ":80", tls
}

// GateAddress is the gate as nginx writes it in proxy_pass.
func (e Edge) GateAddress() string {
	if strings.HasPrefix(e.Gate, "unix:") {
		return "http://" + e.Gate + ":"
	}
	return "http://" + e.Gate
}

// BackendNames returns the names of all backends, sorted.
func (c *Config) BackendNames() []string { return slices.Sorted(maps.Keys(c.Backends)) }
