package routing

import "time"

// Names of the messages that the Routes workflow takes. Each is an Update with the request of the same name, and answers with what
// the table is afterwards.
const (
	UpdateClaim   = "claim"
	UpdateWatch   = "watch"
	UpdateHold    = "hold"
	UpdateFlip    = "flip"
	UpdateRelease = "release"
	UpdateDisown  = "disown"
	// UpdateSettle tells that Request.Uploads have ended and been carried over.
	UpdateSettle = "settle"
	// UpdateNarrow narrows what is read from the other backend, because a client deletes: Request.Deletes.
	UpdateNarrow = "narrow"
	// UpdateCanary sets, changes or ends a read canary: Request.Canary.
	UpdateCanary = "canary"
	// UpdateLeaveOut goes on without Request.Without.
	UpdateLeaveOut = "leave-out"
	// QueryTable answers with the present Routing.
	QueryTable = "table"
	// SignalEdgeAsks is sent by an edge that started, or whose lease ran out; it carries an EdgeAsks.
	SignalEdgeAsks = "edge-asks"
)

// RoutesWorkflow is the ID of the only writer of the routing table.
const RoutesWorkflow = "routes"

// Request says which migration asks for what.
type Request struct {
	Prefix Prefix `json:"prefix"`
	// Owner is the workflow ID of the migration.
	Owner string `json:"owner"`
	// Hold names the freeze, for hold, flip and release.
	Hold string `json:"hold,omitempty"`
	// Lease is how long edges may hold writes, for hold and flip.
	Lease time.Duration `json:"lease,omitempty"`
	// Beside has a hold wait no longer for the freeze of another prefix.
	Beside bool `json:"beside,omitempty"`
	// From and To are the backends of the migration, for claim.
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
	// Without are edges that a flip goes without, by order of an operator: they are down. Each refuses the prefix's writes when it returns, until it
	// has the present table.
	Without []string `json:"without,omitempty"`
	// Uploads are those that are open, for flip, or that have ended, for settle.
	Uploads []Upload `json:"uploads,omitempty"`
	// Deletes is what a client is about to delete, for narrow.
	Deletes Deletes `json:"deletes,omitempty"`
	// Canary is nil when there is to be none.
	Canary *Canary `json:"canary,omitempty"`
	// Default and Edges are the site as the asker's configuration has it, for claim.
	Default string   `json:"default,omitempty"`
	Edges   []string `json:"edges,omitempty"`
}

// Deletes says what sort of thing is deleted.
type Deletes string

const (
	// DeletesManifest and DeletesBlob are deletions by digest.
	DeletesManifest Deletes = "manifest"
	DeletesBlob     Deletes = "blob"
)

// Routing is the table with what is known of the edges.
type Routing struct {
	Table Table       `json:"table"`
	Edges []EdgeState `json:"edges"`
	// Freezes are the holds that this change ended, by edge.
	Freezes []Freeze `json:"freezes,omitempty"`
}

// EdgeState is what Routes knows of an edge.
type EdgeState struct {
	Edge string `json:"edge"`
	// Generation is the newest that the edge has confirmed.
	Generation int64     `json:"generation"`
	Seen       time.Time `json:"seen"`
	// Trouble is why it has not confirmed a newer one.
	Trouble string `json:"trouble,omitempty"`
	// LeftOut says that flips go on without this edge, by order, until it has the present table again.
	LeftOut bool `json:"left_out,omitempty"`
}

// Freeze is one hold as an edge measured it, on its own clock.
type Freeze struct {
	Edge   string `json:"edge"`
	Prefix Prefix `json:"prefix"`
	Hold   string `json:"hold"`
	// Began is when the gate began to park.
	Began time.Time `json:"began"`
	// Lasted is until the gate let writes go on.
	Lasted time.Duration `json:"lasted_ns"`
	// Longest is the longest that a write waited.
	Longest time.Duration `json:"longest_ns"`
	// Parked counts the writes that waited.
	Parked int `json:"parked"`
}

// EdgeAsks is the question of an edge what it should be doing.
type EdgeAsks struct {
	Edge string `json:"edge"`
	// Table is the one that the edge has. Routes takes it over when it is newer than its own, as after the loss of Temporal's database: what an
	// edge serves by is the truth then.
	Table Table `json:"table"`
	// RanOut is the hold whose lease ran out unrenewed, if that is why the edge asks.
	RanOut string `json:"ran_out,omitempty"`
}

// Kinds of errors with which Routes and the edges refuse, as Temporal application error types.
const (
	// RefusedOverlap: another migration has claimed the prefix, or one that shares repositories with it.
	RefusedOverlap = "Overlap"
	// RefusedHoldLost: the hold ran out, or another step came in between.
	RefusedHoldLost = "HoldLost"
	// RefusedBusy: another prefix is frozen; ask again.
	RefusedBusy = "Busy"
	// RefusedNotDrained: writes in flight did not end in time.
	RefusedNotDrained = "NotDrained"
	// RefusedFiles: nginx does not accept the new files, or they cannot be written.
	RefusedFiles = "FilesRejected"
	// RefusedStale: the edge has a newer table.
	RefusedStale = "StaleTable"
	// RefusedEdge: an edge did not take the table.
	RefusedEdge = "EdgeRefused"
)
