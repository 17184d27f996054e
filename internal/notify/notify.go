// Package notify tells people what a migration does or needs, through whatever they look at: a log, a webhook, a chat. It
// sends once and says what became of it; trying again belongs to the caller, who can wait durably.
package notify

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Level says how soon somebody should look.
type Level string

// The levels, by rising urgency.
const (
	Info     Level = "info"     // goes as planned
	Warning  Level = "warning"  // somebody should look today
	Critical Level = "critical" // somebody should look now
)

// Message is one piece of news. Its JSON is what a webhook receives.
type Message struct {
	Title  string    `json:"title"`            // one line
	Text   string    `json:"text,omitempty"`   // plain text, may have several lines
	Level  Level     `json:"level"`            // Info if empty
	Prefix string    `json:"prefix,omitempty"` // the prefix that it is about
	Phase  string    `json:"phase,omitempty"`  // the phase of its migration
	Link   string    `json:"link,omitempty"`   // URL of where to read on, usually the Temporal UI
	At     time.Time `json:"at"`               // when it happened, which may be well before it is sent
}

// level is the message's level, with the default.
func (m Message) level() Level {
	if m.Level == "" {
		return Info
	}
	return m.Level
}

// Sender delivers messages to one place. Send returns nil when the place has accepted m. Of its errors, IsFinal tells those
// that another try cannot cure, and RetryAfter how long the place asked to be left alone. No error holds a secret.
type Sender interface {
	// Name is the sender's name in the configuration: shown in errors and logs.
	Name() string
	Send(ctx context.Context, m Message) error
}

// fanout sends to several places.
type fanout []Sender

// Fanout sends each message to all senders, one after the other, whatever became of the others. Its error joins theirs, each
// with the sender's name. Whoever retries should rather send to each by itself, or those that succeeded get it again.
func Fanout(senders ...Sender) Sender { return fanout(senders) }

// Name is "all".
func (f fanout) Name() string { return "all" }

// Send returns nil if every sender did.
func (f fanout) Send(ctx context.Context, m Message) error {
	var errs []error
	for _, sender := range f {
		if err := sender.Send(ctx, m); err != nil {
			errs = append(errs, fmt.Errorf("notify %s: %w", sender.Name(), err))
		}
	}
	return errors.Join(errs...)
}
