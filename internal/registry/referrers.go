package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// apiSupport is what is known about an optional part of a registry's API.
type apiSupport int

const (
	untried apiSupport = iota
	supported
	unsupported
)

// fallbackTag is the tag under which clients list the referrers of a manifest on a registry without the referrers API
// (https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#referrers-tag-schema).
func fallbackTag(digest v1.Hash) string { return digest.Algorithm + "-" + digest.Hex }

// fallbackSubject is the digest whose referrers the tag lists, if it is such a tag.
func fallbackSubject(tag string) (v1.Hash, bool) {
	algorithm, hex, _ := strings.Cut(tag, "-")
	h, err := v1.NewHash(algorithm + ":" + hex)
	return h, err == nil
}

// Referrers lists the manifests that have the given one as their subject: signatures, attestations, SBOMs. Where the registry has no
// referrers API, the fallback tag is read instead. None is not an error.
func (r *Registry) Referrers(ctx context.Context, repository string, digest v1.Hash) ([]v1.Descriptor, error) {
	list, api, err := r.referrersByAPI(ctx, repository, digest)
	if err != nil || api {
		return list, err
	}
	m, err := r.Manifest(ctx, repository, fallbackTag(digest))
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return m.Children, nil
}

// referrersByAPI asks the referrers API; api is false when the registry has none, which is remembered.
func (r *Registry) referrersByAPI(ctx context.Context, repository string, digest v1.Hash) (list []v1.Descriptor, api bool, err error) {
	r.mu.Lock()
	known := r.referrers
	r.mu.Unlock()
	if known == unsupported {
		return nil, false, nil
	}
	q := request{
		doing:  "listing the referrers of " + named(repository, digest.String()),
		method: http.MethodGet, path: "/v2/" + repository + "/referrers/" + digest.String(), scopes: []string{pullScope(repository)},
		header: map[string]string{"Accept": string(types.OCIImageIndex)}, want: []int{http.StatusOK},
	}
	for pages := 0; ; pages++ {
		a, err := r.do(ctx, q)
		var e *Error
		if errors.As(err, &e) && e.Status >= 400 && e.Status < 500 && !e.Temporary && e.Status != http.StatusUnauthorized && e.Status != http.StatusForbidden {
			if known == supported || e.has("NAME_UNKNOWN", "MANIFEST_UNKNOWN") {
				// The registry knows the call but not the repository: there is nothing to list.
				return nil, known == supported, nil
			}
			r.setReferrers(unsupported)
			return nil, false, nil
		}
		if err != nil {
			return nil, false, err
		}
		if !strings.HasPrefix(a.header.Get("Content-Type"), string(types.OCIImageIndex)) {
			r.setReferrers(unsupported)
			return nil, false, nil
		}
		var index v1.IndexManifest
		if err := json.Unmarshal(a.body, &index); err != nil {
			return nil, false, r.fail(ctx, q.doing, fmt.Errorf("%w: %w", errAnswer, err))
		}
		known = supported
		r.setReferrers(supported)
		list = append(list, index.Manifests...)
		next, err := r.nextPage(a)
		if err != nil {
			return nil, false, r.fail(ctx, q.doing, err)
		}
		if next == nil || len(index.Manifests) == 0 || pages > 1000 {
			return list, true, nil
		}
		q.url = next
	}
}

func (r *Registry) setReferrers(s apiSupport) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.referrers = s
}
