package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"transship/internal/edge"
	"transship/internal/report"
	"transship/workflows"
)

func TestTheSnippetHasALocationForEachPrefixOfTheConfiguration(t *testing.T) {
	code, stdout, _ := run(t, site, "edge", "snippet", "--edge", "edge1")
	require.Equal(t, exitOK, code)
	for _, line := range []string{
		"on edge edge1", "include /etc/nginx/transship/transship_http.conf;", "include /etc/nginx/transship/transship_server.conf;", "include /etc/nginx/transship/transship_location.conf;",
		"location /v2/restricted/ {", "location /v2/team/app/ {", "location @team_app_read {", "proxy_pass $transship_upstream;", "proxy_pass $transship_read_upstream;", "proxy_cache_key \"$transship_route",
	} {
		assert.Contains(t, stdout, line)
	}
	code, stdout, stderr := run(t, site, "edge", "snippet", "--edge", "nowhere")
	assert.Equal(t, exitUsage, code)
	assert.Empty(t, stdout)
	assert.Contains(t, stderr, "the edges are edge1")
}

func TestAPlanShowsItsWarnings(t *testing.T) {
	var b strings.Builder
	require.NoError(t, writePlan(&b, workflows.DryRunResult{Plan: report.Plan{Warnings: []string{"backend new is not empty"}}}, "old", "new", false))
	require.Contains(t, b.String(), "worth knowing before it begins: 1\n  backend new is not empty\n")
	require.NotContains(t, b.String(), "BLOCKED")
}

func TestAWarningIsShownAsOne(t *testing.T) {
	var b strings.Builder
	require.NoError(t, writeFinding(&b, edge.Finding{What: "a thing", Detail: "it is so", Cure: "mend it", Warning: true}))
	require.Equal(t, "warn  a thing: it is so; cure: mend it\n", b.String())
}
