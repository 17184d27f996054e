package notify

import (
	"context"
	"net/http"
	"strings"
	"time"
)

// slack posts to an incoming webhook of Slack or Mattermost.
type slack struct {
	name    string
	channel string
	post    poster
}

// slackPayload is what both of them accept.
type slackPayload struct {
	Channel     string            `json:"channel,omitempty"`
	Text        string            `json:"text"`
	Attachments []slackAttachment `json:"attachments"`
}

type slackAttachment struct {
	Fallback  string       `json:"fallback"`
	Color     string       `json:"color"`
	Title     string       `json:"title,omitempty"`
	TitleLink string       `json:"title_link,omitempty"`
	Text      string       `json:"text,omitempty"`
	Fields    []slackField `json:"fields,omitempty"`
	Timestamp int64        `json:"ts,omitempty"` // Unix seconds
}

type slackField struct {
	Title string `json:"title"`
	Value string `json:"value"`
	Short bool   `json:"short"`
}

// colors are by level: green, amber, red.
var colors = map[Level]string{Info: "#2eb67d", Warning: "#ecb22e", Critical: "#e01e5a"}

// escape is what Slack asks for and Mattermost understands. In Slack nothing in a message can then become a link or call a
// whole channel; Mattermost still sees an @channel, which its own rules for webhooks have to forbid.
var escape = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// NewSlack makes a sender to an incoming webhook of Slack or of Mattermost, which takes the same. The url is a secret and
// never in an error. An empty channel is the webhook's own; Slack's newer webhooks ignore any other. A nil client is one with
// a time limit of 15 s.
func NewSlack(name, url, channel string, client *http.Client) Sender {
	return &slack{name: name, channel: channel, post: newPoster(url, nil, client)}
}

// Name is the name given.
func (s *slack) Name() string { return s.name }

// Send wants an answer of 2xx. Its error is a *StatusError for any other.
func (s *slack) Send(ctx context.Context, m Message) error {
	return s.post.json(ctx, s.payload(m))
}

// payload has the title as text, which is what phones show, and the rest as an attachment in the colour of its level.
func (s *slack) payload(m Message) slackPayload {
	title := escape.Replace(m.Title)
	attachment := slackAttachment{Fallback: title, Color: colors[m.level()], Text: escape.Replace(m.Text)}
	if m.Link != "" {
		attachment.Title, attachment.TitleLink = "Details", m.Link
	}
	for _, field := range []slackField{{"Prefix", m.Prefix, true}, {"Phase", m.Phase, true}} {
		if field.Value != "" {
			field.Value = escape.Replace(field.Value)
			attachment.Fields = append(attachment.Fields, field)
		}
	}
	text := title
	if m.level() != Info {
		text = strings.ToUpper(string(m.level())) + ": " + title
	}
	if m.At.After(time.Unix(0, 0)) {
		attachment.Timestamp = m.At.Unix()
	}
	return slackPayload{Channel: s.channel, Text: text, Attachments: []slackAttachment{attachment}}
}
