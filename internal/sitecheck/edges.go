package sitecheck

import (
	"context"

	"transship/internal/registry"
)

// Edges looks at the proxy nodes as clients meet them: one after the other, and each with each other, since nothing keeps a client at one.
func Edges(ctx context.Context, edges []*registry.Registry, repository string) (findings []Finding) {
	var nodes []place
	for _, e := range edges {
		p := node(e)
		nodes = append(nodes, p)
		findings = append(findings, instances(ctx, p, repository))
		findings = append(findings, redirected(ctx, p, repository)...)
		findings = append(findings, clock(ctx, p))
	}
	return append(findings, hops(ctx, nodes, repository)...)
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
