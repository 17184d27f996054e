// Package sitecheck looks at registries and proxy nodes for what spoils a migration although each of them serves well by itself: caches, secrets and
// clocks that do not agree, uploads that cannot change their way, addresses that nobody reaches, deletes that are refused. It pushes small blobs to
// the repository for probes, and deletes them again.
package sitecheck

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"transship/internal/edge"
	"transship/internal/registry"
)

// Finding is one precondition, and how to meet it when it is not met.
type Finding = edge.Finding

// place is a registry, or a proxy node, by what it is called to people.
type place struct {
	*registry.Registry
	kind string
}

func backend(r *registry.Registry) place { return place{r, "backend"} }
func node(r *registry.Registry) place    { return place{r, "edge"} }

func (p place) String() string { return p.kind + " " + p.Name() }

// well, bad, known and unknown make findings: that it is so, that it must be mended, that it should be known, and that it could not be seen.
func well(what string) Finding { return Finding{What: what, OK: true} }

func bad(what, detail, cure string) Finding { return Finding{What: what, Detail: detail, Cure: cure} }

func known(what, detail, cure string) Finding {
	return Finding{What: what, Detail: detail, Cure: cure, Warning: true}
}

func unknown(what string, err error) Finding {
	cure := "look again when it answers"
	var answered *registry.Error
	if errors.As(err, &answered) && (answered.Status == http.StatusUnauthorized || answered.Status == http.StatusForbidden) {
		cure = "give transship's user the right to push to the repository for probes (prefixes.probe), or see to it yourself"
	}
	return known(what, "could not be looked at: "+err.Error(), cure)
}

// together runs checks side by side, since each waits for answers most of its time, and keeps their order.
func together(checks ...func() []Finding) []Finding {
	found := make([][]Finding, len(checks))
	var wait sync.WaitGroup
	for i, check := range checks {
		wait.Go(func() { found[i] = check() })
	}
	wait.Wait()
	return slices.Concat(found...)
}

// content is a blob that nobody else has.
func content() []byte {
	raw := make([]byte, 64)
	_, _ = rand.Read(raw) // never fails (crypto/rand)
	return raw
}

// nobodys is a digest that no registry has.
func nobodys() string {
	raw := make([]byte, 32)
	_, _ = rand.Read(raw)
	return "sha256:" + hex.EncodeToString(raw)
}

func blob(repository string, digest v1.Hash) *url.URL {
	return &url.URL{Path: "/v2/" + repository + "/blobs/" + digest.String()}
}

// remove deletes a blob that we pushed. That is a courtesy: a registry that deletes nothing keeps a few bytes.
func remove(ctx context.Context, r place, repository string, digest v1.Hash) {
	_, _ = r.Exchange(context.WithoutCancel(ctx), registry.Exchange{
		Doing: "removing a probe's blob", Method: http.MethodDelete, URL: blob(repository, digest), Repository: repository,
	})
}

// dialLimit is how long an address may take to answer before it counts as out of reach.
const dialLimit = 3 * time.Second

// reach dials the host of an address.
func reach(ctx context.Context, u *url.URL) error {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return fmt.Errorf("%s cannot be reached from this worker: %w", u.Host, err)
	}
	return conn.Close()
}
