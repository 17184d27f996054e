package workflows

import (
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/testsuite"

	"transship/internal/notify"
	"transship/internal/report"
)

func TestAChatThatIsDownHoldsUpNeitherTheMigrationNorTheOtherChats(t *testing.T) {
	for name, down := range map[string]error{"for now": errDown, "for good": final("Refused")} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.before["SendNotification chat"] = always(down)
			r, err := w.migrate(input(func(in *MigrateInput) { in.Notify = []string{"chat", "log"} }))
			require.NoError(t, err)
			require.Equal(t, report.Finalized, r.Outcome)
			require.Less(t, r.Ended.Sub(r.Began), 6*time.Minute)
			var titles []string
			for _, m := range w.messages {
				titles = append(titles, m.Title)
			}
			require.ElementsMatch(t, []string{"restricted: migration begins", "restricted: flipped", "restricted: finalized"}, titles)
		})
	}
}

func TestAMigrationThatNobodyIsToldOfStartsNoLine(t *testing.T) {
	w := newWorld(t)
	_, err := w.migrate(input(func(in *MigrateInput) { in.Notify = nil }))
	require.NoError(t, err)
	require.Empty(t, w.messages)
}

func TestAMessageIsTriedUntilTheChatIsBack(t *testing.T) {
	w := newWorld(t)
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	env := suite.NewTestWorkflowEnvironment()
	w.env = env
	env.RegisterActivity(&fakes{w})
	w.before["SendNotification chat"] = first(9, errDown)
	env.RegisterDelayedCallback(func() {
		env.SignalWorkflow(signalAnnounce, announcement{Message: notify.Message{Title: "restricted: one"}})
		env.SignalWorkflow(signalAnnounce, announcement{Of: 3}) // signals may overtake each other
		env.SignalWorkflow(signalAnnounce, announcement{Message: notify.Message{Title: "restricted: two"}})
	}, time.Hour)
	env.ExecuteWorkflow(Announcements, []string{"chat", "log"})
	require.NoError(t, env.GetWorkflowError())
	require.Len(t, w.messages, 4)
}

func TestMessagesNameThePrefixThePhaseAndTheLink(t *testing.T) {
	w := newWorld(t)
	w.before["ProbeEdge"] = always(final("Broken"))
	_, err := w.migrate(input(func(in *MigrateInput) { in.Link = "http://ui/x" }))
	require.NoError(t, err)
	m, told := w.said("goes back")
	require.True(t, told)
	require.Equal(t, "restricted", m.Prefix)
	require.Equal(t, Rollback, m.Phase)
	require.Equal(t, "http://ui/x", m.Link)
	require.False(t, m.At.IsZero())
	require.Contains(t, m.Text, "restricted will be served by old")
}
