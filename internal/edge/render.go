// Package edge owns what one proxy node contributes to a migration: the generated nginx files, the gate that parks writes, and the
// journal of acknowledged writes. It takes routing tables and says what came of them; it decides nothing.
package edge

import (
	"bytes"
	"embed"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"time"

	"transship/internal/routing"
)

// Names of the generated files. A site includes the first two in its http and server blocks and the third in each location that
// takes writes.
const (
	FileHTTP     = "transship_http.conf"
	FileServer   = "transship_server.conf"
	FileLocation = "transship_location.conf"
)

//go:embed templates
var templates embed.FS

var parsed = template.Must(template.New("").Funcs(template.FuncMap{"key": key}).ParseFS(templates, "templates/*.conf"))

// Upstream is a backend as nginx reaches it.
type Upstream struct {
	Name string
	// Address is host:port.
	Address string
	TLS     bool
}

// files is what the templates are given.
type files struct {
	Edge       string
	Generation int64
	Upstreams  []Upstream
	Default    string
	Routes     []renderedRoute
	Depths     []depth
	Last       int
	Expiries   []expiry
	HashMax    int
	HashBucket int
	Gate       string
	Journal    string
	Traffic    string
	RetryAfter int
}

type renderedRoute struct {
	Prefix, Backend, State string
}

// depth is all prefixes with the same number of path components: they are looked up as exact, hashed keys.
type depth struct {
	N, Before int
	Pattern   string
	Prefixes  []string
}

// expiry makes nginx itself end a hold at its deadline, so that it ends even when the gate is dead and nobody comes back.
type expiry struct {
	N       int
	Pattern string
}

// Render returns the generated files by name. deadlines has the end of each hold; a held route without one is rendered as parked
// without an end of its own.
func (c Config) Render(t routing.Table, deadlines map[routing.Prefix]time.Time) (map[string]string, error) {
	f := files{
		Edge: c.Name, Generation: t.Generation, Upstreams: c.Upstreams, Default: t.Default, Gate: c.GateAddress,
		Journal: c.Journal, Traffic: c.Traffic, RetryAfter: int(c.RetryAfter.Seconds() + 0.5),
	}
	known := func(name string) bool {
		return slices.ContainsFunc(c.Upstreams, func(u Upstream) bool { return u.Name == name })
	}
	if !known(t.Default) {
		return nil, fmt.Errorf("edge %s: routing table generation %d: default backend %q is not in this edge's configuration", c.Name, t.Generation, t.Default)
	}
	byDepth := map[int][]string{}
	longest := 0
	for _, r := range t.Routes {
		if !known(r.Backend) {
			return nil, fmt.Errorf("edge %s: routing table generation %d: backend %q of %s is not in this edge's configuration", c.Name, t.Generation, r.Backend, r.Prefix)
		}
		p := string(r.Prefix)
		n := strings.Count(p, "/") + 1
		byDepth[n] = append(byDepth[n], p)
		longest = max(longest, len(p))
		f.Routes = append(f.Routes, renderedRoute{Prefix: p, Backend: r.Backend, State: f.state(r, deadlines)})
	}
	for n := range byDepth {
		f.Depths = append(f.Depths, depth{N: n, Pattern: strings.Repeat("/[^/]+", n)[1:], Prefixes: byDepth[n]})
	}
	slices.SortFunc(f.Depths, func(a, b depth) int { return a.N - b.N })
	for i := range f.Depths {
		f.Depths[i].Before = f.Last
		f.Last = f.Depths[i].N
	}
	// nginx's defaults do for most sites, and a site may have set these itself.
	if len(t.Routes) > 500 {
		f.HashMax = 4 * len(t.Routes)
	}
	if longest > 40 {
		f.HashBucket = 512
	}
	out := map[string]string{}
	for _, name := range []string{FileHTTP, FileServer, FileLocation} {
		var b bytes.Buffer
		if err := parsed.ExecuteTemplate(&b, name, f); err != nil {
			return nil, fmt.Errorf("render %s: %w", name, err)
		}
		out[name] = b.String()
	}
	return out, nil
}

func (f *files) state(r routing.Route, deadlines map[routing.Prefix]time.Time) string {
	end, bounded := deadlines[r.Prefix]
	switch {
	case r.Mode == routing.Held && bounded:
		e := expiry{N: len(f.Expiries), Pattern: atLeast(end.Unix())}
		f.Expiries = append(f.Expiries, e)
		return fmt.Sprintf("$transship_hold_%d", e.N)
	case r.Mode.Parks():
		return "held"
	default:
		return string(r.Mode)
	}
}

// atLeast returns the alternatives of a regular expression that match the decimal numbers of the same length that are at least n. nginx compares
// no numbers, and this is how its clock can end a hold.
func atLeast(n int64) string {
	digits := fmt.Sprint(n)
	alternatives := []string{digits}
	for i := len(digits) - 1; i >= 0; i-- {
		if d := digits[i]; d < '9' {
			alternatives = append(alternatives, fmt.Sprintf("%s[%c-9]%s", digits[:i], d+1, strings.Repeat("[0-9]", len(digits)-1-i)))
		}
	}
	return strings.Join(alternatives, "|")
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
