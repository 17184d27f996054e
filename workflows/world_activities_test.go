package workflows

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"transship/activities"
	"transship/internal/edge"
	"transship/internal/gate"
	"transship/internal/journal"
	"transship/internal/mirror"
	"transship/internal/monitor"
	"transship/internal/policy"
	"transship/internal/probe"
	"transship/internal/registry"
	"transship/internal/report"
	"transship/internal/routing"
)

// fakes are the activities of a world.
type fakes struct{ w *world }

// errOver is what activities get that outlast their workflow: nothing changes any more in a world that a test looks at.
var errOver = errors.New("the workflow is over")

// act is one call: knobs before, the work, a client that pushes meanwhile, knobs after.
func act[T any](w *world, name string, work func() (T, error)) (T, error) {
	var none T
	w.mu.Lock()
	if w.over {
		w.mu.Unlock()
		return none, errOver
	}
	w.calls[name]++
	call := w.calls[name]
	before, after := w.before[name], w.after[name]
	w.mu.Unlock()
	if before != nil {
		if err := before(call); err != nil {
			return none, err
		}
	}
	w.mu.Lock()
	if w.over {
		w.mu.Unlock()
		return none, errOver
	}
	result, err := work()
	if !w.quiet && slices.Contains([]string{"MirrorRepositories", "HoldWrites", "DrainWrites", "FlipPrefix", "ReleaseWrites", "ProbeEdge"}, name) {
		w.pushLocked([]string{"edge-1", "edge-2"}[w.pushes%2], "restricted/busy", "latest")
	}
	w.mu.Unlock()
	if err == nil && after != nil {
		err = after(call)
	}
	return result, err
}

func refused(kind string) error {
	return temporal.NewNonRetryableApplicationError("refused", kind, nil)
}

func (f *fakes) ClaimPrefix(_ context.Context, q routing.Request) (routing.Routing, error) {
	return act(f.w, "ClaimPrefix", func() (routing.Routing, error) {
		if f.w.route.Owner != "" && f.w.route.Owner != q.Owner {
			return f.w.routing(), refused(routing.RefusedOverlap)
		}
		f.w.route.Owner = q.Owner
		return f.w.routing(), nil
	})
}

func (f *fakes) WatchPrefix(_ context.Context, q routing.Request) (routing.Routing, error) {
	return act(f.w, "WatchPrefix", func() (routing.Routing, error) {
		f.w.serve(routing.Watched, f.w.route.Backend)
		return f.w.routing(), nil
	})
}

func (f *fakes) HoldWrites(_ context.Context, q routing.Request) (routing.Routing, error) {
	return act(f.w, "HoldWrites", func() (routing.Routing, error) {
		if f.w.route.Mode == routing.Held && f.w.route.Hold == q.Hold {
			return f.w.routing(), nil
		}
		if f.w.route.Mode != routing.Watched {
			return f.w.routing(), refused(routing.RefusedHoldLost)
		}
		f.w.holds = append(f.w.holds, q.Hold)
		f.w.serve(routing.Held, f.w.route.Backend)
		f.w.route.Hold = q.Hold
		return f.w.routing(), nil
	})
}

func (f *fakes) FlipPrefix(_ context.Context, q routing.Request) (routing.Routing, error) {
	return act(f.w, "FlipPrefix", func() (routing.Routing, error) {
		if f.w.route.Mode == routing.Switched && f.w.route.Hold == q.Hold {
			return f.w.routing(), nil
		}
		if f.w.route.Mode != routing.Held || f.w.route.Hold != q.Hold {
			return f.w.routing(), refused(routing.RefusedHoldLost)
		}
		f.w.flippedWith = append(f.w.flippedWith, q)
		f.w.serve(routing.Switched, map[string]string{"old": "new", "new": "old"}[f.w.route.Backend])
		return f.w.routing(), nil
	})
}

func (f *fakes) ReleaseWrites(_ context.Context, q routing.Request) (routing.Routing, error) {
	return act(f.w, "ReleaseWrites", func() (routing.Routing, error) {
		after := f.w.routing()
		if f.w.route.Mode.Parks() && f.w.route.Hold == q.Hold {
			after.Freezes = []routing.Freeze{{Edge: "edge-1", Prefix: q.Prefix, Hold: q.Hold, Lasted: time.Second, Longest: time.Second, Parked: len(f.w.parked)}}
			f.w.serve(routing.Watched, f.w.route.Backend)
		}
		return after, nil
	})
}

func (f *fakes) SettleUploads(_ context.Context, q routing.Request) (routing.Routing, error) {
	return act(f.w, "SettleUploads", func() (routing.Routing, error) {
		f.w.settled = append(f.w.settled, q.Uploads...)
		return f.w.routing(), nil
	})
}

func (f *fakes) LeaveOutEdges(_ context.Context, q routing.Request) (routing.Routing, error) {
	return act(f.w, "LeaveOutEdges", func() (routing.Routing, error) { return f.w.routing(), nil })
}

func (f *fakes) SetCanary(_ context.Context, q routing.Request) (routing.Routing, error) {
	return act(f.w, "SetCanary", func() (routing.Routing, error) {
		percent := -1
		if q.Canary != nil {
			percent = q.Canary.Percent
		}
		f.w.canaries = append(f.w.canaries, percent)
		return f.w.routing(), nil
	})
}

func (f *fakes) ListUploads(context.Context, activities.ListUploadsParams) ([]routing.Upload, error) {
	return act(f.w, "ListUploads", func() ([]routing.Upload, error) { return f.w.stored, nil })
}

func (f *fakes) LateUploads(context.Context, activities.LateUploadsParams) (int, error) {
	return act(f.w, "LateUploads", func() (int, error) { return f.w.late, nil })
}

func (f *fakes) EdgeStatus(ctx context.Context) (edge.Status, error) {
	return act(f.w, "EdgeStatus", func() (edge.Status, error) {
		if slices.Contains(f.w.away, onWhich(ctx)) {
			return edge.Status{}, final("Away")
		}
		return edge.Status{Fallbacks: map[routing.Prefix]edge.Fallbacks{"restricted": f.w.fallbacks}}, nil
	})
}

func (f *fakes) DisownPrefix(_ context.Context, q routing.Request) (routing.Routing, error) {
	return act(f.w, "DisownPrefix", func() (routing.Routing, error) {
		if f.w.route.Owner == q.Owner {
			f.w.route.Owner = ""
			f.w.serve(routing.Open, f.w.route.Backend)
		}
		return f.w.routing(), nil
	})
}

func (f *fakes) CheckBackend(_ context.Context, p activities.CheckBackendParams) error {
	_, err := act(f.w, "CheckBackend "+p.Backend, func() (bool, error) { return true, nil })
	return err
}

func (f *fakes) repositories(backend string) []string {
	found := map[string]bool{}
	for key := range f.w.content[backend] {
		repository, _, _ := strings.Cut(key, ":")
		found[repository] = true
	}
	return slices.Sorted(maps.Keys(found))
}

// named are the repositories of a batch, or those of a shard, which has one here.
func named(repositories []string, shard *mirror.Shard) []string {
	if shard != nil {
		return []string{shard.First}
	}
	return repositories
}

func (f *fakes) ListShards(_ context.Context, p activities.ListShardsParams) ([]mirror.Shard, error) {
	return act(f.w, "ListShards", func() (shards []mirror.Shard, err error) {
		for _, name := range f.repositories(p.Backend) {
			shards = append(shards, mirror.Only(p.Prefix, name))
		}
		return shards, nil
	})
}

func (f *fakes) ListRepositories(_ context.Context, p activities.ListRepositoriesParams) ([]string, error) {
	return act(f.w, "ListRepositories", func() ([]string, error) { return f.repositories(p.Backend), nil })
}

func (f *fakes) PlanRepositories(_ context.Context, p activities.PlanParams) (activities.PlanResult, error) {
	return act(f.w, "PlanRepositories", func() (activities.PlanResult, error) {
		plan := f.w.plan
		plan.Repositories, plan.Tags = int64(len(p.Repositories)), int64(len(f.w.content[p.From]))
		if p.Shard != nil {
			return activities.PlanResult{Plan: plan}, nil
		}
		return activities.PlanResult{Plan: plan, Before: []string{"restricted/kept@sha256:before"}}, nil
	})
}

func (f *fakes) AuditRepositories(_ context.Context, p activities.AuditParams) (activities.VerifyResult, error) {
	return act(f.w, "AuditRepositories", func() (activities.VerifyResult, error) {
		r := activities.VerifyResult{Check: registry.Check{Tags: int64(len(p.Repositories))}}
		for _, b := range f.w.broken {
			if slices.Contains(named(p.Repositories, p.Shard), b.Repository) {
				r.Problems = append(r.Problems, b)
			}
		}
		return r, nil
	})
}

func (f *fakes) MirrorRepositories(ctx context.Context, p activities.MirrorParams) (activities.Cursor, error) {
	f.w.mu.Lock()
	f.w.cursors = append(f.w.cursors, p.Cursor)
	f.w.mirrored = append(f.w.mirrored, p)
	mirroring := f.w.mirroring
	f.w.mu.Unlock()
	at := p.Cursor
	p.Repositories = named(p.Repositories, p.Shard)
	for at.Repository < len(p.Repositories) {
		_, err := act(f.w, "MirrorRepositories", func() (bool, error) {
			for key, digest := range f.w.content[p.From] {
				if strings.HasPrefix(key, p.Repositories[at.Repository]+":") {
					f.w.content[p.To][key] = digest
					at.Progress.Tags++
				}
			}
			at.Repository++
			return true, nil
		})
		if err != nil {
			return at, err
		}
		if mirroring != nil && !mirroring(p, &at) {
			return at, nil
		}
	}
	at.Done = true
	return at, nil
}

func (f *fakes) VerifyRepositories(_ context.Context, p activities.VerifyParams) (activities.VerifyResult, error) {
	return act(f.w, "VerifyRepositories", func() (activities.VerifyResult, error) {
		f.w.verified = append(f.w.verified, p)
		var r activities.VerifyResult
		for key, want := range f.w.content[p.From] {
			repository, tag, _ := strings.Cut(key, ":")
			if !slices.Contains(named(p.Repositories, p.Shard), repository) || slices.Contains(p.Left, key) {
				continue
			}
			r.Check.Tags++
			if have := f.w.content[p.To][key]; have != want {
				r.Check.Differences = append(r.Check.Differences, registry.Difference{Repository: repository, Tag: tag, Kind: registry.DifferentTag, Want: want, Have: have})
			}
		}
		for _, d := range f.w.extra {
			if slices.Contains(named(p.Repositories, p.Shard), d.Repository) {
				r.Check.Differences = append(r.Check.Differences, d)
			}
		}
		return r, nil
	})
}

func (f *fakes) ApplyChanges(_ context.Context, p activities.ApplyParams) (activities.ApplyResult, error) {
	return act(f.w, "ApplyChanges", func() (activities.ApplyResult, error) {
		f.w.applied = append(f.w.applied, p)
		for _, c := range p.Changes {
			key := c.Repository + ":" + c.Reference
			if digest, ok := f.w.content[p.From][key]; ok {
				f.w.content[p.To][key] = digest
			} else if p.Deletes || p.Storage && p.Mark != "" {
				delete(f.w.content[p.To], key)
			}
		}
		return activities.ApplyResult{Applied: len(p.Changes)}, nil
	})
}

func (f *fakes) VerifyChanges(_ context.Context, p activities.ApplyParams) ([]registry.Difference, error) {
	return act(f.w, "VerifyChanges", func() (differences []registry.Difference, err error) {
		for _, c := range p.Changes {
			key := c.Repository + ":" + c.Reference
			if want, ok := f.w.content[p.From][key]; ok && want != f.w.content[p.To][key] {
				differences = append(differences, registry.Difference{Repository: c.Repository, Tag: c.Reference, Kind: registry.DifferentTag})
			}
		}
		return differences, nil
	})
}

func onWhich(ctx context.Context) string {
	return strings.TrimPrefix(activity.GetInfo(ctx).TaskQueue, "edge/")
}

func (f *fakes) CheckEdge(context.Context) ([]edge.Finding, error) {
	return act(f.w, "CheckEdge", func() ([]edge.Finding, error) { return f.w.findings, nil })
}

func (f *fakes) CheckPair(_ context.Context, p activities.CheckPairParams) ([]edge.Finding, error) {
	return act(f.w, "CheckPair", func() ([]edge.Finding, error) {
		f.w.pushed = append(f.w.pushed, p.Repository)
		return f.w.together, nil
	})
}

func (f *fakes) CheckEdges(_ context.Context, p activities.CheckEdgesParams) ([]edge.Finding, error) {
	return act(f.w, "CheckEdges", func() ([]edge.Finding, error) { return nil, nil })
}

func (f *fakes) MeasureRoom(_ context.Context, p activities.MeasureRoomParams) (activities.MeasureRoomResult, error) {
	return act(f.w, "MeasureRoom", func() (activities.MeasureRoomResult, error) { return f.w.room, nil })
}

func (f *fakes) JournalEnd(ctx context.Context) (journal.Position, error) {
	return act(f.w, "JournalEnd", func() (journal.Position, error) { return position(len(f.w.journal[onWhich(ctx)])), nil })
}

func (f *fakes) ReadJournal(ctx context.Context, p activities.ReadJournalParams) (edge.Delta, error) {
	return act(f.w, "ReadJournal", func() (edge.Delta, error) {
		name := onWhich(ctx)
		writes := f.w.journal[name]
		if i := slices.Index(f.w.lost, name+" "+p.Backend); i >= 0 {
			f.w.lost = slices.Delete(f.w.lost, i, i+1)
			return edge.Delta{Next: position(len(writes)), Lost: true}, nil
		}
		var d edge.Delta
		var changes journal.Changes
		for _, x := range writes[p.From.Offset:] {
			if x.backend == p.Backend {
				changes.Add(journal.Target{Kind: journal.Manifest, Repository: x.repository, Reference: x.tag}, map[bool]string{true: "DELETE", false: "PUT"}[x.deleted])
			}
		}
		d.Changes, d.Writes, d.Next = changes.List(), changes.Writes, position(len(writes))
		return d, nil
	})
}

func (f *fakes) DrainWrites(ctx context.Context, o gate.DrainOptions) (activities.DrainResult, error) {
	return act(f.w, "DrainWrites", func() (activities.DrainResult, error) {
		if f.w.route.Mode != routing.Held || f.w.route.Hold != o.Hold {
			return activities.DrainResult{}, refused(routing.RefusedHoldLost)
		}
		d := activities.DrainResult{Position: position(len(f.w.journal[onWhich(ctx)]))}
		d.Drained.Uploads = f.w.open
		if f.w.drainLost {
			d.Drained.Lost = []gate.Write{{Method: "PUT", Path: "/v2/restricted/r1/manifests/unknown"}, {Method: "POST", Path: "/v2/"}}
		}
		return d, nil
	})
}

func (f *fakes) SampleTraffic(context.Context, activities.SampleTrafficParams) (monitor.Sample, error) {
	return act(f.w, "SampleTraffic", func() (monitor.Sample, error) { return f.w.traffic, nil })
}

func (f *fakes) PreviewFiles(ctx context.Context, t routing.Table) (activities.Preview, error) {
	return act(f.w, "PreviewFiles", func() (activities.Preview, error) {
		return activities.Preview{Edge: onWhich(ctx), Changes: true}, nil
	})
}

func (f *fakes) ReadTable(context.Context) (routing.Routing, error) {
	return act(f.w, "ReadTable", func() (routing.Routing, error) { return f.w.routing(), nil })
}

func (f *fakes) ProbeEdge(_ context.Context, q activities.ProbeEdgeParams) (probe.Result, error) {
	return act(f.w, "ProbeEdge", func() (probe.Result, error) {
		if q.Backend != f.w.route.Backend {
			return probe.Result{}, errors.New("probed for " + q.Backend + " while " + f.w.route.Backend + " serves")
		}
		f.w.pushLocked(q.Edge, q.Repository, probe.Tag)
		return probe.Result{Push: time.Millisecond, Pull: time.Millisecond}, nil
	})
}

func (f *fakes) AskCheck(_ context.Context, c policy.HTTPCheck) error {
	_, err := act(f.w, "AskCheck", func() (bool, error) { return true, nil })
	return err
}

func (f *fakes) SendNotification(_ context.Context, p activities.NotifyParams) error {
	_, err := act(f.w, "SendNotification "+p.Sender, func() (bool, error) {
		f.w.messages = append(f.w.messages, p.Message)
		return true, nil
	})
	return err
}

func (f *fakes) WriteReport(_ context.Context, r report.Report) (string, error) {
	return act(f.w, "WriteReport", func() (string, error) {
		f.w.reports = append(f.w.reports, r)
		return "report.md", nil
	})
}
