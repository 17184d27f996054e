package registry

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// sessions holds the authenticated HTTP clients of a registry. A registry with token authentication needs one for each set of
// scopes; all others share a single one, so that a repository more costs no request more.
type sessions struct {
	mu      sync.Mutex
	shared  *http.Client
	byScope map[string]*http.Client
}

// maxSessions bounds the clients kept for token authentication; a prefix has fewer repositories than this as a rule.
const maxSessions = 4096

func pullScope(repository string) string   { return "repository:" + repository + ":pull" }
func pushScope(repository string) string   { return "repository:" + repository + ":push,pull" }
func deleteScope(repository string) string { return "repository:" + repository + ":delete,pull" }

const catalogScope = "registry:catalog:*"

// client returns an HTTP client that is allowed the scopes, authenticating first if it must.
func (r *Registry) client(ctx context.Context, scopes []string) (*http.Client, error) {
	key := strings.Join(scopes, " ")
	r.sessions.mu.Lock()
	if c := r.sessions.shared; c != nil {
		r.sessions.mu.Unlock()
		return c, nil
	}
	if c := r.sessions.byScope[key]; c != nil {
		r.sessions.mu.Unlock()
		return c, nil
	}
	r.sessions.mu.Unlock()

	// The library's own ping hides why it failed behind its attempt to reach the registry over the other scheme as well.
	token, err := r.wantsToken(ctx)
	if err != nil {
		return nil, err
	}
	tr, err := transport.NewWithContext(ctx, r.host, r.auth, r.transport, scopes)
	if err != nil {
		return nil, r.fail(ctx, "authenticating", err)
	}
	c := &http.Client{Transport: tr}
	r.sessions.mu.Lock()
	defer r.sessions.mu.Unlock()
	if !token {
		if r.sessions.shared == nil {
			r.sessions.shared = c
		}
		return r.sessions.shared, nil
	}
	if r.sessions.byScope == nil || len(r.sessions.byScope) >= maxSessions {
		r.sessions.byScope = map[string]*http.Client{}
	}
	r.sessions.byScope[key] = c
	return c, nil
}

// wantsToken asks the registry, without credentials, whether it sends clients to a token server.
func (r *Registry) wantsToken(ctx context.Context) (bool, error) {
	const doing = "asking how to authenticate (GET /v2/)"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.base.String()+"/v2/", nil)
	if err != nil {
		return false, r.fail(ctx, doing, err)
	}
	resp, err := (&http.Client{Transport: r.transport}).Do(req)
	if err != nil {
		return false, r.fail(ctx, doing, err)
	}
	defer resp.Body.Close()
	if err := transport.CheckError(resp, http.StatusOK, http.StatusUnauthorized); err != nil {
		return false, r.fail(ctx, doing, err)
	}
	for _, challenge := range resp.Header.Values("WWW-Authenticate") {
		if strings.HasPrefix(strings.ToLower(challenge), "bearer") {
			return true, nil
		}
	}
	return false, nil
}

// guard keeps requests to the registry on the configured scheme: the library tries https before http and, for loopback and
// private addresses, http after https, where credentials would go out in the clear.
type guard struct {
	inner               http.RoundTripper
	host, scheme, agent string
}

// RoundTrip refuses the other scheme and names the program; everything else is the inner transport's.
func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Host == g.host && req.URL.Scheme != g.scheme {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, fmt.Errorf("%w: %s is configured as %s", errScheme, g.host, g.scheme)
	}
	req = req.Clone(req.Context())
	req.Header.Set("User-Agent", g.agent)
	return g.inner.RoundTrip(req)
}
