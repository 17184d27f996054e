//go:build lab

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"transship/internal/report"
	"transship/workflows"
)

// The command line against a real Temporal, with a worker whose Migrate does as it is told by signals: what is tested here is the
// conversation, not the migration.

func actor(ctx workflow.Context, in workflows.MigrateInput) (report.Report, error) {
	r := report.Report{Prefix: in.Prefix, From: in.From, To: in.To, Operator: in.Operator, Began: workflow.Now(ctx), Outcome: report.Running}
	if err := workflow.SetQueryHandler(ctx, workflows.QueryStatus, func() (workflows.Status, error) {
		return workflows.Status{Phase: workflows.Approval, Waits: "approval", Serving: in.From, Report: r}, nil
	}); err != nil {
		return r, err
	}
	err := workflow.SetUpdateHandlerWithOptions(ctx, workflows.UpdateApprove, func(_ workflow.Context, c workflows.Command) (workflows.Answer, error) {
		return workflows.Answer{Message: "approved for " + c.By, Phase: workflows.Approval}, nil
	}, workflow.UpdateHandlerOptions{Validator: func(_ workflow.Context, c workflows.Command) error {
		if c.By != "alice" {
			return temporal.NewNonRetryableApplicationError(c.By+" may not", "Command", nil)
		}
		return nil
	}})
	if err != nil {
		return r, err
	}
	var what string
	workflow.GetSignalChannel(ctx, "play").Receive(ctx, &what)
	switch what {
	case "again":
		return r, workflow.NewContinueAsNewError(ctx, "Migrate", in)
	case "fail":
		r.Outcome, r.Reason = report.Failed, "failed: disk full"
		return r, temporal.NewNonRetryableApplicationError(r.Reason, "failed", nil, r)
	}
	r.Outcome = report.Finalized
	return r, nil
}

func devserver(t *testing.T) (address string) {
	t.Helper()
	dir := t.TempDir()
	ready := filepath.Join(dir, "ready.json")
	cmd := exec.Command("../bin/transship-devserver", "--listen", "127.0.0.1:0", "--ui", "127.0.0.1:0", "--data", filepath.Join(dir, "temporal.db"), "--ready-file", ready)
	var log bytes.Buffer
	cmd.Stderr = &log
	require.NoError(t, cmd.Start(), "`make devserver` builds it")
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	var info struct{ Address string }
	require.Eventually(t, func() bool {
		raw, err := os.ReadFile(ready)
		return err == nil && json.Unmarshal(raw, &info) == nil
	}, time.Minute, 50*time.Millisecond, "devserver: %s", &log)
	return info.Address
}

func TestConversationWithTemporal(t *testing.T) {
	address := devserver(t)
	configuration := strings.Replace(site, "127.0.0.1:1", address, 1)
	c, err := client.Dial(client.Options{HostPort: address, Namespace: "transship"})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	ask := func(args ...string) (int, string, string) {
		t.Helper()
		return run(t, configuration, append(args, "--timeout", "5s")...)
	}
	play := func(prefix, what string) {
		t.Helper()
		require.NoError(t, c.SignalWorkflow(context.Background(), "migrate/"+prefix, "", "play", what))
	}

	code, _, stderr := ask("approve", "restricted")
	assert.Equal(t, exitRefused, code)
	assert.Contains(t, stderr, "no migration of restricted runs")
	code, _, stderr = run(t, configuration, "plan", "restricted")
	assert.Equal(t, exitUnreachable, code)
	assert.Contains(t, stderr, "no worker polls the task queue transship")
	code, stdout, _ := ask("doctor")
	assert.Equal(t, exitTrouble, code)
	assert.Contains(t, stdout, "ok    the search attribute TransshipOutcome is registered")
	assert.Contains(t, stdout, "FAIL  a worker polls the task queue edge/edge1: none does; cure: start it on that node: transship-worker --config FILE --edge edge1")
	code, _, stderr = ask("status", "--namespace", "nowhere")
	assert.Equal(t, exitUsage, code)
	assert.Contains(t, stderr, `no namespace "nowhere"`)

	// Nobody is at work yet: the migration is there all the same, and says so.
	code, stdout, stderr = ask("migrate", "restricted")
	require.Equal(t, exitOK, code, stderr)
	assert.Contains(t, stdout, "migrate/restricted")
	assert.Contains(t, stderr, "the migration begins when one does")
	code, _, stderr = ask("approve", "restricted", "--timeout", "1s")
	assert.Equal(t, exitUnreachable, code)
	assert.Contains(t, stderr, "no worker polls the task queue transship")

	w := worker.New(c, workflows.Queue, worker.Options{})
	w.RegisterWorkflowWithOptions(actor, workflow.RegisterOptions{Name: "Migrate"})
	require.NoError(t, w.Start())
	t.Cleanup(w.Stop)

	t.Run("a second start is refused and names the first", func(t *testing.T) {
		code, _, stderr := ask("migrate", "restricted", "--as", "bob")
		assert.Equal(t, exitRefused, code)
		for _, want := range []string{"migrate/restricted", "asked for by tester", "at plan", "since 20"} {
			assert.Contains(t, stderr, want)
		}
		// Without the configuration that names it, the prefix below is refused because of what runs.
		unnamed := strings.Replace(configuration, "{prefix: restricted, from: old, to: new}, ", "", 1)
		code, _, stderr = run(t, unnamed, "migrate", "restricted/deeper", "--to", "new")
		assert.Equal(t, exitRefused, code)
		assert.Contains(t, stderr, "restricted/deeper overlaps restricted, which is being moved")
	})
	t.Run("an order is obeyed or refused in plain words", func(t *testing.T) {
		code, _, stderr := ask("approve", "restricted", "--as", "mallory")
		assert.Equal(t, exitRefused, code)
		assert.Equal(t, "transship: approve refused: mallory may not\n", stderr)
		code, stdout, _ := ask("approve", "restricted", "--as", "alice")
		assert.Equal(t, exitOK, code)
		assert.Equal(t, "restricted: approved for alice\n", stdout)
	})
	t.Run("a watch goes on in the run that continues", func(t *testing.T) {
		_, before, _ := ask("status", "restricted", "-o", "json")
		ended := make(chan string)
		go func() {
			var out, errs bytes.Buffer
			code := execute(t.Context(), []string{"status", "restricted", "--watch"}, &out, &errs)
			ended <- fmt.Sprint(code, out.String(), errs.String())
		}()
		time.Sleep(2 * time.Second)
		play("restricted", "again")
		time.Sleep(2 * time.Second)
		_, after, _ := ask("status", "restricted", "-o", "json")
		assert.NotEqual(t, field(t, before, "run"), field(t, after, "run"))
		play("restricted", "finish")
		told := <-ended
		assert.True(t, strings.HasPrefix(told, "0"), told)
		assert.Contains(t, told, "over: finalized; served by new")
	})
	t.Run("history counts it as one, begun when it was asked for", func(t *testing.T) {
		var all []entry
		require.Eventually(t, func() bool { // visibility comes a moment later
			_, stdout, _ := ask("history", "-o", "json")
			return json.Unmarshal([]byte(stdout), &all) == nil && len(all) == 1 && !all[0].Ended.IsZero()
		}, 20*time.Second, 500*time.Millisecond)
		assert.Greater(t, all[0].Ended.Sub(all[0].Began), 4*time.Second)
		assert.Equal(t, "tester", all[0].Operator)
	})
	t.Run("a failure has its report", func(t *testing.T) {
		code, _, stderr := ask("migrate", "team/app")
		require.Equal(t, exitOK, code, stderr)
		play("team/app", "fail")
		code, stdout, stderr := ask("status", "team/app", "--watch")
		assert.Equal(t, exitTrouble, code)
		assert.Contains(t, stdout, "over: failed: disk full; served by old")
		assert.Equal(t, "transship: the migration of team/app ended: failed: disk full\n", stderr)
		_, stdout, _ = ask("report", "team/app")
		assert.Contains(t, stdout, "# Migration of team/app from old to new: failed")
	})
	t.Run("what was terminated says so", func(t *testing.T) {
		code, _, stderr := ask("migrate", "team/app")
		require.Equal(t, exitOK, code, stderr)
		require.NoError(t, c.TerminateWorkflow(context.Background(), "migrate/team/app", "", "by hand"))
		code, stdout, stderr := ask("status", "team/app")
		assert.Equal(t, exitOK, code, stderr)
		assert.Contains(t, stdout, "ended from outside: Terminated")
		code, _, _ = ask("status", "team/app", "--watch")
		assert.Equal(t, exitTrouble, code)
		code, _, stderr = ask("rollback", "team/app")
		assert.Equal(t, exitRefused, code)
		assert.Contains(t, stderr, "the last one ended")
	})
}

func field(t *testing.T, object, name string) any {
	t.Helper()
	var m map[string]any
	require.NoError(t, json.Unmarshal([]byte(object), &m), object)
	return m[name]
}
