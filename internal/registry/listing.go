package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"transship/internal/routing"
)

// pageSize is asked for where lists come in pages: the most that Distribution 2.8 gives by default, and that ECR allows.
const pageSize = 1000

// Repositories lists the names of the repositories under the prefix, sorted; an empty prefix means all. The whole catalog is read,
// whatever its order: Distribution sorts "a/b" before "a-b", other registries not at all, so stopping at the first name beyond
// the prefix would lose repositories. What a registry leaves out of its catalog is not found: Distribution lists a repository only
// when it has, or had, a layer or config of its own.
func (r *Registry) Repositories(ctx context.Context, prefix routing.Prefix) ([]string, error) {
	var found []string
	err := r.pages(ctx, "listing repositories (_catalog)", "/v2/_catalog", catalogScope, func(body []byte) (names []string, err error) {
		var page struct {
			Repositories []string `json:"repositories"`
		}
		if err := json.Unmarshal(body, &page); err != nil {
			return nil, err
		}
		for _, name := range page.Repositories {
			if prefix == "" || prefix.Contains(name) {
				found = append(found, name)
			}
		}
		return page.Repositories, nil
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}

// Tags lists the tags of a repository, sorted by bytes. A repository that does not exist, or has no tag, gives nil and no error.
func (r *Registry) Tags(ctx context.Context, repository string) ([]string, error) {
	var found []string
	doing := "listing the tags of " + repository
	err := r.pages(ctx, doing, "/v2/"+repository+"/tags/list", pullScope(repository), func(body []byte) ([]string, error) {
		var page struct {
			Tags []string `json:"tags"`
		}
		if err := json.Unmarshal(body, &page); err != nil {
			return nil, err
		}
		found = append(found, page.Tags...)
		return page.Tags, nil
	})
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}

// pages reads a list page by page until the registry gives no next page, or one that brings nothing new.
func (r *Registry) pages(ctx context.Context, doing, path, scope string, read func(body []byte) (names []string, err error)) error {
	q := request{doing: doing, method: http.MethodGet, path: path, scopes: []string{scope}, want: []int{http.StatusOK}, limit: listLimit,
		query: url.Values{"n": {strconv.Itoa(r.pageSize)}}}
	size := r.pageSize
	seen := map[string]bool{}
	asked := map[string]bool{}
	for {
		address := r.address(q)
		if asked[address] {
			return r.fail(ctx, doing, fmt.Errorf("%w: the next page is one that was read already", errAnswer))
		}
		asked[address] = true
		a, err := r.do(ctx, q)
		var refused *Error
		if len(asked) == 1 && errors.As(err, &refused) && refused.Status == http.StatusBadRequest {
			// A registry may allow less per page than we ask for (Distribution: catalog.maxentries) and then refuses: take its default.
			q.query, size = nil, 0
			continue
		}
		if err != nil {
			return err
		}
		names, err := read(a.body)
		if err != nil {
			return r.fail(ctx, doing, fmt.Errorf("%w: %w", errAnswer, err))
		}
		fresh := false
		for _, name := range names {
			fresh = fresh || !seen[name]
			seen[name] = true
		}
		next, err := r.nextPage(a)
		if err != nil {
			return r.fail(ctx, doing, err)
		}
		switch {
		case next != nil:
			q.url, q.query = next, nil
		case size > 0 && len(names) == size && fresh:
			// A full page without a link to the next: some registries page by "last" alone.
			q.url, q.query = nil, url.Values{"n": {strconv.Itoa(size)}, "last": {names[len(names)-1]}}
		default:
			return nil
		}
	}
}

// nextPage reads the Link header (RFC 8288, rel="next"). It must lead to this registry: a list is no reason to talk to another host.
func (r *Registry) nextPage(a *reply) (*url.URL, error) {
	for _, link := range a.header.Values("Link") {
		target, params, ok := strings.Cut(link, ">")
		if !ok || !strings.HasPrefix(target, "<") {
			return nil, fmt.Errorf("%w: Link header %q", errAnswer, link)
		}
		if strings.Contains(params, "rel=") && !strings.Contains(params, "next") {
			continue
		}
		u, err := url.Parse(target[1:])
		if err != nil {
			return nil, fmt.Errorf("%w: Link header: %w", errAnswer, err)
		}
		u = a.url.ResolveReference(u)
		// Behind a proxy that speaks TLS a registry may not know its own scheme or host; only path and query matter.
		return &url.URL{Scheme: r.base.Scheme, Host: r.base.Host, Path: u.Path, RawPath: u.RawPath, RawQuery: u.RawQuery}, nil
	}
	return nil, nil
}
