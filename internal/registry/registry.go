// Package registry is the registry plane: it reads, copies and compares container images through the OCI distribution API,
// on any registry that speaks it. It is built on go-containerregistry's types and authentication; requests are its own,
// because moving a registry needs things that the library's Puller and Pusher do not give: retries that end with the context,
// errors that say whether trying again can help, and manifests put as they are, without touching the target's referrer tags.
//
// Copier carries repositories from one registry to another, Compare tells whether they agree, Audit finds bad blobs, and
// Estimate says what a copy would cost. Nothing here knows workflows or stores.
package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// Options say where a registry is and how to reach it.
type Options struct {
	// Name is the backend's name. It appears in errors and problems.
	Name string
	// URL is http://host:port or https://host:port, without a path. The scheme is binding: an https registry is never
	// asked over http.
	URL string
	// Username and Password, or Token (a ready bearer token), are sent to this host only. All empty: anonymous.
	Username, Password, Token string
	// CAFile names a PEM file of certificate authorities that are trusted in addition to the system's.
	CAFile string
	// Transport replaces the package's own HTTP transport; CAFile is then ignored.
	Transport http.RoundTripper
	// UserAgent is sent with every request; empty means "transship".
	UserAgent string
	// RetryWait is the pause before the first retry of a request that failed temporarily; each further pause is three
	// times as long. Zero means 250 ms.
	RetryWait time.Duration
}

// Registry is a client of one registry. It is safe for concurrent use, and meant to be kept: it remembers tokens,
// connections and which parts of the API the registry has.
type Registry struct {
	name      string
	base      *url.URL
	host      name.Registry
	auth      authn.Authenticator
	transport http.RoundTripper
	retryWait time.Duration
	pageSize  int

	sessions  sessions
	mu        sync.Mutex
	referrers apiSupport // guarded by mu
}

// New checks the options and returns a client. It makes no request: use Ping for that.
func New(o Options) (*Registry, error) {
	u, err := url.Parse(o.URL)
	switch {
	case err != nil:
		return nil, fmt.Errorf("backend %q: registry URL: %w", o.Name, err)
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("backend %q: registry URL %q: write http://host:port or https://host:port", o.Name, o.URL)
	case u.Host == "":
		return nil, fmt.Errorf("backend %q: registry URL %q has no host", o.Name, o.URL)
	case u.User != nil:
		return nil, fmt.Errorf("backend %q: registry URL holds credentials: set username and password instead", o.Name)
	case (u.Path != "" && u.Path != "/") || u.RawQuery != "":
		return nil, fmt.Errorf("backend %q: registry URL %q has a path: a registry is served from the root of its host", o.Name, o.URL)
	}
	var naming []name.Option
	if u.Scheme == "http" {
		naming = append(naming, name.Insecure)
	}
	host, err := name.NewRegistry(u.Host, naming...)
	if err != nil {
		return nil, fmt.Errorf("backend %q: registry URL %q: %w", o.Name, o.URL, err)
	}
	tr := o.Transport
	if tr == nil {
		if tr, err = newTransport(o.CAFile); err != nil {
			return nil, fmt.Errorf("backend %q: %w", o.Name, err)
		}
	}
	agent := o.UserAgent
	if agent == "" {
		agent = "transship"
	}
	auth := authn.Anonymous
	if o.Token != "" || o.Username != "" || o.Password != "" {
		auth = authn.FromConfig(authn.AuthConfig{Username: o.Username, Password: o.Password, RegistryToken: o.Token})
	}
	wait := o.RetryWait
	if wait <= 0 {
		wait = 250 * time.Millisecond
	}
	return &Registry{
		name:      o.Name,
		base:      &url.URL{Scheme: u.Scheme, Host: u.Host},
		host:      host,
		auth:      auth,
		transport: &guard{inner: tr, host: u.Host, scheme: u.Scheme, agent: agent},
		retryWait: wait,
		pageSize:  pageSize,
	}, nil
}

// Name is the backend's name, as given in Options.
func (r *Registry) Name() string { return r.name }

// Ping asks the registry for its API version, with authentication. It fails when the registry cannot be reached, does not
// speak the distribution API, or refuses the credentials, and says which.
func (r *Registry) Ping(ctx context.Context) error {
	const doing = "asking for the API version (GET /v2/)"
	_, err := r.do(ctx, request{doing: doing, method: http.MethodGet, path: "/v2/", want: []int{http.StatusOK}})
	var e *Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e) && (e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden):
		if r.auth == authn.Anonymous {
			return fmt.Errorf("%w: the registry wants credentials and none are configured", err)
		}
		return fmt.Errorf("%w: the registry refuses the configured credentials", err)
	case errors.As(err, &e) && e.Status == http.StatusNotFound:
		return fmt.Errorf("%w: no registry answers there", err)
	}
	return err
}

// newTransport is http.DefaultTransport with what copying needs: many connections to one host, and no transparent
// decompression, which would hide the length of what was stored.
func newTransport(caFile string) (http.RoundTripper, error) {
	tr := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		ForceAttemptHTTP2:     true,
		MaxIdleConns:          256,
		MaxIdleConnsPerHost:   128,
		IdleConnTimeout:       60 * time.Second,
		TLSHandshakeTimeout:   15 * time.Second,
		ExpectContinueTimeout: time.Second,
		DisableCompression:    true,
		WriteBufferSize:       64 << 10,
		ReadBufferSize:        64 << 10,
	}
	if caFile == "" {
		return tr, nil
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("reading the CA file: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("CA file %s holds no PEM certificate", caFile)
	}
	tr.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	return tr, nil
}
