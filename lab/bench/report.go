package main

import (
	"fmt"
	"slices"
	"strings"
)

// report collects figures.
type report struct {
	versions string
	series   []*series
	texts    []string
}

// series are the times of one tool at one thing, in seconds.
type series struct {
	set, what, tool string
	times           []float64
}

func (r *report) add(set, what, tool string, seconds float64) {
	for _, s := range r.series {
		if s.set == set && s.what == what && s.tool == tool {
			s.times = append(s.times, seconds)
			return
		}
	}
	r.series = append(r.series, &series{set, what, tool, []float64{seconds}})
}

func (r *report) text(format string, args ...any) {
	r.texts = append(r.texts, fmt.Sprintf(format, args...))
}

// best is the smallest time of a tool at something; 0 when it was not measured.
func (r *report) best(set, what, tool string) float64 {
	for _, s := range r.series {
		if s.set == set && s.what == what && s.tool == tool {
			return slices.Min(s.times)
		}
	}
	return 0
}

func (s *series) String() string {
	var all []string
	for _, t := range s.times {
		all = append(all, fmt.Sprintf("%.2f", t))
	}
	return strings.Join(all, ", ")
}

// table shows all that was measured of one thing, with how many times our time each is.
func (r *report) table(b *strings.Builder, what string) {
	var sets []string
	for _, s := range r.series {
		if s.what == what && !slices.Contains(sets, s.set) {
			sets = append(sets, s.set)
		}
	}
	for _, set := range sets {
		fmt.Fprintf(b, "\n**%s**\n\n| tool | seconds, each run | best, as a multiple of ours |\n|---|---|---|\n", set)
		for _, s := range r.series {
			if s.set == set && s.what == what {
				fmt.Fprintf(b, "| %s | %s | %.2f |\n", s.tool, s, slices.Min(s.times)/r.best(set, what, ours))
			}
		}
	}
}

func (r *report) markdown() string {
	var b strings.Builder
	b.WriteString("# Figures\n\nWritten by `make bench`, on 2 shared cores with 24 GB: Swift, Ceph and the registries run on them as well. Runs of all tools are interleaved; compare ratios, not seconds.\n")
	if r.versions != "" {
		fmt.Fprintf(&b, "Peers: %s.\n", r.versions)
	}
	b.WriteString("\n## Cold: into an empty target\n")
	r.table(&b, "cold")
	b.WriteString("\n## Again, with nothing changed\n")
	r.table(&b, "again")
	for _, t := range r.texts {
		b.WriteString("\n" + t + "\n")
	}
	return b.String()
}
