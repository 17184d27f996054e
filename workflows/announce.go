package workflows

import (
	"fmt"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/workflow"

	"transship/activities"
	"transship/internal/notify"
)

// announce tells people what is about to happen, and opens the line on which they are told the rest.
func (m *migration) announce(ctx workflow.Context) error {
	waits := "It flips by itself when both sides have converged."
	if a := m.Policy.Approval; a.Required {
		waits = "It waits for approval before the flip (window: " + a.Window.String() + ")."
		if len(a.Approvers) > 0 {
			waits += " Approvers: " + strings.Join(a.Approvers, ", ") + "."
		}
	}
	m.tell(ctx, notify.Info, "migration begins", fmt.Sprintf("%s moves from %s to %s, asked for by %s: %d tags in %d repositories. %s",
		m.Prefix, m.From, m.To, m.Operator, m.state.Report.Plan.Tags, m.state.Report.Plan.Repositories, waits))
	return nil
}

// announcement is what a migration sends to its Announcements.
type announcement struct {
	Message notify.Message `json:"message"`
	// Of is set in the last one: how many there were, itself included. Signals may overtake each other.
	Of int `json:"of,omitempty"`
}

const signalAnnounce = "announce"

// lineID is the workflow that carries the messages of this migration.
func (m *migration) lineID() string { return "announce/" + m.Prefix.String() + "/" + m.shortRun() }

// shortRun tells runs of a prefix apart: the end of the run's ID, since Temporal's run IDs begin with the time.
func (m *migration) shortRun() string { return m.state.Report.Run[max(0, len(m.state.Report.Run)-12):] }

// tell sends people a message. It never waits for a chat, and never fails because of one.
func (m *migration) tell(ctx workflow.Context, level notify.Level, title, text string) {
	m.send(ctx, announcement{Message: notify.Message{
		Title: fmt.Sprintf("%s: %s", m.Prefix, title), Text: text, Level: level, Prefix: m.Prefix.String(), Phase: m.phase, Link: m.Link, At: workflow.Now(ctx),
	}})
}

func (m *migration) send(ctx workflow.Context, a announcement) {
	if len(m.Notify) == 0 {
		return
	}
	// Stopping or cancelling the migration must not end the line on which people are told of it.
	ctx, _ = workflow.NewDisconnectedContext(ctx)
	if m.state.Told == 0 {
		child := workflow.ExecuteChildWorkflow(workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
			WorkflowID: m.lineID(), TaskQueue: Queue, ParentClosePolicy: enumspb.PARENT_CLOSE_POLICY_ABANDON,
			StaticSummary: "messages to people about " + m.Prefix.String(),
		}), Announcements, m.Notify)
		if err := child.GetChildWorkflowExecution().Get(ctx, nil); err != nil {
			workflow.GetLogger(ctx).Warn("people cannot be told", "error", err)
			return
		}
	}
	m.state.Told++
	// Not waited for: a message is worth no step of the migration.
	workflow.SignalExternalWorkflow(ctx, m.lineID(), "", signalAnnounce, a)
}

// Announcements carries the messages of one migration to each of the places named. A place that is down gets them when it is back, for up to a day; the
// others, and the migration, do not wait for it. It ends when everything is delivered or given up.
func Announcements(ctx workflow.Context, senders []string) error {
	messages := workflow.GetSignalChannel(ctx, signalAnnounce)
	pending := workflow.NewWaitGroup(ctx)
	for received, of := 0, 0; of == 0 || received < of; received++ {
		var a announcement
		if of == 0 {
			messages.Receive(ctx, &a)
		} else if ok, _ := messages.ReceiveWithTimeout(ctx, time.Hour, &a); !ok {
			workflow.GetLogger(ctx).Warn("messages did not arrive", "received", received, "of", of)
			break
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		of = max(of, a.Of)
		if a.Message.Title == "" {
			continue
		}
		for _, sender := range senders {
			pending.Add(1)
			workflow.Go(ctx, func(ctx workflow.Context) {
				defer pending.Done()
				var n *activities.Notifier
				options := small(ctx, 24*time.Hour, sender+": "+a.Message.Title)
				err := workflow.ExecuteActivity(options, n.SendNotification, activities.NotifyParams{Sender: sender, Message: a.Message}).Get(ctx, nil)
				if err != nil {
					workflow.GetLogger(ctx).Warn("message given up", "sender", sender, "title", a.Message.Title, "error", because(err))
				}
			})
		}
	}
	pending.Wait(ctx)
	return nil
}
