package objectstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// DefaultPatience is for how long an operation goes on trying when a store answers with errors that may pass.
const DefaultPatience = 5 * time.Minute

const (
	firstPause   = 100 * time.Millisecond
	longestPause = 20 * time.Second
)

// patience is how long an operation may go on trying.
type patience time.Duration

// try makes attempts until one succeeds, fails for good, the patience is over or ctx ends.
func (p patience) try(ctx context.Context, attempt func() error) error {
	begun := time.Now()
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := attempt()
		if err == nil || !temporary(err) {
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w (before that: %w)", context.Cause(ctx), err)
		}
		wait := pause/2 + rand.N(pause)
		var status *StatusError
		if errors.As(err, &status) {
			wait = max(wait, status.RetryAfter)
		}
		if time.Since(begun)+wait > time.Duration(p) {
			return fmt.Errorf("given up after %s: %w", time.Since(begun).Round(time.Second/10), err)
		}
		if !sleep(ctx, wait) {
			return fmt.Errorf("%w (before that: %w)", context.Cause(ctx), err)
		}
	}
}

// sleep reports whether the time went by before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// retryAfter reads the header of that name: seconds or a date (RFC 9110, 10.2.3); 0 when there is none.
func retryAfter(h http.Header) time.Duration {
	value := h.Get("Retry-After")
	if seconds, err := strconv.Atoi(value); err == nil {
		return time.Duration(max(seconds, 0)) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(time.Until(at), 0)
	}
	return 0
}
