package workflows

import (
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"transship/activities"
	"transship/internal/notify"
	"transship/internal/report"
)

// conclude writes the report and tells people how it ended. It runs whatever happened before.
func (m *migration) conclude(ctx workflow.Context, err error) (report.Report, error) {
	cancelled := ctx.Err() != nil
	ctx, cancel := workflow.NewDisconnectedContext(ctx)
	defer cancel()
	m.concluding = true
	r := &m.state.Report
	r.Ended = workflow.Now(ctx)
	switch {
	case m.state.Stop != nil:
		r.Outcome = m.state.Stop.Outcome
	case err != nil:
		r.Outcome = report.Failed
	default:
		r.Outcome = report.Finalized
	}
	if r.Reason == "" && err != nil {
		r.Reason = because(err)
	}
	m.waits = ""
	var a *activities.Reports
	if writeErr := workflow.ExecuteActivity(small(ctx, time.Minute, "write the report"), a.WriteReport, *r).Get(ctx, &r.File); writeErr != nil {
		workflow.GetLogger(ctx).Warn("report not written", "error", because(writeErr))
	}
	_ = workflow.UpsertTypedSearchAttributes(m.live, AttrOutcome.ValueSet(string(r.Outcome)))
	m.enter(Done)
	level := notify.Info
	if r.Outcome == report.Failed {
		level = notify.Critical
	}
	m.tell(ctx, level, string(r.Outcome), fmt.Sprintf("%s is served by %s. %s", m.Prefix, m.serving(), r.Reason))
	if m.state.Told > 0 {
		last := workflow.SignalExternalWorkflow(ctx, m.lineID(), "", signalAnnounce, announcement{Of: m.state.Told + 1})
		if err := last.Get(ctx, nil); err != nil {
			workflow.GetLogger(ctx).Warn("line to people not closed", "error", err)
		}
	}
	if err := workflow.Await(ctx, func() bool { return workflow.AllHandlersFinished(ctx) }); err != nil {
		return *r, err
	}
	switch {
	case cancelled:
		return *r, temporal.NewCanceledError(*r)
	case err != nil && !errors.Is(err, errStopped):
		return *r, temporal.NewNonRetryableApplicationError(r.Reason, string(r.Outcome), err, *r)
	}
	return *r, nil
}
