package policy

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

var days = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// Open reports whether the moment lies in the window, and if not, says when it does.
func (w Window) Open(at time.Time) (bool, string) {
	if len(w.Days) == 0 {
		return true, ""
	}
	zone, err := time.LoadLocation(w.Timezone)
	if err != nil {
		return false, err.Error() // Check refuses it before anything starts
	}
	local := at.In(zone)
	clock := local.Format("15:04")
	if slices.Contains(w.Days, days[local.Weekday()]) && clock >= w.From && clock < w.To {
		return true, ""
	}
	return false, fmt.Sprintf("it is %s %s; the window is %s", days[local.Weekday()], local.Format("15:04 MST"), w)
}

func (w Window) String() string {
	if len(w.Days) == 0 {
		return "always"
	}
	zone := w.Timezone
	if zone == "" {
		zone = "UTC"
	}
	return fmt.Sprintf("%s from %s to %s (%s)", strings.Join(w.Days, ", "), w.From, w.To, zone)
}

func (w Window) check() []Mistake {
	if len(w.Days) == 0 {
		return nil
	}
	var found []Mistake
	for _, day := range w.Days {
		if !slices.Contains(days, day) {
			found = append(found, Mistake{"approval.window.days", fmt.Sprintf("has %q; write %s", day, strings.Join(days, ", "))})
		}
	}
	from, fromErr := time.Parse("15:04", w.From)
	to, toErr := time.Parse("15:04", w.To)
	if fromErr != nil {
		found = append(found, Mistake{"approval.window.from", fmt.Sprintf("is %q; write a time of day such as 09:00", w.From)})
	}
	if toErr != nil {
		found = append(found, Mistake{"approval.window.to", fmt.Sprintf("is %q; write a time of day such as 16:00", w.To)})
	}
	if fromErr == nil && toErr == nil && !from.Before(to) {
		found = append(found, Mistake{"approval.window.to", fmt.Sprintf("is %s, not later than from, %s; a window lies within one day", w.To, w.From)})
	}
	if _, err := time.LoadLocation(w.Timezone); err != nil {
		found = append(found, Mistake{"approval.window.timezone", fmt.Sprintf("is %q; write an IANA name such as Europe/Berlin", w.Timezone)})
	}
	return found
}

func isHTTP(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}
