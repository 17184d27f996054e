package workflows

import (
	"fmt"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"go.temporal.io/sdk/workflow"
)

// show keeps the current details, which the Temporal UI renders, true: at a glance which prefix, which phase, waiting for whom.
func (m *migration) show() {
	m.showWaiting()
	r := &m.state.Report
	var b strings.Builder
	fmt.Fprintf(&b, "### %s: %s → %s\n\n", m.Prefix, m.From, m.To)
	fmt.Fprintf(&b, "**Phase:** %s", m.phase)
	if m.phase == Done {
		fmt.Fprintf(&b, " (%s)", r.Outcome)
	}
	fmt.Fprintf(&b, "  \n**Served by:** %s  \n**Asked for by:** %s\n\n", m.serving(), m.Operator)
	if waits := m.waiting(); waits != "" {
		fmt.Fprintf(&b, "> **Waits for:** %s\n\n", waits)
	}
	if r.Reason != "" {
		fmt.Fprintf(&b, "> %s\n\n", r.Reason)
	}
	if r.Mirror.Tags > 0 {
		fmt.Fprintf(&b, "- mirrored: %d tags (%d were planned), %s sent\n", r.Mirror.Tags, r.Plan.Tags, humanize.IBytes(uint64(max(0, r.Mirror.Bytes))))
	}
	if r.Deltas.Rounds > 0 {
		fmt.Fprintf(&b, "- deltas: %d, with %d writes\n", r.Deltas.Rounds, r.Deltas.Writes)
	}
	if lasted, longest := r.Freeze(); lasted > 0 {
		fmt.Fprintf(&b, "- writes were held for %s, the longest wait of one was %s\n", lasted.Round(time.Millisecond), longest.Round(time.Millisecond))
	}
	if r.Checks.Rounds > 0 {
		fmt.Fprintf(&b, "- checks: %d rounds, %d failed, %d in a row; probes: %d, %d failed\n", r.Checks.Rounds, r.Checks.RoundsFailed, m.state.Failures, r.Checks.Probes, r.Checks.ProbesFailed)
	}
	for _, found := range r.Checks.Last {
		fmt.Fprintf(&b, "  - %s\n", found)
	}
	b.WriteString("\n| step | began (UTC) | took | note |\n|---|---|---|---|\n")
	for _, s := range r.Steps {
		took := "…"
		if !s.Ended.IsZero() {
			took = s.Took().String()
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", s.Name, s.Began.UTC().Format("01-02 15:04:05"), took, strings.ReplaceAll(s.Note+" "+s.Error, "\n", " "))
	}
	workflow.SetCurrentDetails(m.live, b.String())
}

// showWaiting says in the list of workflows what a migration waits for. Keywords are short in Temporal's stores.
func (m *migration) showWaiting() {
	waits := m.waiting()
	if len(waits) > 200 {
		waits = strings.ToValidUTF8(waits[:200], "")
	}
	if waits == m.shown {
		return
	}
	m.shown = waits
	if waits == "" {
		_ = workflow.UpsertTypedSearchAttributes(m.live, AttrWaits.ValueUnset())
		return
	}
	_ = workflow.UpsertTypedSearchAttributes(m.live, AttrWaits.ValueSet(waits))
}
