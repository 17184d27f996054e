// Command stores runs a Swift and a Ceph on this machine.
//
//	stores run -- COMMAND…   runs COMMAND with TRANSSHIP_LAB naming their addresses, and stops them whatever becomes of it
//	stores up                leaves them running, in .cache/stores
//	stores down              stops them and deletes what they have
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"transship/lab/servers/shared"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := do(ctx, os.Args[1:]); err != nil {
		stop()
		var failed *exec.ExitError
		if errors.As(err, &failed) && failed.ExitCode() > 0 {
			os.Exit(failed.ExitCode()) // the command has said why
		}
		fmt.Fprintln(os.Stderr, "stores:", err)
		os.Exit(1)
	}
}

func do(ctx context.Context, args []string) error {
	switch {
	case len(args) > 2 && args[0] == "run" && args[1] == "--":
		return run(ctx, args[2:])
	case len(args) == 1 && args[0] == "up":
		return up(ctx)
	case len(args) == 1 && args[0] == "down":
		return down()
	default:
		return errors.New("usage: stores run -- COMMAND… | up | down")
	}
}

// run runs a command with stores in a temporary folder.
func run(ctx context.Context, args []string) error {
	dir, err := os.MkdirTemp("", "transship-stores-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	stores, err := start(ctx, dir)
	if err != nil {
		return err
	}
	defer stores.Stop()
	addresses := filepath.Join(dir, "addresses.json")
	if err := stores.Write(addresses); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), shared.Variable+"="+addresses)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) } // let it clean up as well
	cmd.WaitDelay = time.Minute
	return cmd.Run()
}

func start(ctx context.Context, dir string) (*shared.Stores, error) {
	began := time.Now()
	stores, err := shared.Start(ctx, dir)
	if err == nil {
		fmt.Fprintf(os.Stderr, "stores: Swift and Ceph are up after %.1f s in %s\n", time.Since(began).Seconds(), dir)
	}
	return stores, err
}

// place is where `stores up` leaves the stores.
func place() (dir, addresses string, err error) {
	dir, err = filepath.Abs(".cache/stores") // .run belongs to the demo, which empties it
	return dir, filepath.Join(dir, "addresses.json"), err
}

func up(ctx context.Context) error {
	dir, addresses, err := place()
	if err != nil {
		return err
	}
	if _, err := os.Stat(addresses); err == nil {
		return fmt.Errorf("they run already: `go run ./lab/stores down` stops them (%s)", addresses)
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	stores, err := start(ctx, dir)
	if err != nil {
		return err
	}
	if err := stores.Write(addresses); err != nil {
		stores.Stop()
		return err
	}
	fmt.Printf("export %s=%s\n", shared.Variable, addresses)
	return nil
}

func down() error {
	dir, addresses, err := place()
	if err != nil {
		return err
	}
	stores, err := shared.Attach(addresses)
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range slices.Backward(stores.Processes) {
		errs = append(errs, r.End())
	}
	return errors.Join(append(errs, os.RemoveAll(dir))...)
}
