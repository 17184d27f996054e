package sitecheck

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"transship/internal/registry"
)

// Backends looks at the two backends of a move, and at what they have to do with each other.
func Backends(ctx context.Context, from, to *registry.Registry, repository string) []Finding {
	a, b := backend(from), backend(to)
	checks := []func() []Finding{
		func() []Finding { return strangers(ctx, a, b, repository) },
		func() []Finding { return strangers(ctx, b, a, repository) },
	}
	for _, p := range []place{a, b} {
		checks = append(checks,
			func() []Finding { return []Finding{instances(ctx, p, repository)} },
			func() []Finding { return []Finding{deletes(ctx, p, repository), clock(ctx, p)} })
	}
	return together(checks...)
}

// strangers checks that a backend knows nothing of a blob that only the other one was given. Distribution's cache of blob descriptors, when two share one
// (the same Redis and database), makes it claim the blob: clients do not push it then, and the manifest that needs it is broken.
func strangers(ctx context.Context, has, hasNot place, repository string) []Finding {
	what := fmt.Sprintf("%s knows only blobs of its own, none of %s", hasNot, has)
	pushed, err := has.PutBlob(ctx, repository, content())
	if err != nil {
		return []Finding{unknown(what, err)}
	}
	defer remove(ctx, has, repository, pushed)
	findings := []Finding{redirects(ctx, has, repository, pushed)}
	_, claims, err := hasNot.HasBlob(ctx, repository, pushed)
	if err != nil {
		return append(findings, unknown(what, err))
	}
	if !claims {
		return append(findings, well(what))
	}
	q := registry.Exchange{Doing: "reading a blob that it was not given", Method: http.MethodGet, URL: blob(repository, pushed), Repository: repository}
	a, err := hasNot.Exchange(ctx, q)
	if err == nil && a.Status == http.StatusOK && len(a.Body) > 0 {
		return append(findings, bad(what, fmt.Sprintf("it serves a blob that only %s was given: both have one store", has),
			fmt.Sprintf("check backends.%s.url and backends.%s.url, and what each registry stores in", has.Name(), hasNot.Name())))
	}
	return append(findings, bad(what, fmt.Sprintf("it says that it has a blob of %s that only %s was given, and cannot serve it: they share a cache of blob descriptors", repository, has),
		"give each registry a Redis, or a database in it, of its own (redis.db, storage.cache.blobdescriptor), and empty the one that they shared"))
}

// redirects checks that the address to which a registry sends its clients for a blob, its object store's, can be reached.
func redirects(ctx context.Context, r place, repository string, digest v1.Hash) Finding {
	what := r.String() + ": where it sends clients for blobs can be reached"
	q := registry.Exchange{Doing: "reading a blob", Method: http.MethodGet, URL: blob(repository, digest), Repository: repository}
	a, err := r.Exchange(ctx, q)
	if err != nil {
		return unknown(what, err)
	}
	if a.Status/100 != 3 {
		if err := r.Refused(ctx, q, a, http.StatusOK); err != nil {
			return unknown(what, err)
		}
		return well(what)
	}
	to := a.Location()
	if to == nil || to.Host == "" {
		return bad(what, fmt.Sprintf("it answers %d without a Location that says where", a.Status), "switch storage redirects off in the registry: storage.redirect.disable: true")
	}
	if err := reach(ctx, to); err != nil {
		return bad(what, "it sends clients elsewhere, and "+err.Error(), "let clients and movers reach "+to.Host+", or switch storage redirects off in the registry: storage.redirect.disable: true")
	}
	return well(what)
}

// deletes checks that the registry would delete something.
func deletes(ctx context.Context, r place, repository string) Finding {
	what := r.String() + ": it deletes what clients delete"
	q := registry.Exchange{
		Doing: "deleting a manifest that nobody has", Method: http.MethodDelete, URL: &url.URL{Path: "/v2/" + repository + "/manifests/" + nobodys()}, Repository: repository,
	}
	a, err := r.Exchange(ctx, q)
	if err == nil {
		err = r.Refused(ctx, q, a, http.StatusNotFound, http.StatusAccepted)
	}
	switch {
	case err == nil:
		return well(what)
	case errors.Is(err, registry.ErrUnsupported):
		return known(what, "deleting is switched off: deletes of clients cannot be followed there through the registry, and broken images cannot be taken away",
			"set storage.delete.enabled: true in the registry, unless nobody deletes")
	}
	return unknown(what, err)
}
