package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"transship/internal/report"
)

// Reports writes the reports of finished migrations.
type Reports struct {
	// Directory takes the files; empty writes none, the report is in Temporal anyhow.
	Directory string
}

// WriteReport writes a report as Markdown and JSON, and returns the path of the Markdown. Writing it again replaces it.
func (r *Reports) WriteReport(_ context.Context, of report.Report) (string, error) {
	if r.Directory == "" {
		return "", nil
	}
	if err := os.MkdirAll(r.Directory, 0o755); err != nil {
		return "", fmt.Errorf("report of %s: %w", of.Prefix, err)
	}
	text, err := of.Markdown()
	if err != nil {
		return "", err
	}
	raw, err := json.MarshalIndent(of, "", "  ")
	if err != nil {
		return "", fmt.Errorf("report of %s: %w", of.Prefix, err)
	}
	base := filepath.Join(r.Directory, fmt.Sprintf("%s-%s", of.Began.UTC().Format("20060102-150405"), strings.ReplaceAll(of.Prefix.String(), "/", "-")))
	err = errors.Join(os.WriteFile(base+".md", []byte(text), 0o644), os.WriteFile(base+".json", append(raw, '\n'), 0o644))
	if err != nil {
		return "", fmt.Errorf("report of %s: %w", of.Prefix, err)
	}
	return base + ".md", nil
}
