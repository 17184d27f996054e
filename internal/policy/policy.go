// Package policy is what a site allows a migration to do, and how patient it is. A migration takes its policy along when it starts, so
// that its history shows under which rules it ran.
package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"transship/internal/monitor"
)

// Policy is the policy section of the configuration.
type Policy struct {
	Mirror   Mirror   `json:"mirror" mapstructure:"mirror"`
	Audit    Audit    `json:"audit" mapstructure:"audit"`
	Verify   Verify   `json:"verify" mapstructure:"verify"`
	Converge Converge `json:"converge" mapstructure:"converge"`
	Canary   Canary   `json:"canary,omitzero" mapstructure:"canary"`
	Approval Approval `json:"approval" mapstructure:"approval"`
	Freeze   Freeze   `json:"freeze" mapstructure:"freeze"`
	Soak     Soak     `json:"soak" mapstructure:"soak"`
	Checks   Checks   `json:"checks" mapstructure:"checks"`
}

// Mirror bounds the copying.
type Mirror struct {
	// Repositories is how many repositories are copied at once, over all movers.
	Repositories int `json:"repositories" mapstructure:"repositories"`
	// Jobs is how many blobs and manifests each of them copies at once.
	Jobs int `json:"jobs" mapstructure:"jobs"`
	// Bandwidth in bytes per second and Requests per second bound what all movers together ask of each object store; 0 is no bound. `transship throttle`
	// changes them while a migration runs.
	Bandwidth int64 `json:"bandwidth,omitempty" mapstructure:"bandwidth"`
	Requests  int   `json:"requests,omitempty" mapstructure:"requests"`
	// ListingLag is how far the listings of the source may lag behind what it acknowledged. What was pushed in so much time before the prefix is watched is in no journal, and in
	// the first listing maybe neither: the comparison before the flip begins when it has passed.
	ListingLag time.Duration `json:"listing_lag,omitempty" mapstructure:"listing_lag"`
}

// Broken says what to do about an image that the source itself cannot serve whole.
type Broken string

const (
	// Stop ends the migration before anything is switched.
	Stop Broken = "stop"
	// Skip leaves the image out, and says so in the report.
	Skip Broken = "skip"
)

// Audit is how the source is looked at before it is copied.
type Audit struct {
	// Deep reads and hashes every byte of the source.
	Deep   bool   `json:"deep" mapstructure:"deep"`
	Broken Broken `json:"broken" mapstructure:"broken"`
}

// Verify is how the copy is looked at before it may serve.
type Verify struct {
	// Deep reads and hashes every byte of the target.
	Deep bool `json:"deep" mapstructure:"deep"`
	// AllowExtra accepts tags that only the target has.
	AllowExtra bool `json:"allow_extra" mapstructure:"allow_extra"`
}

// Converge is how close the two sides must be before the freeze.
type Converge struct {
	// Changes is how many changes a delta may have brought for the next one to be the last, under the freeze.
	Changes int `json:"changes" mapstructure:"changes"`
	// Rounds is how many deltas are tried before the migration gives up, because pushes come faster than they are copied.
	Rounds int `json:"rounds" mapstructure:"rounds"`
}

// Canary has clients read digests from the target before the flip, and from the source what the target does not have. Tags are always read where they are
// written. Without networks and percentages there is none.
type Canary struct {
	// Networks of clients that read from the target first, as CIDRs.
	Networks []string `json:"networks,omitempty" mapstructure:"networks"`
	// Percent of all requests, one step after the other, such as 1, 10, 50.
	Percent []int `json:"percent,omitempty" mapstructure:"percent"`
	// Interval is how long each step is watched.
	Interval time.Duration `json:"interval,omitempty" mapstructure:"interval"`
}

// Wanted reports whether there is to be a canary.
func (c Canary) Wanted() bool { return len(c.Networks)+len(c.Percent) > 0 }

// Approval says who lets the flip happen, and when.
type Approval struct {
	Required bool `json:"required" mapstructure:"required"`
	// Approvers may approve; empty lets anybody but a stranger to the Temporal namespace.
	Approvers []string `json:"approvers" mapstructure:"approvers"`
	Window    Window   `json:"window" mapstructure:"window"`
}

// Window is the time of the week in which a flip may begin. A window without days is always open.
type Window struct {
	// Days are mon, tue, wed, thu, fri, sat, sun.
	Days []string `json:"days" mapstructure:"days"`
	// From and To are times of day, 15:04. To is not included.
	From string `json:"from" mapstructure:"from"`
	To   string `json:"to" mapstructure:"to"`
	// Timezone is an IANA name; empty is UTC.
	Timezone string `json:"timezone" mapstructure:"timezone"`
}

// Freeze bounds how long writes wait.
type Freeze struct {
	// Lease is how long an edge holds writes without hearing from Routes again.
	Lease time.Duration `json:"lease" mapstructure:"lease"`
	// Drain is how long writes in flight may take to end before the freeze is given up.
	Drain time.Duration `json:"drain" mapstructure:"drain"`
	// Settle is how long a gate must have seen every write before a drain trusts it.
	Settle time.Duration `json:"settle" mapstructure:"settle"`
	// SessionIdle is how long an upload session may be silent before it counts as abandoned.
	SessionIdle time.Duration `json:"session_idle" mapstructure:"session_idle"`
	// Attempts is how many freezes may be given up before the migration asks for a person.
	Attempts int `json:"attempts" mapstructure:"attempts"`
	// Pause is the time between two attempts.
	Pause time.Duration `json:"pause" mapstructure:"pause"`
}

// Soak is the time after the flip in which the way back is kept open.
type Soak struct {
	Duration time.Duration `json:"duration" mapstructure:"duration"`
	// Interval is the time between two rounds of checks, probes and reverse mirroring.
	Interval time.Duration `json:"interval" mapstructure:"interval"`
	// Finalize says whether the migration finalizes by itself after Duration, or waits to be told.
	Finalize Finalize `json:"finalize" mapstructure:"finalize"`
}

// Finalize says how a soak ends.
type Finalize string

const (
	// Automatic finalizes when the soak is over.
	Automatic Finalize = "automatic"
	// Ask goes on soaking until somebody finalizes.
	Ask Finalize = "ask"
)

// Checks are what a flip must stand up to.
type Checks struct {
	// Failures is how many rounds in a row may fail before the migration rolls back by itself.
	Failures int `json:"failures" mapstructure:"failures"`
	// Baseline is how far back before the freeze the traffic is measured that later traffic is compared with.
	Baseline time.Duration  `json:"baseline" mapstructure:"baseline"`
	Limits   monitor.Limits `json:"limits" mapstructure:"limits"`
	// HTTP are the site's own checks: each is asked every round and must answer 2xx.
	HTTP []HTTPCheck `json:"http,omitempty" mapstructure:"http"`
}

// HTTPCheck is a check that answers over HTTP, such as the smoke test of a deploy tool.
type HTTPCheck struct {
	Name string `json:"name" mapstructure:"name"`
	URL  string `json:"url" mapstructure:"url"`
}

// Default is the policy of a site that says nothing: patient, and nothing happens without a person.
func Default() Policy {
	return Policy{
		Mirror:   Mirror{Repositories: 4, Jobs: 8, ListingLag: 6 * time.Minute}, // Swift's object updater brings late entries every 5 minutes
		Audit:    Audit{Broken: Stop},
		Converge: Converge{Changes: 20, Rounds: 20},
		Canary:   Canary{Interval: 10 * time.Minute},
		Approval: Approval{Required: true},
		Freeze: Freeze{
			Lease: 15 * time.Second, Drain: 5 * time.Second, Settle: 10 * time.Second, SessionIdle: time.Minute,
			Attempts: 10, Pause: 30 * time.Second,
		},
		Soak: Soak{Duration: 72 * time.Hour, Interval: 30 * time.Second, Finalize: Ask},
		Checks: Checks{
			Failures: 3, Baseline: 10 * time.Minute,
			Limits: monitor.Limits{ErrorRatio: 0.01, LatencyFactor: 3, LatencyFloor: 250 * time.Millisecond, MinimumRequests: 50},
		},
	}
}

func (c Canary) check() (found []Mistake) {
	for i, n := range c.Networks {
		if _, err := netip.ParsePrefix(n); err != nil {
			found = append(found, Mistake{fmt.Sprintf("canary.networks[%d]", i), fmt.Sprintf("is %q; write a network such as 10.1.0.0/16", n)})
		}
	}
	last := 0
	for i, n := range c.Percent {
		if n <= last || n > 100 {
			found = append(found, Mistake{fmt.Sprintf("canary.percent[%d]", i), fmt.Sprintf("is %d; write growing shares from 1 to 100, such as [1, 10, 50]", n)})
		}
		last = n
	}
	if c.Wanted() && c.Interval <= 0 {
		found = append(found, Mistake{"canary.interval", fmt.Sprintf("is %s; write a duration such as 10m", c.Interval)})
	}
	return found
}

// Mistake is something wrong with one key, and what to write instead.
type Mistake struct {
	Key     string `json:"key"`
	Problem string `json:"problem"`
}

func (m Mistake) Error() string { return m.Key + ": " + m.Problem }

// Check returns every mistake in the policy, with keys relative to it.
func (p Policy) Check() []Mistake {
	var found []Mistake
	wrong := func(bad bool, key, problem string, args ...any) {
		if bad {
			found = append(found, Mistake{key, fmt.Sprintf(problem, args...)})
		}
	}
	count := func(key string, n int) { wrong(n < 1, key, "is %d; write 1 or more", n) }
	count("mirror.repositories", p.Mirror.Repositories)
	count("mirror.jobs", p.Mirror.Jobs)
	wrong(p.Mirror.Bandwidth < 0, "mirror.bandwidth", "is %d; write bytes per second, or 0 for no bound", p.Mirror.Bandwidth)
	wrong(p.Mirror.Requests < 0, "mirror.requests", "is %d; write requests per second, or 0 for no bound", p.Mirror.Requests)
	wrong(p.Mirror.ListingLag < 0, "mirror.listing_lag", "is %s; write 0s or more", p.Mirror.ListingLag)
	count("converge.rounds", p.Converge.Rounds)
	count("freeze.attempts", p.Freeze.Attempts)
	count("checks.failures", p.Checks.Failures)
	duration := func(key string, d time.Duration) { wrong(d <= 0, key, "is %s; write a duration such as 10s", d) }
	duration("freeze.lease", p.Freeze.Lease)
	duration("freeze.drain", p.Freeze.Drain)
	duration("freeze.pause", p.Freeze.Pause)
	duration("freeze.session_idle", p.Freeze.SessionIdle)
	duration("soak.interval", p.Soak.Interval)
	duration("checks.baseline", p.Checks.Baseline)
	wrong(p.Freeze.Settle < 0, "freeze.settle", "is %s; write 0s or more", p.Freeze.Settle)
	wrong(p.Soak.Duration < 0, "soak.duration", "is %s; write 0s or more", p.Soak.Duration)
	wrong(p.Converge.Changes < 0, "converge.changes", "is %d; write 0 or more", p.Converge.Changes)
	wrong(p.Freeze.Lease > 2*time.Minute, "freeze.lease", "is %s; clients give up long before: write 2m or less", p.Freeze.Lease)
	wrong(p.Freeze.Drain+3*time.Second > p.Freeze.Lease, "freeze.drain", "is %s, which leaves less than 3s of the lease of %s for the flip: write less, or a longer freeze.lease", p.Freeze.Drain, p.Freeze.Lease)
	wrong(p.Audit.Broken != Stop && p.Audit.Broken != Skip, "audit.broken", "is %q; write %s or %s", p.Audit.Broken, Stop, Skip)
	wrong(p.Soak.Finalize != Automatic && p.Soak.Finalize != Ask, "soak.finalize", "is %q; write %s or %s", p.Soak.Finalize, Automatic, Ask)
	found = append(found, p.Canary.check()...)
	l := p.Checks.Limits
	wrong(l.ErrorRatio < 0 || l.ErrorRatio > 1, "checks.limits.error_ratio", "is %g; write a share from 0 to 1", l.ErrorRatio)
	wrong(l.LatencyFactor < 1, "checks.limits.latency_factor", "is %g; write 1 or more", l.LatencyFactor)
	for i, c := range p.Checks.HTTP {
		key := fmt.Sprintf("checks.http[%d]", i)
		wrong(c.Name == "", key+".name", "is missing; name the check as the report should call it")
		wrong(!isHTTP(c.URL), key+".url", "is %q; write an http:// or https:// address", c.URL)
	}
	found = append(found, p.Approval.Window.check()...)
	slices.SortFunc(found, func(a, b Mistake) int { return strings.Compare(a.Key, b.Key) })
	return found
}
