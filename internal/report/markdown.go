package report

import (
	"fmt"
	"strings"
	"text/template"
	"time"

	"github.com/dustin/go-humanize"
)

var markdown = template.Must(template.New("").Funcs(template.FuncMap{
	"bytes": func(n int64) string { return humanize.IBytes(uint64(max(n, 0))) },
	"time":  func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000") },
	"took":  func(s Step) string { return s.Took().String() },
	"short": func(d time.Duration) string { return d.Round(time.Millisecond).String() },
	"cell":  func(s string) string { return strings.NewReplacer("|", `\|`, "\n", " ").Replace(s) },
}).Parse(`# Migration of {{.Prefix}} from {{.From}} to {{.To}}: {{.Outcome}}
{{with .Reason}}
{{.}}
{{end}}
| | |
|---|---|
| asked for by | {{.Operator}} |
| workflow | {{.Workflow}}, run {{.Run}} |
| began | {{time .Began}} UTC |
{{if not .Ended.IsZero}}| ended | {{time .Ended}} UTC |
{{end}}| planned | {{.Plan.Repositories}} repositories, {{.Plan.Tags}} tags, {{.Plan.Blobs}} blobs, {{bytes .Plan.Bytes}} ({{bytes .Plan.Missing}} not at {{.To}} yet) |
| moved | {{if eq .Plan.Plane "storage"}}from store to store, below the registries{{else}}through the registries{{end}} |
| mirrored | {{.Mirror.Tags}} tags ({{.Mirror.TagsUnchanged}} unchanged), {{.Mirror.Manifests}} manifests, {{.Mirror.Blobs}} blobs sent, {{.Mirror.BlobsMounted}} mounted, {{.Mirror.BlobsPresent}} present; {{bytes .Mirror.Bytes}} at {{bytes .Rate}}/s |
| deltas | {{.Deltas.Rounds}}, with {{.Deltas.Writes}} acknowledged writes to {{.Deltas.Changes}} things, {{bytes .Deltas.Bytes}} |
| carried back | {{.Reverse.Rounds}} times, {{.Reverse.Writes}} acknowledged writes to {{.Reverse.Changes}} things, {{bytes .Reverse.Bytes}} |
| audited | {{.Checks.Audited.Tags}} tags, {{.Checks.Audited.Manifests}} manifests, {{.Checks.Audited.Blobs}} blobs at {{.From}} |
| verified | {{.Checks.Verified.Tags}} tags, {{.Checks.Verified.Manifests}} manifests, {{.Checks.Verified.Blobs}} blobs at {{.To}}; {{len .Checks.Differences}} differences |
| cutovers tried | {{.Attempts}} |
| probes | {{.Checks.Probes}}, {{.Checks.ProbesFailed}} failed, slowest {{short .Checks.SlowestProbe}} |
| rounds of checks | {{.Checks.Rounds}}, {{.Checks.RoundsFailed}} failed |
| traffic before | {{.Checks.Before}} |
| traffic after | {{.Checks.After}} |
{{with .Plan.Warnings}}
## Known before it began

{{range .}}- {{.}}
{{end}}{{end}}
## Steps

| step | began (UTC) | took | note |
|---|---|---|---|
{{range .Steps}}| {{.Name}} | {{time .Began}} | {{took .}} | {{cell .Note}}{{with .Error}} **{{cell .}}**{{end}} |
{{end}}
{{- with .Freezes}}
## Freezes

| edge | hold | began (UTC) | writes held for | longest wait | writes that waited |
|---|---|---|---|---|---|
{{range .}}| {{.Edge}} | {{.Hold}} | {{time .Began}} | {{short .Lasted}} | {{short .Longest}} | {{.Parked}} |
{{end}}{{end}}
{{- with .Decisions}}
## Decisions

| when (UTC) | who | what | why |
|---|---|---|---|
{{range .}}| {{time .At}} | {{cell .By}} | {{cell .What}} | {{cell .Reason}} |
{{end}}{{end}}
{{- with .Left}}
## Left out: the source cannot serve them whole

{{range .}}- {{.Error}}
{{end}}{{end}}
{{- with .Checks.Differences}}
## Differences

{{range .}}- {{.Kind}}: {{.Repository}} {{.Tag}}: want {{.Want}}, have {{.Have}} {{.Detail}}
{{end}}{{end}}
{{- with .NotDeleted}}
## Deleted on the serving side, kept on the other

{{range .}}- {{.}}
{{end}}{{end}}
{{- with .Unexpected}}
## Keys in the store that no registry writes, left where they are

{{range .}}- {{.}}
{{end}}{{end}}
{{- with .NotCarriedBack}}
## Not carried back

{{range .}}- {{.}}
{{end}}{{end}}`))

// Took is how long the step took; 0 while it runs.
func (s Step) Took() time.Duration {
	if s.Ended.IsZero() {
		return 0
	}
	return s.Ended.Sub(s.Began).Round(time.Millisecond)
}

// Markdown renders the report for people.
func (r *Report) Markdown() (string, error) {
	var b strings.Builder
	if err := markdown.Execute(&b, r); err != nil {
		return "", fmt.Errorf("render the report of %s: %w", r.Prefix, err)
	}
	return b.String(), nil
}
