package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	namespacepb "go.temporal.io/api/namespace/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	sqliteschema "go.temporal.io/server/schema/sqlite"
	"google.golang.org/protobuf/types/known/durationpb"
)

// searchAttributes are those that transship's workflows set, all Keyword. Append only: their order is that of their columns.
var searchAttributes = []string{
	"TransshipPrefix", "TransshipPhase", "TransshipFrom", "TransshipTo", "TransshipOperator", "TransshipOutcome", "TransshipWaitsFor",
}

// namespaceSpec is what a namespace should be.
type namespaceSpec struct {
	Name       string
	Retention  time.Duration
	ArchiveURI string // of histories
	VisibleURI string // of visibility records
	Attributes []string
}

// createNamespace writes the namespace into the database of a server that does not run yet, so that it is there from the
// first request on. One that exists is left alone: adjustNamespace sees to it.
func createNamespace(db *database, want namespaceSpec) error {
	namespace, err := sqliteschema.NewNamespaceConfig(clusterName, want.Name, false, nil)
	if err != nil {
		return fmt.Errorf("describe namespace %s: %w", want.Name, err)
	}
	cfg := namespace.Detail.Config
	cfg.Retention = durationpb.New(want.Retention)
	cfg.HistoryArchivalState, cfg.HistoryArchivalUri = enumspb.ARCHIVAL_STATE_ENABLED, want.ArchiveURI
	cfg.VisibilityArchivalState, cfg.VisibilityArchivalUri = enumspb.ARCHIVAL_STATE_ENABLED, want.VisibleURI
	// Visibility has ten columns for keywords, and the archive names values by column: the same in each namespace.
	cfg.CustomSearchAttributeAliases = map[string]string{}
	for i, name := range want.Attributes {
		cfg.CustomSearchAttributeAliases[fmt.Sprintf("Keyword%02d", i+1)] = name
	}
	if err := sqliteschema.CreateNamespaces(db.sql(), namespace); err != nil {
		return fmt.Errorf("create namespace %s in %s: %w", want.Name, db.path, err)
	}
	return nil
}

// adjustNamespace brings a namespace from an earlier start up to what is wanted now: retention, archiving, search attributes
// that were added since. It takes nothing away. It returns when the search attributes can be asked for.
func adjustNamespace(ctx context.Context, temporal client.Client, want namespaceSpec, logger *slog.Logger) error {
	have, err := temporal.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: want.Name})
	if err != nil {
		return fmt.Errorf("describe namespace %s: %w", want.Name, err)
	}
	if change := configChange(have.GetConfig(), want, logger); change != nil {
		_, err := temporal.WorkflowService().UpdateNamespace(ctx, &workflowservice.UpdateNamespaceRequest{Namespace: want.Name, Config: change})
		if err != nil {
			return fmt.Errorf("update retention and archiving of namespace %s: %w", want.Name, err)
		}
	}
	listed, err := temporal.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: want.Name})
	if err != nil {
		return fmt.Errorf("list search attributes of namespace %s: %w", want.Name, err)
	}
	missing := map[string]enumspb.IndexedValueType{}
	for _, name := range want.Attributes {
		if _, ok := listed.GetCustomAttributes()[name]; !ok {
			missing[name] = enumspb.INDEXED_VALUE_TYPE_KEYWORD
		}
	}
	if len(missing) > 0 {
		_, err := temporal.OperatorService().AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{Namespace: want.Name, SearchAttributes: missing})
		if err != nil {
			return fmt.Errorf("add search attributes %v to namespace %s: %w", slices.Sorted(maps.Keys(missing)), want.Name, err)
		}
	}
	return awaitAttributes(ctx, temporal, want)
}

// configChange is what has to change in a namespace's configuration, or nil. Temporal never changes an archive's address once
// it is set, so a database that was moved goes on archiving where it did before: that is said, not hidden.
func configChange(have *namespacepb.NamespaceConfig, want namespaceSpec, logger *slog.Logger) *namespacepb.NamespaceConfig {
	change := &namespacepb.NamespaceConfig{}
	changed := false
	if have.GetWorkflowExecutionRetentionTtl().AsDuration() != want.Retention {
		change.WorkflowExecutionRetentionTtl = durationpb.New(want.Retention)
		changed = true
	}
	for _, archive := range []struct {
		state enumspb.ArchivalState
		uri   string
		want  string
		set   func()
	}{
		{have.GetHistoryArchivalState(), have.GetHistoryArchivalUri(), want.ArchiveURI, func() {
			change.HistoryArchivalState, change.HistoryArchivalUri = enumspb.ARCHIVAL_STATE_ENABLED, want.ArchiveURI
		}},
		{have.GetVisibilityArchivalState(), have.GetVisibilityArchivalUri(), want.VisibleURI, func() {
			change.VisibilityArchivalState, change.VisibilityArchivalUri = enumspb.ARCHIVAL_STATE_ENABLED, want.VisibleURI
		}},
	} {
		switch {
		case archive.uri != "" && archive.uri != archive.want:
			logger.Error("namespace archives to another folder, probably since its database was moved",
				"namespace", want.Name, "archive", archive.uri, "expected", archive.want)
		case archive.state != enumspb.ARCHIVAL_STATE_ENABLED:
			archive.set()
			changed = true
		}
	}
	if !changed {
		return nil
	}
	return change
}

// awaitAttributes asks a query over all search attributes until the server, which caches namespaces, knows each of them.
func awaitAttributes(ctx context.Context, temporal client.Client, want namespaceSpec) error {
	if len(want.Attributes) == 0 {
		return nil
	}
	query := strings.Join(want.Attributes, " IS NULL AND ") + " IS NULL"
	return retry(ctx, "query the search attributes", func(ctx context.Context) error {
		_, err := temporal.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{Namespace: want.Name, Query: query})
		return err
	})
}
