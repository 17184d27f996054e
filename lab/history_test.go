//go:build lab

package lab

import (
	"encoding/base64"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/worker"
	"google.golang.org/protobuf/encoding/protojson"

	"transship/workflows"
)

var record = flag.Bool("record", false, "write the histories that the replay test of workflows checks")

// Every history that a real run leaves can be replayed with the code that made it. With -record they become the histories that later code is checked
// against (workflows/replay_test.go).
func TestRecordHistories(t *testing.T) {
	s := start(t, func(s *Settings) { s.Soak, s.Finalize = time.Hour, "ask" })
	_, stop := atWork(t, s, Small)
	ctx := within(t, 4*time.Minute)

	s.must(t, "migrate", "restricted")
	_, err := s.Await(ctx, "restricted", Phase(workflows.Approval))
	require.NoError(t, err)
	s.must(t, "abort", "restricted")
	_, err = s.Outcome(ctx, "restricted")
	require.NoError(t, err)
	s.keep(t, "migrate-aborted", workflows.MigrateID("restricted"))

	for _, end := range []string{"rollback", "finalize"} {
		s.must(t, "migrate", "restricted")
		_, err := s.Await(ctx, "restricted", Phase(workflows.Approval))
		require.NoError(t, err)
		s.must(t, "pause", "restricted")
		s.must(t, "resume", "restricted")
		s.must(t, "approve", "restricted")
		status, err := s.Await(ctx, "restricted", func(w workflows.Status) bool { return w.Report.Checks.Rounds > 1 })
		require.NoError(t, err)
		s.must(t, end, "restricted")
		_, err = s.Outcome(ctx, "restricted")
		require.NoError(t, err)
		s.keep(t, "migrate-"+end, workflows.MigrateID("restricted"))
		s.keep(t, "announcements-"+end, "announce/restricted/"+status.Report.Run[24:])
	}
	stop()
	s.keep(t, "routes", "routes")

	s.New.Stop()
	s.must(t, "migrate", "platform")
	_, err = s.Outcome(ctx, "platform")
	require.NoError(t, err)
	s.keep(t, "migrate-failed", workflows.MigrateID("platform"))
}

// keep replays the history of a workflow, and writes it down when asked to.
func (s *Stack) keep(t *testing.T, name, workflow string) {
	t.Helper()
	history := &historypb.History{}
	events := s.Temporal.GetWorkflowHistory(t.Context(), workflow, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		event, err := events.Next()
		require.NoError(t, err)
		history.Events = append(history.Events, event)
	}
	replayer := worker.NewWorkflowReplayer()
	workflows.Register(replayer)
	require.NoError(t, replayer.ReplayWorkflowHistory(nil, history), "replay of %s", workflow)
	if !*record {
		return
	}
	raw, err := protojson.Marshal(history)
	require.NoError(t, err)
	var anonymous any
	require.NoError(t, json.Unmarshal(raw, &anonymous))
	host, err := os.Hostname()
	require.NoError(t, err)
	anonymous = anonymize(anonymous, strings.NewReplacer(s.Dir, "/lab", "@"+host+"@", "@lab@"))
	raw, err = json.MarshalIndent(anonymous, "", " ")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join("../workflows/testdata/histories", name+".json"), raw, 0o600))
}

// anonymize takes this machine's names out of a history, also where they are in the payloads.
func anonymize(v any, names *strings.Replacer) any {
	switch v := v.(type) {
	case map[string]any:
		if data, ok := v["data"].(string); ok && v["metadata"] != nil {
			if raw, err := base64.StdEncoding.DecodeString(data); err == nil {
				v["data"] = base64.StdEncoding.EncodeToString([]byte(names.Replace(string(raw))))
			}
		}
		for key, inner := range v {
			if key != "data" {
				v[key] = anonymize(inner, names)
			}
		}
		return v
	case []any:
		for i := range v {
			v[i] = anonymize(v[i], names)
		}
		return v
	case string:
		return names.Replace(v)
	}
	return v
}
