package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	// sendLimit bounds one delivery when neither context nor client does.
	sendLimit = 15 * time.Second
	// bodyRead is how much of an answer is read, in bytes, and bodyShown how much of that an error repeats. More is read than
	// is shown because a secret that the cut goes through could not be recognised.
	bodyRead, bodyShown = 8192, 200
)

// webhook posts messages as JSON.
type webhook struct {
	name string
	post poster
}

// NewWebhook makes a sender that POSTs the JSON of each message to url, with header added to each request (for an
// Authorization, say). The url and the header's values are secrets: neither is ever in an error. A nil client is one with
// a time limit of 15 s.
func NewWebhook(name, url string, header map[string]string, client *http.Client) Sender {
	return &webhook{name: name, post: newPoster(url, header, client)}
}

// Name is the name given.
func (w *webhook) Name() string { return w.name }

// Send wants an answer of 2xx. Its error is a *StatusError for any other.
func (w *webhook) Send(ctx context.Context, m Message) error {
	m.Level = m.level()
	return w.post.json(ctx, m)
}

// poster posts JSON to an address that must not be known.
type poster struct {
	address string
	header  map[string]string
	client  *http.Client
}

// newPoster copies the client, because redirects are not followed: a redirected POST loses its body, and a webhook's address
// that has moved must be put right by its owner.
func newPoster(address string, header map[string]string, client *http.Client) poster {
	own := http.Client{Timeout: sendLimit}
	if client != nil {
		own = *client
	}
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return poster{address: address, header: maps.Clone(header), client: &own}
}

// json posts v, and errs as Sender.Send promises.
func (p poster) json(ctx context.Context, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return &requestError{fmt.Errorf("encode message: %w", err)}
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.address, bytes.NewReader(body))
	if err != nil {
		return &requestError{errors.New("the configured URL is not a URL")} // err repeats it
	}
	if (request.URL.Scheme != "http" && request.URL.Scheme != "https") || request.URL.Host == "" {
		return &requestError{errors.New("the configured URL is not an http or https URL")}
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "transship")
	for key, value := range p.header {
		request.Header.Set(key, value)
	}
	response, err := p.client.Do(request)
	if err != nil {
		return fmt.Errorf("post message: %w", p.redactError(err))
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(response.Body, bodyRead))
	if response.StatusCode >= 200 && response.StatusCode < 300 {
		return nil // accepted, whatever else it wanted to say
	}
	if err != nil {
		answer = nil // the status says enough
	}
	return &StatusError{
		Status: response.StatusCode,
		Body:   p.show(answer),
		After:  parseRetryAfter(response.Header.Get("Retry-After"), time.Now()),
	}
}

// show is the beginning of an answer, without what it might repeat of ours.
func (p poster) show(answer []byte) string {
	text := p.redact(strings.TrimSpace(string(answer)))
	if len(text) > bodyShown {
		text = text[:bodyShown]
	}
	return strings.ToValidUTF8(text, "?")
}

// redactError strips the address that net/http puts around an error, and keeps the kind of error (timeout, cancellation,
// refused connection) for errors.Is and errors.As unless its own text tells a secret.
func (p poster) redactError(err error) error {
	var wrapped *url.Error
	for errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	if clean := p.redact(err.Error()); clean != err.Error() {
		return errors.New(clean)
	}
	return err
}

// redact removes what is secret from text that somebody else wrote: the address, its path, query and password, and
// the header's values. What is too short to be a secret stays, or ordinary words would go.
func (p poster) redact(text string) string {
	secrets := append([]string{p.address}, slices.Collect(maps.Values(p.header))...)
	if parsed, err := url.Parse(p.address); err == nil {
		secrets = append(secrets, parsed.RequestURI(), parsed.Path, parsed.RawQuery)
		secrets = append(secrets, strings.Split(parsed.Path, "/")...)
		for _, values := range parsed.Query() {
			secrets = append(secrets, values...)
		}
		if password, ok := parsed.User.Password(); ok {
			secrets = append(secrets, password)
		}
	}
	for _, value := range p.header {
		secrets = append(secrets, strings.Fields(value)...) // "Bearer …"
	}
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) })
	for _, secret := range secrets {
		if len(secret) >= 8 {
			text = strings.ReplaceAll(text, secret, "[redacted]")
		}
	}
	return text
}
