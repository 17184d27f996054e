package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Clients push to and pull from a prefix through the edge all the while, as a site's deploy tool and its nodes do, and record what they see. They retry
// nothing: a request that fails is a failure.
type Clients struct {
	edges  []string
	prefix string

	mu       sync.Mutex
	pushed   map[string][]string // by repository:tag, the digests that were acknowledged, in order
	began    map[string][]string // as pushed, but from when the push began
	Seen     Seen
	failures []string
	// moving keeps the pullers of a tag apart from its pusher: on local disk, Distribution 2.8 rewrites a tag's link in place, and a read in that moment gets
	// "invalid checksum digest format" and status 500, with or without a migration.
	moving map[string]*sync.RWMutex
}

// Seen is what clients saw.
type Seen struct {
	Requests int           `json:"requests"`
	Failed   int           `json:"failed"`
	Pushes   int           `json:"pushes"`
	Pulls    int           `json:"pulls"`
	Slowest  time.Duration `json:"slowest_write_ns"`
	SlowRead time.Duration `json:"slowest_read_ns"`
	// Stale counts pulls of a tag that gave something older than what was acknowledged before.
	Stale int `json:"stale"`
}

// NewClients makes clients of one prefix.
func NewClients(edge, prefix string) *Clients { return NewClientsOf([]string{edge}, prefix) }

// NewClientsOf makes clients of one prefix that use several edges, any of them for each push and pull: what one acknowledged the next must serve.
func NewClientsOf(edges []string, prefix string) *Clients {
	c := &Clients{prefix: prefix, pushed: map[string][]string{}, began: map[string][]string{}, moving: map[string]*sync.RWMutex{}}
	for _, edge := range edges {
		c.edges = append(c.edges, strings.TrimPrefix(edge, "http://"))
	}
	return c
}

// RoundTrip records every request. It makes Clients an http.RoundTripper.
func (c *Clients) RoundTrip(req *http.Request) (*http.Response, error) {
	begin := time.Now()
	resp, err := http.DefaultTransport.RoundTrip(req)
	if req.URL.Scheme == "https" {
		return resp, err // go-containerregistry tries this first; nobody serves it here
	}
	took := time.Since(begin)
	if req.Context().Err() != nil {
		return resp, err // we gave up, not the registry
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Seen.Requests++
	if req.Method == http.MethodGet || req.Method == http.MethodHead {
		c.Seen.SlowRead = max(c.Seen.SlowRead, took)
	} else {
		c.Seen.Slowest = max(c.Seen.Slowest, took)
	}
	if err != nil || resp.StatusCode >= 500 {
		c.Seen.Failed++
		what := fmt.Sprintf("%s %s %s%s: ", time.Now().Format("15:04:05.000"), req.Method, c.at(req.URL.Host), req.URL.Path)
		if err != nil {
			c.failures = append(c.failures, what+err.Error())
		} else {
			c.failures = append(c.failures, what+resp.Status)
		}
	}
	return resp, err
}

// at names the edge of a request where there are several.
func (c *Clients) at(host string) string {
	if len(c.edges) > 1 {
		return "edge" + strconv.Itoa(slices.Index(c.edges, host)+1) + ":"
	}
	return ""
}

func (c *Clients) fail(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Seen.Failed++
	c.failures = append(c.failures, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

// Failures lists what went wrong.
func (c *Clients) Failures() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.failures...)
}

// Summary returns what was seen so far.
func (c *Clients) Summary() Seen {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.Seen
}

func (c *Clients) options(ctx context.Context, user string) []remote.Option {
	return []remote.Option{
		remote.WithContext(ctx), remote.WithAuth(&authn.Basic{Username: user, Password: Password}), remote.WithTransport(c), remote.WithJobs(2),
		remote.WithRetryPredicate(func(error) bool { return false }), remote.WithRetryStatusCodes(),
	}
}

// tag names repository:tag at one of the edges.
func (c *Clients) tag(repositoryAndTag string) (name.Tag, error) {
	edge := c.edges[rand.IntN(len(c.edges))] //nolint:gosec // which edge to use is no secret
	return name.NewTag(edge+"/"+repositoryAndTag, name.Insecure)
}

// lock is held while a tag is read, or, for writing, moved.
func (c *Clients) lock(tag string) *sync.RWMutex {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.moving[tag]
	if l == nil {
		l = &sync.RWMutex{}
		c.moving[tag] = l
	}
	return l
}

// Push pushes an image to repository:tag and remembers what was acknowledged.
func (c *Clients) Push(ctx context.Context, repositoryAndTag string, what remote.Taggable, push func(name.Reference, ...remote.Option) error) error {
	ref, err := c.tag(repositoryAndTag)
	if err != nil {
		return err
	}
	raw, err := what.RawManifest()
	if err != nil {
		return err
	}
	digest, _, err := v1.SHA256(strings.NewReader(string(raw)))
	if err != nil {
		return err
	}
	moving := c.lock(repositoryAndTag)
	moving.Lock()
	defer moving.Unlock()
	c.mu.Lock()
	c.began[repositoryAndTag] = append(c.began[repositoryAndTag], digest.String())
	c.mu.Unlock()
	if err := push(ref, c.options(ctx, PushUser)...); err != nil {
		return fmt.Errorf("push %s: %w", repositoryAndTag, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Seen.Pushes++
	c.pushed[repositoryAndTag] = append(c.pushed[repositoryAndTag], digest.String())
	return nil
}

// PushImage pushes an image.
func (c *Clients) PushImage(ctx context.Context, repositoryAndTag string, img v1.Image) error {
	return c.Push(ctx, repositoryAndTag, img, func(ref name.Reference, o ...remote.Option) error { return remote.Write(ref, img, o...) })
}

// PushIndex pushes an index with all its platforms.
func (c *Clients) PushIndex(ctx context.Context, repositoryAndTag string, index v1.ImageIndex) error {
	return c.Push(ctx, repositoryAndTag, index, func(ref name.Reference, o ...remote.Option) error { return remote.WriteIndex(ref, index, o...) })
}

// Pull pulls what a tag refers to, every byte checked, and reports whether it is older than what had been acknowledged before.
func (c *Clients) Pull(ctx context.Context, repositoryAndTag string) error {
	ref, err := c.tag(repositoryAndTag)
	if err != nil {
		return err
	}
	moving := c.lock(repositoryAndTag)
	moving.RLock()
	defer moving.RUnlock()
	c.mu.Lock()
	known := len(c.pushed[repositoryAndTag])
	c.mu.Unlock()
	d, err := remote.Get(ref, c.options(ctx, PullUser)...)
	if err != nil {
		return fmt.Errorf("pull %s: %w", repositoryAndTag, err)
	}
	if !c.current(repositoryAndTag, d.Digest.String(), known) {
		c.mu.Lock()
		c.Seen.Stale++
		c.mu.Unlock()
		return fmt.Errorf("pull %s: got %s, which is older than what was acknowledged, or was never pushed", repositoryAndTag, d.Digest)
	}
	if !d.MediaType.IsImage() {
		return nil
	}
	img, err := d.Image()
	if err != nil {
		return fmt.Errorf("pull %s: %w", repositoryAndTag, err)
	}
	layers, err := img.Layers()
	if err != nil {
		return fmt.Errorf("pull %s: %w", repositoryAndTag, err)
	}
	for _, l := range layers {
		if err := read(l); err != nil {
			return fmt.Errorf("pull a layer of %s: %w", repositoryAndTag, err)
		}
	}
	c.mu.Lock()
	c.Seen.Pulls++
	c.mu.Unlock()
	return nil
}

// current reports whether a digest is the one that was acknowledged last when known pushes were acknowledged, or a later one.
func (c *Clients) current(tag, digest string, known int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	began := c.began[tag]
	for i := len(began) - 1; i >= max(0, known-1); i-- {
		if began[i] == digest {
			return true
		}
	}
	return false
}

// read reads a layer to its end; go-containerregistry compares the digest at the end.
func read(l v1.Layer) error {
	content, err := l.Compressed()
	if err != nil {
		return err
	}
	defer content.Close()
	_, err = io.Copy(io.Discard, content)
	return err
}

// Run pushes and pulls until ctx ends: a pusher with new tags and moving ones, and as many pullers as asked for.
func (c *Clients) Run(ctx context.Context, pullers int) {
	var wait sync.WaitGroup
	wait.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			tag := fmt.Sprintf("%s/live:build-%d", c.prefix, n)
			if n%2 == 1 {
				tag = c.prefix + "/live:latest"
			}
			c.report(ctx, c.PushImage(ctx, tag, Image(1+n%3, 1<<(10+n%8))))
			pause(ctx, 150*time.Millisecond)
		}
	})
	for range pullers {
		wait.Go(func() {
			for ctx.Err() == nil {
				if tag := c.any(); tag != "" {
					c.report(ctx, c.Pull(ctx, tag))
				}
				pause(ctx, 50*time.Millisecond)
			}
		})
	}
	wait.Wait()
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (c *Clients) report(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil && !errors.Is(err, context.Canceled) {
		c.fail("%v", err)
	}
}

func (c *Clients) any() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := rand.IntN(len(c.pushed) + 1) //nolint:gosec // which tag to pull is no secret
	for tag := range c.pushed {
		if n--; n <= 0 && !strings.HasSuffix(tag, ":huge") {
			return tag
		}
	}
	return ""
}

// Check looks, directly at a backend, whether it has everything that was acknowledged. It returns what is missing or differs.
func (c *Clients) Check(ctx context.Context, backend string) (lost []string, tags int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for tag, digests := range c.pushed {
		tags++
		ref, err := name.NewTag(strings.TrimPrefix(backend, "http://")+"/"+tag, name.Insecure)
		if err != nil {
			lost = append(lost, err.Error())
			continue
		}
		d, err := remote.Head(ref, remote.WithContext(ctx))
		if err != nil {
			lost = append(lost, fmt.Sprintf("%s: %v", tag, err))
			continue
		}
		last := digests[len(digests)-1]
		if d.Digest.String() != last && !pending(c.began[tag], last, d.Digest.String()) {
			lost = append(lost, fmt.Sprintf("%s is %s, acknowledged was %s", tag, d.Digest, last))
		}
	}
	return lost, tags
}

// pending reports whether a digest was being pushed after the last acknowledged one: its push was cut off, and may have taken effect.
func pending(began []string, last, digest string) bool {
	for i := len(began) - 1; i >= 0 && began[i] != last; i-- {
		if began[i] == digest {
			return true
		}
	}
	return false
}

// Image makes an image of random layers of the given size, each.
func Image(layers, size int) v1.Image {
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	for range layers {
		img = With(img, Layer(size))
	}
	return img
}

// With adds a layer to an image.
func With(img v1.Image, layer v1.Layer) v1.Image {
	added, err := mutate.AppendLayers(img, layer)
	if err != nil {
		panic(err) // only a layer that cannot be read could cause it, and ours are in memory
	}
	return added
}

// Layer makes a layer of random bytes.
func Layer(size int) v1.Layer {
	content := make([]byte, size)
	seed := [32]byte{}
	for i := range seed {
		seed[i] = byte(rand.IntN(256)) //nolint:gosec // content of a test
	}
	_, _ = rand.NewChaCha8(seed).Read(content)
	return static.NewLayer(content, types.OCIUncompressedLayer)
}

// Delete deletes a manifest by its digest, and with it every tag that refers to it.
func (c *Clients) Delete(ctx context.Context, repositoryAndTag string, digest v1.Hash) error {
	ref, err := c.tag(repositoryAndTag)
	if err != nil {
		return err
	}
	if err := remote.Delete(ref.Context().Digest(digest.String()), c.options(ctx, PushUser)...); err != nil {
		return fmt.Errorf("delete %s: %w", repositoryAndTag, err)
	}
	return nil
}
