// Package report is the record of one migration: who asked for what, what was seen and decided at each step, and what it came to. It is kept
// in the workflow's state while the migration runs, and is its result at the end.
package report

import (
	"time"

	"transship/internal/monitor"
	"transship/internal/registry"
	"transship/internal/routing"
)

// Outcome is how a migration ended.
type Outcome string

const (
	// Running: it has not ended.
	Running Outcome = "running"
	// Finalized: the prefix lives on the target for good.
	Finalized Outcome = "finalized"
	// RolledBack: the prefix is served by the source, as before.
	RolledBack Outcome = "rolled-back"
	// Aborted: it ended before the flip, by command.
	Aborted Outcome = "aborted"
	// Failed: it ended before the flip, because a step failed.
	Failed Outcome = "failed"
)

// Report is everything worth reading afterwards.
type Report struct {
	Prefix   routing.Prefix `json:"prefix"`
	From     string         `json:"from"`
	To       string         `json:"to"`
	Operator string         `json:"operator"`
	Workflow string         `json:"workflow"`
	Run      string         `json:"run"`
	Began    time.Time      `json:"began"`
	Ended    time.Time      `json:"ended,omitzero"`
	Outcome  Outcome        `json:"outcome"`
	// Reason is why it ended as it did, when that was not finalize.
	Reason string `json:"reason,omitempty"`

	// File is where the report was written, if the worker that wrote it keeps reports.
	File string `json:"file,omitempty"`

	Plan      Plan       `json:"plan"`
	Steps     []Step     `json:"steps"`
	Decisions []Decision `json:"decisions,omitempty"`

	Mirror  registry.Progress `json:"mirror"`
	Deltas  Deltas            `json:"deltas"`
	Reverse Deltas            `json:"reverse"`
	Checks  Checks            `json:"checks"`
	// Freezes are the holds of the cutovers, as the edges measured them; Attempts counts the cutovers that were tried, given up ones included.
	Freezes  []routing.Freeze `json:"freezes,omitempty"`
	Attempts int              `json:"attempts"`
	// Left names images that were left out, with the reason.
	Left []registry.Problem `json:"left,omitempty"`
	// NotDeleted names manifests that were deleted on the serving side and stay on the other.
	NotDeleted []string `json:"not_deleted,omitempty"`
	// Unexpected names keys in the source's store that Docker Distribution does not write, and that were not copied.
	Unexpected []string `json:"unexpected,omitempty"`
	// NotCarriedBack names what was acknowledged by the target and could not be carried back by a rollback that was told to accept that.
	NotCarriedBack []string `json:"not_carried_back,omitempty"`
}

// Storage is the plane of a plan whose images move between the object stores, below the registries; empty is through the registries.
const Storage = "storage"

// Plan is what a migration would copy.
type Plan struct {
	Plane        string `json:"plane,omitempty"`
	Repositories int64  `json:"repositories"`
	Tags         int64  `json:"tags"`
	TagsPresent  int64  `json:"tags_present"`
	Manifests    int64  `json:"manifests"`
	Blobs        int64  `json:"blobs"`
	Bytes        int64  `json:"bytes"`
	BlobsPresent int64  `json:"blobs_present"`
	BytesPresent int64  `json:"bytes_present"`
	// Objects are all objects in the store, links and blobs; only below the registries. So is the rest of this group.
	Objects        int64 `json:"objects,omitempty"`
	ObjectsPresent int64 `json:"objects_present,omitempty"`
	// BytesShared are those that other prefixes refer to as well.
	BytesShared int64 `json:"bytes_shared,omitempty"`
	// Takes is how long the mirror is estimated to take, from reading Sample blobs.
	Takes  time.Duration `json:"takes_ns,omitempty"`
	Sample int           `json:"sample,omitempty"`
	// Unexpected are keys that Docker Distribution does not write: they stay where they are.
	Unexpected []string `json:"unexpected,omitempty"`
	// Changed are tags that the target has with another digest; Extra those that only the target has.
	Changed []string `json:"changed,omitempty"`
	Extra   []string `json:"extra,omitempty"`
	// Broken are images that the source cannot serve whole, as far as reading manifests shows.
	Broken []string `json:"broken,omitempty"`
	// Blockers are reasons why the migration cannot begin.
	Blockers []string `json:"blockers,omitempty"`
	// Warnings are what people should know before it begins.
	Warnings []string `json:"warnings,omitempty"`
}

// Add sums up the plans of two lists of repositories. Blobs that both refer to are counted twice.
func (p Plan) Add(o Plan) Plan {
	return Plan{
		Repositories: p.Repositories + o.Repositories, Tags: p.Tags + o.Tags, TagsPresent: p.TagsPresent + o.TagsPresent,
		Manifests: p.Manifests + o.Manifests, Blobs: p.Blobs + o.Blobs, Bytes: p.Bytes + o.Bytes,
		BlobsPresent: p.BlobsPresent + o.BlobsPresent, BytesPresent: p.BytesPresent + o.BytesPresent,
		Changed: append(p.Changed, o.Changed...), Extra: append(p.Extra, o.Extra...),
		Broken: append(p.Broken, o.Broken...), Blockers: append(p.Blockers, o.Blockers...), Warnings: append(p.Warnings, o.Warnings...),
	}
}

// Missing is how many bytes the target lacks.
func (p Plan) Missing() int64 { return p.Bytes - p.BytesPresent }

// Step is one step of the migration.
type Step struct {
	Name  string    `json:"name"`
	Began time.Time `json:"began"`
	Ended time.Time `json:"ended,omitzero"`
	// Note is what came of it.
	Note string `json:"note,omitempty"`
	// Error is why it did not succeed.
	Error string `json:"error,omitempty"`
}

// Decision is something that a person, or the migration itself, decided.
type Decision struct {
	At time.Time `json:"at"`
	// By is the person, or "transship".
	By     string `json:"by"`
	What   string `json:"what"`
	Reason string `json:"reason,omitempty"`
}

// Deltas sums up the deltas of one direction.
type Deltas struct {
	Rounds  int   `json:"rounds"`
	Writes  int   `json:"writes"`
	Changes int   `json:"changes"`
	Bytes   int64 `json:"bytes"`
	// Comparisons counts deltas that had to compare both sides, because a journal was lost.
	Comparisons int `json:"comparisons,omitempty"`
}

// Checks is what was looked at.
type Checks struct {
	Audited      registry.Check        `json:"audited"`
	Verified     registry.Check        `json:"verified"`
	Differences  []registry.Difference `json:"differences,omitempty"`
	Probes       int                   `json:"probes"`
	ProbesFailed int                   `json:"probes_failed"`
	// SlowestProbe is of the probes that succeeded.
	SlowestProbe time.Duration  `json:"slowest_probe_ns"`
	Rounds       int            `json:"rounds"`
	RoundsFailed int            `json:"rounds_failed"`
	Last         []string       `json:"last,omitempty"`
	Before       monitor.Sample `json:"before"`
	After        monitor.Sample `json:"after"`
}

// Freeze is the longest that writes were held on any edge by the last cutover, and the longest that a single write waited.
func (r *Report) Freeze() (lasted, longest time.Duration) {
	for _, f := range r.Freezes {
		lasted, longest = max(lasted, f.Lasted), max(longest, f.Longest)
	}
	return lasted, longest
}

// Rate is how many bytes a second the mirror sent; 0 when it did not run.
func (r *Report) Rate() int64 {
	for _, s := range r.Steps {
		if took := s.Ended.Sub(s.Began); s.Name == "mirror" && took > 0 {
			return int64(float64(r.Mirror.Bytes) / took.Seconds())
		}
	}
	return 0
}
