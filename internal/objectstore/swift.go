package objectstore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/ncw/swift/v2"
)

// SwiftOptions say which container of which Swift, and how to reach it.
type SwiftOptions struct {
	// AuthURL of tempauth (…/auth/v1.0) or Keystone (…/v2.0, …/v3): the version is taken from it.
	AuthURL            string
	Username, Password string
	// Project and Domain are for Keystone; Region chooses among the endpoints that it names (empty: the first).
	Project, Domain, Region string
	Container               string
	// Root is the folder in the container that holds blobs and repositories, with a final "/"; empty is the whole container.
	Root string
	// CAFile holds certificates to trust besides the system's.
	CAFile string
	// Patience is for how long one operation goes on trying; 0 is DefaultPatience.
	Patience time.Duration
	// PageSize is how many objects one listing asks for; 0 is as many as the store allows.
	PageSize int
}

// Swift is a container of OpenStack Swift. ncw/swift signs in; the requests are our own, because its uploads wait for "100 Continue", it tries again at
// once, without pauses, and every request that meets an expired token renews it anew.
type Swift struct {
	o        SwiftOptions
	client   *http.Client
	patience patience
	buffers  *buffers

	// turn is held by who reads or renews the session; a channel, so that waiting for it ends with the context.
	turn     chan struct{}
	account  swift.Connection
	session  session
	pageSize int
}

// session is what signing in gives.
type session struct{ url, token string }

var (
	_ Store     = (*Swift)(nil)
	_ Segmented = (*Swift)(nil)
)

// NewSwift makes a store of a container. Nothing is asked of Swift yet: errors are those of the options.
func NewSwift(_ context.Context, o SwiftOptions) (*Swift, error) {
	if o.AuthURL == "" || o.Container == "" {
		return nil, fmt.Errorf("swift needs the address to sign in at and a container: %w", errInvalid)
	}
	version := 0
	for v, mark := range map[int]string{1: "v1", 2: "v2", 3: "v3"} {
		if strings.Contains(o.AuthURL, mark) {
			version = v
		}
	}
	if version == 0 {
		return nil, fmt.Errorf("%s: the address to sign in at ends in its version, as in /auth/v1.0 or /v3: %w", o.AuthURL, errInvalid)
	}
	client, err := newClient(o.CAFile)
	if err != nil {
		return nil, err
	}
	if o.Patience == 0 {
		o.Patience = DefaultPatience
	}
	s := &Swift{o: o, client: client, patience: patience(o.Patience), buffers: newBuffers(), turn: make(chan struct{}, 1), pageSize: o.PageSize}
	s.account = swift.Connection{
		AuthUrl: o.AuthURL, AuthVersion: version, UserName: o.Username, ApiKey: o.Password,
		Tenant: o.Project, Domain: o.Domain, TenantDomain: o.Domain, Region: o.Region,
		Transport: client.Transport, ConnectTimeout: stall, Timeout: stall,
	}
	return s, nil
}

// String implements Store.
func (s *Swift) String() string { return "swift " + s.o.Container + "/" + s.o.Root }

// signedIn gives a session, a new one when there is none, when it is about to expire, or when it is the one that was refused.
func (s *Swift) signedIn(ctx context.Context, refused session) (session, error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return session{}, context.Cause(ctx)
	}
	if s.session != (session{}) && s.session != refused && (s.account.Expires.IsZero() || time.Until(s.account.Expires) > time.Minute) {
		return s.session, nil
	}
	s.account.UnAuthenticate()
	if err := s.account.Authenticate(ctx); err != nil {
		var answered *swift.Error
		if errors.As(err, &answered) && answered.StatusCode == 0 {
			return session{}, fmt.Errorf("signing in to %s: %w: %w (does it know an object store in region %q?)", s.o.AuthURL, errInvalid, err, s.o.Region)
		}
		if errors.As(err, &answered) {
			return session{}, &StatusError{Op: "authenticate", Store: s.String(), Key: s.o.AuthURL, Status: answered.StatusCode, Message: answered.Text}
		}
		return session{}, fmt.Errorf("signing in to %s: %w", s.o.AuthURL, &brokenError{err})
	}
	s.session = session{strings.TrimSuffix(s.account.StorageUrl, "/"), s.account.AuthToken}
	return s.session, nil
}

// request is one thing asked of Swift.
type request struct {
	op, method string
	// container and key; key is the whole name of an object, empty for the container itself.
	container, key string
	query          url.Values
	header         map[string]string
	body           []byte
}

// once sends a request, a second time with a new session when the first was refused. Any answer but 2xx is an error; the caller closes the body.
func (s *Swift) once(ctx context.Context, r request) (*http.Response, error) {
	var refused session
	for {
		session, err := s.signedIn(ctx, refused)
		if err != nil {
			return nil, err
		}
		resp, err := s.send(ctx, session, r)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode/100 == 2 {
			return resp, nil
		}
		if resp.StatusCode == http.StatusUnauthorized && refused.token == "" {
			finish(resp.Body)
			refused = session
			continue
		}
		message, _ := io.ReadAll(io.LimitReader(resp.Body, 300))
		finish(resp.Body)
		return nil, &StatusError{Op: r.op, Store: s.String(), Key: strings.TrimPrefix(r.key, s.o.Root), Status: resp.StatusCode,
			Message: strings.Join(strings.Fields(string(message)), " "), RetryAfter: retryAfter(resp.Header)}
	}
}

func (s *Swift) send(ctx context.Context, session session, r request) (*http.Response, error) {
	where := (&url.URL{Path: "/" + r.container}).EscapedPath()
	if r.key != "" {
		where = (&url.URL{Path: "/" + r.container + "/" + r.key}).EscapedPath()
	}
	if len(r.query) > 0 {
		where += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, session.url+where, nil)
	if err != nil {
		return nil, fmt.Errorf("%s of %q in %s: %w", r.op, r.key, s, err)
	}
	if r.method == http.MethodPut {
		lent := lend(r.body)
		defer lent.revoke()
		req.Body, req.ContentLength = io.NopCloser(lent), int64(len(r.body))
		if len(r.body) == 0 {
			req.Body = http.NoBody
		}
	}
	req.Header.Set("X-Auth-Token", session.token)
	for name, value := range r.header {
		req.Header.Set(name, value)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("%s of %q in %s: %w", r.op, r.key, s, &brokenError{err})
	}
	return resp, nil
}

// do sends a request as often as patience allows, and drops the body of the answer.
func (s *Swift) do(ctx context.Context, r request) (http.Header, error) {
	var header http.Header
	err := s.patience.try(ctx, func() error {
		resp, err := s.once(ctx, r)
		if err == nil {
			header = resp.Header
			finish(resp.Body)
		}
		return err
	})
	return header, err
}

// read sends a request as often as patience allows until the whole answer is there.
func (s *Swift) read(ctx context.Context, r request) ([]byte, error) {
	var content []byte
	err := s.patience.try(ctx, func() error {
		resp, err := s.once(ctx, r)
		if err != nil {
			return err
		}
		defer finish(resp.Body)
		into := bytes.NewBuffer(make([]byte, 0, max(resp.ContentLength, 0)+bytes.MinRead))
		if _, err := into.ReadFrom(resp.Body); err != nil {
			return fmt.Errorf("%s of %q in %s: %w", r.op, r.key, s, &brokenError{err})
		}
		content = into.Bytes()
		return nil
	})
	return content, err
}

// pageLimit is how many objects one listing may give: the operator may have lowered Swift's 10,000, and says so under /info unless that is closed.
func (s *Swift) pageLimit(ctx context.Context) (int, error) {
	session, err := s.signedIn(ctx, session{})
	if err != nil {
		return 0, err
	}
	s.turn <- struct{}{}
	limit := s.pageSize
	<-s.turn
	if limit > 0 {
		return limit, nil
	}
	limit = 10000
	if u, err := url.Parse(session.url); err == nil {
		u.Path, u.RawQuery = "/info", ""
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
		if err != nil {
			return 0, fmt.Errorf("asking %s for its limits: %w", s, err)
		}
		resp, err := s.client.Do(req)
		if err != nil {
			return 0, fmt.Errorf("asking %s for its limits: %w", s, &brokenError{err})
		}
		defer finish(resp.Body)
		var info struct {
			Swift struct {
				Limit int `json:"container_listing_limit"`
			} `json:"swift"`
		}
		if resp.StatusCode == http.StatusOK && json.NewDecoder(resp.Body).Decode(&info) == nil && info.Swift.Limit > 0 {
			limit = info.Swift.Limit
		}
	}
	s.turn <- struct{}{}
	s.pageSize = limit
	<-s.turn
	return limit, nil
}

// seconds reads Swift's X-Timestamp: seconds since 1970 with a fraction.
func seconds(value string) time.Time {
	whole, fraction, _ := strings.Cut(value, ".")
	s, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return time.Time{}
	}
	n, _ := strconv.ParseInt((fraction + "000000000")[:9], 10, 64)
	return time.Unix(s, n).UTC()
}
