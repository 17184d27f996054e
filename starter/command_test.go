package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// site is a configuration whose Temporal is not there.
const site = `
temporal: {address: "127.0.0.1:1"}
backends: {old: {url: "http://127.0.0.1:5001"}, new: {url: "http://127.0.0.1:5002", username: u, password: {env: NOT_SET_ANYWHERE}}}
default_backend: old
edges: {edge1: {url: "http://127.0.0.1:8000"}}
prefixes: [{prefix: restricted, from: old, to: new}, {prefix: team/app, from: old, to: new}]
`

// run is one command line with a configuration, in process.
func run(t *testing.T, configuration string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "transship.yaml")
	require.NoError(t, os.WriteFile(path, []byte(configuration), 0o600))
	t.Setenv("TRANSSHIP_CONFIG", path)
	t.Setenv("TRANSSHIP_OPERATOR", "tester")
	var out, errs bytes.Buffer
	code = execute(t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

func TestBadInputIsRefusedBeforeAnythingIsTouched(t *testing.T) {
	for _, bad := range []struct {
		args []string
		want string
	}{
		{[]string{"migrate", ""}, "prefix is empty"},
		{[]string{"migrate", "a/../b"}, `the path component ".."`},
		{[]string{"migrate", "/restricted"}, "starts with a slash"},
		{[]string{"migrate", "restricted/a"}, "overlaps restricted"},
		{[]string{"migrate", "team"}, "overlaps team/app"},
		{[]string{"migrate", "restricted", "--from", "old", "--to", "nowhere"}, `unknown backend "nowhere"; the backends are new, old`},
		{[]string{"migrate", "restricted", "--from", "old", "--to", "old"}, "the same backend"},
		{[]string{"migrate"}, "accepts 1 arg"},
		{[]string{"migrate", "restricted", "--now"}, "unknown flag"},
		{[]string{"approve", "a/../b"}, `the path component ".."`},
		{[]string{"approve", "restricted", "--accept-loss"}, "unknown flag"},
		{[]string{"status", "/x"}, "starts with a slash"},
		{[]string{"status", "--watch"}, "needs a PREFIX"},
		{[]string{"history", "--run", "x"}, "needs the PREFIX"},
		{[]string{"history", "--limit", "0"}, "--limit is 0"},
		{[]string{"status", "-o", "xml"}, `--output is "xml"`},
		{[]string{"mirgate", "restricted"}, "unknown command"},
	} {
		code, stdout, stderr := run(t, site, bad.args...)
		assert.Equal(t, exitUsage, code, bad.args)
		assert.Contains(t, stderr, bad.want, bad.args)
		assert.Empty(t, stdout, bad.args)
	}
}

func TestEveryVerbThatNeedsTemporalSaysThatItIsNotThere(t *testing.T) {
	for _, args := range [][]string{
		{"migrate", "restricted"}, {"approve", "restricted"}, {"pause", "restricted"}, {"resume", "restricted"}, {"rollback", "restricted"},
		{"abort", "restricted"}, {"finalize", "restricted"}, {"status"}, {"status", "restricted"}, {"status", "restricted", "--watch"},
		{"history"}, {"history", "restricted"}, {"report", "restricted"}, {"plan", "restricted"}, {"routes"},
	} {
		code, stdout, stderr := run(t, site, append(args, "-o", "json")...)
		assert.Equal(t, exitUnreachable, code, args)
		assert.Empty(t, stdout, args)
		var said struct{ Error, Kind string }
		require.NoError(t, json.Unmarshal([]byte(stderr), &said), stderr)
		assert.Equal(t, "unreachable", said.Kind)
		assert.Contains(t, said.Error, "Temporal does not answer at 127.0.0.1:1")
		assert.Contains(t, said.Error, "--temporal-address")
	}
}

const threeMistakes = `
backends: {old: {url: "ftp://x"}, new: {url: "http://127.0.0.1:5002"}}
default_backend: older
edges: {edge1: {url: "http://127.0.0.1:8000"}}
prefixs: []
`

func TestAllMistakesOfAConfigurationAreNamedAtOnce(t *testing.T) {
	for _, args := range [][]string{{"config", "check"}, {"migrate", "restricted"}} {
		code, stdout, stderr := run(t, threeMistakes, args...)
		assert.Equal(t, exitUsage, code)
		assert.Empty(t, stdout)
		for _, key := range []string{"has 3 mistakes", "backends.old.url", "default_backend", "prefixs"} {
			assert.Contains(t, stderr, key)
		}
	}
	code, stdout, _ := run(t, threeMistakes, "config", "check", "-o", "json")
	assert.Equal(t, exitUsage, code)
	var found checked
	require.NoError(t, json.Unmarshal([]byte(stdout), &found))
	assert.False(t, found.OK)
	assert.Len(t, found.Mistakes, 3)

	code, stdout, _ = run(t, threeMistakes, "doctor")
	assert.Equal(t, exitTrouble, code)
	assert.Equal(t, 3, bytes.Count([]byte(stdout), []byte("FAIL")))
}

func TestConfigCheckShowsReferencesAndNeverSecrets(t *testing.T) {
	code, _, stderr := run(t, site, "config", "check")
	assert.Equal(t, exitUsage, code)
	assert.Contains(t, stderr, "NOT_SET_ANYWHERE is not set")

	code, stdout, _ := run(t, site, "config", "check", "--no-secrets")
	assert.Equal(t, exitOK, code)
	assert.Contains(t, stdout, "ok\n")
	assert.Contains(t, stdout, "env: NOT_SET_ANYWHERE")
	assert.Contains(t, stdout, "lease: 15s", "defaults are in force, too")

	t.Setenv("NOT_SET_ANYWHERE", "hunter2")
	code, stdout, _ = run(t, site, "config", "check", "-o", "json")
	assert.Equal(t, exitOK, code)
	assert.NotContains(t, stdout, "hunter2")
	assert.Contains(t, stdout, `"ok": true`)
}

func TestWhatIsInForceLoadsAgain(t *testing.T) {
	_, stdout, _ := run(t, site, "config", "check", "--no-secrets")
	_, shown, found := bytes.Cut([]byte(stdout), []byte("\n"))
	require.True(t, found)
	code, again, stderr := run(t, string(shown), "config", "check", "--no-secrets")
	require.Equal(t, exitOK, code, stderr)
	_, shownAgain, _ := bytes.Cut([]byte(again), []byte("backends:"))
	assert.Contains(t, stdout, string(shownAgain))
}

func TestDoctorSaysThatTemporalIsNotThere(t *testing.T) {
	code, stdout, _ := run(t, site, "doctor")
	assert.Equal(t, exitTrouble, code)
	assert.Contains(t, stdout, "ok    configuration")
	assert.Contains(t, stdout, "FAIL  Temporal answers")
}

func TestCompletionOffersPrefixesAndBackends(t *testing.T) {
	_, stdout, _ := run(t, site, "__complete", "approve", "")
	assert.Contains(t, stdout, "restricted\nteam/app\n")
	_, stdout, _ = run(t, site, "__complete", "migrate", "restricted", "--to", "")
	assert.Contains(t, stdout, "new\nold\n")
	code, stdout, _ := run(t, site, "completion", "bash")
	assert.Equal(t, exitOK, code)
	assert.Contains(t, stdout, "transship")
}

func TestVersionAndExitCodesNeedNoConfiguration(t *testing.T) {
	code, stdout, _ := run(t, "nonsense: [", "version", "-o", "json")
	assert.Equal(t, exitOK, code)
	assert.Contains(t, stdout, `"go": "go1.`)
	_, stdout, _ = run(t, "nonsense: [", "help", "exit-codes")
	assert.Contains(t, stdout, "5  the migration that was waited for ended otherwise than finalized")
}
