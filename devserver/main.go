// Command transship-devserver runs a whole Temporal in one process: frontend, history, matching and worker services over a
// SQLite file, and the web UI. It is what `make up` and the tests run against, and is enough for a single site that does not
// want to run PostgreSQL for a migration of a few weeks. It has no authentication: keep it on loopback.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"go.temporal.io/server/common/log"
)

// startLimit bounds the time from the start of the services until frontend and UI answer.
const startLimit = 60 * time.Second

// options are the command's flags, checked.
type options struct {
	listen    string
	ui        string
	data      string
	namespace string
	retention time.Duration
	logLevel  string
	readyFile string
}

func main() {
	opts, err := parseFlags(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(0)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "transship-devserver:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, opts, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "transship-devserver:", err)
		os.Exit(1)
	}
}

// parseFlags reads the command line. Its error is flag.ErrHelp when only help was asked for.
func parseFlags(args []string, usage io.Writer) (options, error) {
	var opts options
	flags := flag.NewFlagSet("transship-devserver", flag.ContinueOnError)
	flags.SetOutput(usage)
	flags.StringVar(&opts.listen, "listen", "127.0.0.1:7233", "IP:PORT of the Temporal frontend; port 0 picks a free one")
	flags.StringVar(&opts.ui, "ui", "127.0.0.1:8233", "IP:PORT of the web UI; port 0 picks a free one")
	flags.StringVar(&opts.data, "data", "temporal.db", "SQLite `FILE`, created when missing; archives go to FILE.archive/")
	flags.StringVar(&opts.namespace, "namespace", "transship", "namespace to have ready, with transship's search attributes")
	flags.DurationVar(&opts.retention, "retention", 90*24*time.Hour, "how long the namespace keeps closed workflows before they are only in the archive (at least 1h)")
	flags.StringVar(&opts.logLevel, "log-level", "error", "debug, info, warn or error; the log goes to standard error as JSON")
	flags.StringVar(&opts.readyFile, "ready-file", "", "`FILE` to write addresses and process ID to, as JSON, once frontend and UI answer")
	if err := flags.Parse(args); err != nil {
		return opts, err
	}
	switch {
	case flags.NArg() > 0:
		return opts, fmt.Errorf("unexpected argument %q: everything is given by flags", flags.Arg(0))
	case opts.data == "":
		return opts, errors.New("--data is empty: name the SQLite file to keep")
	case opts.namespace == "":
		return opts, errors.New("--namespace is empty: name the namespace to have ready")
	case opts.retention < time.Hour:
		return opts, fmt.Errorf("--retention %s is too short: Temporal keeps closed workflows for at least 1h", opts.retention)
	}
	switch opts.logLevel {
	case "debug", "info", "warn", "error":
	default:
		return opts, fmt.Errorf("--log-level %q: want debug, info, warn or error", opts.logLevel)
	}
	// The archive's address must be absolute, and so must the rest, or a message about a file says little.
	for _, path := range []*string{&opts.data, &opts.readyFile} {
		if *path == "" {
			continue
		}
		abs, err := filepath.Abs(*path)
		if err != nil {
			return opts, fmt.Errorf("find the absolute path of %s: %w", *path, err)
		}
		*path = abs
	}
	return opts, nil
}

// run serves until ctx is done, and then stops in order. It tells the addresses on out, once they answer.
func run(ctx context.Context, opts options, out io.Writer) (err error) {
	serverLog := log.NewZapLogger(log.BuildZapLogger(log.Config{Level: opts.logLevel}))
	logger := log.NewSlogLogger(serverLog)

	// What a killed predecessor left behind would tell a waiting script that we are ready when we are not.
	if err := removeReadyFile(opts.readyFile); err != nil {
		return err
	}
	at, err := pickPorts(opts.listen, opts.ui)
	if err != nil {
		return err
	}
	db, err := openDatabase(opts.data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()

	cfg := serverConfig(db, at)
	wanted := namespaceSpec{
		Name:       opts.namespace,
		Retention:  opts.retention,
		ArchiveURI: cfg.NamespaceDefaults.Archival.History.URI,
		VisibleURI: cfg.NamespaceDefaults.Archival.Visibility.URI,
		Attributes: searchAttributes,
	}
	if err := createNamespace(db, wanted); err != nil {
		return err
	}

	server, err := startServer(cfg, at, serverLog)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	stopUI, err := startUI(at, opts.namespace, logger)
	if err != nil {
		return err
	}
	defer stopUI()

	startCtx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if err := awaitReady(startCtx, at, wanted, logger); err != nil {
		if ctx.Err() != nil {
			return nil // asked to stop while starting
		}
		return err
	}
	ready := readyInfo{Address: at.frontend.String(), UI: "http://" + at.ui.String(), Namespace: opts.namespace, PID: os.Getpid()}
	if err := writeReadyFile(opts.readyFile, ready); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeReadyFile(opts.readyFile)) }()
	fmt.Fprintf(out, "Temporal %s  namespace %s\nUI       %s\n", ready.Address, ready.Namespace, ready.UI)

	<-ctx.Done()
	logger.Info("stopping", "cause", context.Cause(ctx))
	return nil
}
