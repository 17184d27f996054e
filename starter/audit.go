package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"transship/config"
	"transship/internal/audit"
	"transship/internal/routing"
	"transship/workflows"
)

// auditOrder is what an audit is asked for.
type auditOrder struct {
	deep, heal bool
	from       string
	within     time.Duration
	every      time.Duration
	unschedule bool
}

func (a *app) auditCommand() *cobra.Command {
	var o auditOrder
	c := &cobra.Command{
		Use:   "audit BACKEND [PREFIX]",
		Short: "look whether a backend's object store holds what its registry needs, and heal it",
		Long: `Looks at every link, manifest and blob in the object store under a backend, of one prefix or of all, and names what is wrong with the tags that it affects
and a cure. It changes nothing, unless --heal: then verified good copies from another backend are written over what is bad, and nothing else. Without a PREFIX,
blobs and segments that nothing refers to are counted as well. The exit code is 5 when something is wrong that was not healed.

With --every it does not run now, but on a Temporal Schedule.`,
		Args: cobra.RangeArgs(1, 2),
		ValidArgsFunction: func(c *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return a.completePrefix(c, nil, typed)
			}
			return a.completeBackend(c, args, typed)
		},
		RunE: func(c *cobra.Command, args []string) error {
			return a.audit(c.Context(), args[0], strings.Join(args[1:], ""), o)
		},
	}
	f := c.Flags()
	f.BoolVar(&o.deep, "deep", false, "read and hash every byte, and ask for every link")
	f.BoolVar(&o.heal, "heal", false, "write verified good copies from another backend over what is bad")
	f.StringVar(&o.from, "from", "", "`BACKEND` that good copies come from (default: the only other one that has a store)")
	f.DurationVar(&o.within, "within", 24*time.Hour, "wait no longer than this for the result; the audit itself goes on")
	f.DurationVar(&o.every, "every", 0, "repeat it on a schedule, such as 24h, instead of running it now")
	f.BoolVar(&o.unschedule, "unschedule", false, "end the schedule")
	if err := c.RegisterFlagCompletionFunc("from", a.completeBackend); err != nil {
		panic(err) // the flag is declared above
	}
	return c
}

func (a *app) audit(ctx context.Context, backend, prefix string, o auditOrder) error {
	operator, err := a.operator()
	if err != nil {
		return err
	}
	c, err := a.load(config.IgnoreSecrets)
	if err != nil {
		return err
	}
	in, err := auditInput(c, backend, prefix, o)
	if err != nil {
		return badInput(err)
	}
	in.Operator = operator
	a.timeout = 30 * time.Second
	d, err := a.connect(ctx, c)
	if err != nil {
		return err
	}
	defer d.Close()
	if o.every > 0 || o.unschedule {
		return a.scheduleAudit(ctx, d, in, o)
	}
	if err := d.worked(ctx); err != nil {
		return err
	}
	var result workflows.AuditResult
	id := workflows.AuditID(in.Backend, in.Prefix)
	err = a.runToEnd(ctx, d, o.within, client.StartWorkflowOptions{ID: id, StaticSummary: "audit of " + strings.TrimPrefix(id, "audit/")}, workflows.Audit, in, &result)
	if err != nil {
		return err
	}
	if err := a.print(result, func(w io.Writer) error { return writeAudit(w, result) }); err != nil {
		return err
	}
	if bad := result.Bad(); bad > 0 {
		return trouble("%s wrong at %s", counted(bad, "thing is", "things are"), backend)
	}
	return nil
}

// auditInput checks what was asked for against the configuration.
func auditInput(c *config.Config, backend, prefix string, o auditOrder) (workflows.AuditInput, error) {
	in := workflows.AuditInput{Backend: backend, Deep: o.deep, Heal: o.heal, From: o.from, Mirror: c.Policy.Mirror}
	known := strings.Join(c.BackendNames(), ", ")
	b, ok := c.Backends[backend]
	switch {
	case !ok:
		return in, fmt.Errorf("unknown backend %q; the backends are %s", backend, known)
	case !b.Store.Set():
		return in, fmt.Errorf("backend %s has no object store in the configuration: add backends.%s.store, an audit reads it", backend, backend)
	case o.every < 0:
		return in, fmt.Errorf("--every is %s; write a duration such as 24h", o.every)
	case !o.heal && o.from != "":
		return in, errors.New("--from names where good copies come from: it needs --heal")
	}
	if prefix != "" {
		p, err := routing.ParsePrefix(prefix)
		if err != nil {
			return in, err
		}
		in.Prefix = p.String()
	}
	if !o.heal {
		return in, nil
	}
	others := slices.DeleteFunc(c.BackendNames(), func(name string) bool { return name == backend || !c.Backends[name].Store.Set() })
	if in.From == "" && len(others) == 1 {
		in.From = others[0]
	}
	if !slices.Contains(others, in.From) {
		return in, fmt.Errorf("--from is %q; good copies can come from a backend with an object store: %s", in.From, strings.Join(others, ", "))
	}
	return in, nil
}

func writeAudit(w io.Writer, r workflows.AuditResult) error {
	t := table{
		{"looked at", fmt.Sprintf("%d repositories, %d tags, %d manifests, %d blobs, %s", r.Counts.Repositories, r.Counts.Tags, r.Counts.Manifests, r.Counts.Blobs, bytesOf(r.Counts.Bytes))},
		{"how", map[bool]string{true: "every byte was read and hashed", false: "sizes and references; --deep hashes every byte"}[r.Deep]},
		{"took", took(r.Took)},
		{"found", fmt.Sprint(r.Found)},
	}
	if r.HealedFrom != "" {
		t.row("healed", fmt.Sprintf("%d, from %s", r.Healed, r.HealedFrom))
	}
	if r.Counts.Transient > 0 {
		t.row("transient", fmt.Sprintf("%d seemed bad and were good when the newest copy was read", r.Counts.Transient))
	}
	if o := r.Orphans; o != nil {
		t.row("referred to by nothing", fmt.Sprintf("%d blobs, %s; %d segments, %s", o.Blobs, bytesOf(o.Bytes), o.Segments, bytesOf(o.SegmentBytes)))
	}
	if err := t.write(w); err != nil {
		return err
	}
	for _, f := range r.Findings {
		if err := writeAuditFinding(w, f); err != nil {
			return err
		}
	}
	if more := r.Found - len(r.Findings); more > 0 {
		_, err := fmt.Fprintf(w, "\n… and %d more: mend these first, and audit again\n", more)
		return err
	}
	return nil
}

func writeAuditFinding(w io.Writer, f audit.Finding) error {
	_, err := fmt.Fprintf(w, "\n%s  %s\n", f.Category, f.Path)
	line := func(label, text string) {
		if err == nil && text != "" {
			_, err = fmt.Fprintf(w, "    %-11s %s\n", label, oneLine(text))
		}
	}
	line("repository", f.Repository)
	line("tags", strings.Join(f.Tags, ", "))
	line("what", f.Detail)
	switch {
	case f.Healed:
		line("healed", "yes")
	case f.Derived:
		line("cure", "follows from another finding: heal that")
	default:
		line("not healed", f.Unhealed)
		line("cure", f.Cure)
	}
	return err
}

// scheduleAudit begins, changes or ends the schedule of an audit.
func (a *app) scheduleAudit(ctx context.Context, d *desk, in workflows.AuditInput, o auditOrder) error {
	id := workflows.AuditID(in.Backend, in.Prefix)
	handle := d.ScheduleClient().GetHandle(ctx, id)
	if o.unschedule {
		err := handle.Delete(ctx)
		var absent *serviceerror.NotFound
		switch {
		case errors.As(err, &absent):
			return refused("there is no schedule %s", id)
		case err != nil:
			return fmt.Errorf("end the schedule %s: %w", id, err)
		}
		return a.print(map[string]string{"schedule": id, "state": "ended"}, func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "the schedule %s has ended\n", id)
			return err
		})
	}
	spec := client.ScheduleSpec{Intervals: []client.ScheduleIntervalSpec{{Every: o.every}}}
	action := &client.ScheduleWorkflowAction{ID: id, Workflow: workflows.Audit, Args: []any{in}, TaskQueue: workflows.Queue}
	_, err := d.ScheduleClient().Create(ctx, client.ScheduleOptions{
		ID: id, Spec: spec, Action: action, Overlap: enumspb.SCHEDULE_OVERLAP_POLICY_SKIP, Note: "asked for by " + in.Operator,
	})
	if errors.Is(err, temporal.ErrScheduleAlreadyRunning) {
		err = handle.Update(ctx, client.ScheduleUpdateOptions{DoUpdate: func(u client.ScheduleUpdateInput) (*client.ScheduleUpdate, error) {
			s := u.Description.Schedule
			s.Spec, s.Action = &spec, action
			return &client.ScheduleUpdate{Schedule: &s}, nil
		}})
	}
	if err != nil {
		return fmt.Errorf("schedule %s: %w", id, err)
	}
	return a.print(map[string]string{"schedule": id, "every": written(o.every)}, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s runs every %s; its results are in the Temporal UI; --unschedule ends it\n", id, written(o.every))
		return err
	})
}
