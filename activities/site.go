package activities

import (
	"context"
	"fmt"
	"slices"
	"time"

	"go.temporal.io/sdk/temporal"

	"transship/internal/edge"
	"transship/internal/objectstore"
	"transship/internal/registry"
	"transship/internal/routing"
	"transship/internal/sitecheck"
)

// CheckPairParams names the backends of a move, and the repository for probes.
type CheckPairParams struct {
	From       string `json:"from"`
	To         string `json:"to"`
	Repository string `json:"repository"`
}

// CheckPair looks for what two backends must not share and must agree on, and at what their stores do by themselves. It pushes small blobs to the
// repository for probes, and deletes them again.
func (r *Registries) CheckPair(ctx context.Context, p CheckPairParams) ([]edge.Finding, error) {
	from, to, err := r.pair(p.From, p.To)
	if err != nil {
		return nil, err
	}
	defer beat(ctx, func() any { return nil })()
	ctx, cancel := inTime(ctx)
	defer cancel()
	findings := sitecheck.Backends(ctx, from, to, p.Repository)
	// The source has lived with its rules; what the target is given must stay.
	findings = append(findings, r.expiring(ctx, p.From, true)...)
	return append(findings, r.expiring(ctx, p.To, false)...), nil
}

// inTime ends a little before the activity does, so that what was found until then is told.
func inTime(ctx context.Context) (context.Context, context.CancelFunc) {
	if end, ok := ctx.Deadline(); ok {
		return context.WithDeadline(ctx, end.Add(-3*time.Second))
	}
	return context.WithCancel(ctx)
}

func (r *Registries) expiring(ctx context.Context, name string, warning bool) (findings []edge.Finding) {
	store, ok := r.Stores[name]
	if !ok {
		return nil
	}
	f := edge.Finding{What: "backend " + name + ": its store keeps what it is given"}
	rules, err := objectstore.Expiring(ctx, store)
	if err != nil {
		f.Detail, f.Cure, f.Warning = "its lifecycle rules cannot be read: "+err.Error(), "allow s3:GetLifecycleConfiguration, or look yourself", true
		return []edge.Finding{f}
	}
	for _, rule := range rules {
		g := f
		g.Detail, g.Cure, g.Warning = rule, "take the rule away: a registry does not know which of its objects are old", warning
		findings = append(findings, g)
	}
	if len(rules) == 0 {
		f.OK = true
		return []edge.Finding{f}
	}
	return findings
}

// MeasureRoomParams names a target.
type MeasureRoomParams struct {
	Backend string         `json:"backend"`
	Prefix  routing.Prefix `json:"prefix"`
	// Except is a repository that does not count: the one for probes.
	Except string `json:"except,omitempty"`
}

// MeasureRoomResult is what there is at a target, and what still fits.
type MeasureRoomResult struct {
	Room objectstore.Room `json:"room"`
	// Repositories are those that the target has under the prefix; -1 when its catalog does not say.
	Repositories int `json:"repositories"`
}

// catalogPatience is how long a plan waits to learn how many repositories the target has: that is only for people.
const catalogPatience = 30 * time.Second

// MeasureRoom asks a target how much more it takes, and what it has under a prefix.
func (r *Registries) MeasureRoom(ctx context.Context, p MeasureRoomParams) (MeasureRoomResult, error) {
	backend, err := r.backend(p.Backend)
	if err != nil {
		return MeasureRoomResult{}, err
	}
	defer beat(ctx, func() any { return nil })()
	result := MeasureRoomResult{Repositories: -1}
	if store, ok := r.Stores[p.Backend]; ok {
		if result.Room, err = objectstore.RoomOf(ctx, store); err != nil {
			result.Room = objectstore.Room{Says: "its store does not say: " + err.Error()}
		}
	}
	patience, cancel := context.WithTimeout(ctx, catalogPatience)
	defer cancel()
	if found, err := backend.Repositories(patience, p.Prefix); err == nil {
		result.Repositories = len(slices.DeleteFunc(found, func(name string) bool { return name == p.Except }))
	}
	return result, ctx.Err()
}

// CheckEdgesParams names proxy nodes, and the repository for probes.
type CheckEdgesParams struct {
	Edges      []string `json:"edges"`
	Repository string   `json:"repository"`
}

// CheckEdges looks at the proxy nodes as clients meet them, alone and in pairs. It pushes small blobs to the repository for probes, and deletes them again.
func (p *Probes) CheckEdges(ctx context.Context, q CheckEdgesParams) ([]edge.Finding, error) {
	var edges []*registry.Registry
	for _, name := range q.Edges {
		e, ok := p.Edges[name]
		if !ok {
			return nil, temporal.NewNonRetryableApplicationError(
				fmt.Sprintf("edge %q is not in the configuration of this worker: add it to edges and restart the worker", name), KindConfig, nil)
		}
		edges = append(edges, e)
	}
	defer beat(ctx, func() any { return nil })()
	ctx, cancel := inTime(ctx)
	defer cancel()
	return sitecheck.Edges(ctx, edges, q.Repository), nil
}
