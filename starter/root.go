package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"time"

	"github.com/spf13/cobra"

	"transship/config"
)

// app is what all verbs share: the flags, and where they write.
type app struct {
	root   *cobra.Command
	stdout io.Writer
	stderr io.Writer

	configPath string
	output     string
	as         string
	timeout    time.Duration

	// begun says that the command line was understood: what fails before that is a matter of usage.
	begun bool
}

const (
	outputTable = "table"
	outputJSON  = "json"
)

// execute runs one command line and returns its exit code.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	a := newApp(stdout, stderr)
	a.root.SetArgs(args)
	err := a.root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	f := a.classify(err)
	a.complain(f)
	return f.code
}

func newApp(stdout, stderr io.Writer) *app {
	a := &app{stdout: stdout, stderr: stderr}
	a.root = &cobra.Command{
		Use:   "transship",
		Short: "move a live container registry from one storage backend to another, prefix by prefix",
		Long: `transship moves a live container registry from one storage backend to another, one repository prefix at a time,
while people keep pushing and pulling. The work is done by transship-worker and recorded by Temporal: any command
here may be interrupted, and the migration goes on.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if a.output != outputTable && a.output != outputJSON {
				return fmt.Errorf("--output is %q; write %s or %s", a.output, outputTable, outputJSON)
			}
			a.begun = true
			return nil
		},
	}
	a.root.SetOut(stdout)
	a.root.SetErr(stderr)
	flags := a.root.PersistentFlags()
	flags.StringVar(&a.configPath, "config", "", "configuration `FILE` (default $TRANSSHIP_CONFIG, ./transship.yaml or /etc/transship/transship.yaml, whichever is first)")
	config.Flags(flags)
	flags.StringVarP(&a.output, "output", "o", outputTable, "table for people, json for programs")
	flags.StringVar(&a.as, "as", "", "`NAME` of who is asking, as it will be recorded (default $TRANSSHIP_OPERATOR, or the user's name)")
	fixed(a.root, "output", outputTable, outputJSON)
	a.root.AddCommand(a.migrateCommand())
	a.root.AddCommand(a.orderCommands()...)
	a.root.AddCommand(
		a.statusCommand(), a.historyCommand(), a.reportCommand(), a.planCommand(), a.verifyCommand(), a.auditCommand(), a.throttleCommand(), a.routesCommand(), a.edgeCommand(), a.doctorCommand(), a.configCommand(),
		a.versionCommand(), exitCodesTopic(),
	)
	return a
}

// waitsForAnswers gives a verb the flag that bounds how long it waits for a worker.
func (a *app) waitsForAnswers(c *cobra.Command) *cobra.Command {
	c.Flags().DurationVar(&a.timeout, "timeout", 30*time.Second, "how long to wait for an answer of Temporal or a worker")
	return c
}

// load reads the configuration. What is wrong with it is a matter of bad input.
func (a *app) load(secrets config.Secrets) (*config.Config, error) {
	c, err := config.Load(a.path(), a.root.PersistentFlags(), secrets)
	if err != nil {
		return nil, badInput(err)
	}
	return c, nil
}

// path is the configuration file: the one that was named, or the first that exists.
func (a *app) path() string {
	if a.configPath != "" {
		return a.configPath
	}
	if named := os.Getenv("TRANSSHIP_CONFIG"); named != "" {
		return named
	}
	const here, system = "transship.yaml", "/etc/transship/transship.yaml"
	if _, err := os.Stat(here); err == nil {
		return here
	}
	if _, err := os.Stat(system); err == nil {
		return system
	}
	return here
}

// operator is who is asking.
func (a *app) operator() (string, error) {
	for _, name := range []string{a.as, os.Getenv("TRANSSHIP_OPERATOR"), os.Getenv("USER")} {
		if name != "" {
			return name, nil
		}
	}
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username, nil
	}
	return "", badInput(errors.New("nobody is asking: name yourself with --as or TRANSSHIP_OPERATOR"))
}
