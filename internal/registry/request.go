package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

const (
	// tries is how often a request, or the upload of a blob, is made in all before a temporary failure is given to the caller.
	tries = 4
	// maxAnswer bounds what is read of an answer that is not a blob: a list of half a million tags fits.
	maxAnswer = 64 << 20
	// answerLimit bounds one try of a request that is not a blob.
	answerLimit = 2 * time.Minute
	// listLimit bounds one try of reading a page of the catalog, for which Distribution walks its store.
	listLimit = 15 * time.Minute
)

// errAnswer: the registry answered something that is no answer to the request.
var errAnswer = errors.New("unexpected answer")

// request is one call of the API whose answer fits in memory.
type request struct {
	doing  string // what is being done and to what, for errors
	method string
	path   string
	url    *url.URL // instead of path: an address that the registry gave
	query  url.Values
	header map[string]string
	body   []byte
	scopes []string
	want   []int
	limit  time.Duration // of one try; zero: answerLimit
}

// reply is the answer to a request.
type reply struct {
	status int
	header http.Header
	body   []byte
	length int64 // Content-Length, -1 when unknown
	url    *url.URL
}

// do makes the request, again when it failed temporarily. Every method of the API that it is used for may be repeated safely.
func (r *Registry) do(ctx context.Context, q request) (*reply, error) {
	wait := r.retryWait
	for try := 1; ; try++ {
		a, after, err := r.once(ctx, q)
		if err == nil || !IsTemporary(err) || try == tries {
			return a, err
		}
		if !sleep(ctx, max(jitter(wait), after)) {
			return nil, r.fail(ctx, q.doing, err)
		}
		wait *= 3
	}
}

// once makes the request one time. after is how long the registry asked to be left alone.
func (r *Registry) once(ctx context.Context, q request) (a *reply, after time.Duration, err error) {
	limit := q.limit
	if limit == 0 {
		limit = answerLimit
	}
	try, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	client, err := r.client(try, q.scopes)
	if err != nil {
		return nil, 0, r.fail(ctx, q.doing, err)
	}
	var body io.Reader
	if q.body != nil {
		body = bytes.NewReader(q.body)
	}
	req, err := http.NewRequestWithContext(try, q.method, r.address(q), body)
	if err != nil {
		return nil, 0, fmt.Errorf("backend %s: %s: %w", r.name, q.doing, err)
	}
	for k, v := range q.header {
		req.Header.Set(k, v)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, 0, r.fail(ctx, q.doing, err)
	}
	defer resp.Body.Close()
	if err := transport.CheckError(resp, q.want...); err != nil {
		return nil, retryAfter(resp), r.fail(ctx, q.doing, err)
	}
	content, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, 0, r.fail(ctx, q.doing, err)
	}
	if len(content) > maxAnswer {
		return nil, 0, r.fail(ctx, q.doing, fmt.Errorf("%w: longer than %d bytes", errAnswer, maxAnswer))
	}
	return &reply{status: resp.StatusCode, header: resp.Header, body: content, length: resp.ContentLength, url: resp.Request.URL}, 0, nil
}

func (r *Registry) address(q request) string {
	u := q.url
	if u == nil {
		u = &url.URL{Scheme: r.base.Scheme, Host: r.base.Host, Path: q.path}
	}
	if len(q.query) == 0 {
		return u.String()
	}
	with := *u
	values := with.Query()
	for k, v := range q.query {
		values[k] = v
	}
	with.RawQuery = values.Encode()
	return with.String()
}

// retryAfter reads the header of that name, in seconds; half a minute at most, since a caller's heartbeat must not starve.
func retryAfter(resp *http.Response) time.Duration {
	seconds, err := strconv.Atoi(resp.Header.Get("Retry-After"))
	if err != nil || seconds < 0 {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, 30*time.Second)
}

// sleep waits and reports true, or false as soon as ctx ends.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// jitter spreads retries, so that many movers do not return all at once.
func jitter(d time.Duration) time.Duration { return d + time.Duration(rand.Int64N(int64(d)/4+1)) }
