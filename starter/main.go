// Command transship is what operators type: it starts migrations, tells them what to do, and shows what they are at. It does no work
// itself; that is done by transship-worker, and goes on whether or not anybody is looking.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	_ "time/tzdata" // approval windows name time zones, and a container may have none
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := execute(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
