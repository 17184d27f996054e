// Package monitor answers one question after a flip: do clients fare worse than before? It reads what nginx logs of the requests
// of a prefix and compares error ratio and latency with the values from before.
package monitor

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// kept is how much traffic is remembered: more than any window that is asked for.
const kept = 30 * time.Minute

// Traffic is the recent requests of each prefix at one edge.
type Traffic struct {
	mu      sync.Mutex
	seconds map[string]map[int64]*second
}

// second is what one prefix saw in one second.
type second struct {
	requests, failed int64
	// reads is the time to the first byte of each answered read, in milliseconds, up to readsKept of them.
	reads []float32
}

const readsKept = 500

// NewTraffic makes an empty memory.
func NewTraffic() *Traffic { return &Traffic{seconds: map[string]map[int64]*second{}} }

type trafficLine struct {
	T  string `json:"t"`
	P  string `json:"p"`
	M  string `json:"m"`
	S  int    `json:"s"`
	HT string `json:"ht"`
}

// Add takes one line of the traffic log. A line that is no record is left out: this is a measurement, not the journal.
func (t *Traffic) Add(raw []byte) {
	var l trafficLine
	if json.Unmarshal(raw, &l) != nil || l.P == "" {
		return
	}
	at, err := strconv.ParseFloat(l.T, 64)
	if err != nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	of := t.seconds[l.P]
	if of == nil {
		of = map[int64]*second{}
		t.seconds[l.P] = of
	}
	s := of[int64(at)]
	if s == nil {
		s = &second{}
		of[int64(at)] = s
		if len(of) > int(2*kept/time.Second) {
			for old := range of {
				if old < int64(at)-int64(kept/time.Second) {
					delete(of, old)
				}
			}
		}
	}
	s.requests++
	if l.S >= 500 {
		s.failed++
	}
	// nginx lists a time for each upstream it tried; the last one answered.
	tries := strings.FieldsFunc(l.HT, func(r rune) bool { return r == ',' || r == ':' || r == ' ' })
	if (l.M == "GET" || l.M == "HEAD") && len(tries) > 0 && len(s.reads) < readsKept {
		if took, err := strconv.ParseFloat(tries[len(tries)-1], 32); err == nil {
			s.reads = append(s.reads, float32(took*1000))
		}
	}
}

// Follow reads what nginx appends to a log until ctx ends. A log that was rotated is followed from its new beginning.
func (t *Traffic) Follow(ctx context.Context, path string, log *slog.Logger) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	var offset int64 = -1 // the first look starts near the end
	var file os.FileInfo
	for {
		if err := t.read(path, &file, &offset); err != nil && !errors.Is(err, fs.ErrNotExist) {
			log.Warn("traffic log", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (t *Traffic) read(path string, file *os.FileInfo, offset *int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	switch {
	case *offset < 0:
		*offset = max(0, info.Size()-8<<20)
	case !os.SameFile(*file, info), info.Size() < *offset:
		*offset = 0
	}
	*file = info
	if _, err := f.Seek(*offset, io.SeekStart); err != nil {
		return err
	}
	lines := bufio.NewReaderSize(f, 64<<10)
	for {
		raw, err := lines.ReadBytes('\n')
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		*offset += int64(len(raw))
		t.Add(raw)
	}
}

// Sample sums up what a prefix saw since a moment.
func (t *Traffic) Sample(prefix string, since time.Time) Sample {
	t.mu.Lock()
	defer t.mu.Unlock()
	var s Sample
	var reads []float32
	for at, second := range t.seconds[prefix] {
		if at < since.Unix() {
			continue
		}
		s.Requests += second.requests
		s.Failed += second.failed
		reads = append(reads, second.reads...)
	}
	s.Reads = int64(len(reads))
	if len(reads) > 0 {
		slices.Sort(reads)
		s.Read95 = time.Duration(float64(reads[len(reads)*95/100]) * float64(time.Millisecond))
	}
	return s
}
