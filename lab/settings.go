package lab

import (
	"fmt"
	"os"
	"text/template"
	"time"
)

// Settings are what a stack's configuration says beyond where things are.
type Settings struct {
	Approvers        []string
	ApprovalRequired bool
	Broken           string
	Deep             bool
	// AllowExtra lets the target have tags that the source has not.
	AllowExtra  bool
	Lease       time.Duration
	Drain       time.Duration
	Settle      time.Duration
	FreezePause time.Duration
	SessionIdle time.Duration
	Attempts    int
	Soak        time.Duration
	Interval    time.Duration
	Finalize    string
	Failures    int
	Jobs        int
	// ListingLag is how far the workers are told that listings lag behind.
	ListingLag time.Duration
	// Checks are the site's own checks, by name.
	Checks map[string]string
	// Chat is a Slack-compatible address that is told; empty is none.
	Chat string
}

// quick are settings for watching a migration go by, instead of days of soaking.
func quick() Settings {
	return Settings{
		ApprovalRequired: true, Broken: "stop", Lease: 15 * time.Second, Drain: 5 * time.Second, Settle: 2 * time.Second, FreezePause: 2 * time.Second, SessionIdle: 5 * time.Second,
		Attempts: 10, Soak: 8 * time.Second, Interval: 2 * time.Second, Finalize: "automatic", Failures: 2, Jobs: 8,
	}
}

var configuration = template.Must(template.New("").Parse(`# Written by the lab. config/example.yaml says what the keys are for.
temporal: {address: "{{.A.Temporal}}", namespace: {{.A.Namespace}}, ui: "{{.A.UI}}"}
backends:
  old:
    url: "{{.A.Old}}"
{{- with .A.Stores}}{{with .Swift}}
    store: {kind: swift, auth_url: "{{.AuthURL}}", username: "{{.Username}}", password: {file: {{$.Dir}}/secrets/swift}, container: {{$.A.Stores.Container}}}
{{- end}}{{end}}
{{- if .Folders}}
    store: {kind: filesystem, path: {{$.Dir}}/old/docker/registry/v2}
{{- end}}
  new:
    url: "{{.A.New}}"
{{- if .Folders}}
    store: {kind: filesystem, path: {{$.Dir}}/new/docker/registry/v2}
{{- end}}
{{- with .A.Stores}}{{with .Ceph}}
    store:
      kind: s3
      endpoint: "{{.Endpoint}}"
      region: {{.Region}}
      bucket: {{$.A.Stores.Bucket}}
      access_key: {file: {{$.Dir}}/secrets/s3-access}
      secret_key: {file: {{$.Dir}}/secrets/s3-secret}
{{- end}}{{end}}
default_backend: old
edges:
{{- range .Edges}}
  {{.Name}}:
    url: "{{.URL}}"
    username: {{$.A.PushUser}}
    password: {file: {{$.Dir}}/secrets/password}
    nginx:
      directory: {{.Dir}}/generated
      test_command: [nginx, -p, {{.Dir}}, -c, {{.Dir}}/nginx.conf, -t]
      reload_command: [nginx, -p, {{.Dir}}, -c, {{.Dir}}/nginx.conf, -s, reload]
      reads: "{{.Reads}}"
    gate: "{{.Gate}}"
    journal: {{.Dir}}/journal.log
    traffic: {{.Dir}}/traffic.log
    state: {{.State}}
{{- end}}
prefixes:
  - {prefix: restricted, from: old, to: new}
  - {prefix: platform, from: old, to: new}
policy:
  mirror: {jobs: {{.S.Jobs}}, listing_lag: {{.S.ListingLag}}}
  audit: {broken: {{.S.Broken}}}
  verify: {deep: {{.S.Deep}}, allow_extra: {{.S.AllowExtra}}}
  approval: {required: {{.S.ApprovalRequired}}, approvers: [{{range $i, $a := .S.Approvers}}{{if $i}}, {{end}}{{$a}}{{end}}]}
  freeze: {lease: {{.S.Lease}}, drain: {{.S.Drain}}, settle: {{.S.Settle}}, session_idle: {{.S.SessionIdle}}, pause: {{.S.FreezePause}}, attempts: {{.S.Attempts}}}
  soak: {duration: {{.S.Soak}}, interval: {{.S.Interval}}, finalize: {{.S.Finalize}}}
  checks:
    failures: {{.S.Failures}}
    baseline: 1m
{{- if .S.Checks}}
    http:
{{- range $name, $url := .S.Checks}}
      - {name: "{{$name}}", url: "{{$url}}"}
{{- end}}{{end}}
notifications:
  - {name: log, kind: log}
{{- if .S.Chat}}
  - {name: chat, kind: slack, channel: "#releng", url: {file: {{.Dir}}/secrets/chat}}
{{- end}}
reports: {{.A.Reports}}
`))

// writeConfig writes the configuration of transship, and the secrets that it refers to.
func (s *Stack) writeConfig() error {
	settings := quick()
	if s.Adapt != nil {
		s.Adapt(&settings)
	}
	secrets := map[string]string{"password": Password, "chat": settings.Chat}
	if s.has(Swift) {
		secrets["swift"] = s.Swift.Password
	}
	if s.has(Ceph) {
		secrets["s3-access"], secrets["s3-secret"] = s.Ceph.AccessKey, s.Ceph.SecretKey
	}
	for name, content := range secrets {
		if err := os.WriteFile(s.path("secrets/"+name), []byte(content), 0o600); err != nil {
			return fmt.Errorf("secrets: %w", err)
		}
	}
	f, err := os.Create(s.Addresses.Config)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	defer f.Close()
	return configuration.Execute(f, map[string]any{"A": s.Addresses, "S": settings, "Dir": s.Dir, "Edges": s.Edges, "Folders": s.has(Folders)})
}
