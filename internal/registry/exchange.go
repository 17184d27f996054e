package registry

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Exchange is a request that is made once, as it is, on a connection of its own: nothing is tried again and no redirect is followed. It is for looking at
// how a registry behaves; whoever wants its content uses the other methods.
type Exchange struct {
	// Doing says for errors what it is for.
	Doing  string
	Method string
	// URL is an address that a registry gave; without a host it is of this registry.
	URL    *url.URL
	Header map[string]string
	Body   []byte
	// Repository is what it asks to push to, pull from and delete in; empty for what belongs to none.
	Repository string
}

// Answer is what came of it.
type Answer struct {
	Status int
	Header http.Header
	// Body is no more than the beginning of a long one.
	Body []byte
	// URL is the address that was asked.
	URL *url.URL
	// Began and Ended are when, by our own clock.
	Began, Ended time.Time
}

// Location is the address in the header of that name, made absolute; nil when there is none.
func (a Answer) Location() *url.URL {
	to, err := url.Parse(a.Header.Get("Location"))
	if err != nil || a.Header.Get("Location") == "" {
		return nil
	}
	return a.URL.ResolveReference(to)
}

// exchangeLimit bounds an exchange: those who look have a person waiting.
const exchangeLimit = 10 * time.Second

// Exchange makes the request. Any status is an answer; use Refused for those that are not the one hoped for.
func (r *Registry) Exchange(ctx context.Context, q Exchange) (Answer, error) {
	inner, cancel := context.WithTimeout(ctx, exchangeLimit)
	defer cancel()
	var scopes []string
	if q.Repository != "" {
		scopes = []string{pushScope(q.Repository), deleteScope(q.Repository)}
	}
	authenticated, err := r.client(inner, scopes)
	if err != nil {
		return Answer{}, err
	}
	address := *q.URL
	if address.Host == "" {
		address.Scheme, address.Host = r.base.Scheme, r.base.Host
	}
	req, err := http.NewRequestWithContext(inner, q.Method, address.String(), bytes.NewReader(q.Body))
	if err != nil {
		return Answer{}, fmt.Errorf("backend %s: %s: %w", r.name, q.Doing, err)
	}
	for k, v := range q.Header {
		req.Header.Set(k, v)
	}
	req.Close = true
	client := &http.Client{Transport: authenticated.Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	a := Answer{URL: &address, Began: time.Now()}
	resp, err := client.Do(req)
	a.Ended = time.Now()
	if err != nil {
		return Answer{}, r.fail(ctx, q.Doing, err)
	}
	defer resp.Body.Close()
	a.Status, a.Header = resp.StatusCode, resp.Header
	if a.Body, err = io.ReadAll(io.LimitReader(resp.Body, 64<<10)); err != nil {
		return Answer{}, r.fail(ctx, q.Doing, err)
	}
	return a, nil
}

// Refused is the error of an answer with another status than the wanted ones; nil when it has one of them.
func (r *Registry) Refused(ctx context.Context, q Exchange, a Answer, want ...int) error {
	resp := &http.Response{
		StatusCode: a.Status, Header: a.Header, Body: io.NopCloser(bytes.NewReader(a.Body)),
		Request: &http.Request{Method: q.Method, URL: a.URL},
	}
	if err := transport.CheckError(resp, want...); err != nil {
		return r.fail(ctx, q.Doing, err)
	}
	return nil
}
