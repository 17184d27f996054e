package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/sdk/converter"

	"transship/activities"
	"transship/internal/registry"
	"transship/internal/report"
	"transship/workflows"
)

// mirrorActivity is the activity whose heartbeats say how far a copy has come.
const mirrorActivity = "MirrorRepositories"

// progress is how far the mirror has come.
type progress struct {
	registry.Progress
	// Total is how many bytes the plan said are missing. Layers that the target mounts, or two batches share, need not be sent: it is an upper bound.
	Total int64 `json:"total"`
	// Rate is in bytes a second.
	Rate int64 `json:"rate"`
	// Left is the time that the rest takes at this rate; 0 when that cannot be told.
	Left time.Duration `json:"left_ns"`
}

func (p progress) String() string {
	s := bytesOf(p.Bytes)
	if p.Total > 0 {
		s += fmt.Sprintf(" of at most %s (%d%%)", bytesOf(p.Total), min(100, 100*p.Bytes/p.Total))
	}
	s += fmt.Sprintf(", %d tags, %d blobs sent", p.Tags, p.Blobs)
	if p.Rate > 0 {
		s += fmt.Sprintf(", %s/s", bytesOf(p.Rate))
	}
	if p.Left > 0 {
		s += fmt.Sprintf(", about %s left", p.Left.Round(time.Second))
	}
	return s
}

// estimator adds up progress, and remembers enough of the past to tell the rate.
type estimator struct {
	// before has, by activity, what it was handed of a copy begun earlier.
	before  map[string]registry.Progress
	samples []sample
}

type sample struct {
	at    time.Time
	bytes int64
}

// window is how far back the rate looks.
const window = 15 * time.Second

// enough is how long a rate must have been seen to foretell anything.
const enough = 3 * time.Second

// estimate is how far the mirror has come, or nil when it is not under way. The report has what ended: whole batches, and batches that a pause
// interrupted. An activity under way has the rest, in its last heartbeat.
func (e *estimator) estimate(ctx context.Context, d *desk, v view, infos []*workflowpb.PendingActivityInfo) (*progress, error) {
	r := v.Report
	if v.Phase != workflows.Mirror {
		return nil, nil
	}
	if v.Paused {
		e.samples = nil // what was before a pause says nothing of the rate after it
		return &progress{Progress: r.Mirror, Total: r.Plan.Missing()}, nil
	}
	cursors := map[string]activities.Cursor{}
	for _, i := range infos {
		if i.GetActivityType().GetName() != mirrorActivity || i.GetHeartbeatDetails() == nil {
			continue
		}
		var at activities.Cursor
		if err := converter.GetDefaultDataConverter().FromPayloads(i.GetHeartbeatDetails(), &at); err != nil {
			return nil, fmt.Errorf("heartbeat of %s: %w", i.GetActivityId(), err)
		}
		cursors[i.GetActivityId()] = at
	}
	if handedOn(r) {
		if err := e.learnBefore(ctx, d, v.Workflow, v.Run, cursors); err != nil {
			return nil, err
		}
	}
	return e.at(time.Now(), r, sum(r.Mirror, cursors, e.before)), nil
}

// sum adds what activities under way have done to what ended, less what they were handed: that is in the report already.
func sum(ended registry.Progress, cursors map[string]activities.Cursor, before map[string]registry.Progress) registry.Progress {
	for id, at := range cursors {
		ended = ended.Add(less(at.Progress, before[id]))
	}
	return ended
}

func less(p, q registry.Progress) registry.Progress {
	return registry.Progress{
		Repositories: p.Repositories - q.Repositories, Tags: p.Tags - q.Tags, TagsUnchanged: p.TagsUnchanged - q.TagsUnchanged,
		Manifests: p.Manifests - q.Manifests, Blobs: p.Blobs - q.Blobs, BlobsPresent: p.BlobsPresent - q.BlobsPresent,
		BlobsMounted: p.BlobsMounted - q.BlobsMounted, Bytes: p.Bytes - q.Bytes,
	}
}

// at works out rate and time left. With one look only, the rate is that since the step began.
func (e *estimator) at(now time.Time, r report.Report, done registry.Progress) *progress {
	p := &progress{Progress: done, Total: r.Plan.Missing()}
	e.samples = append(e.samples, sample{now, done.Bytes})
	for len(e.samples) > 2 && now.Sub(e.samples[0].at) > window {
		e.samples = e.samples[1:]
	}
	since := e.samples[0]
	if now.Sub(since.at) < time.Second {
		since = sample{}
		for _, s := range r.Steps {
			if s.Name == workflows.Mirror {
				since.at = s.Began
			}
		}
	}
	elapsed := now.Sub(since.at)
	if elapsed >= time.Second && !since.at.IsZero() {
		p.Rate = max(0, int64(float64(done.Bytes-since.bytes)/elapsed.Seconds()))
	}
	if rest := p.Total - done.Bytes; rest > 0 && p.Rate > 0 && elapsed >= enough {
		p.Left = time.Duration(float64(rest) / float64(p.Rate) * float64(time.Second))
	}
	return p
}

// handedOn reports whether activities may have begun with the cursor of others: after a pause, or when the copies were bounded anew.
func handedOn(r report.Report) bool {
	return slices.ContainsFunc(r.Decisions, func(d report.Decision) bool {
		return strings.HasPrefix(d.What, "resumed") || strings.HasPrefix(d.What, workflows.DecisionBounds)
	})
}

// learnBefore reads from the history with which cursors activities began. Each is looked up once.
func (e *estimator) learnBefore(ctx context.Context, d *desk, id, run string, cursors map[string]activities.Cursor) error {
	unknown := false
	for activity := range cursors {
		_, known := e.before[activity]
		unknown = unknown || !known
	}
	if !unknown {
		return nil
	}
	if e.before == nil {
		e.before = map[string]registry.Progress{}
	}
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	events := d.GetWorkflowHistory(ctx, id, run, false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		event, err := events.Next()
		if err != nil {
			return fmt.Errorf("history of %s: %w", id, err)
		}
		scheduled := event.GetActivityTaskScheduledEventAttributes()
		if scheduled.GetActivityType().GetName() != mirrorActivity {
			continue
		}
		var p activities.MirrorParams
		if err := converter.GetDefaultDataConverter().FromPayloads(scheduled.GetInput(), &p); err != nil {
			return fmt.Errorf("input of activity %s: %w", scheduled.GetActivityId(), err)
		}
		e.before[scheduled.GetActivityId()] = p.Cursor.Progress
	}
	return nil
}
