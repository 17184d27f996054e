package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/temporal"

	"transship/config"
)

// Exit codes, for scripts. `transship help exit-codes` prints the same.
const (
	exitOK          = 0
	exitUnexpected  = 1
	exitUsage       = 2 // the command line or the configuration
	exitRefused     = 3 // a conflict with another migration, or a command that makes no sense now
	exitUnreachable = 4 // Temporal, or a worker
	exitTrouble     = 5 // not finalized, blocked, different, bad, or something for the doctor
)

func exitCodesTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "exit-codes",
		Short: "what the exit code of a command means",
		Long: `Exit codes:

  0  it is done
  1  an error that nobody expected
  2  the command line or the configuration is wrong; nothing was touched
  3  refused: another migration has the prefix, or the command makes no sense in the present state
  4  Temporal or a worker did not answer
  5  the migration that was waited for ended otherwise than finalized (migrate --wait, status --watch),
     the plan is blocked (plan), both sides differ (verify), something is bad (audit), or something needs a cure (doctor)

Errors go to standard error. With --output json they are objects there: {"error": "...", "kind": "..."}, where kind is
unexpected, usage, refused, unreachable or trouble.`,
	}
}

// failure is an error that knows what it means for the exit code.
type failure struct {
	code int
	err  error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func (f *failure) kind() string {
	switch f.code {
	case exitUsage:
		return "usage"
	case exitRefused:
		return "refused"
	case exitUnreachable:
		return "unreachable"
	case exitTrouble:
		return "trouble"
	}
	return "unexpected"
}

func badInput(err error) error { return &failure{exitUsage, err} }

func refused(format string, args ...any) error {
	return &failure{exitRefused, fmt.Errorf(format, args...)}
}

func unreachable(format string, args ...any) error {
	return &failure{exitUnreachable, fmt.Errorf(format, args...)}
}

func trouble(format string, args ...any) error {
	return &failure{exitTrouble, fmt.Errorf(format, args...)}
}

// classify finds out what an error means.
func (a *app) classify(err error) *failure {
	var known *failure
	var refusal *temporal.ApplicationError
	var namespace *serviceerror.NamespaceNotFound
	var unavailable *serviceerror.Unavailable
	var late *serviceerror.DeadlineExceeded
	switch {
	case errors.As(err, &known):
		return &failure{known.code, err}
	case !a.begun:
		return &failure{exitUsage, fmt.Errorf("%w (transship --help shows how)", err)}
	case errors.As(err, &namespace):
		return &failure{exitUsage, fmt.Errorf("the Temporal server has no namespace %q: create it, or set temporal.namespace (flag --namespace)", namespace.Namespace)}
	case errors.As(err, &refusal):
		return &failure{exitRefused, errors.New(refusal.Message())}
	case errors.As(err, &unavailable), errors.As(err, &late), errors.Is(err, context.DeadlineExceeded):
		return &failure{exitUnreachable, err}
	case errors.Is(err, context.Canceled):
		return &failure{exitUnexpected, fmt.Errorf("interrupted: %w", err)}
	}
	return &failure{exitUnexpected, err}
}

// complain writes an error where errors go.
func (a *app) complain(f *failure) {
	if a.output != outputJSON {
		fmt.Fprintln(a.stderr, "transship:", f.err)
		return
	}
	said := struct {
		Error    string           `json:"error"`
		Kind     string           `json:"kind"`
		Mistakes []config.Mistake `json:"mistakes,omitempty"`
	}{Error: f.err.Error(), Kind: f.kind()}
	var wrong *config.Error
	if errors.As(f.err, &wrong) {
		said.Mistakes = wrong.Mistakes
	}
	_ = json.NewEncoder(a.stderr).Encode(said)
}
