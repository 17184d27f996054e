//go:build lab

package mirror_test

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// forward passes everything on to a server, with the Host that requests are signed for.
func forward(t *testing.T, to string) http.Handler {
	t.Helper()
	target, err := url.Parse(to)
	require.NoError(t, err)
	return &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Host = r.In.Host }, ErrorLog: log.New(io.Discard, "", 0)}
}

func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// counting counts the bytes of request bodies.
type counting struct {
	http.Handler
	bytes atomic.Int64
}

func (c *counting) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.Body = struct {
		io.Reader
		io.Closer
	}{io.TeeReader(r.Body, adder{&c.bytes}), r.Body}
	c.Handler.ServeHTTP(w, r)
}

type adder struct{ n *atomic.Int64 }

func (a adder) Write(p []byte) (int, error) { a.n.Add(int64(len(p))); return len(p), nil }

// gate lets nothing pass while it is closed: connections end without an answer, those with a request under way as well.
type gate struct {
	http.Handler
	closed atomic.Bool
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if g.closed.Load() {
		panic(http.ErrAbortHandler)
	}
	r.Body = &gated{r.Body, g}
	g.Handler.ServeHTTP(w, r)
}

type gated struct {
	io.ReadCloser
	gate *gate
}

func (b *gated) Read(p []byte) (int, error) {
	if b.gate.closed.Load() {
		return 0, http.ErrAbortHandler
	}
	return b.ReadCloser.Read(p)
}

// rewriting replaces an address in what the server says of itself.
type rewriting struct {
	http.Handler
	from, to string
}

func (r *rewriting) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	r.Handler.ServeHTTP(&rewriter{w, r}, q)
}

type rewriter struct {
	http.ResponseWriter
	of *rewriting
}

func (r *rewriter) WriteHeader(status int) {
	for _, name := range []string{"X-Storage-Url"} {
		if value := r.Header().Get(name); value != "" {
			r.Header().Set(name, strings.Replace(value, r.of.from, r.of.to, 1))
		}
	}
	r.ResponseWriter.WriteHeader(status)
}
