package sitecheck

import (
	"context"

	"transship/internal/registry"
)

// Edges looks at the proxy nodes as clients meet them: one after the other, and each with each other, since nothing keeps a client at one.
func Edges(ctx context.Context, edges []*registry.Registry, repository string) []Finding {
	var nodes []place
	var checks []func() []Finding
	for _, e := range edges {
		p := node(e)
		nodes = append(nodes, p)
		checks = append(checks,
			func() []Finding { return []Finding{instances(ctx, p, repository)} },
			func() []Finding { return append(redirected(ctx, p, repository), clock(ctx, p)) })
	}
	for _, begin := range nodes {
		checks = append(checks, func() []Finding { return hops(ctx, begin, nodes, repository) })
	}
	return together(checks...)
}

// redirected is redirects through a proxy node, which may say another address than the backend does.
func redirected(ctx context.Context, e place, repository string) []Finding {
	pushed, err := e.PutBlob(ctx, repository, content())
	if err != nil {
		return nil // said of uploads
	}
	defer remove(ctx, e, repository, pushed)
	return []Finding{redirects(ctx, e, repository, pushed)}
}
