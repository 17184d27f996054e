package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"transship/config"
	"transship/internal/edge"
)

func (a *app) edgeCommand() *cobra.Command {
	c := &cobra.Command{Use: "edge", Short: "fit transship into the nginx of a site"}
	var name string
	snippet := &cobra.Command{
		Use:   "snippet",
		Short: "print the lines that a site adds to its nginx configuration",
		Long: `Prints what the http block, the server block and the locations of the site's nginx need, with a location for each prefix of the configuration, and what
stays the site's. Nothing is written or asked; ` + "`transship doctor`" + ` compares what the site has with this.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return a.snippet(name) },
	}
	snippet.Flags().StringVar(&name, "edge", "", "`NAME` of the proxy node; of use where their nginx.directory differs")
	c.AddCommand(snippet)
	return c
}

func (a *app) snippet(name string) error {
	c, err := a.load(config.IgnoreSecrets)
	if err != nil {
		return err
	}
	of := name
	if of == "" {
		of = c.EdgeNames()[0] // the configuration has one
	}
	e, ok := c.Edges[of]
	if !ok {
		return badInput(fmt.Errorf("--edge %q is not in the configuration; the edges are %s", name, strings.Join(c.EdgeNames(), ", ")))
	}
	var prefixes []string
	for _, p := range c.Prefixes {
		prefixes = append(prefixes, strings.TrimSuffix(p.Prefix, "/"))
	}
	return edge.SiteFiles(e.Nginx.Directory).Snippet(a.stdout, name, prefixes)
}
