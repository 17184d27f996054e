package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"

	"transship/config"
	"transship/internal/edge"
	"transship/workflows"
)

func (a *app) doctorCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "doctor",
		Short: "check every connection and precondition, and say how to cure what is wrong",
		Long: `Checks, in this order: the configuration, Temporal, its namespace and search attributes, that a worker polls each task queue, and, from where the
workers run, the registries, nginx, its files and how the site includes them, and what all of these
do together: small blobs are pushed to the repository for probes, and deleted again. The exit code is 5 when something needs a cure; what is
only a warning does not count.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.doctor(c.Context()) },
	}
	return a.waitsForAnswers(c)
}

func (a *app) doctor(ctx context.Context) error {
	findings := a.examine(ctx)
	err := a.print(findings, func(w io.Writer) error {
		for _, f := range findings {
			if err := writeFinding(w, f); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	wrong := 0
	for _, f := range findings {
		if f.Failed() {
			wrong++
		}
	}
	if wrong > 0 {
		return trouble("%d of %d checks failed", wrong, len(findings))
	}
	return nil
}

func writeFinding(w io.Writer, f edge.Finding) error {
	line := "ok    " + oneLine(f.What)
	if !f.OK {
		line = "FAIL  " + oneLine(f.What)
		if f.Warning {
			line = "warn  " + oneLine(f.What)
		}
		if f.Detail != "" {
			line += ": " + oneLine(f.Detail)
		}
		if f.Cure != "" {
			line += "; cure: " + oneLine(f.Cure)
		}
	}
	_, err := fmt.Fprintln(w, line)
	return err
}

// examine looks at one thing after the other, as far as each allows to look at the next.
func (a *app) examine(ctx context.Context) []edge.Finding {
	c, err := a.load(config.IgnoreSecrets)
	if err != nil {
		return misconfigured(err)
	}
	findings := []edge.Finding{{What: "configuration " + c.Path(), OK: true}}
	d, err := a.connect(ctx, c)
	reached := edge.Finding{What: "Temporal answers at " + c.Temporal.Address, OK: err == nil}
	if err != nil {
		reached.Detail = err.Error() // says the cure as well
		return append(findings, reached)
	}
	defer d.Close()
	findings = append(findings, reached)
	namespace := d.examineNamespace(ctx)
	findings = append(findings, namespace)
	if !namespace.OK {
		return findings
	}
	findings = append(findings, d.examineAttributes(ctx)...)
	queues, workers := d.examineQueues(ctx)
	findings = append(findings, queues...)
	if !workers {
		return findings
	}
	return append(findings, d.askWorkers(ctx)...)
}

func misconfigured(err error) []edge.Finding {
	var wrong *config.Error
	if !errors.As(err, &wrong) {
		return []edge.Finding{{What: "configuration", Detail: err.Error()}}
	}
	var findings []edge.Finding
	for _, m := range wrong.Mistakes {
		findings = append(findings, edge.Finding{What: "configuration " + wrong.Path, Detail: m.Error(), Cure: "mend that key; `transship config check` looks again"})
	}
	return findings
}

// examineQueues looks for workers. It also reports whether there are any for workflows.
func (d *desk) examineQueues(ctx context.Context) (findings []edge.Finding, workers bool) {
	look := func(queue string, kind enumspb.TaskQueueType, cure string) bool {
		f := edge.Finding{What: "a worker polls the task queue " + queue}
		polled, err := d.polled(ctx, queue, kind)
		switch {
		case err != nil:
			f.Detail = err.Error()
		case !polled:
			f.Detail, f.Cure = "none does", cure
		default:
			f.OK = true
		}
		findings = append(findings, f)
		return f.OK
	}
	workers = look(workflows.Queue, enumspb.TASK_QUEUE_TYPE_WORKFLOW, cureWorkflows)
	look(workflows.MoverQueue, enumspb.TASK_QUEUE_TYPE_ACTIVITY, "start one: transship-worker --config FILE --role mover")
	for _, name := range d.config.EdgeNames() {
		look(workflows.EdgeQueue(name), enumspb.TASK_QUEUE_TYPE_ACTIVITY, "start it on that node: transship-worker --config FILE --edge "+name)
	}
	return findings, workers
}

// askWorkers has the workers look at what only they can see.
func (d *desk) askWorkers(ctx context.Context) []edge.Finding {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	failed := func(err error) []edge.Finding {
		if late(err) {
			err = d.silent(ctx, "the workers were asked")
		}
		return []edge.Finding{{What: "workers answer", Detail: err.Error(), Cure: cureWorkflows}}
	}
	run, err := d.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: "doctor/" + uuid.NewString(), TaskQueue: workflows.Queue, WorkflowExecutionTimeout: max(time.Second, d.timeout), StaticSummary: "checks of every connection",
	}, workflows.Doctor, workflows.DoctorInput{Backends: d.config.BackendNames(), Edges: d.config.EdgeNames(), Moves: d.moves()})
	if err != nil {
		return failed(err)
	}
	var findings []edge.Finding
	if err := run.Get(ctx, &findings); err != nil {
		return failed(err)
	}
	return findings
}

// moves are those of the prefixes of the configuration.
func (d *desk) moves() (moves []workflows.Move) {
	for _, p := range d.config.Prefixes {
		if m, err := d.config.Move(p.Prefix, "", ""); err == nil { // the configuration was checked
			moves = append(moves, workflows.Move{Prefix: m.Prefix, From: m.From, To: m.To, Repository: m.Probe})
		}
	}
	return moves
}
