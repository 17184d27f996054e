package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/converter"

	"transship/internal/report"
	"transship/internal/routing"
	"transship/workflows"
)

// entry is a migration as Temporal's visibility knows it.
type entry struct {
	Prefix   routing.Prefix `json:"prefix"`
	From     string         `json:"from"`
	To       string         `json:"to"`
	Operator string         `json:"operator"`
	Phase    string         `json:"phase"`
	Outcome  string         `json:"outcome"`
	Began    time.Time      `json:"began"`
	Ended    time.Time      `json:"ended,omitzero"`
	Workflow string         `json:"workflow"`
	Run      string         `json:"run"`
	Link     string         `json:"link,omitempty"`
	// Waits is what a running migration waits for, where somebody asked it.
	Waits string `json:"waits,omitempty"`
}

// memoBegan is when a migration was asked for: its own start time is that of its latest run.
const memoBegan = "began"

const (
	// ofMigrations finds all migrations. Runs that were continued by another are the same migration.
	ofMigrations = `WorkflowType = "Migrate" AND ExecutionStatus != "ContinuedAsNew"`
	running      = ` AND ExecutionStatus = "Running"`
)

// list returns the newest migrations that a query of visibility finds, the newest first.
func (d *desk) list(ctx context.Context, query string, limit int) ([]entry, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	var found []entry
	request := &workflowservice.ListWorkflowExecutionsRequest{Query: query, PageSize: int32(min(limit, 500))}
	for len(found) < limit {
		page, err := d.ListWorkflow(ctx, request)
		if err != nil {
			return nil, fmt.Errorf("list migrations: %w", err)
		}
		for _, info := range page.GetExecutions() {
			found = append(found, d.entry(info))
		}
		request.NextPageToken = page.GetNextPageToken()
		if len(request.NextPageToken) == 0 {
			break
		}
	}
	slices.SortStableFunc(found, func(a, b entry) int { return b.Began.Compare(a.Began) })
	return found[:min(limit, len(found))], nil
}

func (d *desk) entry(info *workflowpb.WorkflowExecutionInfo) entry {
	id, run := info.GetExecution().GetWorkflowId(), info.GetExecution().GetRunId()
	attributes := info.GetSearchAttributes().GetIndexedFields()
	e := entry{
		Prefix: routing.Prefix(workflows.PrefixOf(id)), Workflow: id, Run: run, Link: link(d.config, id, run),
		From: text(attributes[workflows.AttrFrom.GetName()]), To: text(attributes[workflows.AttrTo.GetName()]),
		Operator: text(attributes[workflows.AttrOperator.GetName()]), Phase: text(attributes[workflows.AttrPhase.GetName()]),
		Outcome: text(attributes[workflows.AttrOutcome.GetName()]), Began: info.GetStartTime().AsTime(),
	}
	if began, err := time.Parse(time.RFC3339Nano, text(info.GetMemo().GetFields()[memoBegan])); err == nil {
		e.Began = began
	}
	if closed := info.GetCloseTime(); closed != nil {
		e.Ended = closed.AsTime()
	}
	// A migration that was ended from outside could not say so itself.
	if status := info.GetStatus(); status != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING && (e.Outcome == "" || e.Outcome == string(report.Running)) {
		e.Outcome = "ended from outside: " + status.String()
	}
	return e
}

// text is the string in a payload, or "".
func text(p *commonpb.Payload) string {
	var s string
	if p == nil || converter.GetDefaultDataConverter().FromPayload(p, &s) != nil {
		return ""
	}
	return s
}
