//go:build lab

package mirror_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"transship/internal/mirror"
	"transship/internal/objectstore"
	"transship/lab/seed"
	"transship/lab/servers"
	"transship/lab/servers/shared"
)

// moverVariable has the job of a mover that is a process of its own.
const moverVariable = "TRANSSHIP_TEST_MOVER"

type moverJob struct {
	Swift objectstore.SwiftOptions
	S3    objectstore.S3Options
}

// mover mirrors until it is killed.
func mover(raw string) int {
	ctx := context.Background()
	err := func() error {
		var j moverJob
		if err := json.Unmarshal([]byte(raw), &j); err != nil {
			return err
		}
		from, err := objectstore.NewSwift(ctx, j.Swift)
		if err != nil {
			return err
		}
		to, err := objectstore.NewS3(ctx, j.S3)
		if err != nil {
			return err
		}
		_, err = (&mirror.Mirror{From: mirror.Side{Store: from}, To: mirror.Side{Store: to}, Mark: "test"}).Run(ctx, whole, mirror.Cursor{})
		return err
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// A mover that is killed in the middle of a large blob: the next one finishes, without sending again what came over. Promise 6.
func TestRealMoverKilledInALargeBlob(t *testing.T) {
	lab := shared.Shared(t)
	container, bucket := lab.NewContainer(t), lab.NewBucket(t)
	set := seed.Set{Prefix: "restricted", Repositories: 1, Tags: 3, Layers: 1, LayerSize: 10 << 10, BaseSize: 10 << 10, Large: []int{600 << 20}}
	require.NoError(t, set.Push(t.Context(), host(lab.SwiftRegistry(t, container)), 4))
	j := moverJob{
		Swift: objectstore.SwiftOptions{AuthURL: lab.Swift.AuthURL, Username: lab.Swift.Username, Password: lab.Swift.Password, Container: container, Root: swiftRoot},
		S3: objectstore.S3Options{Endpoint: lab.Ceph.Endpoint, Region: lab.Ceph.Region, AccessKey: lab.Ceph.AccessKey, SecretKey: lab.Ceph.SecretKey,
			Bucket: bucket, Root: cephRoot},
	}
	raw, err := json.Marshal(j)
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), moverVariable+"="+string(raw))
	require.NoError(t, cmd.Start())
	parts := func() int { return partsOf(t, lab.Ceph, bucket) }
	require.Eventually(t, func() bool { return parts() >= 3 }, 2*time.Minute, 5*time.Millisecond, "no part of the large blob came over")
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait() // it was killed
	before := parts()
	require.NotZero(t, before, "it was killed after the large blob")

	from, to := onSwift(t, lab.Swift, lab.Swift.AuthURL, container), onCeph(t, lab.Ceph, lab.Ceph.Endpoint, bucket)
	sent := &counting{Handler: forward(t, lab.Ceph.Endpoint)}
	proxy := serve(t, sent)
	counted := onCeph(t, lab.Ceph, proxy, bucket)
	run(t, from, counted)
	verified(t, from, to)
	t.Logf("%d parts had come over; the second mover sent %d MiB of 600", before, sent.bytes.Load()>>20)
	assert.Less(t, sent.bytes.Load(), int64(600<<20), "what had come over was sent again")
}

// partsOf counts the parts of unfinished uploads.
func partsOf(t *testing.T, c *servers.Ceph, bucket string) (n int) {
	client := s3.New(s3.Options{
		BaseEndpoint: aws.String(c.Endpoint), Region: c.Region, UsePathStyle: true, Credentials: credentials.NewStaticCredentialsProvider(c.AccessKey, c.SecretKey, ""),
	})
	uploads, err := client.ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: &bucket})
	require.NoError(t, err)
	for _, u := range uploads.Uploads {
		parts, err := client.ListParts(t.Context(), &s3.ListPartsInput{Bucket: &bucket, Key: u.Key, UploadId: u.UploadId})
		if err == nil {
			n += len(parts.Parts)
		}
	}
	return n
}

// Each store is stopped for 30 seconds in the middle of a mirror: it waits, and goes on.
func TestRealStoreStoppedForHalfAMinute(t *testing.T) {
	swift, err := servers.StartSwift(t.Context(), t.TempDir())
	require.NoError(t, err)
	t.Cleanup(swift.Stop)
	lab := shared.Shared(t)
	const container = "registry"
	require.NoError(t, swift.CreateContainer(t.Context(), container))
	bucket := lab.NewBucket(t)
	r, err := servers.StartRegistry(t.Context(), t.TempDir(), "old", servers.RegistryOptions{Swift: swift, Container: container})
	require.NoError(t, err)
	t.Cleanup(r.Stop)
	set := seed.Set{Prefix: "restricted", Repositories: 2, Tags: 6, Layers: 2, LayerSize: 10 << 10, BaseSize: 10 << 10, Large: []int{200 << 20}}
	require.NoError(t, set.Push(t.Context(), host(r), 4))

	ceph := &gate{Handler: forward(t, lab.Ceph.Endpoint)} // a Ceph of our own would take a quarter of a minute more
	from, to := onSwift(t, swift, swift.AuthURL, container), onCeph(t, lab.Ceph, serve(t, ceph), bucket)
	for name, outage := range map[string]struct{ stop, start func() }{
		"swift": {swift.Proxy.Kill, func() { assert.NoError(t, swift.Proxy.Start(t.Context())) }},
		"ceph":  {func() { ceph.closed.Store(true) }, func() { ceph.closed.Store(false) }},
	} {
		done := make(chan mirror.Cursor, 1)
		began := time.Now()
		go func() {
			at, err := (&mirror.Mirror{From: from, To: to, Mark: name, Jobs: 2}).Run(t.Context(), whole, mirror.Cursor{})
			assert.NoError(t, err)
			done <- at
		}()
		time.Sleep(300 * time.Millisecond)
		outage.stop()
		time.Sleep(30 * time.Second)
		outage.start()
		<-done
		t.Logf("with %s away for 30 s, the mirror took %.1f s", name, time.Since(began).Seconds())
		verified(t, from, to)
		bucket = lab.NewBucket(t)
		to = onCeph(t, lab.Ceph, serve(t, ceph), bucket)
	}
}

// A network that slows, resets and cuts connections in the middle of answers: toxiproxy stands between the mirror and both stores.
func TestRealBadNetwork(t *testing.T) {
	lab := shared.Shared(t)
	container, bucket := lab.NewContainer(t), lab.NewBucket(t)
	set := seed.Set{Prefix: "restricted", Repositories: 2, Tags: 5, Layers: 2, LayerSize: 30 << 10, BaseSize: 2 << 20, Large: []int{100 << 20}}
	require.NoError(t, set.Push(t.Context(), host(lab.SwiftRegistry(t, container)), 4))
	api := toxiproxy(t)
	auth, err := url.Parse(lab.Swift.AuthURL)
	require.NoError(t, err)
	endpoint, err := url.Parse(lab.Ceph.Endpoint)
	require.NoError(t, err)
	for name, upstream := range map[string]string{"swift": auth.Host, "ceph": endpoint.Host} {
		api(t, "/proxies", map[string]any{"name": name, "listen": map[string]string{"swift": ports(t)[0], "ceph": ports(t)[0]}[name], "upstream": upstream})
		for _, toxic := range []map[string]any{
			// Every connection is cut after so many bytes, slowed a little, and some are reset.
			{"type": "limit_data", "stream": "downstream", "attributes": map[string]any{"bytes": 5 << 20}},
			{"type": "latency", "stream": "upstream", "attributes": map[string]any{"latency": 5, "jitter": 5}},
			{"type": "reset_peer", "stream": "upstream", "toxicity": 0.05, "attributes": map[string]any{"timeout": 400}},
		} {
			api(t, "/proxies/"+name+"/toxics", toxic)
		}
	}
	through := map[string]string{}
	for _, name := range []string{"swift", "ceph"} {
		through[name] = api(t, "/proxies/"+name, nil)["listen"].(string)
	}
	// What Swift says its address is leads past the proxy: the client must be told.
	fixed := serve(t, &rewriting{Handler: forward(t, "http://"+through["swift"]), from: auth.Host, to: through["swift"]})
	from := onSwift(t, lab.Swift, fixed+auth.Path, container)
	to := onCeph(t, lab.Ceph, "http://"+through["ceph"], bucket)
	began := time.Now()
	run(t, from, to)
	t.Logf("the mirror took %.1f s", time.Since(began).Seconds())
	verified(t, onSwift(t, lab.Swift, lab.Swift.AuthURL, container), onCeph(t, lab.Ceph, lab.Ceph.Endpoint, bucket))
}

// toxiproxy builds and starts the server, and returns how it is told things.
func toxiproxy(t *testing.T) func(t *testing.T, path string, what any) map[string]any {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "toxiproxy-server")
	build := exec.CommandContext(t.Context(), "go", "build", "-modfile=tools/go.mod", "-o", binary, "github.com/Shopify/toxiproxy/v2/cmd/server")
	build.Dir = "../.."
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	address := ports(t)[0]
	at, port, _ := strings.Cut(address, ":")
	p := &servers.Process{Name: "toxiproxy", Args: []string{binary, "-host", at, "-port", port}, Log: filepath.Join(t.TempDir(), "toxiproxy.log"), Ready: servers.Answers(address)}
	require.NoError(t, p.Start(t.Context()))
	t.Cleanup(p.Stop)
	return func(t *testing.T, path string, what any) map[string]any {
		t.Helper()
		method, body := http.MethodGet, []byte(nil)
		if what != nil {
			method = http.MethodPost
			body, err = json.Marshal(what)
			require.NoError(t, err)
		}
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+address+path, bytes.NewReader(body))
		require.NoError(t, err)
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		require.Less(t, resp.StatusCode, 300, path)
		answer := map[string]any{}
		require.NoError(t, json.NewDecoder(resp.Body).Decode(&answer))
		return answer
	}
}

func ports(t *testing.T) []string {
	t.Helper()
	free, err := servers.FreePorts(1)
	require.NoError(t, err)
	return free
}
