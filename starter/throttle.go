package main

import (
	"context"
	"fmt"
	"math"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"transship/activities"
	"transship/workflows"
)

func (a *app) throttleCommand() *cobra.Command {
	var bandwidth string
	var order workflows.Command
	c := &cobra.Command{
		Use:   "throttle PREFIX",
		Short: "bound the copies of a running migration, or let them run freely again",
		Long: `Bounds what all movers together ask of each object store for a migration, from now on: copies that are under way go on from where they were. A bound that is
not given is lifted, so that without any flag copies run as fast as they can. What comes by journal, in the freeze above all, is never bounded.`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completePrefix,
		RunE:              func(c *cobra.Command, args []string) error { return a.throttle(c.Context(), args[0], bandwidth, order) },
	}
	c.Flags().StringVar(&bandwidth, "bandwidth", "", "`BYTES` per second, such as 50MiB")
	c.Flags().IntVar(&order.Throttle.Requests, "requests", 0, "requests per second")
	c.Flags().StringVar(&order.Reason, "reason", "", "why, for the record")
	return a.waitsForAnswers(c)
}

func (a *app) throttle(ctx context.Context, prefix, bandwidth string, order workflows.Command) error {
	bound := activities.Throttle{Requests: order.Throttle.Requests}
	if bandwidth != "" {
		n, err := humanize.ParseBytes(bandwidth)
		if err != nil || n > math.MaxInt64 {
			return badInput(fmt.Errorf("--bandwidth is %q; write bytes per second, such as 50MiB", bandwidth))
		}
		bound.Bandwidth = int64(n)
	}
	if bound.Requests < 0 {
		return badInput(fmt.Errorf("--requests is %d; write requests per second, or 0 for no bound", bound.Requests))
	}
	order.Throttle = bound
	return a.order(ctx, workflows.UpdateThrottle, prefix, order)
}
