// Command demo shows the main job of transship on one machine: a prefix moves from one real registry to another while clients push and pull, and a second
// one rolls back by itself. It exits non-zero when a promise was broken. `demo up` leaves the same stack running, `demo down` stops it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"transship/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	verb := "demo"
	if len(os.Args) > 1 {
		verb = os.Args[1]
	}
	var err error
	switch verb {
	case "demo":
		err = demo(ctx)
	case "up":
		err = up(ctx)
	case "down":
		err = lab.Down(addresses())
	default:
		err = fmt.Errorf("unknown verb %q: demo, up or down", verb)
	}
	if err != nil {
		stop()
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// run is the folder of everything that the lab writes.
func run() string {
	dir, err := filepath.Abs(".run")
	if err != nil {
		return ".run"
	}
	return dir
}

func addresses() string { return filepath.Join(run(), "addresses.json") }

// fresh makes sure that no stack is running in the folder, and that it is empty.
func fresh() (bin string, err error) {
	if _, err := os.Stat(addresses()); err == nil {
		return "", fmt.Errorf("a stack is running: `make down` stops it (%s)", addresses())
	}
	if err := os.RemoveAll(run()); err != nil {
		return "", fmt.Errorf("clear the folder of the last run: %w", err)
	}
	return filepath.Abs("bin")
}

func up(ctx context.Context) error {
	bin, err := fresh()
	if err != nil {
		return err
	}
	stack, err := lab.Start(ctx, lab.Options{Dir: run(), Bin: bin, Adapt: func(s *lab.Settings) { s.Soak, s.Interval, s.Finalize = 0, 5_000_000_000, "ask" }})
	if err != nil {
		return err
	}
	for prefix, amount := range map[string]lab.Amount{"restricted": lab.Realistic, "platform": lab.Small} {
		if err := lab.NewClients(stack.Addresses.Edge, prefix).Seed(ctx, amount); err != nil {
			stack.Stop()
			return err
		}
	}
	if err := stack.Leave(addresses()); err != nil {
		stack.Stop()
		return err
	}
	a := stack.Addresses
	fmt.Printf(`Running: %s has every address.
  Temporal UI  %s
  edge         %s   (push as %s, pull as %s, password %s)
  registries   old %s, new %s
Try:
  export TRANSSHIP_CONFIG=%s
  bin/transship doctor
  bin/transship plan restricted
  bin/transship migrate restricted
  bin/transship status restricted --watch
  bin/transship approve restricted
  bin/transship rollback restricted      # or: finalize
make down stops it.
`, addresses(), a.UI, a.Edge, a.PushUser, a.PullUser, a.Password, a.Old, a.New, a.Config)
	return nil
}
