package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"transship/lab/history"
)

// Load does what clients of a registry do, each request through an edge of its own choice, and records all of it. It retries nothing, and speaks the protocol itself,
// so that what it sees is what the edges answered.
type Load struct {
	Recorder *history.Recorder
	// Largest is the largest blob, in bytes.
	Largest int64
	// Excuse says why a failure was to be expected, or "". It may be nil.
	Excuse func(f Failure, began, ended time.Time) string

	// Keeps is set while nothing is to be deleted.
	Keeps atomic.Bool

	edges  []string
	prefix string

	mu     sync.Mutex
	random *rand.Rand
	images []pushed
	serial int
	// moving is as in Clients, for tags and for digests: a manifest that is put under a second tag has its revision's link rewritten. mounted has what went where, so that no
	// layer's link is written while it is read.
	moving  map[string]*sync.RWMutex
	mounted map[string]bool
}

// pushed is an image that was acknowledged.
type pushed struct {
	repository, tag, digest string
	manifest                []byte
	layers                  []blob
	fixed                   bool // its tag stays and is pulled; others are moved or deleted
}

// enough is how many tags a load makes at most: with more and more of them, each of many migrations in a row would take longer than the one before.
const enough = 300

// NewLoad makes a load for one prefix; what it does follows from the seed, as far as one client's doings follow from its own.
func NewLoad(edges []string, prefix string, r *history.Recorder, seed uint64) *Load {
	return &Load{
		Recorder: r, Largest: 16 << 20, edges: edges, prefix: prefix, random: rand.New(rand.NewPCG(seed, 2)), moving: map[string]*sync.RWMutex{}, mounted: map[string]bool{},
	}
}

// Failure is a request that was answered otherwise than hoped for.
type Failure struct {
	Edge       string
	Method     string
	Path       string
	Status     int // 0: no answer
	RetryAfter string
	Said       string
}

func (f *Failure) Error() string {
	return fmt.Sprintf("%s %s: %d %s", f.Method, f.Path, f.Status, f.Said)
}

func (l *Load) int(n int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.random.IntN(n)
}

// do sends one request through an edge of its own.
func (l *Load) do(ctx context.Context, method, path string, header map[string]string, body io.Reader, size int64) (*http.Response, error) {
	edge := l.edges[l.int(len(l.edges))]
	if at, err := url.Parse(path); err == nil && at.IsAbs() {
		path = at.RequestURI()
	}
	f := &Failure{Edge: edge, Method: method, Path: path}
	req, err := http.NewRequestWithContext(ctx, method, edge+path, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.ContentLength = size
	}
	user := PullUser
	if method != http.MethodGet && method != http.MethodHead {
		user = PushUser
	}
	req.SetBasicAuth(user, Password)
	for name, value := range header {
		req.Header.Set(name, value)
	}
	req.GetBody = nil // Go would send a request again by itself
	resp, err := raw.Do(req)
	if err != nil {
		f.Said = err.Error()
		return nil, f
	}
	if resp.StatusCode >= 300 {
		said, _ := io.ReadAll(io.LimitReader(resp.Body, 300))
		resp.Body.Close()
		f.Status, f.RetryAfter, f.Said = resp.StatusCode, resp.Header.Get("Retry-After"), strings.TrimSpace(string(said))
		return nil, f
	}
	return resp, nil
}

// raw opens a connection for each request: an idle one that the edge closes is no failure of anybody's.
var raw = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 2 * time.Minute}

// writing locks what a write of an image changes.
func (l *Load) writing(p pushed) (unlock func()) {
	tag, digest := l.lock(p.repository+":"+p.tag), l.lock(p.repository+"@"+p.digest)
	tag.Lock()
	digest.Lock()
	return func() { digest.Unlock(); tag.Unlock() }
}

// reading locks what a pull of an image reads.
func (l *Load) reading(p pushed) (unlock func()) {
	tag, digest := l.lock(p.repository+":"+p.tag), l.lock(p.repository+"@"+p.digest)
	tag.RLock()
	digest.RLock()
	return func() { digest.RUnlock(); tag.RUnlock() }
}

func (l *Load) lock(tag string) *sync.RWMutex {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.moving[tag] == nil {
		l.moving[tag] = &sync.RWMutex{}
	}
	return l.moving[tag]
}

// record records an operation, and reports whether it succeeded. One that was cut off by the end of the test is left out when it only reads.
func (l *Load) record(ctx context.Context, o history.Operation, err error) bool {
	o.Ended, o.Outcome = time.Now(), history.OK
	failure, answered := err.(*Failure)
	switch {
	case err == nil:
	case ctx.Err() != nil && o.Kind != history.PushTag && o.Kind != history.Delete:
		return false
	case ctx.Err() != nil:
		o.Outcome, o.Detail, o.Excuse = history.Unknown, err.Error(), "the test ended"
	case answered && failure.Status == http.StatusNotFound && o.Kind == history.PullTag && strings.Contains(failure.Path, "/manifests/"):
		o.Outcome, o.Edge = history.Absent, failure.Edge
	case answered:
		o.Outcome, o.Edge, o.Detail = history.Failed, failure.Edge, err.Error()
		if failure.Status == 0 {
			o.Outcome = history.Unknown
		}
		if l.Excuse != nil {
			o.Excuse = l.Excuse(*failure, o.Began, o.Ended)
		}
	default:
		o.Outcome, o.Wrong, o.Detail = history.Failed, true, err.Error()
	}
	_ = l.Recorder.Add(o)
	return err == nil
}

// put puts a manifest under a tag.
func (l *Load) put(ctx context.Context, client string, p pushed) bool {
	defer l.writing(p)()
	o := history.Operation{Client: client, Kind: history.PushTag, Repository: p.repository, Tag: p.tag, Digest: p.digest, Began: time.Now()}
	resp, err := l.do(ctx, http.MethodPut, "/v2/"+p.repository+"/manifests/"+p.tag, map[string]string{"Content-Type": manifestType}, io.NopCloser(bytes.NewReader(p.manifest)), int64(len(p.manifest)))
	if err == nil {
		resp.Body.Close()
	}
	if !l.record(ctx, o, err) {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.images = append(l.images, p)
	return true
}

func (l *Load) next() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.serial++
	return l.serial
}

// push pushes a new image under a tag.
func (l *Load) push(ctx context.Context, client, repository, tag string, fixed bool) (pushed, bool) {
	layers := make([]blob, 1+l.int(3))
	config := l.blob()
	for config.Size > 1<<20 {
		config = l.blob()
	}
	for i := range layers {
		layers[i] = l.blob()
	}
	for _, b := range append([]blob{config}, layers...) {
		o := history.Operation{Client: client, Kind: history.UploadBlob, Repository: repository, Digest: b.Digest, Bytes: b.Size, Began: time.Now()}
		if !l.record(ctx, o, l.upload(ctx, repository, b)) {
			return pushed{}, false
		}
	}
	raw := manifest(config, layers...)
	p := pushed{repository: repository, tag: tag, digest: sum(raw), manifest: raw, layers: append(layers, config), fixed: fixed}
	return p, l.put(ctx, client, p)
}

func sum(raw []byte) string {
	s := sha256.Sum256(raw)
	return "sha256:" + hex.EncodeToString(s[:])
}

// mount pushes an image of another repository to this one without sending its blobs.
func (l *Load) mount(ctx context.Context, client, repository string, from pushed) {
	l.mu.Lock()
	again := l.mounted[repository+from.digest]
	l.mounted[repository+from.digest] = true
	l.mu.Unlock()
	if again {
		return
	}
	for _, b := range from.layers {
		o := history.Operation{Client: client, Kind: history.Mount, Repository: repository, Digest: b.Digest, Bytes: b.Size, Began: time.Now()}
		resp, err := l.do(ctx, http.MethodPost, "/v2/"+repository+"/blobs/uploads/?mount="+url.QueryEscape(b.Digest)+"&from="+from.repository, nil, nil, 0)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode != http.StatusCreated { // the registry would rather be sent it
				o.Detail = resp.Status
				err = l.upload(ctx, repository, b)
			}
		}
		if !l.record(ctx, o, err) {
			return
		}
	}
	l.put(ctx, client, pushed{repository: repository, tag: fmt.Sprintf("mounted-%d", l.next()), digest: from.digest, manifest: from.manifest, layers: from.layers, fixed: true})
}

// pull pulls what a tag or a digest refers to, whole, and checks every byte.
func (l *Load) pull(ctx context.Context, client string, p pushed, by history.Kind) {
	defer l.reading(p)()
	o := history.Operation{Client: client, Kind: by, Repository: p.repository, Tag: p.tag, Began: time.Now()}
	reference := p.tag
	if by == history.PullDigest {
		reference, o.Digest, o.Tag = p.digest, p.digest, ""
	}
	digest, err := pullFrom(ctx, l, p.repository, reference)
	if digest != "" {
		o.Digest = digest
	}
	l.record(ctx, o, err)
}

// Run does all of it until ctx ends: pushes of new tags and moves of old ones, copies by mount, tags for what has one, deletions, and pulls.
func (l *Load) Run(ctx context.Context, pushers, pullers int) {
	var wait sync.WaitGroup
	for n := range pushers {
		wait.Go(func() {
			client := fmt.Sprintf("pusher %d", n+1)
			for ctx.Err() == nil {
				l.write(ctx, client, fmt.Sprintf("%s/load-%d", l.prefix, n))
				pause(ctx, time.Duration(50+l.int(150))*time.Millisecond)
			}
		})
	}
	for n := range pullers {
		wait.Go(func() {
			client := fmt.Sprintf("puller %d", n+1)
			for ctx.Err() == nil {
				if p, ok := l.any(func(p pushed) bool { return true }); ok && p.fixed && l.int(3) == 0 {
					l.pull(ctx, client, p, history.PullDigest)
				} else if ok {
					l.pull(ctx, client, p, history.PullTag)
				}
				pause(ctx, time.Duration(20+l.int(60))*time.Millisecond)
			}
		})
	}
	wait.Wait()
}

func (l *Load) write(ctx context.Context, client, repository string) {
	fixed := func(p pushed) bool { return p.fixed }
	l.mu.Lock()
	full := l.serial >= enough
	l.mu.Unlock()
	switch n := l.int(10); {
	case n < 4 && !full:
		l.push(ctx, client, repository, fmt.Sprintf("new-%d", l.next()), true)
	case n < 7, n < 9 && full, full && l.Keeps.Load():
		l.push(ctx, client, repository, "latest", false)
	case n == 7:
		if p, ok := l.any(fixed); ok && p.repository != repository && !strings.HasPrefix(p.tag, "mounted-") {
			l.mount(ctx, client, repository, p)
		}
	case n == 8:
		if p, ok := l.any(fixed); ok {
			p.tag = fmt.Sprintf("again-%d", l.next())
			l.put(ctx, client, p)
		}
	default:
		if p, ok := l.push(ctx, client, repository, fmt.Sprintf("gone-%d", l.next()), false); ok {
			pause(ctx, time.Duration(l.int(1500))*time.Millisecond)
			if !l.Keeps.Load() {
				l.delete(ctx, client, p)
			}
		}
	}
}

func (l *Load) delete(ctx context.Context, client string, p pushed) {
	defer l.writing(p)()
	o := history.Operation{Client: client, Kind: history.Delete, Repository: p.repository, Tag: p.tag, Digest: p.digest, Began: time.Now()}
	resp, err := l.do(ctx, http.MethodDelete, "/v2/"+p.repository+"/manifests/"+p.digest, nil, nil, 0)
	if err == nil {
		resp.Body.Close()
	}
	l.record(ctx, o, err)
}

// any is one of the newest images that are wanted, mostly.
func (l *Load) any(wanted func(pushed) bool) (pushed, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for range 10 {
		if len(l.images) == 0 {
			break
		}
		from := 0
		if l.random.IntN(3) > 0 {
			from = max(0, len(l.images)-20)
		}
		if p := l.images[from+l.random.IntN(len(l.images)-from)]; wanted(p) {
			return p, true
		}
	}
	return pushed{}, false
}

// direct reads a backend without an edge.
type direct string

func (d direct) get(ctx context.Context, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, string(d)+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", manifestType)
	resp, err := raw.Do(req)
	if err == nil && resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, &Failure{Edge: string(d), Method: http.MethodGet, Path: path, Status: resp.StatusCode}
	}
	return resp, err
}

// Final reads what both backends hold of every tag in a history. Whole content is pulled from the one that serves; of the other only the tags are looked at.
func (s *Stack) Final(ctx context.Context, all []history.Operation, serves string) (history.Final, error) {
	f := history.Final{Serves: serves, Backends: map[string]history.Contents{}}
	for name, address := range map[string]string{"old": s.Addresses.Old, "new": s.Addresses.New} {
		c := history.Contents{Tags: map[string]string{}, Broken: map[string]string{}}
		seen := map[string]bool{}
		for _, o := range all {
			tag := o.Repository + ":" + o.Tag
			if o.Tag == "" || seen[tag] {
				continue
			}
			seen[tag] = true
			if err := look(ctx, direct(address), o, name == serves, c); err != nil {
				return f, err
			}
		}
		f.Backends[name] = c
	}
	f.At = time.Now()
	return f, nil
}

func look(ctx context.Context, at direct, o history.Operation, whole bool, c history.Contents) error {
	tag := o.Repository + ":" + o.Tag
	resp, err := at.get(ctx, "/v2/"+o.Repository+"/manifests/"+o.Tag)
	if f, ok := err.(*Failure); ok && f.Status == http.StatusNotFound {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at %s: %w", tag, err)
	}
	resp.Body.Close()
	c.Tags[tag] = resp.Header.Get("Docker-Content-Digest")
	if whole {
		if _, err := pullFrom(ctx, at, o.Repository, o.Tag); err != nil {
			c.Broken[tag] = err.Error()
		}
	}
	return nil
}
