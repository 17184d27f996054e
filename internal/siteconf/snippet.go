package siteconf

import (
	_ "embed"
	"fmt"
	"io"
	"strings"
	"text/template"
)

//go:embed snippet.conf
var snippet string

var parsedSnippet = template.Must(template.New("snippet").Funcs(template.FuncMap{"name": locationName}).Parse(snippet))

// locationName makes a name for a location of a prefix.
func locationName(prefix string) string {
	return strings.NewReplacer("/", "_", ".", "_", "-", "_").Replace(prefix)
}

// Snippet writes the lines that a site adds to its nginx, with a location for each prefix. edge may be empty.
func (g Generated) Snippet(w io.Writer, edge string, prefixes []string) error {
	err := parsedSnippet.Execute(w, struct {
		Generated
		Edge     string
		Prefixes []string
	}{g, edge, prefixes})
	if err != nil {
		return fmt.Errorf("write the lines for nginx: %w", err)
	}
	return nil
}
