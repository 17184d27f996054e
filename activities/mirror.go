package activities

import (
	"context"
	"fmt"
	"sync"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"transship/internal/mirror"
	"transship/internal/registry"
)

// MirrorParams says what to copy, and how far it has come already.
type MirrorParams struct {
	From         string   `json:"from"`
	To           string   `json:"to"`
	Repositories []string `json:"repositories,omitempty"`
	// Shard, when set, is copied from store to store instead.
	Shard    *mirror.Shard `json:"shard,omitempty"`
	Throttle Throttle      `json:"throttle,omitzero"`
	// Mark tells the links that this migration writes below the registries.
	Mark string `json:"mark,omitempty"`
	Jobs int    `json:"jobs"`
	// SkipBroken leaves out images that the source cannot serve whole.
	SkipBroken bool   `json:"skip_broken,omitempty"`
	Cursor     Cursor `json:"cursor"`
}

// Cursor is how far a mirror of some repositories has come: it is in every heartbeat, and a pause hands it back to the workflow.
type Cursor struct {
	// Repository is the index of the repository that is under way.
	Repository int `json:"repository"`
	// After is the last tag of it that is done, in the order of the tags.
	After string `json:"after,omitempty"`
	// Progress counts everything done so far, by earlier attempts as well.
	Progress registry.Progress  `json:"progress"`
	Problems []registry.Problem `json:"problems,omitempty"`
	Vanished int64              `json:"vanished,omitempty"`
	// Store is how far a shard has come, whose Progress and Problems are shown above as well; Done says that it is complete.
	Store mirror.Cursor `json:"store,omitzero"`
	Done  bool          `json:"done,omitempty"`
}

// MirrorRepositories copies repositories, one after the other, with everything their tags refer to. Cancelled, it ends with a
// CanceledError whose details are the Cursor to go on from; killed, its next attempt goes on from the last heartbeat.
func (r *Registries) MirrorRepositories(ctx context.Context, p MirrorParams) (Cursor, error) {
	if p.Shard != nil {
		return r.mirrorShard(ctx, p)
	}
	from, to, err := r.pair(p.From, p.To)
	if err != nil {
		return p.Cursor, err
	}
	at := p.Cursor
	if activity.HasHeartbeatDetails(ctx) {
		if err := activity.GetHeartbeatDetails(ctx, &at); err != nil {
			return at, fmt.Errorf("read the cursor of the attempt before: %w", err)
		}
	}
	var mu sync.Mutex
	before := at.Progress
	copier := &registry.Copier{
		From: from, To: to, Jobs: p.Jobs, SkipBroken: p.SkipBroken, Holders: r.holdersOf(p.To),
		TagDone: func(_, tag string) { mu.Lock(); at.After = tag; mu.Unlock() },
	}
	now := func() Cursor {
		mu.Lock()
		defer mu.Unlock()
		c := at
		c.Progress = before.Add(copier.Progress())
		return c
	}
	defer beat(ctx, func() any { return now() })()
	var broken []registry.Problem
	for at.Repository < len(p.Repositories) {
		result, err := copier.Repository(ctx, p.Repositories[at.Repository], at.After)
		switch problems := registry.Problems(err); {
		case ctx.Err() != nil:
			return now(), temporal.NewCanceledError(now())
		case len(problems) > 0:
			broken = append(broken, problems...) // the other repositories are looked at first, so that all problems are known
		case err != nil:
			return now(), final(err)
		}
		mu.Lock()
		at.Repository, at.After = at.Repository+1, ""
		at.Problems = append(at.Problems, result.Problems...)
		at.Vanished += result.Vanished
		mu.Unlock()
	}
	if len(broken) > 0 {
		return now(), final(&registry.BrokenError{Problems: broken})
	}
	end := now()
	end.Done = true
	return end, nil
}
