package sitecheck

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"transship/internal/registry"
)

// apart is how far clocks may differ. No promise rests on them: leases are durations, each by the clock of one machine. Reports and journals mix times of
// several, and whoever reads them should not see effects before causes; with NTP, clocks agree far better than this.
const apart = 2 * time.Second

// clock compares the clock of a registry's machine, or of a proxy node, with this worker's: by the Date of an answer, which counts whole seconds.
func clock(ctx context.Context, p place) Finding {
	what := fmt.Sprintf("%s: its clock and this worker's agree within %s", p, apart)
	a, err := p.Exchange(ctx, registry.Exchange{Doing: "asking for the time", Method: http.MethodGet, URL: &url.URL{Path: "/v2/"}})
	if err != nil {
		return unknown(what, err)
	}
	date, err := http.ParseTime(a.Header.Get("Date"))
	if err != nil {
		return unknown(what, fmt.Errorf("the Date of its answer: %w", err))
	}
	if off := difference(date, a.Began, a.Ended); off.Abs() > apart {
		return known(what, fmt.Sprintf("it is %s %s", off.Abs().Round(100*time.Millisecond), map[bool]string{true: "ahead", false: "behind"}[off > 0]),
			"let both machines keep time with NTP; until then, times in reports, journals and Temporal do not compare")
	}
	return well(what)
}

// difference is how far a clock that said date, somewhere in its second, between began and ended of ours, is surely ahead of ours.
func difference(date, began, ended time.Time) time.Duration {
	if ahead := date.Sub(ended); ahead > 0 {
		return ahead
	}
	if behind := began.Sub(date.Add(time.Second)); behind > 0 {
		return -behind
	}
	return 0
}
