package objectstore

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"
)

// stall is for how long a connection may carry no byte in either direction before it counts as broken.
const stall = time.Minute

// slow is the same for requests which a store may think about for long: those that put a large object together.
const slow = 10 * time.Minute

var errStalled = errors.New("the connection stalled: no byte came or went for too long")

// newClient makes the HTTP client of one store. caFile holds the certificates to trust besides the system's; empty for only those.
func newClient(caFile string) (*http.Client, error) {
	transport := &http.Transport{
		Proxy:       http.ProxyFromEnvironment,
		DialContext: (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		// As many as a mover has requests under way: a connection that is closed for want of a place costs more than most requests.
		MaxIdleConnsPerHost: 256,
		// Below what Swift's proxies and common load balancers allow, so that it is we who close, never they just when we write.
		IdleConnTimeout:     30 * time.Second,
		TLSHandshakeTimeout: 10 * time.Second,
		DisableCompression:  true,
		ReadBufferSize:      64 << 10,
		WriteBufferSize:     64 << 10,
	}
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("reading the certificates to trust: %w", err)
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate: %w", caFile, errInvalid)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return &http.Client{
		Transport:     watched{transport, stall},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// watched ends requests whose connection stalls. Bodies may take as long as they need as long as they move.
type watched struct {
	next  http.RoundTripper
	stall time.Duration
}

type stallKey struct{}

// patiently allows the requests made with ctx to stand still for longer.
func patiently(ctx context.Context, d time.Duration) context.Context {
	return context.WithValue(ctx, stallKey{}, d)
}

// RoundTrip implements http.RoundTripper.
func (w watched) RoundTrip(req *http.Request) (*http.Response, error) {
	d := w.stall
	if longer, ok := req.Context().Value(stallKey{}).(time.Duration); ok {
		d = longer
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	watch := &watch{timer: time.AfterFunc(d, func() { cancel(errStalled) }), stall: d, ctx: ctx, cancel: cancel}
	req = req.WithContext(ctx)
	if req.Body != nil && req.Body != http.NoBody {
		req.Body = &sending{req.Body, watch}
		if again := req.GetBody; again != nil {
			req.GetBody = func() (io.ReadCloser, error) {
				body, err := again()
				return &sending{body, watch}, err
			}
		}
	}
	resp, err := w.next.RoundTrip(req)
	watch.answered.Store(true)
	watch.timer.Stop()
	if err != nil {
		defer cancel(nil)
		return nil, watch.because(err)
	}
	resp.Body = &receiving{resp.Body, watch}
	return resp, nil
}

type watch struct {
	timer  *time.Timer
	stall  time.Duration
	ctx    context.Context
	cancel context.CancelCauseFunc
	// answered: what is still taken from the request's body no longer matters.
	answered atomic.Bool
}

func (w *watch) because(err error) error {
	if errors.Is(context.Cause(w.ctx), errStalled) {
		return fmt.Errorf("%w (%s)", errStalled, w.stall)
	}
	return err
}

// sending is the body of a request: the watch begins anew with each piece that is taken from it.
type sending struct {
	io.ReadCloser
	watch *watch
}

func (s *sending) Read(p []byte) (int, error) {
	if !s.watch.answered.Load() {
		s.watch.timer.Reset(s.watch.stall)
	}
	return s.ReadCloser.Read(p)
}

// receiving is the body of an answer: the watch runs while somebody waits for a piece of it, not while nobody wants one.
type receiving struct {
	io.ReadCloser
	watch *watch
}

func (r *receiving) Read(p []byte) (int, error) {
	r.watch.timer.Reset(r.watch.stall)
	n, err := r.ReadCloser.Read(p)
	r.watch.timer.Stop()
	if err != nil && err != io.EOF {
		err = r.watch.because(err)
	}
	return n, err
}

func (r *receiving) Close() error {
	r.watch.timer.Stop()
	defer r.watch.cancel(nil)
	return r.ReadCloser.Close()
}

// finish reads what little may be left of an answer, so that its connection can be used again, and closes it.
func finish(body io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, body, 64<<10)
	_ = body.Close()
}
