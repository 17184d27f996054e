// Command transship-worker does the work: it runs workflows, carries data, or serves one proxy node, as its roles say.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	_ "time/tzdata" // approval windows name time zones, and a container may have none

	"github.com/spf13/pflag"

	"transship/config"
	"transship/internal/connect"
)

// Roles that a worker can have besides an edge.
const (
	roleWorkflows = "workflows"
	roleMover     = "mover"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "transship-worker:", err)
		os.Exit(1)
	}
}

func run() error {
	flags := pflag.NewFlagSet("transship-worker", pflag.ContinueOnError)
	path := flags.String("config", os.Getenv("TRANSSHIP_CONFIG"), "configuration file")
	roles := flags.StringSlice("role", nil, "what to do: workflows, mover (may be given more than once)")
	edgeName := flags.String("edge", "", "serve the proxy node of this name: its nginx runs on this machine")
	config.Flags(flags)
	if err := flags.Parse(os.Args[1:]); errors.Is(err, pflag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	for _, role := range *roles {
		if !slices.Contains([]string{roleWorkflows, roleMover}, role) {
			return fmt.Errorf("--role %q is unknown: write workflows or mover; a proxy node is --edge NAME", role)
		}
	}
	if len(*roles) == 0 && *edgeName == "" {
		return errors.New("nothing to do: give --role workflows, --role mover or --edge NAME")
	}
	c, err := config.Load(*path, flags, config.NeedSecrets)
	if err != nil {
		return err
	}
	if _, ok := c.Edges[*edgeName]; *edgeName != "" && !ok {
		return fmt.Errorf("--edge %q is not in the configuration; the edges are %s", *edgeName, strings.Join(c.EdgeNames(), ", "))
	}
	log := logger(c.Log)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	// A node's files must be in place before its nginx can start, whether Temporal answers or not.
	var node *edgeNode
	if *edgeName != "" {
		if node, err = newEdgeNode(ctx, c, *edgeName, log); err != nil {
			return err
		}
		defer node.close()
	}
	temporal, err := connect.Temporal(ctx, c.Temporal, log, connect.Patiently)
	if err != nil {
		return err
	}
	defer temporal.Close()
	return work(ctx, c, temporal, *roles, node, log)
}

func logger(c config.Log) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Level)) // the configuration was checked
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, options))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, options))
}
