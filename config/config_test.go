package config

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func write(t *testing.T, text string) string {
	path := filepath.Join(t.TempDir(), "transship.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

const minimal = `
backends: {old: {url: http://127.0.0.1:5001}, new: {url: https://registry.example}}
default_backend: old
edges: {edge1: {url: http://127.0.0.1:8000}}
`

func mistakes(t *testing.T, text string) []string {
	_, err := Load(write(t, text), nil, NeedSecrets)
	var bad *Error
	require.ErrorAs(t, err, &bad)
	var found []string
	for _, m := range bad.Mistakes {
		found = append(found, m.Error())
	}
	return found
}

func TestExampleLoads(t *testing.T) {
	c, err := Load("example.yaml", nil, NeedSecrets)
	require.NoError(t, err)
	assert.Equal(t, Default().Policy.Freeze, c.Policy.Freeze, "the example shows the defaults")
	assert.Equal(t, Default().Policy.Checks.Limits, c.Policy.Checks.Limits)
}

func TestExampleLoadsWithEverythingUncommented(t *testing.T) {
	raw, err := os.ReadFile("example.yaml")
	require.NoError(t, err)
	ca := write(t, "ca")
	text := regexp.MustCompile(`(?m)^( *)# ( *(?:- )?\{?[a-z_]+:.*)$`).ReplaceAllString(string(raw), "$1$2")
	text = strings.ReplaceAll(text, "/etc/ssl/registry-ca.pem", ca)
	text = strings.ReplaceAll(text, "/etc/transship/pager-url", ca)
	for _, name := range []string{"TEMPORAL_API_KEY", "OLD_REGISTRY_PASSWORD", "SWIFT_KEY", "S3_ACCESS_KEY", "S3_SECRET_KEY", "PROBE_PASSWORD", "SLACK_WEBHOOK", "PAGER_TOKEN"} {
		require.Contains(t, text, name)
		t.Setenv(name, "x")
	}
	c, err := Load(write(t, text), nil, NeedSecrets)
	require.NoError(t, err)
	assert.Len(t, c.Notifications, 3)
	assert.Equal(t, "files/docker/registry/v2/", c.Backends["old"].Store.Root)
	assert.Equal(t, "s3", c.Backends["new"].Store.Kind)
	assert.True(t, c.Stored(Move{From: "old", To: "new"}))
	assert.Equal(t, "Europe/Berlin", c.Policy.Approval.Window.Timezone)
	assert.Equal(t, "deploy smoke test", c.Policy.Checks.HTTP[0].Name)
}

func TestEveryMistakeIsReportedAtOnceWithItsKey(t *testing.T) {
	found := mistakes(t, `
backends: {old: {url: "ftp://x"}, new: {urll: http://127.0.0.1:5002, url: "http://127.0.0.1:5002"}}
default_backend: older
edges: {edge1: {url: http://127.0.0.1:8000}}
policy: {freeze: {lease: soon}, mirror: {jobs: 0}}
`)
	all := strings.Join(found, "\n")
	for _, want := range []string{
		`backends.old.url: is "ftp://x"; write http://host:port`,
		"backends.new.urll: is not a known key",
		`default_backend: is "older"; write the backend that serves what no route names: one of new, old`,
		"policy.freeze.lease: ",
		"policy.mirror.jobs: is 0; write 1 or more",
	} {
		assert.Contains(t, all, want)
	}
}

func TestMistakesOfEdges(t *testing.T) {
	all := strings.Join(mistakes(t, strings.Replace(minimal, "edge1: {url: http://127.0.0.1:8000}",
		"Edge-1: {url: http://127.0.0.1:8000}, e2: {url: http://127.0.0.1:8000/v2, gate: 0.0.0.0:9099, journal: j.log, nginx: {status_url: http://127.0.0.1/status}}", 1)), "\n")
	for _, want := range []string{
		"edges.edge-1: is no name for an edge", `edges.e2.url: is "http://127.0.0.1:8000/v2"; write http://host:port`, "edges.e2.gate: ",
		`edges.e2.journal: is "j.log"; write an absolute path`, "edges.e2.nginx.status_url: ",
	} {
		assert.Contains(t, all, want)
	}
}

func TestMistakesOfPrefixes(t *testing.T) {
	all := strings.Join(mistakes(t, minimal+`
prefixes:
  - {prefix: a/../b, from: old, to: new}
  - {prefix: c, from: old, to: old}
  - {prefix: c/d, from: old, to: nowhere}
  - {prefix: e, from: old, to: new, repositories: [f/x]}
`), "\n")
	for _, want := range []string{
		`prefixes[0].prefix: prefix "a/../b" has the path component ".."`, "prefixes[1].to: is the same backend as from",
		"prefixes[2].prefix: overlaps prefixes[1], c", `prefixes[2].to: is "nowhere"`, `prefixes[3].repositories: has "f/x"`,
	} {
		assert.Contains(t, all, want)
	}
}

func TestASecretIsAReferenceAndNeverShown(t *testing.T) {
	text := strings.Replace(minimal, "{url: http://127.0.0.1:5001}", "{url: http://127.0.0.1:5001, username: u, password: %s}", 1)
	all := strings.Join(mistakes(t, fmt.Sprintf(text, "hunter2")), "\n")
	assert.Contains(t, all, "backends.old.password: is a secret: write {env: NAME} or {file: PATH}")
	assert.NotContains(t, all, "hunter2")
	assert.Contains(t, strings.Join(mistakes(t, fmt.Sprintf(text, "{env: NOT_SET_ANYWHERE}")), ""), "NOT_SET_ANYWHERE is not set")

	_, err := Load(write(t, fmt.Sprintf(text, "{env: NOT_SET_ANYWHERE}")), nil, IgnoreSecrets)
	require.NoError(t, err, "the command line needs no secrets")

	t.Setenv("OLD_PASSWORD", "hunter2")
	c, err := Load(write(t, fmt.Sprintf(text, "{env: OLD_PASSWORD}")), nil, NeedSecrets)
	require.NoError(t, err)
	value, err := c.Backends["old"].Password.Value()
	require.NoError(t, err)
	assert.Equal(t, "hunter2", value)
	shown, err := json.Marshal(c)
	require.NoError(t, err)
	assert.NotContains(t, string(shown)+fmt.Sprintf("%v %+v", c, c), "hunter2")
}

func TestEnvironmentAndFlagsOverrideTheFile(t *testing.T) {
	t.Setenv("TRANSSHIP_TEMPORAL_ADDRESS", "temporal.example:7233")
	t.Setenv("TRANSSHIP_BACKENDS_OLD_URL", "http://127.0.0.1:6001")
	t.Setenv("TRANSSHIP_POLICY_FREEZE_LEASE", "20s")
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	Flags(flags)
	c, err := Load(write(t, minimal), flags, NeedSecrets)
	require.NoError(t, err)
	assert.Equal(t, "temporal.example:7233", c.Temporal.Address)
	assert.Equal(t, "http://127.0.0.1:6001", c.Backends["old"].URL)
	assert.Equal(t, "20s", c.Policy.Freeze.Lease.String())
	require.NoError(t, flags.Set("temporal-address", "flag.example:1"))
	c, err = Load(write(t, minimal), flags, NeedSecrets)
	require.NoError(t, err)
	assert.Equal(t, "flag.example:1", c.Temporal.Address)
}

func TestMove(t *testing.T) {
	c, err := Load(write(t, minimal+"prefixes: [{prefix: restricted, from: old, to: new}]\n"), nil, NeedSecrets)
	require.NoError(t, err)
	m, err := c.Move("restricted/", "", "")
	require.NoError(t, err)
	assert.Equal(t, Move{Prefix: "restricted", From: "old", To: "new", Probe: "restricted/transship-probe"}, m)
	m, err = c.Move("restricted", "new", "old")
	require.NoError(t, err)
	assert.Equal(t, "new", m.From)
	m, err = c.Move("other", "", "new")
	require.NoError(t, err)
	assert.Equal(t, "old", m.From, "what the file does not name is served by the default backend")

	for _, bad := range []struct{ prefix, from, to, want string }{
		{"", "", "", "prefix is empty"}, {"/restricted", "", "", "starts with a slash"}, {"a/..", "", "", `path component ".."`},
		{"restricted/a", "", "", "overlaps restricted"}, {"restricted", "old", "nowhere", `--to names the unknown backend "nowhere"; the backends are new, old`},
		{"restricted", "old", "old", "the same backend"}, {"other", "old", "", "no to"},
	} {
		_, err := c.Move(bad.prefix, bad.from, bad.to)
		require.ErrorContains(t, err, bad.want)
	}
}

func TestAFileThatIsNotThereSaysHowToNameOne(t *testing.T) {
	_, err := Load("/nowhere/transship.yaml", nil, NeedSecrets)
	require.ErrorContains(t, err, "--config")
}

func TestAStoreSaysWhatItNeeds(t *testing.T) {
	t.Setenv("SET", "x")
	store := func(yaml string) []string {
		return mistakes(t, `
backends: {old: {url: "http://127.0.0.1:5001", store: `+yaml+`}}
default_backend: old
edges: {edge1: {url: http://127.0.0.1:8000}}
`)
	}
	for yaml, want := range map[string]string{
		`{kind: tape}`:          `backends.old.store.kind: is "tape"; write swift, s3 or filesystem`,
		`{container: registry}`: "backends.old.store.kind: is missing",
		`{kind: swift, username: u, container: c, password: {env: SET}}`:                                                     "backends.old.store.auth_url: is missing",
		`{kind: swift, auth_url: "127.0.0.1:8080", username: u, container: c, password: {env: SET}}`:                         "backends.old.store.auth_url: is",
		`{kind: swift, auth_url: "http://127.0.0.1:8080/auth/v1.0", username: u, container: c}`:                              "backends.old.store.password: is missing",
		`{kind: s3, endpoint: "http://127.0.0.1:7480", bucket: b, access_key: {env: SET}}`:                                   "backends.old.store.secret_key: is missing",
		`{kind: s3, endpoint: "http://127.0.0.1:7480", access_key: {env: SET}, secret_key: {env: SET}}`:                      "backends.old.store.bucket: is missing",
		`{kind: filesystem, path: registry}`:                                                                                 "backends.old.store.path: is",
		`{kind: filesystem, path: /r, root: ../x}`:                                                                           "backends.old.store.root: is",
		`{kind: filesystem, path: /r, bandwidth: -1}`:                                                                        "backends.old.store.bandwidth: is -1",
		`{kind: swift, auth_url: "http://127.0.0.1:8080/auth/v1.0", username: u, container: c, password: {env: UNSET_HERE}}`: "UNSET_HERE",
	} {
		assert.Contains(t, strings.Join(store(yaml), "\n"), want, yaml)
	}
}
