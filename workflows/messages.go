// Package workflows sequences migrations: deterministic code only, with the names and types of every message that people and programs
// may send. Start reading at Migrate.
package workflows

import (
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"

	"transship/activities"
	"transship/internal/journal"
	"transship/internal/mirror"
	"transship/internal/policy"
	"transship/internal/report"
	"transship/internal/routing"
)

// Task queues. A worker polls those of the roles it runs.
const (
	// Queue takes workflows and the activities that talk to Temporal, chats and checks.
	Queue = "transship"
	// MoverQueue takes the activities that carry data: more workers on it carry more.
	MoverQueue = "transship-movers"
)

// EdgeQueue is polled by the worker on one proxy node.
func EdgeQueue(edge string) string { return "edge/" + edge }

// MigrateID is the workflow ID of the migration of a prefix: Temporal itself refuses a second one.
func MigrateID(p routing.Prefix) string { return "migrate/" + p.String() }

// PrefixOf is the prefix of a migration's workflow ID.
func PrefixOf(id string) string { return strings.TrimPrefix(id, "migrate/") }

// Search attributes of migrations.
var (
	AttrPrefix   = temporal.NewSearchAttributeKeyKeyword("TransshipPrefix")
	AttrPhase    = temporal.NewSearchAttributeKeyKeyword("TransshipPhase")
	AttrFrom     = temporal.NewSearchAttributeKeyKeyword("TransshipFrom")
	AttrTo       = temporal.NewSearchAttributeKeyKeyword("TransshipTo")
	AttrOperator = temporal.NewSearchAttributeKeyKeyword("TransshipOperator")
	AttrOutcome  = temporal.NewSearchAttributeKeyKeyword("TransshipOutcome")
	AttrWaits    = temporal.NewSearchAttributeKeyKeyword("TransshipWaitsFor")
)

// Phases of a migration, in order. Each is a step that Migrate names.
const (
	Plan        = "plan"
	Announce    = "announce"
	SourceAudit = "source-audit"
	Mirror      = "mirror"
	Verify      = "verify"
	Converge    = "converge"
	// ReadCanary is a part of converge, where a policy asks for it.
	ReadCanary = "canary"
	Approval   = "approval"
	Freeze     = "freeze"
	Drain      = "drain"
	LastDelta  = "last-delta"
	VerifyLast = "verify-last"
	Flip       = "flip"
	Release    = "release"
	Stragglers = "stragglers"
	Probe      = "probe"
	Soak       = "soak"
	Finalize   = "finalize"
	Rollback   = "rollback"
	Done       = "done"
)

// MigrateInput starts a migration. It carries what the starter's configuration says, so that the history shows under which rules it ran;
// backends and edges are names, which each worker looks up in its own configuration.
type MigrateInput struct {
	Prefix routing.Prefix `json:"prefix"`
	From   string         `json:"from"`
	To     string         `json:"to"`
	// Storage says that both backends have an object store that movers reach: images move below the registries.
	Storage bool `json:"storage,omitempty"`
	// Repositories is set where the registry has no catalog; of no use with Storage.
	Repositories []string `json:"repositories,omitempty"`
	// Probe is the repository that probes push to.
	Probe string `json:"probe"`
	// Default is the backend of everything that no route names.
	Default  string        `json:"default"`
	Edges    []string      `json:"edges"`
	Policy   policy.Policy `json:"policy"`
	Notify   []string      `json:"notify,omitempty"`
	Operator string        `json:"operator"`
	// Link is where the Temporal UI shows workflows, for messages to people.
	Link string `json:"link,omitempty"`
	// Without are edges that are down from the start; see Command.
	Without []string `json:"without,omitempty"`
	// State is what a continued run goes on from; nobody else sets it.
	State *State `json:"state,omitempty"`
}

// Names of the Updates that a migration takes. Each carries a Command and answers with an Answer; each is refused, with the reason and
// without a trace in the history, where it makes no sense.
const (
	UpdateApprove  = "approve"
	UpdatePause    = "pause"
	UpdateResume   = "resume"
	UpdateRollback = "rollback"
	UpdateAbort    = "abort"
	UpdateFinalize = "finalize"
	// UpdateThrottle changes Command.Throttle's bounds while a migration runs.
	UpdateThrottle = "throttle"
	// UpdateCarry is sent by edges, with a CarryRequest.
	UpdateCarry = "carry"
	// QueryStatus answers with a Status.
	QueryStatus = "status"
)

// Command is something that a person tells a migration.
type Command struct {
	By     string `json:"by"`
	Reason string `json:"reason,omitempty"`
	// AcceptLoss lets a rollback go on although the target cannot give back what was pushed to it; only for rollback.
	AcceptLoss bool `json:"accept_loss,omitempty"`
	// Throttle is what all movers together may ask of each store from now on, without bound where it is 0; only for throttle.
	Throttle activities.Throttle `json:"throttle,omitzero"`
	// Without are edges that are down, and that flips from now on go without; for resume and rollback. Whoever says so vouches that they serve nobody.
	Without []string `json:"without,omitempty"`
}

// CarryRequest asks a migration to bring what a backend acknowledged to the other one, now: what an upload committed that outlasted a freeze, or a digest that
// a read found only there. The update ends when it is there.
type CarryRequest struct {
	Edge    string           `json:"edge"`
	From    string           `json:"from"`
	Changes []journal.Change `json:"changes,omitempty"`
	// Ended are uploads of the routing table that are over by it.
	Ended []routing.Upload `json:"ended,omitempty"`
}

// Answer says what a command did.
type Answer struct {
	Message string `json:"message"`
	Phase   string `json:"phase"`
}

// Status is a migration as an operator sees it.
type Status struct {
	Phase string `json:"phase"`
	// Waits says what the migration waits for, and how to give it; empty when it is at work.
	Waits  string `json:"waits,omitempty"`
	Paused bool   `json:"paused,omitempty"`
	// Serving is the backend that has the prefix now.
	Serving string `json:"serving"`
	// Carried is up to where each edge's journal of Serving has been carried to the other backend.
	Carried map[string]journal.Position `json:"carried,omitempty"`
	Report  report.Report               `json:"report"`
}

// State is what a migration has come to, apart from the report. All of it survives continue-as-new.
type State struct {
	// Next is the index of the next step.
	Next int `json:"next"`
	// Repositories are those of the mirror; with Storage, it is Shards.
	Repositories []string       `json:"repositories,omitempty"`
	Shards       []mirror.Shard `json:"shards,omitempty"`
	// Throttle bounds what all movers together ask of each store.
	Throttle activities.Throttle `json:"throttle,omitzero"`
	// Before names manifests that the target had before.
	Before []string `json:"before,omitempty"`
	// Claimed says that Routes knows this migration.
	Claimed bool `json:"claimed,omitempty"`
	// Flipped says that the target serves the prefix.
	Flipped bool `json:"flipped,omitempty"`
	// Without are edges that are down, by order of an operator.
	Without []string `json:"without,omitempty"`
	// Unread are those of them that had taken writes whose journal nobody can read; UnreadSince is when the last of them was left out.
	Unread      []string  `json:"unread,omitempty"`
	UnreadSince time.Time `json:"unread_since,omitzero"`
	// Uploads were open at the last flip, and may still go on at the backend that served before it.
	Uploads []routing.Upload `json:"uploads,omitempty"`
	// Canary counts the steps of the read canary that are done.
	Canary int `json:"canary,omitempty"`
	// Hold names the freeze that is in place.
	Hold string `json:"hold,omitempty"`
	// Positions has, for each backend and edge, up to where its acknowledged writes have been carried to the other backend.
	Positions map[string]map[string]journal.Position `json:"positions,omitempty"`
	Approved  *report.Decision                       `json:"approved,omitempty"`
	// Finalize is the command to end the soak.
	Finalize *report.Decision `json:"finalize,omitempty"`
	// Stop is the command to go back.
	Stop *Stop `json:"stop,omitempty"`
	// Paused is the command to pause.
	Paused *report.Decision `json:"paused,omitempty"`
	// Watched is when every edge had begun to watch the prefix.
	Watched time.Time `json:"watched,omitzero"`
	// SoakUntil is when the soak is over; Failures counts the rounds that have failed in a row.
	SoakUntil time.Time `json:"soak_until,omitzero"`
	Failures  int       `json:"failures,omitempty"`
	// Told counts the messages sent to people.
	Told   int           `json:"told,omitempty"`
	Report report.Report `json:"report"`
}

// Stop is why a migration goes back.
type Stop struct {
	Outcome    report.Outcome  `json:"outcome"`
	Decision   report.Decision `json:"decision"`
	AcceptLoss bool            `json:"accept_loss,omitempty"`
}
