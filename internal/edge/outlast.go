package edge

import (
	"context"
	"fmt"
	"slices"
	"time"

	"transship/internal/siteconf"
)

// leaving is how long worker processes of nginx that were told to stop are waited for, at least: they finish what they had begun, and a write of a name takes no longer than
// that (policy.freeze.settle). Uploads may take hours, and are known by their sessions.
const leaving = 10 * time.Second

// Outlast waits until no request is served any more by generated files from before the last reload. A worker process that was told to stop knows no prefix that was added then: a write of
// it is neither held nor in the journal. Mostly none is left, and this returns at once. But it ends what it had begun; and since nginx 1.27.4 it takes requests on
// idle connections for as long as the site's keepalive_min_timeout says (ngx_close_idle_connections). Where the processes cannot be seen, only that is waited for.
func (e *Edge) Outlast(ctx context.Context) error {
	answer, err := ask[filesAnswer](ctx, e.filesURL())
	if err != nil {
		return nil // it is away, and will start with the files of now
	}
	old, seen := siblings(answer.PID, stopping), accepts(answer.PID)
	if seen && len(old) == 0 {
		return nil
	}
	kept := e.keptOpen(ctx)
	if !seen && kept == 0 {
		return nil
	}
	over := time.After(min(max(leaving, kept), siteconf.LongestKept))
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("edge %s: waiting for nginx processes %v, which serve by files from before the last reload: %w", e.Name, old, ctx.Err())
		case <-over:
			return nil
		case <-tick.C:
			if seen && !slices.ContainsFunc(old, stopping) {
				return nil
			}
		}
	}
}

// keptOpen is how long idle connections outlast a reload. A site that cannot be read has none: doctor says that it could not look.
func (e *Edge) keptOpen(ctx context.Context) time.Duration {
	site, _, err := e.readSite(ctx)
	if err != nil {
		return 0
	}
	return site.KeptOpen()
}
