// Package edge owns what one proxy node contributes to a migration: the generated nginx files, the gate that parks writes, and the
// journal of acknowledged writes. It takes routing tables and says what came of them; it decides nothing.
package edge

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"transship/internal/routing"
)

// Names of the generated files. A site includes the first two in its http and server blocks and the third in each location that
// takes writes.
const (
	FileHTTP     = "transship_http.conf"
	FileServer   = "transship_server.conf"
	FileLocation = "transship_location.conf"
)

var fileNames = []string{FileHTTP, FileServer, FileLocation}

//go:embed templates
var templates embed.FS

var parsed = template.Must(template.New("").Funcs(template.FuncMap{"key": key, "flag": flagKey}).ParseFS(templates, "templates/*.conf"))

// Upstream is a backend as nginx reaches it.
type Upstream struct {
	Name string
	// Address is host:port.
	Address string
	TLS     bool
}

// URL is the upstream as proxy_pass takes it.
func (u Upstream) URL() string { return u.scheme() + "://transship_" + u.Name }

func (u Upstream) scheme() string {
	if u.TLS {
		return "https"
	}
	return "http"
}

// files is what the templates are given. It holds nothing that changes from one routing table to the next, as long as both have the same prefixes:
// what changes is in the flags. Only the networks of a canary are in it, as nginx reads them when it starts.
type files struct {
	Edge       string
	Flags      string
	Hash       string
	Upstreams  []Upstream
	Default    string
	Depths     []depth
	Last       int
	HashMax    int
	HashBucket int
	GateServer string
	Token      string
	Journal    string
	Traffic    string
	Reads      string
	Fallbacks  string
	Buckets    []int
	Networks   []network
	RetryAfter int
}

// network is whose reads a canary takes, besides a share of all.
type network struct {
	Prefix string
	CIDRs  []string
}

// depth is all prefixes with the same number of path components: they are looked up as exact, hashed keys.
type depth struct {
	N, Before int
	Pattern   string
	Prefixes  []string
}

// Render returns the generated files by name, for the prefixes of the configuration and of the table.
func (c Config) Render(t routing.Table) (map[string]string, error) {
	f := files{
		Edge: c.Name, Flags: c.flags(), Upstreams: c.Upstreams, Default: t.Default, GateServer: strings.TrimSuffix(strings.TrimPrefix(c.GateAddress, "http://"), ":"), Token: c.token,
		Journal: c.Journal, Traffic: c.Traffic, Reads: c.Reads, Fallbacks: c.Fallbacks, RetryAfter: int(c.RetryAfter.Seconds() + 0.5),
	}
	for i := range 99 {
		f.Buckets = append(f.Buckets, i)
	}
	known := func(name string) bool {
		return slices.ContainsFunc(c.Upstreams, func(u Upstream) bool { return u.Name == name })
	}
	if !known(t.Default) {
		return nil, fmt.Errorf("edge %s: routing table generation %d: default backend %q is not in this edge's configuration", c.Name, t.Generation, t.Default)
	}
	for _, r := range t.Routes {
		if r.Other != "" && !known(r.Other) {
			return nil, fmt.Errorf("edge %s: routing table generation %d: backend %q of %s is not in this edge's configuration", c.Name, t.Generation, r.Other, r.Prefix)
		}
		if !known(r.Backend) {
			return nil, fmt.Errorf("edge %s: routing table generation %d: backend %q of %s is not in this edge's configuration", c.Name, t.Generation, r.Backend, r.Prefix)
		}
		if r.Canary != nil && len(r.Canary.Networks) > 0 {
			f.Networks = append(f.Networks, network{string(r.Prefix), r.Canary.Networks})
		}
	}
	f.addPrefixes(c.known(t))
	// Without the hash, and then with the hash of that.
	out, err := f.execute()
	if err != nil {
		return nil, err
	}
	sum := sha256.New()
	for _, name := range fileNames {
		sum.Write([]byte(out[name]))
	}
	f.Hash = hex.EncodeToString(sum.Sum(nil)[:8])
	return f.execute()
}

func (f *files) addPrefixes(prefixes []routing.Prefix) {
	byDepth := map[int][]string{}
	longest := 0
	for _, prefix := range prefixes {
		p := string(prefix)
		n := strings.Count(p, "/") + 1
		byDepth[n] = append(byDepth[n], p)
		longest = max(longest, len(p))
	}
	for _, n := range slices.Sorted(maps.Keys(byDepth)) {
		f.Depths = append(f.Depths, depth{N: n, Before: f.Last, Pattern: strings.Repeat("/[^/]+", n)[1:], Prefixes: byDepth[n]})
		f.Last = n
	}
	// nginx's defaults do for most sites, and a site may have set these itself.
	if len(prefixes) > 500 {
		f.HashMax = 4 * len(prefixes)
	}
	if longest > 40 {
		f.HashBucket = 512
	}
}

func (f *files) execute() (map[string]string, error) {
	out := map[string]string{}
	for _, name := range fileNames {
		var b bytes.Buffer
		if err := parsed.ExecuteTemplate(&b, name, f); err != nil {
			return nil, fmt.Errorf("render %s: %w", name, err)
		}
		out[name] = b.String()
	}
	return out, nil
}

// key writes a prefix as the key of an nginx map, where a few names mean something of their own unless escaped
// (https://nginx.org/en/docs/http/ngx_http_map_module.html#map).
func key(prefix string) string {
	switch prefix {
	case "default", "hostnames", "include", "volatile":
		return `\` + prefix
	}
	return strconv.Quote(prefix)
}
