package workflows

import (
	"fmt"
	"slices"
	"time"

	"github.com/dustin/go-humanize"
	"go.temporal.io/sdk/workflow"

	"transship/activities"
	"transship/internal/edge"
	"transship/internal/routing"
)

// Move is what a doctor looks at besides each connection: two backends, and the repository for probes of a prefix that is to move between them.
type Move struct {
	Prefix     routing.Prefix `json:"prefix"`
	From       string         `json:"from"`
	To         string         `json:"to"`
	Repository string         `json:"repository"`
}

// siteChecks is the version of a plan that looks at the site as a whole (workflow.GetVersion).
const siteChecks = "site-checks"

// sitePatience is how long these checks may take: each makes some dozens of small requests.
const sitePatience = 2 * time.Minute

// question is a check under way, and what it is about.
type question struct {
	what   string
	answer workflow.Future
}

// askSite begins to look at what each part does well by itself, and together they do not.
func askSite(ctx workflow.Context, m Move, edges []string, patience time.Duration) []question {
	var r *activities.Registries
	var p *activities.Probes
	return []question{
		{fmt.Sprintf("backends %s and %s together", m.From, m.To), workflow.ExecuteActivity(onMover(ctx, patience, fmt.Sprintf("compare backends %s and %s", m.From, m.To)), r.CheckPair,
			activities.CheckPairParams{From: m.From, To: m.To, Repository: m.Repository})},
		{"the edges together", workflow.ExecuteActivity(looking(ctx, patience, "uploads through every pair of edges"), p.CheckEdges,
			activities.CheckEdgesParams{Edges: edges, Repository: m.Repository})},
	}
}

// answers collects what was found. A check that could not be made is a warning.
func answers(ctx workflow.Context, all []question) (findings []edge.Finding) {
	for _, a := range all {
		var seen []edge.Finding
		if err := a.answer.Get(ctx, &seen); err != nil {
			seen = []edge.Finding{{What: a.what, Detail: "could not be looked at: " + because(err), Cure: "see that a worker of each role runs, of the same version", Warning: true}}
		}
		findings = append(findings, seen...)
	}
	return findings
}

// checkMove adds to a plan what the site as a whole says of it. Plans from before go on as they began.
func checkMove(ctx workflow.Context, in MigrateInput, p *planned) {
	if workflow.GetVersion(ctx, siteChecks, workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		return
	}
	checkTogether(ctx, in, p)
	checkRoom(ctx, in, p)
}

func checkTogether(ctx workflow.Context, in MigrateInput, p *planned) {
	if p.running {
		p.Warnings = append(p.Warnings, "the backends and the edges together were not looked at: "+notNow)
		return
	}
	blockers, warnings := sorted(answers(ctx, askSite(ctx, Move{in.Prefix, in.From, in.To, in.Probe}, in.Edges, sitePatience)))
	p.Blockers, p.Warnings = append(p.Blockers, blockers...), append(p.Warnings, warnings...)
}

func checkRoom(ctx workflow.Context, in MigrateInput, p *planned) {
	var r *activities.Registries
	var target activities.MeasureRoomResult
	err := workflow.ExecuteActivity(onMover(ctx, sitePatience, "room at backend "+in.To), r.MeasureRoom, activities.MeasureRoomParams{Backend: in.To, Prefix: in.Prefix, Except: in.Probe}).Get(ctx, &target)
	if err != nil {
		p.Warnings = append(p.Warnings, fmt.Sprintf("how much room backend %s has could not be looked at: %s", in.To, because(err)))
		return
	}
	p.fits(in.To, target)
	p.notEmpty(in, target)
}

// fits compares what is to be copied with the room that there is.
func (p *planned) fits(to string, target activities.MeasureRoomResult) {
	needs, room := p.Missing(), target.Room
	switch {
	case !room.Known:
		says := room.Says
		if says == "" {
			says = "neither its store nor a quota says"
		}
		p.Warnings = append(p.Warnings, fmt.Sprintf("whether backend %s has room for %s is unknown: %s", to, humanize.IBytes(uint64(max(needs, 0))), says))
	case room.Bytes < needs:
		p.Blockers = append(p.Blockers, fmt.Sprintf("backend %s has no room: %s are to be copied, and %s fit (%s): make room, or raise the quota", to, humanize.IBytes(uint64(needs)), humanize.IBytes(uint64(room.Bytes)), room.Says))
	}
}

// notEmpty says what the target has under the prefix already. What only it has blocks the plan elsewhere.
func (p *planned) notEmpty(in MigrateInput, target activities.MeasureRoomResult) {
	tags := p.TagsPresent + int64(len(p.Changed)+len(p.Extra))
	if tags == 0 && target.Repositories <= 0 {
		return
	}
	where := "in some repositories"
	if target.Repositories >= 0 {
		where = fmt.Sprintf("in %d repositories", target.Repositories)
	}
	p.Warnings = append(p.Warnings, fmt.Sprintf("backend %s is not empty under %s: it has %d tags %s; %d are the same as at %s, %d have another digest and are replaced, %d are only there",
		in.To, in.Prefix, tags, where, p.TagsPresent, in.From, len(p.Changed), len(p.Extra)))
}

// atRest keeps one move for each pair of backends, since more would find the same: one whose prefix no migration has. What is pushed straight to a backend is
// in no journal, so a migration that is past its mirror would find it missing at the other. Pairs without such a prefix are busy.
func atRest(moves []Move, t routing.Table) (resting, busy []Move) {
	same := func(m Move) func(Move) bool {
		return func(o Move) bool { return o.From == m.From && o.To == m.To }
	}
	for _, m := range moves {
		if !slices.ContainsFunc(resting, same(m)) && !owned(t, m.Prefix) {
			resting = append(resting, m)
		}
	}
	for _, m := range moves {
		if !slices.ContainsFunc(resting, same(m)) && !slices.ContainsFunc(busy, same(m)) {
			busy = append(busy, m)
		}
	}
	return resting, busy
}

// owned tells whether a migration has the prefix.
func owned(t routing.Table, p routing.Prefix) bool {
	r, ok := t.Lookup(p)
	return ok && r.Owner != ""
}

// notNow is what is said where small blobs may not be pushed to look at something.
const notNow = "a migration runs: its prefix is left alone"
