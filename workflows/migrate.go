package workflows

import (
	"go.temporal.io/sdk/workflow"

	"transship/internal/report"
)

// Migrate moves one prefix from one backend to another while clients push and pull, and can go back until it finalizes.
//
// Its steps are the list below, in this order, each a method of migration in a file of its name. A command or a failure ends the list early; then
// rollBack returns the prefix to where it came from. The result says how it ended.
func Migrate(ctx workflow.Context, in MigrateInput) (report.Report, error) {
	m, err := begin(ctx, in)
	if err != nil {
		return report.Report{}, err
	}
	err = m.follow(m.steps, []step{
		{Plan, m.plan},
		{Announce, m.announce},
		{SourceAudit, m.auditSource},
		{Mirror, m.mirror},
		{Verify, m.verify},
		{Converge, m.converge},
		{Approval, m.awaitApproval},
		m.cutOver([]step{
			{Freeze, m.freeze},
			{Drain, m.drain},
			{LastDelta, m.lastDelta},
			{VerifyLast, m.verifyLast},
			{Flip, m.flip},
			{Release, m.release},
		}),
		{Stragglers, m.carryStragglers},
		{Probe, m.probe},
		{Soak, m.soak},
		{Finalize, m.finalize},
	})
	if workflow.IsContinueAsNewError(err) {
		return report.Report{}, err
	}
	if err != nil {
		err = m.rollBack(ctx, err)
	}
	return m.conclude(ctx, err)
}
