package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"transship/internal/routing"
	"transship/workflows"
)

func (a *app) reportCommand() *cobra.Command {
	var run string
	c := &cobra.Command{
		Use:   "report PREFIX",
		Short: "the report of a migration, as Markdown or JSON",
		Long: `The report of the latest migration of a prefix, or of the run that --run names: who, what, when, counts, bytes, rates, the freeze, checks and
decisions. While the migration runs, it is what it has come to so far.`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completePrefix,
		RunE:              func(c *cobra.Command, args []string) error { return a.report(c.Context(), args[0], run) },
	}
	c.Flags().StringVar(&run, "run", "", "`ID` of the run, from transship history PREFIX")
	return a.waitsForAnswers(c)
}

func (a *app) report(ctx context.Context, prefix, run string) error {
	p, err := routing.ParsePrefix(prefix)
	if err != nil {
		return badInput(err)
	}
	d, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	v, err := d.look(ctx, workflows.MigrateID(p), run, nil)
	if err != nil {
		return err
	}
	// Half a report would be taken for a whole one.
	if v.Trouble != "" {
		return unreachable("%s", v.Trouble)
	}
	return a.print(v.Report, func(w io.Writer) error {
		text, err := v.Report.Markdown()
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(w, text)
		return err
	})
}
