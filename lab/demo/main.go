// Command demo shows the main job of transship on one machine: a prefix moves from one real registry to another while clients push and pull, and a second
// one rolls back by itself. It exits non-zero when a promise was broken. `demo up` leaves the same stack running, `demo down` stops it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"transship/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	size := flag.String("lab", "small", "what runs: small or full")
	flag.Parse()
	if err := do(ctx, *size, flag.Arg(0)); err != nil {
		stop()
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func do(ctx context.Context, size, verb string) error {
	parts, known := map[string]lab.Parts{"small": nil, "full": lab.Full}[size]
	if !known {
		return fmt.Errorf("unknown lab %q: small or full", size)
	}
	switch verb {
	case "", "demo":
		return demo(ctx, parts)
	case "up":
		return up(ctx, parts)
	case "down":
		return lab.Down(addresses())
	default:
		return fmt.Errorf("unknown verb %q: demo, up or down", verb)
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

func up(ctx context.Context, parts lab.Parts) error {
	bin, err := fresh()
	if err != nil {
		return err
	}
	stack, err := lab.Up(ctx, lab.Options{Dir: run(), Bin: bin, Parts: parts, Adapt: func(s *lab.Settings) {
		s.Soak, s.Interval, s.Finalize = 0, 5*time.Second, "ask"
	}})
	if err != nil {
		return err
	}
	for prefix, amount := range map[string]lab.Amount{"restricted": lab.Realistic, "platform": lab.Small} {
		if err := lab.NewClientsOf(stack.Addresses.Edges, prefix).Seed(ctx, amount); err != nil {
			stack.Stop()
			return err
		}
	}
	if err := stack.Leave(addresses()); err != nil {
		stack.Stop()
		return err
	}
	show(stack.Addresses)
	return nil
}

// show tells a person what runs where, and what to try.
func show(a lab.Addresses) {
	fmt.Printf("Running: %s has every address.\n  Temporal UI  %s\n", addresses(), a.UI)
	for i, edge := range a.Edges {
		fmt.Printf("  edge %d       %s   (push as %s, pull as %s, password %s)\n", i+1, edge, a.PushUser, a.PullUser, a.Password)
	}
	fmt.Printf("  registries   old %s, new %s\n", a.Old, a.New)
	if a.Stores != nil {
		fmt.Printf("  Swift        %s   (%s, password %s, container %s)\n", a.Stores.Swift.AuthURL, a.Stores.Swift.Username, a.Stores.Swift.Password, a.Stores.Container)
		fmt.Printf("  Ceph S3      %s   (key %s, secret %s, bucket %s)\n", a.Stores.Ceph.Endpoint, a.Stores.Ceph.AccessKey, a.Stores.Ceph.SecretKey, a.Stores.Bucket)
		fmt.Printf("  Prometheus   %s\n  IRC          %s\n", a.Prometheus, a.IRC)
	}
	stored := ""
	if a.Stores != nil {
		stored = `  bin/transship audit old --deep         # --heal, once new has good copies
  bin/transship throttle restricted --bandwidth 20MiB      # while it mirrors
  bin/transship verify restricted --deep
`
	}
	fmt.Printf(`  logs         %s
Try:
  export TRANSSHIP_CONFIG=%s
  bin/transship doctor
  bin/transship plan restricted
  bin/transship migrate restricted
  bin/transship status restricted --watch
%s  bin/transship approve restricted
  bin/transship rollback restricted      # or: finalize
make down stops it.
`, filepath.Join(run(), "log"), a.Config, stored)
}
