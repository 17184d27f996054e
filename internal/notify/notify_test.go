package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

var (
	noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	news = Message{
		Title: "restricted waits for approval", Text: "line one\nline two", Level: Warning,
		Prefix: "restricted", Phase: "approval", Link: "https://temporal.example/x", At: noon,
	}
)

// place is a webhook's other end: it answers as told and keeps the last request.
type place struct {
	*httptest.Server
	status int
	header map[string]string
	body   string

	got     *http.Request
	gotBody []byte
}

func newPlace(t *testing.T, status int, body string) *place {
	t.Helper()
	p := &place{status: status, body: body, header: map[string]string{}}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.got = r
		p.gotBody, _ = io.ReadAll(r.Body)
		for key, value := range p.header {
			w.Header().Set(key, value)
		}
		w.WriteHeader(p.status)
		_, _ = io.WriteString(w, p.body)
	}))
	t.Cleanup(p.Close)
	return p
}

func TestWebhookPostsTheMessage(t *testing.T) {
	p := newPlace(t, http.StatusNoContent, "")
	header := map[string]string{"Authorization": "Bearer sesame-sesame"}
	hook := NewWebhook("ops", p.URL+"/hook?key=value", header, p.Client())
	delete(header, "Authorization") // the sender keeps its own
	if err := hook.Send(t.Context(), news); err != nil {
		t.Fatal(err)
	}
	if hook.Name() != "ops" || p.got.Method != http.MethodPost || p.got.URL.String() != "/hook?key=value" {
		t.Errorf("%s: %s %s", hook.Name(), p.got.Method, p.got.URL)
	}
	if p.got.Header.Get("Content-Type") != "application/json" || p.got.Header.Get("Authorization") != "Bearer sesame-sesame" {
		t.Errorf("header %v", p.got.Header)
	}
	var got Message
	if err := json.Unmarshal(p.gotBody, &got); err != nil || got != news {
		t.Errorf("%s: %+v, %v", p.gotBody, got, err)
	}
	if err := hook.Send(t.Context(), Message{Title: "plain", At: noon}); err != nil {
		t.Fatal(err)
	}
	if want := `{"title":"plain","level":"info","at":"2026-11-24T12:00:00Z"}`; string(p.gotBody) != want {
		t.Errorf("%s, want %s", p.gotBody, want)
	}
}

func TestAnswersBecomeErrors(t *testing.T) {
	for _, test := range []struct {
		status int
		final  bool
	}{
		{200, false}, {201, false}, {204, false},
		{400, true}, {401, true}, {403, true}, {404, true}, {410, true},
		{408, false}, {429, false}, {500, false}, {502, false}, {503, false},
	} {
		p := newPlace(t, test.status, "no_service\n")
		if test.status == http.StatusNoContent {
			p.body = ""
		}
		for _, sender := range []Sender{NewWebhook("hook", p.URL, nil, nil), NewSlack("chat", p.URL, "", nil)} {
			err := sender.Send(t.Context(), news)
			if (err == nil) != (test.status < 300) || IsFinal(err) != test.final {
				t.Errorf("%s %d: %v, final %t", sender.Name(), test.status, err, IsFinal(err))
			}
			var status *StatusError
			if err != nil && (!errors.As(err, &status) || status.Status != test.status || status.Body != "no_service") {
				t.Errorf("%s %d: %#v", sender.Name(), test.status, err)
			}
			if err != nil && !strings.Contains(err.Error(), fmt.Sprint(test.status)) {
				t.Errorf("%s %d: %v", sender.Name(), test.status, err)
			}
		}
	}
}

func TestRedirectIsFinalAndNotFollowed(t *testing.T) {
	elsewhere := newPlace(t, http.StatusOK, "")
	p := newPlace(t, http.StatusFound, "")
	p.header["Location"] = elsewhere.URL
	err := NewWebhook("hook", p.URL, nil, p.Client()).Send(t.Context(), news)
	if err == nil || !IsFinal(err) || elsewhere.got != nil {
		t.Errorf("%v, final %t, followed %t", err, IsFinal(err), elsewhere.got != nil)
	}
}

func TestRetryAfter(t *testing.T) {
	p := newPlace(t, http.StatusTooManyRequests, "")
	p.header["Retry-After"] = "37"
	err := Fanout(NewLog(slog.New(slog.DiscardHandler)), NewSlack("chat", p.URL, "", nil)).Send(t.Context(), news)
	if after, ok := RetryAfter(err); !ok || after != 37*time.Second || IsFinal(err) {
		t.Errorf("%v: %v %t, final %t", err, after, ok, IsFinal(err))
	}
	delete(p.header, "Retry-After")
	err = NewSlack("chat", p.URL, "", nil).Send(t.Context(), news)
	if after, ok := RetryAfter(err); ok || err == nil {
		t.Errorf("%v: %v", err, after)
	}
	for value, want := range map[string]time.Duration{
		"": 0, "0": 0, "-3": 0, "soon": 0, "120": 2 * time.Minute, "99999999999": 0,
		noon.Add(90 * time.Second).Format(http.TimeFormat): 90 * time.Second,
		noon.Add(-time.Hour).Format(http.TimeFormat):       0,
	} {
		if got := parseRetryAfter(value, noon); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
}

func TestErrorShowsTheFirst200Bytes(t *testing.T) {
	p := newPlace(t, http.StatusBadGateway, strings.Repeat("é", 5000))
	err := NewWebhook("hook", p.URL, nil, nil).Send(t.Context(), news)
	var status *StatusError
	if !errors.As(err, &status) || status.Body != strings.Repeat("é", 100) {
		t.Errorf("%v", err)
	}
}

func TestNoErrorTellsASecret(t *testing.T) {
	const token, query, password, bearer = "T0KENT0KENT0KEN", "k3yk3yk3yk3y", "passw0rd-1", "sesame-sesame"
	dead := httptest.NewServer(http.NotFoundHandler())
	dead.Close()
	parrot := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusBadGateway)
		// 190 bytes, so that the cut at 200 would go through what follows
		_, _ = fmt.Fprintf(w, "%s%s %s %s", strings.Repeat("x", 190), token, r.URL, r.Header.Get("Authorization"))
	}))
	defer parrot.Close()
	hung := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then does the server see the client go
		<-r.Context().Done()
	}))
	defer hung.Close()
	loop := newPlace(t, http.StatusFound, "")
	loop.header["Location"] = "/" + token

	secretPart := func(base string) string {
		return strings.Replace(base, "://", "://user:"+password+"@", 1) + "/services/" + token + "?token=" + query
	}
	for name, address := range map[string]string{
		"refused":   secretPart(dead.URL),
		"repeated":  secretPart(parrot.URL),
		"timeout":   secretPart(hung.URL),
		"redirect":  secretPart(loop.URL),
		"no URL":    "http://user:" + password + "@[::1/" + token + "?token=" + query,
		"no scheme": token + "/" + query,
		"bad name":  secretPart("http://no-such-host.invalid"),
	} {
		client := &http.Client{Timeout: 300 * time.Millisecond}
		hook := NewWebhook("hook", address, map[string]string{"Authorization": "Bearer " + bearer}, client)
		chat := NewSlack("chat", address, "", client)
		for _, sender := range []Sender{hook, chat, Fanout(hook, chat)} {
			err := sender.Send(t.Context(), news)
			if err == nil {
				t.Errorf("%s: no error", name)
				continue
			}
			for e := err; e != nil; e = errors.Unwrap(e) {
				for _, secret := range []string{token, query, password, bearer, token[:9]} {
					if text := fmt.Sprintf("%v %+v %q", e, e, e); strings.Contains(text, secret) {
						t.Errorf("%s %s: %q in %s", name, sender.Name(), secret, text)
					}
				}
			}
		}
	}
}

func TestKindsOfTransportErrors(t *testing.T) {
	dead := httptest.NewServer(http.NotFoundHandler())
	dead.Close()
	if err := NewWebhook("hook", dead.URL, nil, nil).Send(t.Context(), news); err == nil || IsFinal(err) {
		t.Errorf("refused connection: %v, final %t", err, IsFinal(err))
	}
	for _, address := range []string{"", "hooks.example/x", "ftp://example/x", "http://", "http://[::1/x", "http://a b/"} {
		if err := NewWebhook("hook", address, nil, nil).Send(t.Context(), news); !IsFinal(err) {
			t.Errorf("%q: %v is not final", address, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := NewWebhook("hook", dead.URL, nil, nil).Send(ctx, news); !errors.Is(err, context.Canceled) || IsFinal(err) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestSlackPayload(t *testing.T) {
	p := newPlace(t, http.StatusOK, "ok")
	chat := NewSlack("chat", p.URL, "#releng", nil)
	m := news
	m.Title, m.Text, m.Prefix = "a < b & c > d", "<!channel> & <https://evil.example|here>", "a<b"
	if err := chat.Send(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	want := `{"channel":"#releng","text":"WARNING: a &lt; b &amp; c &gt; d","attachments":[{"fallback":"a &lt; b &amp; c &gt; d",` +
		`"color":"#ecb22e","title":"Details","title_link":"https://temporal.example/x",` +
		`"text":"&lt;!channel&gt; &amp; &lt;https://evil.example|here&gt;",` +
		`"fields":[{"title":"Prefix","value":"a&lt;b","short":true},{"title":"Phase","value":"approval","short":true}],"ts":1795521600}]}`
	var got, expected any
	if err := errors.Join(json.Unmarshal(p.gotBody, &got), json.Unmarshal([]byte(want), &expected)); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(got) != fmt.Sprint(expected) {
		t.Errorf("\n got %v\nwant %v", got, expected)
	}

	if err := chat.Send(t.Context(), Message{Title: "plain"}); err != nil {
		t.Fatal(err)
	}
	plain := `{"channel":"#releng","text":"plain","attachments":[{"fallback":"plain","color":"#2eb67d"}]}`
	if string(p.gotBody) != plain {
		t.Errorf("%s, want %s", p.gotBody, plain)
	}
	seen := map[string]bool{}
	for _, level := range []Level{Info, Warning, Critical} {
		seen[colors[level]] = true
	}
	if len(seen) != 3 || seen[""] {
		t.Errorf("colours %v", colors)
	}
}

func TestLog(t *testing.T) {
	var out bytes.Buffer
	sender := NewLog(slog.New(slog.NewJSONHandler(&out, nil)))
	for level, want := range map[Level]string{Info: "INFO", Warning: "WARN", Critical: "ERROR", "": "INFO"} {
		out.Reset()
		m := news
		m.Level = level
		if err := sender.Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		var line map[string]string
		if err := json.Unmarshal(out.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		if line["level"] != want || line["msg"] != news.Title || line["prefix"] != "restricted" || line["link"] != news.Link || line["text"] != news.Text {
			t.Errorf("%q: %v", level, line)
		}
	}
}

// failing is a sender that always errs the same way.
type failing struct {
	name string
	err  error
}

func (f failing) Name() string                        { return f.name }
func (f failing) Send(context.Context, Message) error { return f.err }

func TestFanout(t *testing.T) {
	p := newPlace(t, http.StatusOK, "")
	final, temporary := &StatusError{Status: 404}, &StatusError{Status: 503}
	err := Fanout(failing{"first", final}, failing{"second", temporary}, NewWebhook("third", p.URL, nil, nil)).Send(t.Context(), news)
	if err == nil || p.got == nil {
		t.Fatalf("%v, third was sent to: %t", err, p.got != nil)
	}
	for _, want := range []string{"notify first: answered 404", "notify second: answered 503"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q lacks %q", err, want)
		}
	}
	if IsFinal(err) {
		t.Error("final although one of them is temporary")
	}
	if err := Fanout(failing{"a", final}, failing{"b", final}).Send(t.Context(), news); !IsFinal(err) {
		t.Errorf("%v is not final", err)
	}
	if err := Fanout().Send(t.Context(), news); err != nil {
		t.Error(err)
	}
	if IsFinal(nil) || IsFinal(io.EOF) || !IsFinal(fmt.Errorf("send to x: %w", final)) {
		t.Error("IsFinal of nil, of an unknown error, of a wrapped refusal")
	}
}
