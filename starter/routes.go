package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"go.temporal.io/sdk/client"

	"transship/internal/journal"
	"transship/internal/routing"
	"transship/workflows"
)

func (a *app) routesCommand() *cobra.Command {
	var recorded bool
	c := &cobra.Command{
		Use:   "routes",
		Short: "which backend serves what, and how every edge is",
		Long: `The routing table, as the Routes workflow has it: the one place from which every edge gets it. And, for each edge, what it says itself: its generation
and that of its nginx, leases, writes that wait or are under way, reads that a second backend answered, where its journal ends, and how much of that has not been carried
to the other backend yet.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.routes(c.Context(), recorded) },
	}
	c.Flags().BoolVar(&recorded, "recorded", false, "only what Routes has on record: asks no edge")
	return a.waitsForAnswers(c)
}

// routesView is the routing table with what the edges say.
type routesView struct {
	routing.Routing
	Now []workflows.EdgeLook `json:"now,omitempty"`
	// Carried is up to where the migration of a prefix has carried each edge's journal.
	Carried map[routing.Prefix]map[string]journal.Position `json:"carried,omitempty"`

	fallback string
	routed   bool
}

func (a *app) routes(ctx context.Context, recorded bool) error {
	d, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	v := routesView{fallback: d.config.DefaultBackend, Carried: map[routing.Prefix]map[string]journal.Position{}}
	if v.Routing, v.routed, err = d.routing(ctx); err != nil {
		return err
	}
	if v.Table.Default != "" {
		v.fallback = v.Table.Default
	}
	if !recorded {
		if v.Now, err = d.lookAtEdges(ctx); err != nil {
			return err
		}
		for _, r := range v.Table.Routes {
			if status, ok := d.carried(ctx, r); ok {
				v.Carried[r.Prefix] = status
			}
		}
	}
	return a.print(v, v.write)
}

func (d *desk) lookAtEdges(ctx context.Context) (looks []workflows.EdgeLook, err error) {
	bounded, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	run, err := d.ExecuteWorkflow(bounded, client.StartWorkflowOptions{
		ID: "look/" + uuid.NewString(), TaskQueue: workflows.Queue, WorkflowExecutionTimeout: max(time.Second, d.timeout), StaticSummary: "how are the edges?",
	}, workflows.LookAtEdges, workflows.LookInput{Edges: d.config.EdgeNames()})
	if err == nil {
		err = run.Get(bounded, &looks)
	}
	if late(err) && ctx.Err() == nil {
		return nil, d.silent(ctx, "the edges were asked")
	}
	if err != nil {
		return nil, fmt.Errorf("ask the edges: %w", err)
	}
	return looks, nil
}

// carried asks the migration of a route how far it has carried the journals.
func (d *desk) carried(ctx context.Context, r routing.Route) (map[string]journal.Position, bool) {
	if r.Owner == "" {
		return nil, false
	}
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	value, err := d.query(ctx, r.Owner, "", workflows.QueryStatus)
	var s workflows.Status
	if err != nil || value.Get(&s) != nil {
		return nil, false // a migration that does not answer is told of by status
	}
	return s.Carried, true
}

func (v routesView) write(w io.Writer) error {
	if !v.routed {
		fmt.Fprintf(w, "nothing was ever routed: every repository is served by %s, as default_backend says\n", v.fallback)
	} else if err := v.writeTable(w); err != nil {
		return err
	}
	if len(v.Edges)+len(v.Now) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	if err := v.writeEdges(w); err != nil {
		return err
	}
	return v.writePrefixes(w)
}

func (v routesView) writeTable(w io.Writer) error {
	fmt.Fprintf(w, "generation %d\n\n", v.Table.Generation)
	t := table{{"PREFIX", "BACKEND", "MODE", "OTHER", "READ FROM OTHER", "UPLOADS", "OWNER"}}
	for _, r := range v.Table.Routes {
		t.row(r.Prefix.String(), r.Backend, string(r.Mode), orDash(r.Other), orDash(reads(r)), countOrDash(len(r.Uploads)), orDash(r.Owner))
	}
	t.row("everything else", v.fallback, string(routing.Open), "-", "-", "-", "-")
	return t.write(w)
}

// reads says what is read from the other backend.
func reads(r routing.Route) string {
	switch {
	case r.Canary != nil:
		return fmt.Sprintf("first: %d %% and %d networks, %s", r.Canary.Percent, len(r.Canary.Networks), r.Canary.Scope)
	case r.Fallback != routing.Nothing:
		return string(r.Fallback) + " that are missing"
	}
	return ""
}

func (v routesView) writeEdges(w io.Writer) error {
	t := table{{"EDGE", "GENERATION", "NGINX", "JOURNAL", "LAST CONFIRMED", "TROUBLE"}}
	for _, e := range v.edges() {
		t.row(e...)
	}
	return t.write(w)
}

func (v routesView) edges() (rows [][]string) {
	recorded := map[string]routing.EdgeState{}
	var names []string
	for _, e := range v.Edges {
		recorded[e.Edge] = e
		names = append(names, e.Edge)
	}
	now := map[string]workflows.EdgeLook{}
	for _, l := range v.Now {
		now[l.Edge] = l
		if _, ok := recorded[l.Edge]; !ok {
			names = append(names, l.Edge)
		}
	}
	for _, name := range names {
		e, l := recorded[name], now[name]
		generation, nginx, end, trouble := fmt.Sprint(e.Generation), "-", "-", e.Trouble
		if l.Status != nil {
			generation, nginx, end = fmt.Sprint(l.Status.Generation), fmt.Sprint(l.Status.Nginx), fmt.Sprint(l.Status.Journal.Offset)
			if l.Status.Nginx < 0 {
				nginx = "away"
			}
			if l.Status.Unsure {
				trouble = "may have missed a table: writes of known prefixes wait"
			}
		} else if l.Trouble != "" {
			trouble = l.Trouble
		}
		if e.Generation < v.Table.Generation {
			generation += " (behind)"
		}
		if e.LeftOut {
			generation += " (left out)"
		}
		rows = append(rows, []string{name, generation, nginx, end, clock(e.Seen), orDash(trouble)})
	}
	return rows
}

// writePrefixes shows what each edge does with each prefix that is being moved.
func (v routesView) writePrefixes(w io.Writer) error {
	t := table{{"PREFIX", "EDGE", "STATE", "LEASE", "HELD", "IN FLIGHT", "NOT CARRIED", "READ ELSEWHERE"}}
	for _, r := range v.Table.Routes {
		for _, l := range v.Now {
			if l.Status == nil || r.Mode == routing.Open && r.Owner == "" {
				continue
			}
			mine, _ := l.Status.Table.Lookup(r.Prefix)
			lease := "-"
			if end, ok := l.Status.Leases[r.Prefix]; ok {
				lease = end.Sub(l.Status.Clock).Round(time.Second).String()
			}
			lag := "-"
			if at, ok := v.Carried[r.Prefix][l.Edge]; ok {
				lag = behind(at, l.Status.Journal)
			}
			f := l.Status.Fallbacks[r.Prefix]
			t.row(r.Prefix.String(), l.Edge, fmt.Sprintf("%s(%s)", mine.Mode, mine.Backend), lease,
				fmt.Sprint(l.Status.Parked[r.Prefix]), fmt.Sprint(l.Status.InFlight[r.Prefix]), lag, fmt.Sprint(f.Served))
		}
	}
	if len(t) == 1 {
		return nil
	}
	fmt.Fprintln(w)
	return t.write(w)
}

// behind says how much of a journal was not looked at yet.
func behind(at, end journal.Position) string {
	switch {
	case at == end:
		return "0 B"
	case at.File != end.File && at.File != 0:
		return "since a rotation"
	}
	return fmt.Sprintf("%d B", end.Offset-at.Offset)
}

func countOrDash(n int) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}
