package workflows

import (
	"fmt"
	"slices"
	"time"

	"go.temporal.io/sdk/workflow"

	"transship/activities"
	"transship/internal/mirror"
	"transship/internal/policy"
	"transship/internal/routing"
)

// batch is what one activity works on: a range of keys where images move from store to store, a list of repositories where they move through the registries.
type batch struct {
	repositories []string
	shard        *mirror.Shard
}

func (b batch) name() string {
	if b.shard != nil {
		return b.shard.First
	}
	return b.repositories[0]
}

func (b batch) summary(what string) string {
	switch {
	case b.shard != nil:
		return what + " " + b.shard.String()
	case len(b.repositories) == 1:
		return what + " " + b.repositories[0]
	}
	return fmt.Sprintf("%s %s and %d more", what, b.repositories[0], len(b.repositories)-1)
}

// batches divides all that a migration copies.
func (m *migration) batches() []batch {
	if m.Storage {
		return shardBatches(m.state.Shards)
	}
	return m.repositoryBatches(m.state.Repositories)
}

func shardBatches(shards []mirror.Shard) []batch {
	batches := make([]batch, len(shards))
	for i := range shards {
		batches[i].shard = &shards[i]
	}
	return batches
}

// batchesOf are those of some repositories.
func (m *migration) batchesOf(repositories []string) []batch {
	if !m.Storage {
		return m.repositoryBatches(repositories)
	}
	var shards []mirror.Shard
	for _, name := range repositories {
		shards = append(shards, mirror.Only(m.Prefix.String(), name))
	}
	return shardBatches(shards)
}

func (m *migration) repositoryBatches(repositories []string) []batch {
	var batches []batch
	size := min(50, max(1, len(repositories)/(4*m.Policy.Mirror.Repositories)))
	for part := range slices.Chunk(repositories, size) {
		batches = append(batches, batch{repositories: part})
	}
	return batches
}

// shardsPerSlot is into how many shards a prefix is divided for each that is copied at once: with more, the last ones to end leave less idle.
const shardsPerSlot = 8

func listShards(ctx workflow.Context, backend, prefix string, p policy.Policy) ([]mirror.Shard, error) {
	var a *activities.Registries
	var shards []mirror.Shard
	list := activities.ListShardsParams{Backend: backend, Prefix: prefix, Shards: shardsPerSlot * p.Mirror.Repositories}
	err := workflow.ExecuteActivity(onMover(ctx, time.Hour, "divide "+prefix+" at "+backend), a.ListShards, list).Get(ctx, &shards)
	return shards, err
}

func listRepositories(ctx workflow.Context, backend string, prefix routing.Prefix) ([]string, error) {
	var a *activities.Registries
	var names []string
	list := activities.ListRepositoriesParams{Backend: backend, Prefix: prefix}
	err := workflow.ExecuteActivity(onMover(ctx, time.Hour, "list "+prefix.String()+" at "+backend), a.ListRepositories, list).Get(ctx, &names)
	return names, err
}

// jobs is how many requests each of n batches has under way at once: the fewer there are, the more each may.
func (m *migration) jobs(n int) int {
	if !m.Storage {
		return m.Policy.Mirror.Jobs
	}
	return m.Policy.Mirror.Jobs * m.Policy.Mirror.Repositories / min(max(1, n), m.Policy.Mirror.Repositories)
}

// mark tells the links that this migration writes.
func (m *migration) mark() string { return "migration-" + m.state.Report.Run }

// maxNamed bounds what a report names of each kind.
const maxNamed = 200

// inBatches spreads batches over movers: a few are under way at once, and the first failure ends the others.
func (m *migration) inBatches(ctx workflow.Context, batches []batch, work func(workflow.Context, batch) error) error {
	return inBatches(ctx, m.Policy.Mirror.Repositories, batches, work)
}

// inBatches works on a list, a few at once, until one fails.
func inBatches[T any](ctx workflow.Context, parallel int, list []T, work func(workflow.Context, T) error) error {
	ctx, cancel := workflow.WithCancel(ctx)
	defer cancel()
	slots := workflow.NewSemaphore(ctx, int64(parallel))
	pending := workflow.NewWaitGroup(ctx)
	var failed error
	for _, one := range list {
		if err := slots.Acquire(ctx, 1); err != nil || failed != nil {
			break
		}
		pending.Add(1)
		workflow.Go(ctx, func(ctx workflow.Context) {
			defer pending.Done()
			defer slots.Release(1)
			if err := work(ctx, one); err != nil && failed == nil {
				failed = err
				cancel()
			}
		})
	}
	pending.Wait(ctx)
	if failed == nil {
		failed = ctx.Err()
	}
	return failed
}
