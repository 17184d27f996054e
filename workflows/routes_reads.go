package workflows

import (
	"slices"

	"go.temporal.io/sdk/workflow"

	"transship/internal/routing"
)

// settle takes uploads from the table that have ended and were carried over. It answers when every edge that can be reached knows.
func (r *routes) settle(ctx workflow.Context, q routing.Request) error {
	route, ok := r.Table.Lookup(q.Prefix)
	if !ok || route.Owner != q.Owner {
		return nil
	}
	left := slices.DeleteFunc(slices.Clone(route.Uploads), func(u routing.Upload) bool { return slices.Contains(q.Uploads, u) })
	if len(left) == len(route.Uploads) {
		return nil
	}
	route.Uploads = left
	_ = r.push(ctx, r.Table.With(route), bounded)
	return nil
}

// narrow takes from every edge what a client is about to delete: first no edge reads it from the other backend any more, and then deletions go on.
func (r *routes) narrow(ctx workflow.Context, q routing.Request) error {
	route, _ := r.Table.Lookup(q.Prefix)
	blob := q.Deletes == routing.DeletesBlob
	fallback, canary := route.Fallback.Without(blob), route.Canary
	if canary != nil {
		narrowed := *canary
		narrowed.Scope = canary.Scope.Without(blob)
		canary = &narrowed
	}
	if !route.Narrowing && fallback == route.Fallback && (canary == nil || canary.Scope == route.Canary.Scope) {
		return nil
	}
	route.Fallback, route.Canary, route.Narrowing = fallback, canary, true
	if err := r.push(ctx, r.Table.With(route), bounded); err != nil {
		return err
	}
	route.Narrowing = false
	_ = r.push(ctx, r.Table.With(route), bounded)
	return nil
}

// canary sets, changes or ends a read canary, on every edge or on none.
func (r *routes) canary(ctx workflow.Context, q routing.Request) error {
	route, _ := r.Table.Lookup(q.Prefix)
	if route.Mode != routing.Watched || route.Fallback != routing.Nothing {
		return refuse(routing.RefusedHoldLost, "%s is %s at %s: a canary comes before the flip", q.Prefix, route.Mode, route.Backend)
	}
	before := route
	if q.Canary != nil && route.Canary != nil { // what was narrowed stays so
		q.Canary.Scope = route.Canary.Scope
	}
	route.Canary = q.Canary
	if err := r.push(ctx, r.Table.With(route), bounded); err != nil {
		r.back(ctx, before)
		return err
	}
	return nil
}
