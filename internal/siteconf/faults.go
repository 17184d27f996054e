package siteconf

import (
	"fmt"
	"net"
	"slices"
	"strings"
)

// Expected is what a site is judged by.
type Expected struct {
	// Prefixes are those that are to be moved; a location that none of them reaches is only warned of. None is all.
	Prefixes []string
	// Backends are the addresses, as host:port, by which nginx reaches the registries: whoever passes requests there serves a registry.
	Backends []string
	// KeepsIdle says that this nginx could keep idle connections over a reload.
	KeepsIdle bool
}

// Variables of the generated files.
const (
	forWrites = "$transship_upstream"
	forReads  = "$transship_read_upstream"
)

// routed are the variables that say which backend serves. $proxy_host does in a location that passes requests to one of ours.
var routed = []string{"$transship_route", "$transship_backend", forWrites, forReads, "$proxy_host"}

// Faults finds everything that is missing or in the way, in the order of the configuration.
func (s *Site) Faults(e Expected) (faults []Fault) {
	g := s.generated
	for web := range s.root.all("http") {
		var found []Fault
		for server := range web.all("server") {
			found = append(found, s.ofServer(web, server, e)...)
		}
		if len(found) > 0 && !s.includes(web, g.HTTP) {
			faults = append(faults, web.fault("the http block lacks "+g.HTTP, "write "+g.line(g.HTTP)+" into it, once"))
		}
		faults = append(faults, found...)
	}
	if len(faults) == 0 && !s.served(e) {
		faults = append(faults, s.root.fault("no server block serves /v2/", "write "+g.line(g.Server)+" into the server block of the registry; `transship edge snippet` shows the rest"))
	}
	return faults
}

// served tells whether any server is the registry's.
func (s *Site) served(e Expected) bool {
	for web := range s.root.all("http") {
		for server := range web.all("server") {
			if s.registry(web, server, e) {
				return true
			}
		}
	}
	return false
}

// registry tells whether a server passes requests of the registry's API on.
func (s *Site) registry(web, server *block, e Expected) bool {
	if s.includes(server, s.generated.Server) {
		return true
	}
	for l := range server.all("location") {
		if _, path := kindOf(l); strings.Contains(path, "/v2") && len(passes(l, every)) > 0 {
			return true
		}
	}
	for pass := range server.all("proxy_pass") {
		if slices.ContainsFunc(targets(web, pass.arg(0)), func(address string) bool { return slices.Contains(e.Backends, address) }) {
			return true
		}
	}
	return false
}

// targets are the addresses behind a literal proxy_pass, through its upstream block if it names one.
func targets(web *block, pass string) (addresses []string) {
	scheme, host, _ := strings.Cut(pass, "://")
	host, _, _ = strings.Cut(host, "/")
	for _, u := range web.has("upstream") {
		if u.arg(0) != host {
			continue
		}
		for _, server := range u.has("server") {
			addresses = append(addresses, withPort(server.arg(0), scheme))
		}
	}
	return append(addresses, withPort(host, scheme))
}

func withPort(address, scheme string) string {
	if _, _, err := net.SplitHostPort(address); err == nil {
		return address
	}
	return net.JoinHostPort(address, map[string]string{"http": "80", "https": "443"}[scheme])
}

func (s *Site) ofServer(web, server *block, e Expected) (faults []Fault) {
	if !s.registry(web, server, e) {
		return nil
	}
	g := s.generated
	if !s.includes(server, g.Server) {
		faults = append(faults, server.fault("this server block serves the registry and lacks "+g.Server, "write "+g.line(g.Server)+" into it"))
	}
	serves := false
	for _, l := range s.locations(server, e.Prefixes) {
		passed := passes(l.block, l.stay)
		if len(passed) == 0 {
			continue // it serves something itself
		}
		serves = true
		found := s.ofLocation(l, passed)
		for i := range found {
			found[i].Warning = found[i].Warning || !l.touched
		}
		faults = append(faults, found...)
	}
	if serves && s.includes(server, g.Server) {
		faults = append(faults, silenced(web, server)...)
	}
	if serves {
		faults = append(faults, ofReloads(server, e.KeepsIdle)...)
	}
	return faults
}

// silenced finds a log of the http block that our include in the server block replaces.
func silenced(web, server *block) []Fault {
	logs := web.has("access_log")
	if len(logs) == 0 || logs[0].arg(0) == "off" || len(server.has("access_log")) > 0 {
		return nil
	}
	f := server.fault(fmt.Sprintf("the access_log of the http block (%s:%d) no longer gets the requests of this server: the include has ones of its own", logs[0].file, logs[0].line),
		"write access_log "+strings.Join(logs[0].args, " ")+"; into the server block as well")
	f.Warning = true
	return []Fault{f}
}

// pass is a proxy_pass with the methods that it gets.
type pass struct {
	*block
	methods methods
}

// passes are those of a location itself, not of locations in it.
func passes(l *block, stay methods) (found []pass) {
	for _, d := range l.body {
		switch d.name {
		case "proxy_pass":
			found = append(found, pass{d, stay})
		case "if":
			found = append(found, passes(d, stay)...)
		case "limit_except":
			found = append(found, passes(d, stay&^named(d.args))...)
		}
	}
	return found
}

func (s *Site) ofLocation(l *location, passed []pass) (faults []Fault) {
	g := s.generated
	written := l.stay & writes
	held, instead := s.held(l.block)
	switch {
	case written != 0 && !held && instead != nil && instead.in == l.block:
		faults = append(faults, instead.fault(fmt.Sprintf("%s takes writes (%s) without the hold: its own auth_request is the only one that nginx allows there", l.called(), written),
			"let another server block in front of this one make that check and pass requests on to it, and write "+g.line(g.Location)+" here instead"))
	case written != 0 && !held:
		faults = append(faults, l.fault(fmt.Sprintf("%s takes writes (%s) without the hold", l.called(), written),
			"write "+g.line(g.Location)+" into it, or forbid writes there with limit_except GET { deny all; }"))
	case held:
		faults = append(faults, s.hidden(l)...)
	}
	for _, p := range passed {
		faults = append(faults, s.ofPass(l, p)...)
	}
	return append(faults, s.ofCache(l)...)
}

// hidden are directives of the blocks around a location that no longer count in it, because the include has ones of its own.
func (s *Site) hidden(l *location) (faults []Fault) {
	at := l.block
	for !s.includes(at, s.generated.Location) {
		at = at.in
	}
	if own := at.has("auth_request"); len(own) > 0 {
		return []Fault{own[0].fault("auth_request is there twice: this one and the include's", "leave one: "+elsewhere)}
	}
	if other := at.in.inherited("auth_request"); other != nil && other.arg(0) != "off" {
		faults = append(faults, at.fault(fmt.Sprintf("the auth_request of %s:%d does not count in %s: the include has its own, and the nearer one wins", other.file, other.line, at.called()), elsewhere))
	}
	if loose := l.inherited("satisfy"); loose != nil && loose.arg(0) == "any" {
		faults = append(faults, loose.fault(fmt.Sprintf("satisfy any counts in %s, which asks the gate: its yes would let everybody in, without the site's password", l.called()), elsewhere))
	}
	if other := at.in.inherited("error_page"); other != nil && len(at.has("error_page")) == 0 {
		f := at.fault(fmt.Sprintf("the error_page of %s:%d does not count in %s: the include has its own", other.file, other.line, at.called()), "write error_page "+strings.Join(other.args, " ")+"; into the location as well")
		f.Warning = true
		faults = append(faults, f)
	}
	return faults
}

const elsewhere = "let a server block in front of this one make the site's check, and pass requests on to it"

func (s *Site) ofPass(l *location, p pass) []Fault {
	written := p.methods & writes
	switch {
	case p.methods == 0 || s.derived(p.arg(0), forWrites):
		return nil
	case s.derived(p.arg(0), forReads) && written == 0:
		return nil
	case s.derived(p.arg(0), forReads):
		return []Fault{p.fault(fmt.Sprintf("%s takes writes (%s) and passes them to %s, which a write that was held must not follow", l.called(), written, forReads), "write proxy_pass "+forWrites+";")}
	case written != 0:
		return []Fault{p.fault(fmt.Sprintf("%s passes writes (%s) to %s, past the route", l.called(), written, p.arg(0)), "write proxy_pass "+forWrites+";")}
	}
	return []Fault{p.fault(fmt.Sprintf("%s passes reads to %s, past the route", l.called(), p.arg(0)), "write proxy_pass "+forReads+";")}
}

// derived tells whether a value contains a variable, or one that the site has made of it with map or set.
func (s *Site) derived(value string, from ...string) bool { return s.derivedFrom(value, from, 5) }

func (s *Site) derivedFrom(value string, from []string, depth int) bool {
	for _, name := range variable.FindAllString(value, -1) {
		if slices.Contains(from, plain(name)) {
			return true
		}
		if depth == 0 {
			continue
		}
		for _, m := range s.maps[plain(name)] {
			if s.derivedFrom(m.arg(0), from, depth-1) || slices.ContainsFunc(m.body, func(e *block) bool { return s.derivedFrom(e.arg(0), from, depth-1) }) {
				return true
			}
		}
		for set := range s.root.all("set") {
			if plain(set.arg(0)) == plain(name) && s.derivedFrom(set.arg(1), from, depth-1) {
				return true
			}
		}
	}
	return false
}

// ofCache finds a cache that would go on answering with what the old backend said.
func (s *Site) ofCache(l *location) []Fault {
	cache := l.inherited("proxy_cache")
	if cache == nil || cache.arg(0) == "off" || l.stay&(get|head) == 0 {
		return nil
	}
	key := l.inherited("proxy_cache_key")
	if key == nil || s.derived(strings.Join(key.args, " "), routed...) {
		return nil // by default the key has $proxy_host, which names the upstream of the backend
	}
	f := key.fault(fmt.Sprintf("%s answers from the cache %s, whose key %q does not say which backend serves: after a flip it would go on answering for the old one", l.called(), cache.arg(0), strings.Join(key.args, " ")),
		"put $transship_route into the key: proxy_cache_key \"$transship_route "+strings.Join(key.args, " ")+"\";")
	f.Warning = l.digests // their content is the same everywhere
	return []Fault{f}
}
