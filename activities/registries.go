package activities

import (
	"context"
	"fmt"
	"sync"

	"go.temporal.io/sdk/temporal"

	"transship/internal/objectstore"
	"transship/internal/registry"
	"transship/internal/routing"
)

// Registries are the activities of movers: everything that reads or writes images. They run on workflows.MoverQueue.
type Registries struct {
	// Backends are the registries of the configuration, by name.
	Backends map[string]*registry.Registry
	// Stores are the object stores under those of them whose store we reach.
	Stores map[string]objectstore.Store

	mu      sync.Mutex
	holders map[string]*registry.Holders
	shared  map[string]*sharedKnown
}

// holdersOf is what this worker knows of where blobs are at a target: repositories are copied by activities of their own, and share base layers.
func (r *Registries) holdersOf(target string) *registry.Holders {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.holders == nil {
		r.holders = map[string]*registry.Holders{}
	}
	if r.holders[target] == nil {
		r.holders[target] = registry.NewHolders()
	}
	return r.holders[target]
}

func (r *Registries) backend(name string) (*registry.Registry, error) {
	if b, ok := r.Backends[name]; ok {
		return b, nil
	}
	return nil, temporal.NewNonRetryableApplicationError(
		fmt.Sprintf("backend %q is not in the configuration of this worker: add it to backends and restart the worker", name), KindConfig, nil)
}

func (r *Registries) pair(from, to string) (source, target *registry.Registry, err error) {
	if source, err = r.backend(from); err != nil {
		return nil, nil, err
	}
	target, err = r.backend(to)
	return source, target, err
}

// ListRepositoriesParams says whose repositories to list.
type ListRepositoriesParams struct {
	Backend string         `json:"backend"`
	Prefix  routing.Prefix `json:"prefix"`
}

// ListRepositories asks the catalog of a backend for the repositories of a prefix.
func (r *Registries) ListRepositories(ctx context.Context, p ListRepositoriesParams) ([]string, error) {
	backend, err := r.backend(p.Backend)
	if err != nil {
		return nil, err
	}
	defer beat(ctx, func() any { return nil })()
	found, err := backend.Repositories(ctx, p.Prefix)
	return found, final(err)
}

// CheckBackendParams names a backend.
type CheckBackendParams struct {
	Backend string `json:"backend"`
}

// CheckBackend asks a backend, and its store where it has one, whether it serves us.
func (r *Registries) CheckBackend(ctx context.Context, p CheckBackendParams) error {
	backend, err := r.backend(p.Backend)
	if err != nil {
		return err
	}
	if err := backend.Ping(ctx); err != nil {
		return final(err)
	}
	store, ok := r.Stores[p.Backend]
	if !ok {
		return nil
	}
	defer beat(ctx, func() any { return nil })()
	for _, err := range store.List(ctx, objectstore.ListOptions{Limit: 1}) {
		if err != nil {
			return final(fmt.Errorf("the store of backend %s: %w", p.Backend, err))
		}
	}
	return nil
}
