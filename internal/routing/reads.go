package routing

import (
	"cmp"
	"fmt"
	"net/netip"
)

// Scope is what may be read from the other backend. A digest that clients delete must stay gone, so the first deletion narrows the scope for good.
type Scope string

const (
	// Nothing is read from the other backend.
	Nothing Scope = ""
	// Blobs are: a manifest was deleted, and the other backend may still have it.
	Blobs Scope = "blobs"
	// Digests are blobs, and manifests by their digest. Tags are always read where they are written.
	Digests Scope = "digests"
)

// Without narrows a scope to what a deletion leaves: nothing when a blob is deleted, blobs when a manifest is.
func (s Scope) Without(blob bool) Scope {
	if blob || s == Nothing {
		return Nothing
	}
	return Blobs
}

// Canary says whose reads by digest try the other backend first, before a flip.
type Canary struct {
	Scope Scope `json:"scope"`
	// Percent of all requests, 0 to 100.
	Percent int `json:"percent,omitempty"`
	// Networks of clients, as CIDRs: all of their requests.
	Networks []string `json:"networks,omitempty"`
}

// Upload is an upload session, or a request that uploads a blob without one.
type Upload struct {
	Repository string `json:"repository"`
	// Session is the ID that the registry gave it; empty for a blob sent or mounted in one request.
	Session string `json:"session,omitempty"`
	// Commits is the digest that a request under way at the drain was committing. Manifests that need it wait until it has been carried over.
	Commits string `json:"commits,omitempty"`
}

// Reads returns the backend that serves reads by digest first, and the one that is asked for what it does not have; "" when there is none.
// Blobs says that it is about a blob, chosen that the canary applies to the request.
func (r Route) Reads(blob, chosen bool) (first, second string) {
	in := func(s Scope) bool { return s == Digests || s == Blobs && blob }
	switch {
	case r.Canary != nil && chosen && in(r.Canary.Scope):
		return r.Other, r.Backend
	case in(r.Fallback):
		return r.Backend, r.Other
	}
	return r.Backend, ""
}

// Scope is the widest of what is read from two backends.
func (r Route) Scope() Scope {
	canary := r.canaryScope()
	if r.Fallback == Digests || canary == Digests {
		return Digests
	}
	return cmp.Or(r.Fallback, canary)
}

// extras tells what is wrong with what a route says beyond backend and mode.
func (r Route) extras() string {
	for _, s := range []Scope{r.Fallback, r.canaryScope()} {
		if s != Nothing && s != Blobs && s != Digests {
			return fmt.Sprintf("has the unknown scope %q", s)
		}
	}
	if (r.Fallback != Nothing || r.Canary != nil || len(r.Uploads) > 0) && r.Other == "" {
		return "reads from, or finishes uploads on, another backend and names none"
	}
	if r.Canary == nil {
		return ""
	}
	if r.Canary.Percent < 0 || r.Canary.Percent > 100 {
		return fmt.Sprintf("has a canary of %d percent", r.Canary.Percent)
	}
	for _, n := range r.Canary.Networks {
		if _, err := netip.ParsePrefix(n); err != nil {
			return fmt.Sprintf("has a canary for the network %q, which is no CIDR", n)
		}
	}
	return ""
}

func (r Route) canaryScope() Scope {
	if r.Canary == nil {
		return Nothing
	}
	return r.Canary.Scope
}
