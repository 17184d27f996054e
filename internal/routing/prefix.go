// Package routing holds the words in which traffic is described: prefixes of repository names, the backend that
// serves each of them, and the table of all routes with its generation. It is pure data and rules; nothing here does I/O,
// so workflows may use it as well as activities.
package routing

import (
	"fmt"
	"regexp"
	"strings"
)

// Prefix is the leading path components of repository names. "restricted" holds "restricted/a" and "restricted/a/b", never
// "restricted2". A repository named exactly like the prefix belongs to it as well.
type Prefix string

// component is one path component of a repository name, as the OCI distribution specification defines it
// (https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pulling-manifests).
var component = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$`)

// ParsePrefix checks that s can be a prefix of repository names. A trailing slash is accepted, since people write one;
// everything else that is not a plain list of path components is an error that says what to write instead.
func ParsePrefix(s string) (Prefix, error) {
	trimmed := strings.TrimSuffix(s, "/")
	switch {
	case trimmed == "":
		return "", fmt.Errorf("prefix is empty: name the leading path of the repositories to move, such as %q", "restricted")
	case strings.HasPrefix(s, "/"):
		return "", fmt.Errorf("prefix %q starts with a slash: write %q", s, strings.Trim(s, "/"))
	case len(trimmed) > 200:
		return "", fmt.Errorf("prefix %.20q… is longer than 200 characters: repository names end at 255", trimmed)
	}
	for part := range strings.SplitSeq(trimmed, "/") {
		switch {
		case part == "":
			return "", fmt.Errorf("prefix %q has an empty path component: write single slashes between names", s)
		case part == "." || part == "..":
			return "", fmt.Errorf("prefix %q has the path component %q: repository names have no relative parts, write the name itself", s, part)
		case !component.MatchString(part):
			return "", fmt.Errorf("prefix %q has the path component %q, which no repository name can have: use lower-case letters, digits and single . _ - between them", s, part)
		}
	}
	return Prefix(trimmed), nil
}

// Contains reports whether the repository lies under the prefix.
func (p Prefix) Contains(repository string) bool {
	return repository == string(p) || strings.HasPrefix(repository, string(p)+"/")
}

// Overlaps reports whether some repository name could lie under both prefixes.
func (p Prefix) Overlaps(q Prefix) bool {
	return p.Contains(string(q)) || q.Contains(string(p))
}

func (p Prefix) String() string { return string(p) }
