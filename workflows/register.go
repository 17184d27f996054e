package workflows

import "go.temporal.io/sdk/worker"

// Register makes a worker run every workflow of this package.
func Register(w worker.WorkflowRegistry) {
	w.RegisterWorkflow(Migrate)
	w.RegisterWorkflow(Routes)
	w.RegisterWorkflow(Announcements)
	w.RegisterWorkflow(DryRun)
	w.RegisterWorkflow(Doctor)
	w.RegisterWorkflow(Audit)
	w.RegisterWorkflow(VerifyPrefix)
	w.RegisterWorkflow(LookAtEdges)
}
