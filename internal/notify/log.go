package notify

import (
	"context"
	"log/slog"
)

// logSender writes messages to a log.
type logSender struct{ logger *slog.Logger }

// NewLog makes a sender that writes each message to logger, so that there is one place where all of them can be found. It
// never fails.
func NewLog(logger *slog.Logger) Sender { return logSender{logger} }

// Name is "log".
func (logSender) Name() string { return "log" }

// Send logs the title as the message and the rest as attributes; critical ones are errors in the log's terms.
func (s logSender) Send(ctx context.Context, m Message) error {
	level := map[Level]slog.Level{Warning: slog.LevelWarn, Critical: slog.LevelError}[m.level()]
	attrs := []slog.Attr{slog.String("notification", string(m.level())), slog.Time("at", m.At)}
	for _, field := range []struct{ key, value string }{
		{"text", m.Text}, {"prefix", m.Prefix}, {"phase", m.Phase}, {"link", m.Link},
	} {
		if field.value != "" {
			attrs = append(attrs, slog.String(field.key, field.value))
		}
	}
	s.logger.LogAttrs(ctx, level, m.Title, attrs...)
	return nil
}
