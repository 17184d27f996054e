// Package journal reads an edge's record of every write it answered: one JSON line a write, written by nginx when the request
// ends (internal/edge generates the log format). The delta of a migration applies exactly these writes, so its cost is the
// number of writes since the last one and not the size of the prefix.
package journal

import (
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Entry is one write that has ended.
type Entry struct {
	// At is when the edge finished the request.
	At time.Time
	// ID is nginx's $request_id, under which the gate saw the write begin.
	ID     string
	Method string
	// Path is the normalised path, without the query.
	Path  string
	Query string
	// Status is the HTTP status the client got; 0 and 499 mean that it got none.
	Status int
	// Digest is the Docker-Content-Digest of the answer, if any.
	Digest string
	// Session is the upload session (Docker-Upload-UUID) of the answer, if any.
	Session string
	// Backend is the name of the backend that answered.
	Backend string
	User    string
	Agent   string
	// Position is just behind this entry: reading on from it gives the next one.
	Position Position
}

// line is an entry as nginx writes it.
type line struct {
	T   string `json:"t"`
	ID  string `json:"id"`
	M   string `json:"m"`
	U   string `json:"u"`
	Q   string `json:"q"`
	S   int    `json:"s"`
	D   string `json:"d"`
	Up  string `json:"up"`
	B   string `json:"b"`
	Usr string `json:"usr"`
	UA  string `json:"ua"`
}

func parse(raw []byte) (Entry, error) {
	var l line
	if err := json.Unmarshal(raw, &l); err != nil {
		return Entry{}, fmt.Errorf("journal line %.80q: %w", raw, err)
	}
	seconds, err := strconv.ParseFloat(l.T, 64)
	if err != nil {
		return Entry{}, fmt.Errorf("journal line %.80q: time %q: %w", raw, l.T, err)
	}
	return Entry{
		At: time.UnixMilli(int64(seconds * 1000)), ID: l.ID, Method: l.M, Path: l.U, Query: l.Q, Status: l.S,
		Digest: l.D, Session: l.Up, Backend: l.B, User: l.Usr, Agent: l.UA,
	}, nil
}

// Acknowledged reports whether the client was told that the write is done.
func (e Entry) Acknowledged() bool { return e.Status >= 200 && e.Status < 300 }

// Target is what a write is about.
func (e Entry) Target() (Target, bool) { return ParseTarget(e.Method, e.Path, e.Query) }

// Kind is the sort of thing that a write changes.
type Kind string

const (
	// Manifest is a manifest or tag: what a name refers to.
	Manifest Kind = "manifest"
	// Upload is an upload session, or the blob that it commits.
	Upload Kind = "upload"
	// Blob is a stored blob (only a DELETE names one outside a session).
	Blob Kind = "blob"
)

// Target names what a registry write request is about.
type Target struct {
	Kind       Kind
	Repository string
	// Reference is the tag or digest of a Manifest, the digest of a Blob, the session of an Upload ("" when it is being opened).
	Reference string
	// Commits is the digest of the blob that this Upload request commits or mounts, if it is one that does.
	Commits string
}

// target matches the write paths of the OCI distribution API
// (https://github.com/opencontainers/distribution-spec/blob/main/spec.md#endpoints).
var target = regexp.MustCompile(`^/v2/(.+)/(manifests|blobs/uploads|blobs)/([^/]*)$`)

// ParseTarget tells what a registry write with this method, normalised path and query is about. It is false for anything
// that is not one.
func ParseTarget(method, path, query string) (Target, bool) {
	m := target.FindStringSubmatch(path)
	if m == nil {
		return Target{}, false
	}
	repository, kind, reference := m[1], m[2], m[3]
	switch kind {
	case "manifests":
		return Target{Kind: Manifest, Repository: repository, Reference: reference}, true
	case "blobs":
		if reference == "uploads" { // "/blobs/uploads" without its slash
			return Target{Kind: Upload, Repository: repository}, true
		}
		return Target{Kind: Blob, Repository: repository, Reference: reference}, true
	}
	t := Target{Kind: Upload, Repository: repository, Reference: reference}
	args, _ := url.ParseQuery(query) // what cannot be parsed is no digest
	switch {
	case method == "PUT", method == "POST" && args.Has("digest"):
		t.Commits = args.Get("digest")
	case method == "POST" && args.Has("mount"):
		t.Commits = args.Get("mount")
	}
	return t, true
}

// IsDigest reports whether a reference is a digest and not a tag.
func IsDigest(reference string) bool { return strings.Contains(reference, ":") }

// MayHaveChanged reports whether the write may have taken effect: it was acknowledged, or its client was told nothing definite
// (the connection ended, or a gateway in between gave up).
func (e Entry) MayHaveChanged() bool {
	return e.Acknowledged() || e.Status == 0 || e.Status == 499 || e.Status >= 500
}
