package siteconf

import (
	"regexp"
	"slices"
	"strings"
)

// location is a location of a registry's server, with the requests that reach it.
type location struct {
	*block
	// arrive are the methods that reach it, stay those that its own content handler gets.
	arrive, stay methods
	// touched says that it can get requests of a prefix that was named.
	touched bool
	// digests says that it gets nothing but blobs by their digest, whose content cannot differ between backends.
	digests bool
	// to has the named locations that it hands requests to.
	to map[string]methods
}

// sample is a path of the API with the methods that it knows (https://github.com/opencontainers/distribution-spec/blob/main/spec.md#endpoints).
type sample struct {
	path    string
	methods methods
	blob    bool
}

func samples(repository string) []sample {
	const digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	base := "/v2/" + repository
	return []sample{
		{base + "/manifests/v1", reads | put | del, false},
		{base + "/manifests/" + digest, reads | put | del, false},
		{base + "/blobs/" + digest, reads | del, true},
		{base + "/blobs/uploads/", options | post, false},
		{base + "/blobs/uploads/6b3c9a93-af5d-473f-a4cf-9710022185cd", reads | patch | put | del, false},
		{base + "/tags/list", reads, false},
		{base + "/referrers/" + digest, reads, false},
	}
}

// ofAll are the paths that belong to no repository.
var ofAll = []sample{{"/v2/", reads, false}, {"/v2/_catalog", reads, false}}

// locations are those of a server that clients of the registry can reach.
func (s *Site) locations(server *block, prefixes []string) []*location {
	var found []*location
	var starts []string // of the locations that compete by the length of their path
	for l := range server.all("location") {
		if kind, path := kindOf(l); kind == "" || kind == "^~" {
			starts = append(starts, path)
		}
	}
	for l := range server.all("location") {
		if at := enter(l, starts, prefixes); at.arrive != 0 {
			found = append(found, at)
		}
	}
	// What named locations get comes from others, which may be named themselves.
	all := map[string]*location{}
	for l := range server.all("location") {
		if kind, path := kindOf(l); kind == "@" {
			all[path] = &location{block: l}
		}
	}
	for _, l := range found {
		s.flow(l)
	}
	for again := true; again; {
		again = false
		for _, from := range found {
			for name, m := range from.to {
				to, ok := all[name]
				if !ok || to.arrive|m == to.arrive && (to.touched || !from.touched) {
					continue
				}
				again = true
				to.digests = from.digests && (to.digests || to.arrive == 0)
				to.arrive |= m
				to.touched = to.touched || from.touched
				s.flow(to)
				if !slices.Contains(found, to) {
					found = append(found, to)
				}
			}
		}
	}
	return found
}

// kindOf takes a location's arguments apart: "", "=", "^~", "~", "~*", or "@" for a named one, whose path is its name.
func kindOf(l *block) (kind, path string) {
	if len(l.args) == 2 {
		return l.args[0], l.args[1]
	}
	path = l.arg(0)
	if strings.HasPrefix(path, "@") {
		return "@", path
	}
	for _, kind := range []string{"^~", "~*", "~", "="} { // nginx lets them be written together
		if rest, ok := strings.CutPrefix(path, kind); ok {
			return kind, rest
		}
	}
	return "", path
}

// enter tells what of the registry's requests reaches a location by its path.
func enter(l *block, starts, prefixes []string) *location {
	at := &location{block: l}
	matches := matcher(l, starts)
	if matches == nil {
		return at
	}
	meet := func(list []sample, named bool) {
		for _, sample := range list {
			if !matches(sample.path) {
				continue
			}
			at.digests = sample.blob && (at.digests || at.arrive == 0)
			at.arrive |= sample.methods
			at.touched = at.touched || named
		}
	}
	meet(ofAll, false)
	meet(samples("library/some"), len(prefixes) == 0)
	for _, p := range prefixes {
		meet(samples(p+"/some"), true)
		meet(samples(p+"/some/more"), true)
	}
	// A location for one repository, or for a prefix that nobody named, matches no sample.
	if kind, path := kindOf(l); at.arrive == 0 && (kind == "" || kind == "^~") && strings.HasPrefix(path, "/v2/") {
		at.arrive = every
		at.touched = len(prefixes) == 0
		for _, p := range prefixes {
			at.touched = at.touched || strings.HasPrefix(path, "/v2/"+p+"/")
		}
	}
	return at
}

// matcher tells which paths a location gets; nil when that is none by path, or cannot be told.
func matcher(l *block, starts []string) func(path string) bool {
	kind, start := kindOf(l)
	switch kind {
	case "=":
		return func(path string) bool { return path == start }
	case "", "^~":
		return func(path string) bool {
			return strings.HasPrefix(path, start) &&
				!slices.ContainsFunc(starts, func(other string) bool { return len(other) > len(start) && strings.HasPrefix(path, other) })
		}
	case "~", "~*":
		expression, err := pattern(kind, start)
		if err != nil { // PCRE's own: taken for everything, if it looks like the registry's
			return func(string) bool { return strings.Contains(start, "v2") }
		}
		return expression.MatchString
	}
	return nil
}

// flow follows the requests that reach a location: those that it keeps, and those that it hands to named ones.
func (s *Site) flow(l *location) {
	l.stay, l.to = l.arrive, map[string]methods{}
	answered := map[string]methods{} // by status
	for _, d := range l.body {
		switch d.name {
		case "return":
			answered[d.arg(0)] |= l.stay
			l.stay = 0
		case "if":
			leaves := d.has("return")
			if m, ok := s.when(d.args); ok && len(leaves) > 0 {
				answered[leaves[0].arg(0)] |= l.stay & m
				l.stay &^= m
			}
		}
	}
	for _, d := range l.has("limit_except") {
		if denied := d.has("deny"); len(denied) > 0 && denied[0].arg(0) == "all" && len(d.has("allow")) == 0 {
			l.stay &= named(d.args)
		}
	}
	for _, d := range s.errorPages(l.block) {
		target := d.arg(len(d.args) - 1)
		for _, status := range d.args[:max(len(d.args)-1, 0)] {
			if strings.HasPrefix(status, "=") || !strings.HasPrefix(target, "@") {
				continue
			}
			if sent, ok := answered[status]; ok {
				l.to[target] |= sent
			} else if !own.MatchString(status) {
				l.to[target] |= l.stay
			}
		}
	}
	for _, d := range l.has("try_files") {
		if target := d.arg(len(d.args) - 1); strings.HasPrefix(target, "@") {
			l.to[target] |= l.stay
		}
	}
	for target, m := range l.to {
		if m == 0 {
			delete(l.to, target)
		}
	}
}

// own are statuses that no registry answers with: only the site's own `return` gives them.
var own = regexp.MustCompile(`^4(18|19|20|27|30|3[2-9]|4\d|5[02-9]|[6-9]\d)$`)

// errorPages are those in force in a block. Ours counts as one: nginx inherits them only where a block has none.
func (s *Site) errorPages(b *block) []*block {
	for ; b != nil; b = b.in {
		if found := b.has("error_page"); len(found) > 0 || s.includes(b, s.generated.Location) {
			return found
		}
	}
	return nil
}

// held tells whether writes of a block ask the gate, and if not, which auth_request is there instead, if any.
func (s *Site) held(b *block) (held bool, instead *block) {
	for ; b != nil; b = b.in {
		if s.includes(b, s.generated.Location) {
			return true, nil
		}
		if own := b.has("auth_request"); len(own) > 0 {
			return false, own[0]
		}
	}
	return false, nil
}
