package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"transship/internal/report"
)

// changes shows a watched migration as lines of what is new, for logs.
type changes struct {
	w         io.Writer
	begun     bool
	decisions int
	// steps has, for each step, whether its end was told.
	steps                  []bool
	waits, trouble, failed string
	bytes                  int64
	copied                 time.Time

	lines []line
}

// line is something that happened, and when.
type line struct {
	at   time.Time
	text string
}

func (c *changes) say(at time.Time, format string, args ...any) {
	c.lines = append(c.lines, line{at, oneLine(fmt.Sprintf(format, args...))})
}

func (c *changes) show(v view) error {
	now := time.Now()
	r := v.Report
	if !c.begun {
		c.begun = true
		c.say(r.Began, "%s: %s → %s, asked for by %s, run %s", r.Prefix, r.From, r.To, r.Operator, v.Run)
	}
	for ; c.decisions < len(r.Decisions); c.decisions++ {
		d := r.Decisions[c.decisions]
		c.say(d.At, "%s %s%s", d.By, d.What, because(d.Reason))
	}
	c.showSteps(r)
	if v.Waits != c.waits {
		if c.waits = v.Waits; v.Waits != "" {
			c.say(now, "waits for %s", v.Waits)
		}
	}
	if v.Trouble != c.trouble {
		if c.trouble = v.Trouble; v.Trouble != "" {
			c.say(now, "trouble: %s", v.Trouble)
		} else {
			c.say(now, "answers again")
		}
	}
	for _, p := range v.Activities {
		if p.Attempt > 1 && p.Failure != c.failed {
			c.failed = p.Failure
			c.say(now, "retrying %s, attempt %d; the last: %s", p.Type, p.Attempt, p.Failure)
		}
	}
	if v.Copy != nil && v.Copy.Bytes != c.bytes && now.Sub(c.copied) > 5*time.Second {
		c.bytes, c.copied = v.Copy.Bytes, now
		c.say(now, "copied %s", v.Copy)
	}
	if v.Over {
		c.say(r.Ended, "over: %s; served by %s", ending(r), v.Serving)
	}
	return c.flush()
}

func (c *changes) showSteps(r report.Report) {
	for i, s := range r.Steps {
		if i == len(c.steps) {
			c.steps = append(c.steps, false)
			if s.Ended.IsZero() {
				c.say(s.Began, "%s …", s.Name)
			}
		}
		if !c.steps[i] && !s.Ended.IsZero() {
			c.steps[i] = true
			c.say(s.Ended, "%s took %s%s%s", s.Name, took(s.Took()), because(s.Note), failed(s))
		}
	}
}

// because is what follows a colon, where there is anything.
func because(text string) string {
	if text == "" {
		return ""
	}
	return ": " + text
}

// flush writes the new lines in the order in which things happened.
func (c *changes) flush() error {
	slices.SortStableFunc(c.lines, func(a, b line) int { return a.at.Compare(b.at) })
	for _, l := range c.lines {
		if _, err := fmt.Fprintf(c.w, "%s  %s\n", l.at.Local().Format("15:04:05"), l.text); err != nil {
			return err
		}
	}
	c.lines = nil
	return nil
}

// ending is how a migration ended, and why.
func ending(r report.Report) string {
	if r.Reason == "" || strings.HasPrefix(r.Reason, string(r.Outcome)) {
		return max(r.Reason, string(r.Outcome))
	}
	return string(r.Outcome) + ": " + r.Reason
}
