package workflows

import (
	"fmt"
	"slices"
	"time"

	"go.temporal.io/sdk/workflow"

	"transship/activities"
	"transship/internal/journal"
	"transship/internal/monitor"
	"transship/internal/notify"
	"transship/internal/policy"
	"transship/internal/probe"
)

// kindChecksFailed: the target does not stand up to the checks.
const kindChecksFailed = "ChecksFailed"

// carryStragglers brings what the old backend acknowledged after the last delta: uploads that were in flight, and writes that got past a gate which was
// down. A tag that the new backend has been given since then is newer, and stays.
func (m *migration) carryStragglers(ctx workflow.Context) error {
	brought := 0
	for _, name := range m.edges() {
		for more := true; more; {
			late, err := m.read(ctx, name, m.From, 0)
			if err != nil {
				return err
			}
			more = late.More
			if late.Lost { // comparing would take what the new backend has been given since for old
				m.decide("transship", "cannot tell which late writes "+m.From+" acknowledged", "the journal of edge "+name+" does not go back to the flip")
			}
			if len(late.Changes) > 0 {
				since, err := m.since(ctx)
				if err != nil {
					return err
				}
				late.Changes = slices.DeleteFunc(late.Changes, func(c journal.Change) bool {
					return c.Kind == journal.Manifest && slices.ContainsFunc(since, func(n journal.Change) bool {
						return n.Repository == c.Repository && n.Reference == c.Reference
					})
				})
				if err := m.apply(ctx, m.From, m.To, late.Changes, 0); err != nil {
					return err
				}
			}
			m.state.Positions[m.From][name] = late.Next
			brought += len(late.Changes)
		}
	}
	m.state.Report.Deltas.Changes += brought
	if m.phase == Stragglers {
		m.note("%d", brought)
	}
	return nil
}

// since is what the new backend has acknowledged, through any edge, and the reverse mirror has not carried yet.
func (m *migration) since(ctx workflow.Context) (changes []journal.Change, err error) {
	for _, name := range m.edges() {
		from := m.state.Positions[m.To][name]
		for more := true; more; {
			d, err := m.readFrom(ctx, name, m.To, from, 0)
			if err != nil {
				return nil, err
			}
			if d.Lost {
				return nil, refusal(kindJournalLost, "the journal of edge %s lost what it held since the flip", name)
			}
			changes, from, more = append(changes, d.Changes...), d.Next, d.More
		}
	}
	return changes, nil
}

// probe pushes and pulls through every edge, as a client would.
func (m *migration) probe(ctx workflow.Context) error {
	var failures []string
	for range m.Policy.Checks.Failures {
		if failures = m.probeEdges(ctx); len(failures) == 0 {
			m.note("slowest %s", m.state.Report.Checks.SlowestProbe.Round(time.Millisecond))
			return nil
		}
		if err := workflow.Sleep(ctx, time.Second); err != nil {
			return err
		}
	}
	return refusal(kindChecksFailed, "%s", failures[0])
}

func (m *migration) probeEdges(ctx workflow.Context) (failures []string) {
	c := &m.state.Report.Checks
	var a *activities.Probes
	for _, name := range m.edges() {
		var result probe.Result
		q := activities.ProbeEdgeParams{Edge: name, Backend: m.serving(), Repository: m.Probe}
		options := workflow.WithActivityOptions(ctx, oneTry(time.Minute, "probe through "+name))
		err := workflow.ExecuteActivity(options, a.ProbeEdge, q).Get(ctx, &result)
		if ctx.Err() != nil { // interrupted, which says nothing about the edge
			return failures
		}
		c.Probes++
		if err != nil {
			c.ProbesFailed++
			failures = append(failures, because(err))
			continue
		}
		c.SlowestProbe = max(c.SlowestProbe, result.Push+result.Pull)
	}
	return failures
}

// sampleBefore measures what clients see before the flip.
func (m *migration) sampleBefore(ctx workflow.Context) {
	if s, ok := m.sample(ctx, m.Policy.Checks.Baseline); ok {
		m.state.Report.Checks.Before = s
	}
}

func (m *migration) sample(ctx workflow.Context, window time.Duration) (sum monitor.Sample, ok bool) {
	var a *activities.Edge
	for _, name := range m.edges() {
		var s monitor.Sample
		p := activities.SampleTrafficParams{Prefix: m.Prefix, Window: window}
		if err := workflow.ExecuteActivity(onEdge(ctx, name, 10*time.Second, "what clients see"), a.SampleTraffic, p).Get(ctx, &s); err != nil {
			return sum, false // an edge that is away is no failure of the target
		}
		sum = sum.Merge(s)
	}
	return sum, true
}

// soak keeps the way back open: every round it carries what was pushed to the new backend back to the old one, probes, and looks whether clients fare
// worse than before. Rounds that fail too often in a row roll the migration back.
func (m *migration) soak(ctx workflow.Context) error {
	s := m.Policy.Soak
	if m.state.SoakUntil.IsZero() {
		m.state.SoakUntil = workflow.Now(ctx).Add(s.Duration)
		m.tell(ctx, notify.Info, "flipped", fmt.Sprintf("%s is served by %s. %s is kept current until %s; `transship rollback %s` goes back.",
			m.Prefix, m.To, m.From, m.state.SoakUntil.UTC().Format(time.RFC3339), m.Prefix))
	}
	for {
		m.waits = "the soak, until " + m.state.SoakUntil.UTC().Format("2006-01-02 15:04:05 UTC")
		if s.Finalize == policy.Ask {
			m.waits += ", and then for `transship finalize " + m.Prefix.String() + "`"
		}
		if err := m.pausable(ctx, m.round); err != nil {
			return err
		}
		if m.state.Failures >= m.Policy.Checks.Failures {
			return refusal(kindChecksFailed, "%d rounds of checks failed in a row: %s", m.state.Failures, m.state.Report.Checks.Last[0])
		}
		over := func() bool {
			return m.state.Finalize != nil || s.Finalize == policy.Automatic && !workflow.Now(ctx).Before(m.state.SoakUntil)
		}
		if over() && m.state.Failures == 0 {
			m.note("%d rounds, %d failed", m.state.Report.Checks.Rounds, m.state.Report.Checks.RoundsFailed)
			return nil
		}
		if err := m.continueIfLong(ctx); err != nil {
			return err
		}
		if err := m.sleep(ctx, s.Interval, func() bool { return m.state.Finalize != nil && m.state.Failures == 0 }); err != nil {
			return err
		}
	}
}

// round is one round of a soak.
func (m *migration) round(ctx workflow.Context) error {
	failures, warnings := m.probeEdges(ctx), []string(nil)
	for _, check := range m.Policy.Checks.HTTP {
		var a *activities.Probes
		options := workflow.WithActivityOptions(ctx, oneTry(time.Minute, "check "+check.Name))
		if err := workflow.ExecuteActivity(options, a.AskCheck, check).Get(ctx, nil); err != nil {
			failures = append(failures, because(err))
		}
	}
	c := &m.state.Report.Checks
	if now, ok := m.sample(ctx, max(m.Policy.Soak.Interval, 5*time.Second)); ok {
		c.After = now
		failures = append(failures, monitor.Judge(c.Before, now, m.Policy.Checks.Limits)...)
	}
	// Trouble of the way back is no reason to take it: it is told, and tried again.
	if err := m.carryStragglers(ctx); err != nil {
		warnings = append(warnings, "late writes of "+m.From+": "+because(err))
	}
	if _, err := m.carry(ctx, m.To, m.From, 0); err != nil {
		warnings = append(warnings, "carrying back to "+m.From+": "+because(err))
	}
	if ctx.Err() != nil {
		return ctx.Err() // paused or stopped: what failed says nothing
	}
	if err := m.welcomeBack(ctx); err != nil {
		warnings = append(warnings, "an edge that is back: "+because(err))
	}
	if _, err := m.settleUploads(ctx); err != nil {
		warnings = append(warnings, "uploads of before the flip: "+because(err))
	}
	c.Rounds++
	c.Last = append(failures, warnings...)
	if len(failures) == 0 {
		m.state.Failures = 0
	} else {
		c.RoundsFailed++
		m.state.Failures++
		m.tell(ctx, notify.Warning, "checks failed", fmt.Sprintf("round %d, %d in a row (limit %d): %s", c.Rounds, m.state.Failures, m.Policy.Checks.Failures, failures[0]))
	}
	m.show()
	return nil
}

// finalize gives the prefix to the new backend for good.
func (m *migration) finalize(ctx workflow.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	// From here on there is no way back, so nothing interrupts either.
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	by := "transship"
	if m.state.Finalize != nil {
		by = m.state.Finalize.By
	}
	if err := m.awaitUploads(ctx); err != nil {
		return err
	}
	m.decide(by, "finalized: "+m.From+" is no longer kept current", "")
	return m.disown(ctx)
}

// disown ends our claim to the prefix; it stays where it is.
func (m *migration) disown(ctx workflow.Context) error {
	var r *activities.Routes
	return workflow.ExecuteActivity(toRoutes(ctx, "give up the claim to "+m.Prefix.String()), r.DisownPrefix, m.request()).Get(ctx, nil)
}
