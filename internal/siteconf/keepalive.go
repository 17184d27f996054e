package siteconf

import (
	"fmt"
	"strings"
	"time"
)

// What becomes of idle connections when nginx is reloaded. Its old worker processes close them, and a client that just sends a write on one gets a reset: by default, and always before
// nginx 1.27.4. Since then keepalive_min_timeout lets them take one more request each (https://nginx.org/en/docs/http/ngx_http_core_module.html#keepalive_min_timeout).

var keeping = [3]int{1, 27, 4}

// KeepsIdle tells whether this nginx can keep idle connections over a reload. One that nothing is known of cannot.
func (b Build) KeepsIdle() bool { return !older(b.Version, keeping) }

// LongestKept is how long idle connections may outlast a reload. A prefix that was added by it is not moved before they are gone.
const LongestKept = 2 * time.Minute

const keepMin = "keepalive_min_timeout"

// KeptOpen is how long idle connections outlast a reload, at most: the greatest keepalive_min_timeout of the site.
func (s *Site) KeptOpen() (longest time.Duration) {
	for d := range s.root.all(keepMin) {
		longest = max(longest, duration(d.arg(0)))
	}
	return longest
}

// duration reads a time as nginx does (https://nginx.org/en/docs/syntax.html). Days, weeks, months and years are more than anything here is compared to.
func duration(said string) time.Duration {
	said = strings.ReplaceAll(said, " ", "")
	if strings.ContainsAny(said, "dwMy") {
		return 24 * time.Hour
	}
	if d, err := time.ParseDuration(said); err == nil {
		return d
	}
	d, _ := time.ParseDuration(said + "s") // nginx has accepted it: a number without a unit is left, alone or at the end
	return d
}

// ofReloads judges what becomes of idle connections of a server. An nginx that cannot keep them is no fault: name the prefixes, and it is hardly ever reloaded.
func ofReloads(server *block, could bool) []Fault {
	kept := server.inherited(keepMin)
	if kept != nil && duration(kept.arg(0)) > LongestKept {
		return []Fault{kept.fault(fmt.Sprintf("idle connections outlast a reload by %s: for as long, nginx goes on taking writes of a prefix that was added by it, and nobody holds them", kept.arg(0)),
			"write "+keepMin+" 10s;")}
	}
	closed := server.inherited("keepalive_timeout")
	if kept != nil || !could || closed != nil && duration(closed.arg(0)) == 0 {
		return nil
	}
	f := server.fault("a reload of nginx closes idle connections at once: a client that just sends a write on one gets a reset", "write "+keepMin+" 10s; into this server block, or around it")
	f.Warning = true
	return []Fault{f}
}
