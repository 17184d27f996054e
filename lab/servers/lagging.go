package servers

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ncw/swift/v2"
)

// Lagging stands before a Swift. It lists one container as it was some time ago, as Swift does when its object servers could not tell the container server in time: new
// names are not there yet, what was replaced has its old hash, and what was deleted is still shown. Everything else is passed on, so an object that is asked for by its name is
// as it is now.
type Lagging struct {
	// Swift is the same Swift, with the address of the proxy. Nothing is started or stopped through it.
	*Swift

	container string
	lag       time.Duration
	server    *http.Server
	forward   http.Handler
	cancel    context.CancelFunc
	wait      sync.WaitGroup

	mu     sync.Mutex
	states []state // the oldest first; the first is what is shown when it is old enough
	hidden int
	err    error
}

// state is a container at a time.
type state struct {
	at    time.Time
	names []listed
}

// listed is a line of a listing, as Swift gave it.
type listed struct {
	name string
	raw  json.RawMessage
}

func (l *listed) UnmarshalJSON(raw []byte) error {
	var line struct{ Name string }
	err := json.Unmarshal(raw, &line)
	l.name, l.raw = line.Name, slices.Clone(raw)
	return err
}

// look is how often a Lagging looks at the container, and so how exactly it lags.
const look = time.Second

// StartLagging starts a proxy whose listings of a container lag behind. It ends with Close.
func StartLagging(ctx context.Context, s *Swift, container string, lag time.Duration) (*Lagging, error) {
	target, err := url.Parse(s.AuthURL)
	if err != nil {
		return nil, fmt.Errorf("stand before Swift: %w", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("stand before Swift: %w", err)
	}
	l := &Lagging{container: container, lag: lag}
	l.Swift = &Swift{AuthURL: "http://" + listener.Addr().String() + target.Path, Username: s.Username, Password: s.Password, Dir: s.Dir}
	// Swift says in its answers that it lives where it was asked: with the Host as it came, that is here.
	l.forward = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: target.Scheme, Host: target.Host})
			r.Out.Host = r.In.Host
		},
		ErrorLog: log.New(io.Discard, "", 0),
	}
	account := &swift.Connection{AuthUrl: s.AuthURL, UserName: s.Username, ApiKey: s.Password}
	if err := l.observe(ctx, account); err != nil {
		listener.Close()
		return nil, err
	}
	watching, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l.cancel = cancel
	l.server = &http.Server{Handler: l, ReadHeaderTimeout: time.Minute}
	l.wait.Go(func() { _ = l.server.Serve(listener) }) // it ends with Close
	l.wait.Go(func() {
		tick := time.NewTicker(look)
		defer tick.Stop()
		for {
			select {
			case <-watching.Done():
				return
			case <-tick.C:
			}
			if err := l.observe(watching, account); err != nil && watching.Err() == nil {
				l.mu.Lock()
				l.err = err
				l.mu.Unlock()
			}
		}
	})
	return l, nil
}

// Close ends the proxy. The Swift behind it goes on.
func (l *Lagging) Close() {
	l.cancel()
	_ = l.server.Close()
	l.wait.Wait()
}

// SetLag changes how far listings lag behind. When it grows they stand still until that is so.
func (l *Lagging) SetLag(lag time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lag = lag
	l.forget()
}

// Hidden is how many names were left out of listings so far, one that was left out of several as many times; an error says that the proxy did not lag as it should have.
func (l *Lagging) Hidden() (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hidden, l.err
}

// observe notes what the container holds.
func (l *Lagging) observe(ctx context.Context, account *swift.Connection) error {
	now := state{at: time.Now()}
	if !account.Authenticated() {
		if err := account.Authenticate(ctx); err != nil {
			return fmt.Errorf("look at container %s: %w", l.container, err)
		}
	}
	for more := true; more; {
		marker := ""
		if n := len(now.names); n > 0 {
			marker = now.names[n-1].name
		}
		resp, _, err := account.Call(ctx, account.StorageUrl, swift.RequestOpts{
			Container: l.container, Operation: http.MethodGet, Parameters: url.Values{"format": {"json"}, "marker": {marker}}, ErrorMap: swift.ContainerErrorMap,
		})
		if err != nil {
			return fmt.Errorf("look at container %s: %w", l.container, err)
		}
		var page []listed
		err = json.NewDecoder(resp.Body).Decode(&page)
		resp.Body.Close()
		if err != nil {
			return fmt.Errorf("look at container %s: %w", l.container, err)
		}
		now.names = append(now.names, page...)
		more = len(page) > 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.states = append(l.states, now)
	l.forget()
	return nil
}

// forget drops what is too old to be shown.
func (l *Lagging) forget() {
	for len(l.states) > 1 && time.Since(l.states[1].at) >= l.lag {
		l.states = l.states[1:]
	}
}

func (l *Lagging) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet || !strings.HasPrefix(r.URL.Path, "/v1/") || !strings.HasSuffix(r.URL.Path, "/"+l.container) {
		l.forward.ServeHTTP(w, r)
		return
	}
	l.mu.Lock()
	then, now := l.states[0], l.states[len(l.states)-1]
	l.mu.Unlock()
	lines, err := list(then.names, r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotImplemented)
		return
	}
	if current, err := list(now.names, r.URL.Query()); err == nil {
		l.count(lines, current)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	raw := make([]json.RawMessage, 0, len(lines))
	for _, line := range lines {
		raw = append(raw, line.raw)
	}
	_ = json.NewEncoder(w).Encode(raw) // who asked has gone
}

func (l *Lagging) count(shown, current []listed) {
	hidden := 0
	for _, line := range current {
		if _, there := find(shown, line.name); !there {
			hidden++
		}
	}
	l.mu.Lock()
	l.hidden += hidden
	l.mu.Unlock()
}

func find(lines []listed, name string) (int, bool) {
	return slices.BinarySearchFunc(lines, name, func(l listed, name string) int { return cmp.Compare(l.name, name) })
}

// list is what Swift answers to a query. What it is asked for must be among what is known here: a listing that is wrong in another way would prove nothing.
func list(names []listed, query url.Values) (lines []listed, err error) {
	limit, root, delimiter := 10000, "", ""
	for key := range query {
		switch value := query.Get(key); key {
		case "format":
			if value != "json" {
				err = errors.New("only listings in JSON lag")
			}
		case "limit":
			limit, err = strconv.Atoi(value)
		case "prefix":
			root = value
		case "delimiter":
			delimiter = value
		case "marker", "end_marker":
		default:
			err = fmt.Errorf("listings with %q do not lag", key)
		}
		if err != nil {
			return nil, err
		}
	}
	marker, end := query.Get("marker"), query.Get("end_marker")
	from, _ := find(names, max(root, marker))
	for _, line := range names[from:] {
		switch {
		case len(lines) == limit || !strings.HasPrefix(line.name, root) || end != "" && line.name >= end:
			return lines, nil
		case line.name <= marker:
			continue
		}
		if delimiter != "" {
			if below, _, in := strings.Cut(line.name[len(root):], delimiter); in {
				folder := root + below + delimiter
				if folder == marker || len(lines) > 0 && lines[len(lines)-1].name == folder {
					continue
				}
				raw, err := json.Marshal(map[string]string{"subdir": folder})
				if err != nil {
					return nil, err
				}
				line = listed{folder, raw}
			}
		}
		lines = append(lines, line)
	}
	return lines, nil
}
