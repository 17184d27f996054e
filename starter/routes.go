package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"transship/internal/routing"
)

func (a *app) routesCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "routes",
		Short: "which backend serves what, and which edges know it",
		Long:  `The routing table, as the Routes workflow has it: the one place from which every edge gets it.`,
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			d, err := a.open(c.Context())
			if err != nil {
				return err
			}
			defer d.Close()
			now, ok, err := d.routing(c.Context())
			if err != nil {
				return err
			}
			return a.print(now, func(w io.Writer) error {
				if !ok {
					_, err := fmt.Fprintf(w, "nothing was ever routed: every repository is served by %s, as default_backend says\n", d.config.DefaultBackend)
					return err
				}
				return writeRouting(w, now, d.config.DefaultBackend)
			})
		},
	}
	return a.waitsForAnswers(c)
}

func writeRouting(w io.Writer, now routing.Routing, fallback string) error {
	if now.Table.Default != "" {
		fallback = now.Table.Default
	}
	fmt.Fprintf(w, "generation %d\n\n", now.Table.Generation)
	t := table{{"PREFIX", "BACKEND", "MODE", "OTHER", "OWNER"}}
	for _, r := range now.Table.Routes {
		t.row(r.Prefix.String(), r.Backend, string(r.Mode), orDash(r.Other), orDash(r.Owner))
	}
	t.row("everything else", fallback, string(routing.Open), "-", "-")
	if err := t.write(w); err != nil {
		return err
	}
	if len(now.Edges) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	t = table{{"EDGE", "GENERATION", "LAST CONFIRMED", "TROUBLE"}}
	for _, e := range now.Edges {
		generation := fmt.Sprint(e.Generation)
		if e.Generation < now.Table.Generation {
			generation += " (behind)"
		}
		t.row(e.Edge, generation, clock(e.Seen), orDash(e.Trouble))
	}
	return t.write(w)
}
