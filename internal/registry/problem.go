package registry

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Kind says what is wrong with a manifest or blob.
type Kind string

// The kinds of problems.
const (
	// Missing: something that a manifest or a tag refers to is not there.
	Missing Kind = "missing"
	// Corrupt: the bytes do not hash to their name.
	Corrupt Kind = "corrupt"
	// Short: there are fewer bytes than the manifest says.
	Short Kind = "short"
	// Long: there are more bytes than the manifest says.
	Long Kind = "long"
	// Refused: the target does not accept the manifest, for a reason that concerns this manifest alone.
	Refused Kind = "refused"
)

// Problem is a manifest or blob that cannot be relied on: a bad blob, in DESIGN.md's words, or a manifest that needs one. It is an
// error, too: reading a bad blob ends with one.
type Problem struct {
	Kind       Kind     `json:"kind"`
	Backend    string   `json:"backend"` // where it was seen
	Repository string   `json:"repository"`
	Digest     string   `json:"digest"`
	Tags       []string `json:"tags,omitempty"` // the tags that it affects, sorted
	Detail     string   `json:"detail,omitempty"`
}

func (p *Problem) Error() string {
	of := p.Repository
	if p.Digest != "" {
		of += "@" + p.Digest
	}
	s := fmt.Sprintf("backend %s: %s is %s", p.Backend, of, p.Kind)
	if p.Detail != "" {
		s += ": " + p.Detail
	}
	if len(p.Tags) > 0 {
		s += " (tags " + strings.Join(p.Tags, ", ") + ")"
	}
	return s
}

// Is makes errors.Is(problem, ErrNotFound) true for what is missing.
func (p *Problem) Is(target error) bool { return target == ErrNotFound && p.Kind == Missing }

func (r *Registry) problem(kind Kind, repository string, digest v1.Hash, detail string, args ...any) *Problem {
	return &Problem{Kind: kind, Backend: r.name, Repository: repository, Digest: digest.String(), Detail: fmt.Sprintf(detail, args...)}
}

// BrokenError says that something was not copied because of bad content. It is never temporary: somebody must heal the source, or
// decide to go on without.
type BrokenError struct{ Problems []Problem }

func (e *BrokenError) Error() string {
	if len(e.Problems) == 1 {
		return e.Problems[0].Error()
	}
	lines := make([]string, 0, len(e.Problems)+1)
	lines = append(lines, fmt.Sprintf("%d problems", len(e.Problems)))
	for i := range e.Problems {
		lines = append(lines, e.Problems[i].Error())
	}
	return strings.Join(lines, "; ")
}

// problemsIn gives the problems that an error consists of; nil when it is another kind of error, alone or among them.
func problemsIn(err error) []Problem {
	var one *Problem
	var many *BrokenError
	switch {
	case errors.As(err, &many):
		return many.Problems
	case errors.As(err, &one):
		return []Problem{*one}
	}
	return nil
}

// problems collects what is broken, each once, with all tags that it affects.
type problems struct{ byKey map[string]*Problem }

func (ps *problems) add(p Problem, tags ...string) {
	key := string(p.Kind) + " " + p.Backend + " " + p.Repository + "@" + p.Digest
	known := ps.byKey[key]
	if known == nil {
		known = &p
		known.Tags = slices.Clone(p.Tags)
		if ps.byKey == nil {
			ps.byKey = map[string]*Problem{}
		}
		ps.byKey[key] = known
	}
	for _, tag := range tags {
		if at, found := slices.BinarySearch(known.Tags, tag); !found {
			known.Tags = slices.Insert(known.Tags, at, tag)
		}
	}
}

// list gives them in an order that does not depend on which was found first.
func (ps *problems) list() []Problem {
	var all []Problem
	for _, p := range ps.byKey {
		all = append(all, *p)
	}
	slices.SortFunc(all, func(a, b Problem) int {
		return strings.Compare(a.Repository+a.Digest+string(a.Kind), b.Repository+b.Digest+string(b.Kind))
	})
	return all
}

// Problems gives the problems that an error consists of; nil when it is another kind of error.
func Problems(err error) []Problem { return problemsIn(err) }
