// Package history records what clients of a registry did and saw, and proves afterwards whether a registry that was moved meanwhile kept its promises. It knows neither
// the lab nor transship: a history is a file of JSON lines.
package history

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// Kind is what an operation does.
type Kind string

// The kinds.
const (
	PushTag    Kind = "push-tag" // a manifest is put under a tag, a new one or one that has a tag already
	PullTag    Kind = "pull-tag" // by tag, with everything that it refers to
	PullDigest Kind = "pull-digest"
	Delete     Kind = "delete" // of a manifest by digest, and with it of its tag
	Mount      Kind = "mount"
	UploadBlob Kind = "upload-blob"
)

// Outcome is how an operation ended.
type Outcome string

// The outcomes.
const (
	OK     Outcome = "ok"
	Absent Outcome = "absent" // a pull was told that there is no such tag
	Failed Outcome = "failed"
	// Unknown: no answer. A write may have taken effect, or may still do so.
	Unknown Outcome = "unknown"
)

// Operation is one thing that a client did.
type Operation struct {
	Client string `json:"client"`
	// Edge is the proxy node, or "" for a client that used several.
	Edge       string    `json:"edge,omitempty"`
	Kind       Kind      `json:"kind"`
	Repository string    `json:"repository"`
	Tag        string    `json:"tag,omitempty"`
	Digest     string    `json:"digest,omitempty"`
	Bytes      int64     `json:"bytes,omitempty"`
	Began      time.Time `json:"began"`
	Ended      time.Time `json:"ended"`
	Outcome    Outcome   `json:"outcome"`
	// Wrong says that content did not hash to its digest.
	Wrong bool `json:"wrong,omitempty"`
	// Detail is what the client was told.
	Detail string `json:"detail,omitempty"`
	// Excuse is why a failure is none of the migration's: what else was broken at that moment. The recorder knows; without an excuse it counts.
	Excuse string `json:"excuse,omitempty"`
}

func (o Operation) name() string { return o.Repository + ":" + o.Tag }

func (o Operation) String() string {
	const clock = "15:04:05.000"
	what := fmt.Sprintf("%s..%s %s %s %s %s", o.Began.Format(clock), o.Ended.Format(clock), o.Client, o.Kind, o.name(), o.Outcome)
	for _, more := range []string{o.Digest, o.Edge, o.Detail} {
		if more != "" {
			what += " " + more
		}
	}
	return what
}

// Recorder writes a history as it happens.
type Recorder struct {
	mu   sync.Mutex
	file *os.File
	to   *json.Encoder
	all  []Operation
}

// Record begins a history in a file.
func Record(path string) (*Recorder, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	return &Recorder{file: f, to: json.NewEncoder(f)}, nil
}

// Add records an operation that is over.
func (r *Recorder) Add(o Operation) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, o)
	if err := r.to.Encode(o); err != nil {
		return fmt.Errorf("history: %w", err)
	}
	return nil
}

// Operations are those so far, in the order in which they ended.
func (r *Recorder) Operations() []Operation {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Operation(nil), r.all...)
}

// Close ends the history.
func (r *Recorder) Close() error { return r.file.Close() }

// Read reads a history.
func Read(from io.Reader) (all []Operation, err error) {
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		var o Operation
		if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
			return nil, fmt.Errorf("history, line %d: %w", n, err)
		}
		all = append(all, o)
	}
	return all, lines.Err()
}
