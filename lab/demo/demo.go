package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"

	"transship/internal/report"
	"transship/lab"
	"transship/workflows"
)

// showing is one run, from an empty machine to a verdict.
type showing struct {
	stack   *lab.Stack
	began   time.Time
	clients map[string]*lab.Clients
	// failing makes the site's own check fail.
	failing atomic.Bool
	broken  []string
}

func demo(ctx context.Context, parts lab.Parts) (err error) {
	bin, err := fresh()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	d := &showing{began: time.Now(), clients: map[string]*lab.Clients{}}
	check, err := d.smokeTest()
	if err != nil {
		return err
	}
	if len(parts) == 0 {
		d.say("starting Temporal with its UI, two registries, an nginx edge and two workers")
	} else {
		d.say("starting Temporal with its UI, Swift, Ceph, a registry on each, two nginx edges, three workers, Prometheus and an IRC server")
	}
	d.stack, err = lab.Up(ctx, lab.Options{Dir: run(), Bin: bin, Parts: parts, Adapt: func(s *lab.Settings) {
		s.Checks = map[string]string{"smoke test of the deploy tool": check}
	}})
	if err != nil {
		return err
	}
	defer d.stack.Stop()
	if err := d.seed(ctx); err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	var wait sync.WaitGroup
	for _, c := range d.clients {
		wait.Go(func() { c.Run(running, 2) })
	}
	d.say("one pusher and two pullers are at work in each prefix from here on")
	moved, err := d.migrate(ctx)
	var back report.Report
	if err == nil {
		back, err = d.failAndRollBack(ctx)
	}
	stop()
	wait.Wait()
	if err != nil {
		return errors.Join(err, d.verdictOfClients())
	}
	d.check(ctx, "restricted", d.stack.Addresses.New)
	d.check(ctx, "platform", d.stack.Addresses.Old)
	d.print(moved, back)
	if err := d.verdictOfClients(); err != nil {
		return err
	}
	fmt.Println("\nEvery promise was kept.")
	return nil
}

// smokeTest serves the check of a deploy tool, which the demo can make fail.
func (d *showing) smokeTest() (url string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if d.failing.Load() {
			http.Error(w, "a deploy failed", http.StatusInternalServerError)
		}
	})}
	go func() { _ = server.Serve(l) }() // ends with the process
	return "http://" + l.Addr().String() + "/smoke", nil
}

func (d *showing) say(format string, args ...any) {
	fmt.Printf("%7.1fs  %s\n", time.Since(d.began).Seconds(), fmt.Sprintf(format, args...))
}

func (d *showing) seed(ctx context.Context) error {
	for prefix, amount := range map[string]lab.Amount{"restricted": lab.Realistic, "platform": lab.Small} {
		c := lab.NewClientsOf(d.stack.Addresses.Edges, prefix)
		d.clients[prefix] = c
		if err := c.Seed(ctx, amount); err != nil {
			return err
		}
		d.say("seeded %s through the edge: %d tags in %d repositories", prefix, c.Summary().Pushes, amount.Repositories)
	}
	return nil
}

// transship runs a command as an operator would, and shows it.
func (d *showing) transship(ctx context.Context, args ...string) error {
	d.say("$ transship %s", strings.Join(args, " "))
	_, err := d.stack.Transship(ctx, args...)
	return err
}

// migrate moves the first prefix and approves the flip.
func (d *showing) migrate(ctx context.Context) (report.Report, error) {
	if err := d.transship(ctx, "--as", "sre", "migrate", "restricted"); err != nil {
		return report.Report{}, err
	}
	if _, err := d.stack.Await(ctx, "restricted", lab.Phase(workflows.Approval)); err != nil {
		return report.Report{}, err
	}
	d.say("mirrored and verified; it waits for approval")
	if err := d.transship(ctx, "--as", "releng", "approve", "restricted", "--reason", "deploys are quiet"); err != nil {
		return report.Report{}, err
	}
	if _, err := d.stack.Await(ctx, "restricted", lab.Phase(workflows.Soak)); err != nil {
		return report.Report{}, err
	}
	d.say("flipped: restricted is served by new; soaking")
	r, err := d.stack.Outcome(ctx, "restricted")
	if err == nil && r.Outcome != report.Finalized {
		err = fmt.Errorf("the first migration ended as %s: %s", r.Outcome, r.Reason)
	}
	d.say("restricted: %s", r.Outcome)
	return r, err
}

// failAndRollBack moves the second prefix, and lets the site's own check fail after the flip.
func (d *showing) failAndRollBack(ctx context.Context) (report.Report, error) {
	if err := d.transship(ctx, "--as", "sre", "migrate", "platform"); err != nil {
		return report.Report{}, err
	}
	if _, err := d.stack.Await(ctx, "platform", lab.Phase(workflows.Approval)); err != nil {
		return report.Report{}, err
	}
	if err := d.transship(ctx, "--as", "releng", "approve", "platform"); err != nil {
		return report.Report{}, err
	}
	if _, err := d.stack.Await(ctx, "platform", lab.Phase(workflows.Soak)); err != nil {
		return report.Report{}, err
	}
	d.say("flipped: platform is served by new; now the deploy tool's smoke test begins to fail")
	time.Sleep(3 * time.Second) // let clients push to the new backend what the rollback must carry back
	d.failing.Store(true)
	r, err := d.stack.Outcome(ctx, "platform")
	if err == nil && r.Outcome != report.RolledBack {
		err = fmt.Errorf("the second migration was to roll back, and ended as %s: %s", r.Outcome, r.Reason)
	}
	d.say("platform: %s by itself", r.Outcome)
	return r, err
}

// check looks at the backend that serves a prefix for everything that was acknowledged.
func (d *showing) check(ctx context.Context, prefix, backend string) {
	lost, tags := d.clients[prefix].Check(ctx, backend)
	d.say("checked %d tags of %s at the backend that serves it: %d lost", tags, prefix, len(lost))
	for _, l := range lost {
		d.broken = append(d.broken, "lost: "+l)
	}
}

func (d *showing) print(reports ...report.Report) {
	for _, r := range reports {
		fmt.Printf("\n%s: %s → %s, %s\n", r.Prefix, r.From, r.To, r.Outcome)
		for _, s := range r.Steps {
			fmt.Printf("  %-24s %8s  %s%s\n", s.Name, s.Took(), s.Note, s.Error)
		}
		lasted, longest := r.Freeze()
		fmt.Printf("  writes were held for %d ms; the longest wait of one was %d ms\n", lasted.Milliseconds(), longest.Milliseconds())
		fmt.Printf("  mirrored %s at %s/s; %d acknowledged writes came by journal, %d were carried back\n",
			humanize.IBytes(uint64(max(0, r.Mirror.Bytes))), humanize.IBytes(uint64(max(0, r.Rate()))), r.Deltas.Writes, r.Reverse.Writes)
		fmt.Printf("  report: %s\n", r.File)
	}
	fmt.Println()
	for prefix, c := range d.clients {
		s := c.Summary()
		fmt.Printf("clients of %-10s  %d requests, %d pushes, %d pulls, %d errors, %d stale; slowest write %d ms, slowest read %d ms\n",
			prefix, s.Requests, s.Pushes, s.Pulls, s.Failed, s.Stale, s.Slowest.Milliseconds(), s.SlowRead.Milliseconds())
	}
	fmt.Printf("whole run after the build: %s\nTemporal UI while it ran: %s (`make up` leaves one running)\n", time.Since(d.began).Round(100*time.Millisecond), d.stack.Addresses.UI)
}

func (d *showing) verdictOfClients() error {
	for prefix, c := range d.clients {
		for _, f := range c.Failures() {
			d.broken = append(d.broken, prefix+": "+f)
		}
	}
	if len(d.broken) == 0 {
		return nil
	}
	for i, b := range d.broken {
		if i == 20 {
			fmt.Fprintf(os.Stderr, "  … and %d more\n", len(d.broken)-i)
			break
		}
		fmt.Fprintln(os.Stderr, "  "+b)
	}
	return fmt.Errorf("%d promises were broken", len(d.broken))
}
