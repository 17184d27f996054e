package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"

	"transship/internal/edge"
	"transship/workflows"
)

// examineNamespace looks whether the namespace is there.
func (d *desk) examineNamespace(ctx context.Context) edge.Finding {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	name := d.config.Temporal.Namespace
	f := edge.Finding{What: "the namespace " + name + " is there"}
	_, err := d.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: name})
	var missing *serviceerror.NamespaceNotFound
	switch {
	case err == nil:
		f.OK = true
	case errors.As(err, &missing):
		f.Detail, f.Cure = "it is not", "temporal operator namespace create --namespace "+name+" --retention 90d; or set temporal.namespace"
	default:
		f.Detail, f.Cure = err.Error(), "let the one who asks describe the namespace"
	}
	return f
}

// examineAttributes looks whether the search attributes of migrations are registered.
func (d *desk) examineAttributes(ctx context.Context) []edge.Finding {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	namespace := d.config.Temporal.Namespace
	registered, listErr := d.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: namespace})
	var findings []edge.Finding
	for _, name := range []string{
		workflows.AttrPrefix.GetName(), workflows.AttrPhase.GetName(), workflows.AttrFrom.GetName(),
		workflows.AttrTo.GetName(), workflows.AttrOperator.GetName(), workflows.AttrOutcome.GetName(), workflows.AttrWaits.GetName(),
	} {
		f := edge.Finding{What: "the search attribute " + name + " is registered"}
		kind, ok := registered.GetCustomAttributes()[name]
		switch {
		case listErr != nil:
			// Not everybody may ask the operator's service; a query that names the attribute tells as well.
			f.OK, f.Detail = d.knows(ctx, name)
		case !ok:
			f.Detail = "it is not"
		case kind != enumspb.INDEXED_VALUE_TYPE_KEYWORD:
			f.Detail = fmt.Sprintf("its type is %s, not Keyword", kind)
		default:
			f.OK = true
		}
		if !f.OK {
			f.Cure = fmt.Sprintf("temporal operator search-attribute create --namespace %s --name %s --type Keyword", namespace, name)
		}
		findings = append(findings, f)
	}
	return findings
}

func (d *desk) knows(ctx context.Context, attribute string) (ok bool, detail string) {
	_, err := d.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{Query: attribute + ` = "none"`})
	if err != nil {
		return false, err.Error()
	}
	return true, ""
}
