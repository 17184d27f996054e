package main

import (
	"context"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

const (
	queue    = "devserver-test"
	byPrefix = "TransshipPrefix = 'restricted'"
)

var prefixKey = temporal.NewSearchAttributeKeyKeyword("TransshipPrefix")

func echo(_ workflow.Context, said string) (string, error) { return said, nil }

func waitForWord(ctx workflow.Context) (string, error) {
	var said string
	workflow.GetSignalChannel(ctx, "word").Receive(ctx, &said)
	return said, nil
}

// work polls the test's task queue until the test ends.
func work(t *testing.T, c client.Client) {
	t.Helper()
	w := worker.New(c, queue, worker.Options{})
	w.RegisterWorkflow(echo)
	w.RegisterWorkflow(waitForWord)
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
}

// start starts a workflow with its prefix as search attribute.
func start(ctx context.Context, t *testing.T, c client.Client, id string, do any, args ...any) client.WorkflowRun {
	t.Helper()
	run, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: id, TaskQueue: queue,
		TypedSearchAttributes: temporal.NewSearchAttributes(prefixKey.ValueSet("restricted")),
		StaticSummary:         "moving **restricted**",
	}, do, args...)
	if err != nil {
		t.Fatal(err)
	}
	return run
}

// listed returns the IDs that a visibility query finds, once there are as many as wanted (visibility follows events).
func listed(ctx context.Context, t *testing.T, c client.Client, query string, want int) []string {
	t.Helper()
	for {
		answer, err := c.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Query: query})
		if err != nil {
			t.Fatalf("list %s: %v", query, err)
		}
		if len(answer.Executions) == want {
			var ids []string
			for _, execution := range answer.Executions {
				ids = append(ids, execution.Execution.WorkflowId)
			}
			return ids
		}
		select {
		case <-ctx.Done():
			t.Fatalf("list %s: %d workflows, want %d", query, len(answer.Executions), want)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// result wants a workflow's result.
func result(ctx context.Context, t *testing.T, run client.WorkflowRun, want string) {
	t.Helper()
	var got string
	if err := run.Get(ctx, &got); err != nil || got != want {
		t.Fatalf("%s: %q, %v, want %q", run.GetID(), got, err, want)
	}
}

func TestKillLosesNothing(t *testing.T) {
	ctx := within(t, 3*time.Minute)
	db := filepath.Join(t.TempDir(), "temporal.db")

	first := launch(t, db)
	c := first.dial(t)
	work(t, c)
	result(ctx, t, start(ctx, t, c, "closed", echo, "done"), "done")
	start(ctx, t, c, "open", waitForWord)
	if err := first.stop(t, syscall.SIGKILL); err == nil {
		t.Fatal("survived SIGKILL")
	}

	second := launch(t, db)
	c = second.dial(t)
	if ids := listed(ctx, t, c, byPrefix+" AND ExecutionStatus = 'Completed'", 1); ids[0] != "closed" {
		t.Errorf("completed: %v", ids)
	}
	result(ctx, t, c.GetWorkflow(ctx, "closed", ""), "done")
	if ids := listed(ctx, t, c, byPrefix+" AND ExecutionStatus = 'Running'", 1); ids[0] != "open" {
		t.Errorf("running: %v", ids)
	}
	work(t, c)
	if err := c.SignalWorkflow(ctx, "open", "", "word", "still here"); err != nil {
		t.Fatal(err)
	}
	result(ctx, t, c.GetWorkflow(ctx, "open", ""), "still here")
}

// A workflow whose retention is over is only in the archive. Deleting it is the same without the wait.
func TestArchiveOutlivesRetention(t *testing.T) {
	ctx := within(t, 2*time.Minute)
	p := launch(t, filepath.Join(t.TempDir(), "temporal.db"))
	c := p.dial(t)
	work(t, c)
	run := start(ctx, t, c, "archived", echo, "done")
	result(ctx, t, run, "done")

	var found *workflowservice.ListArchivedWorkflowExecutionsResponse
	for {
		var err error
		found, err = c.ListArchivedWorkflow(ctx, &workflowservice.ListArchivedWorkflowExecutionsRequest{
			Namespace: p.Namespace, PageSize: 10, Query: "WorkflowId = 'archived'",
		})
		if err != nil {
			t.Fatalf("list archived: %v", err)
		}
		if len(found.Executions) == 1 {
			break
		}
		select {
		case <-ctx.Done():
			t.Fatal("not archived in time")
		case <-time.After(100 * time.Millisecond):
		}
	}
	// The archive knows columns, not names: see serverConfig.
	attributes := found.Executions[0].GetSearchAttributes().GetIndexedFields()
	if got := string(attributes["Keyword01"].GetData()); got != `"restricted"` {
		t.Errorf("archived TransshipPrefix: %s of %v", got, attributes)
	}

	if testing.Short() {
		return // a deletion waits about 30 s for the other queues
	}
	_, err := c.WorkflowService().DeleteWorkflowExecution(ctx, &workflowservice.DeleteWorkflowExecutionRequest{
		Namespace:         p.Namespace,
		WorkflowExecution: &commonpb.WorkflowExecution{WorkflowId: "archived", RunId: run.GetRunID()},
	})
	if err != nil {
		t.Fatalf("delete: %v", err)
	}
	listed(ctx, t, c, byPrefix, 0)
	history := c.GetWorkflowHistory(ctx, "archived", run.GetRunID(), false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	event, err := history.Next()
	if err != nil || event.GetEventType() != enums.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED {
		t.Errorf("history from the archive: %v, %v", event.GetEventType(), err)
	}
}

// A database from an earlier release has fewer search attributes and perhaps another retention and no archive.
func TestOlderNamespaceIsBroughtUpToDate(t *testing.T) {
	ctx := within(t, 2*time.Minute)
	path := filepath.Join(t.TempDir(), "temporal.db")
	db, err := openDatabase(path)
	if err != nil {
		t.Fatal(err)
	}
	older := namespaceSpec{
		Name: "transship", Retention: 24 * time.Hour, Attributes: searchAttributes[:2],
		ArchiveURI: archiveURI(path, "history"), VisibleURI: archiveURI(path, "visibility"),
	}
	if err := createNamespace(db, older); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	p := launch(t, path, "--retention", "48h")
	c := p.dial(t)
	have, err := c.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: "transship"})
	if err != nil {
		t.Fatal(err)
	}
	if got := have.Config.WorkflowExecutionRetentionTtl.AsDuration(); got != 48*time.Hour {
		t.Errorf("retention %v", got)
	}
	work(t, c)
	outcome := temporal.NewSearchAttributeKeyKeyword("TransshipOutcome")
	run, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: "new", TaskQueue: queue, TypedSearchAttributes: temporal.NewSearchAttributes(outcome.ValueSet("finalized")),
	}, echo, "done")
	if err != nil {
		t.Fatal(err)
	}
	result(ctx, t, run, "done")
	listed(ctx, t, c, "TransshipOutcome = 'finalized' AND TransshipPrefix IS NULL", 1)
}

func TestUIShowsTheNamespace(t *testing.T) {
	ctx := within(t, time.Minute)
	p := launch(t, filepath.Join(t.TempDir(), "temporal.db"))
	c := p.dial(t)
	work(t, c)
	result(ctx, t, start(ctx, t, c, "seen", echo, "done"), "done")
	listed(ctx, t, c, byPrefix+" AND ExecutionStatus = 'Completed'", 1)

	for path, want := range map[string]string{
		"/":                               `"/namespaces/transship/workflows?query=WorkflowType`,
		"/namespaces/transship/workflows": "<html",
		"/api/v1/namespaces":              `"transship"`,
		"/api/v1/namespaces/transship/workflows?query=TransshipPrefix='restricted'": `"seen"`,
		"/api/v1/namespaces/transship/archived-workflows?pageSize=10":               "{",
	} {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.UI+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if err != nil || response.StatusCode != http.StatusOK || !strings.Contains(string(body), want) {
			t.Errorf("%s: %s, %v, without %s: %.300s", path, response.Status, err, want, body)
		}
	}
}
