package activities

import (
	"context"
	"fmt"

	"go.temporal.io/sdk/temporal"

	"transship/internal/notify"
)

// Notifier tells people.
type Notifier struct {
	// Senders are the notifications of the configuration, by name.
	Senders map[string]notify.Sender
}

// NotifyParams is a message for one of the configured places.
type NotifyParams struct {
	Sender  string         `json:"sender"`
	Message notify.Message `json:"message"`
}

// SendNotification sends one message to one place. What the place refuses for good is not tried again.
func (n *Notifier) SendNotification(ctx context.Context, p NotifyParams) error {
	sender, ok := n.Senders[p.Sender]
	if !ok {
		return temporal.NewNonRetryableApplicationError(fmt.Sprintf("notification %q is not in the configuration of this worker", p.Sender), KindConfig, nil)
	}
	err := sender.Send(ctx, p.Message)
	if wait, ok := notify.RetryAfter(err); ok {
		return temporal.NewApplicationErrorWithOptions(err.Error(), "Throttled", temporal.ApplicationErrorOptions{NextRetryDelay: wait, Cause: err})
	}
	return final(err)
}
