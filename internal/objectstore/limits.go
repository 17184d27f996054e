package objectstore

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limits bound what is asked of stores: of one, or of several together. They may be changed at any time, and hold at once for what is under way.
type Limits struct {
	bytes, requests limit
}

// byteBurst is how many bytes may go at once: what a reader takes in one piece, so that a bound below the speed of the line is kept smoothly.
const byteBurst = 64 << 10

// NewLimits bounds bytes per second, both ways together, and requests per second; 0 is unbounded.
func NewLimits(bandwidth int64, requests int) *Limits {
	l := &Limits{}
	l.bytes.begin(byteBurst)
	l.requests.begin(1)
	l.SetBandwidth(bandwidth)
	l.SetRequests(requests)
	return l
}

// SetBandwidth changes the bound, in bytes per second; 0 is unbounded.
func (l *Limits) SetBandwidth(perSecond int64) { l.bytes.set(float64(perSecond)) }

// SetRequests changes the bound, in requests per second; 0 is unbounded.
func (l *Limits) SetRequests(perSecond int) { l.requests.set(float64(perSecond)) }

// limit is one bound.
type limit struct {
	mu      sync.Mutex
	rate    *rate.Limiter
	burst   int
	changed chan struct{}
}

func (l *limit) begin(burst int) {
	l.burst, l.rate, l.changed = burst, rate.NewLimiter(rate.Inf, burst), make(chan struct{})
}

func (l *limit) set(perSecond float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := rate.Inf
	if perSecond > 0 {
		next = rate.Limit(perSecond)
	}
	// A new one, because the present one may owe seconds at a rate that no longer holds.
	l.rate = rate.NewLimiter(next, l.burst)
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *limit) unbounded() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rate.Limit() == rate.Inf
}

// wait returns when n more are within the bound.
func (l *limit) wait(ctx context.Context, n int) error {
	for n > 0 {
		piece := min(n, l.burst)
		if err := l.one(ctx, piece); err != nil {
			return err
		}
		n -= piece
	}
	return nil
}

func (l *limit) one(ctx context.Context, n int) error {
	for {
		l.mu.Lock()
		wait, changed := l.rate.ReserveN(time.Now(), n).Delay(), l.changed
		l.mu.Unlock()
		if wait <= 0 {
			return nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
			return nil
		case <-changed: // with other bounds it may be our turn already
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("waiting within the bounds of a store: %w", context.Cause(ctx))
		}
	}
}
