package main

import (
	"cmp"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is what this binary was made from.
type version struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Time     string `json:"time,omitempty"`
	// Modified says that the source differed from the revision.
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	SDK      string `json:"temporal_sdk,omitempty"`
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "what this binary was made from", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			v := thisVersion()
			return a.print(v, func(w io.Writer) error {
				revision := cmp.Or(v.Revision, "unknown")
				if v.Modified {
					revision += ", modified"
				}
				t := table{{"transship", v.Version}, {"revision", revision}, {"go", v.Go}, {"temporal sdk", orDash(v.SDK)}}
				return t.write(w)
			})
		},
	}
}

func thisVersion() version {
	v := version{Version: "unknown", Go: runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	v.Version = cmp.Or(info.Main.Version, "unknown")
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Revision = s.Value
		case "vcs.time":
			v.Time = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	for _, dependency := range info.Deps {
		if dependency.Path == "go.temporal.io/sdk" {
			v.SDK = dependency.Version
		}
	}
	return v
}
