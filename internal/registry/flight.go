package registry

import (
	"context"
	"errors"
	"sync"
)

// flights makes sure that a thing wanted by several at once is done once, and remembers the result of what was done.
// The zero value is ready.
type flights[T any] struct {
	mu sync.Mutex
	m  map[string]*flight[T]
	// forget: results are not kept, only shared by those who asked while the work was under way.
	forget bool
}

type flight[T any] struct {
	done   chan struct{}
	result T
	err    error
}

// do runs work for the key, or waits for, or recalls, the run of another caller. An error is shared by those who waited for it but not
// remembered, unless it is a problem of the content, which trying again does not cure. A run that ended because its own caller gave up does not count for the others: one of them takes over.
func (f *flights[T]) do(ctx context.Context, key string, work func() (T, error)) (T, error) {
	for {
		f.mu.Lock()
		if f.m == nil {
			f.m = map[string]*flight[T]{}
		}
		running := f.m[key]
		if running == nil {
			running = &flight[T]{done: make(chan struct{})}
			f.m[key] = running
			f.mu.Unlock()
			running.result, running.err = work()
			f.mu.Lock()
			if f.forget || (running.err != nil && problemsIn(running.err) == nil) {
				delete(f.m, key)
			}
			f.mu.Unlock()
			close(running.done)
			return running.result, running.err
		}
		f.mu.Unlock()
		select {
		case <-running.done:
		case <-ctx.Done():
			var none T
			return none, context.Cause(ctx)
		}
		if gaveUp(running.err) && ctx.Err() == nil {
			continue
		}
		return running.result, running.err
	}
}

// drop forgets a result.
func (f *flights[T]) drop(key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if running := f.m[key]; running != nil {
		select {
		case <-running.done:
			delete(f.m, key)
		default:
		}
	}
}

func gaveUp(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// memory remembers a bounded number of strings by key, dropping some when it is full. Forgetting costs a request, nothing else.
type memory struct {
	mu    sync.Mutex
	m     map[string]string
	limit int
}

func (k *memory) get(key string) (string, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	v, ok := k.m[key]
	return v, ok
}

func (k *memory) put(key, value string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.m == nil {
		k.m = map[string]string{}
	}
	if len(k.m) >= k.limit {
		// Which ones go is left to the map's random order.
		for old := range k.m {
			delete(k.m, old)
			if len(k.m) < k.limit*3/4 {
				break
			}
		}
	}
	k.m[key] = value
}

func (k *memory) drop(key string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.m, key)
}
