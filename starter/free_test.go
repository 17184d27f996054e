package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"transship/config"
	"transship/internal/routing"
	"transship/workflows"
)

func TestWhatRoutesWouldRefuseIsRefusedAtOnce(t *testing.T) {
	table := routing.Table{Default: "old", Routes: []routing.Route{
		{Prefix: "moved", Backend: "new"},
		{Prefix: "moving", Backend: "old", Owner: workflows.MigrateID("moving")},
		{Prefix: "taken", Backend: "old", Owner: "somebody-else"},
	}}
	for _, c := range []struct {
		prefix, from, to, want string
	}{
		{"fresh", "old", "new", ""},
		{"moved", "new", "old", ""},
		{"moving", "old", "new", ""}, // its workflow is gone, or Temporal will refuse the second
		{"moved/deeper", "old", "new", "overlaps moved, which was moved to backend new"},
		{"moving/deeper", "old", "new", "is being moved by the workflow migrate/moving"},
		{"taken", "old", "new", "is being moved by the workflow somebody-else"},
		{"moved", "old", "new", "is served by backend new, not by old"},
		{"fresh", "new", "old", "is served by backend old, not by new"},
	} {
		err := routed(table, config.Move{Prefix: routing.Prefix(c.prefix), From: c.from, To: c.to})
		if c.want == "" {
			require.NoError(t, err, c.prefix)
			continue
		}
		require.ErrorContains(t, err, c.want)
		assert.Equal(t, exitRefused, (&app{begun: true}).classify(err).code)
	}
	require.NoError(t, routed(routing.Table{}, config.Move{Prefix: "fresh", From: "old", To: "new"}), "nothing was ever routed")
}

func TestAConflictNamesTheOther(t *testing.T) {
	other := entry{Prefix: "team", From: "old", To: "new", Operator: "alice", Phase: "mirror", Workflow: "migrate/team"}
	err := conflict("team/app", other)
	for _, want := range []string{"team/app overlaps team", "migrate/team", "alice", "mirror", "transship status team"} {
		require.ErrorContains(t, err, want)
	}
	require.ErrorContains(t, conflict("team", other), "team is being moved already")
}
