//go:build lab

package edge

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"transship/internal/journal"
	"transship/internal/routing"
	"transship/internal/siteconf"
	"transship/lab/servers"
)

// node is a real nginx on a loopback port, with an edge beside it and two backends that remember what reached them.
type node struct {
	*Edge
	t        testing.TB
	dir, url string
	gate     *http.Server
	ranOut   chan routing.Route

	mu      sync.Mutex
	got     []string // "backend METHOD path"
	carried []string // "backend repository digest"
	// lacks are digests that a backend answers with 404, as "backend digest".
	lacks map[string]bool
}

// newNode starts a node that knows the prefix "restricted" from the start.
func newNode(t testing.TB) *node {
	n := &node{t: t, dir: t.TempDir(), ranOut: make(chan routing.Route, 8)}
	n.url = "http://" + free(t)
	c := settings(filepath.Join(n.dir, "generated"))
	for _, dir := range []string{"generated", "temp"} {
		require.NoError(t, os.Mkdir(filepath.Join(n.dir, dir), 0o755))
	}
	gateAddress := free(t)
	c.Prefixes = []routing.Prefix{"restricted"}
	c.Upstreams = []Upstream{{Name: "new", Address: n.backend("new")}, {Name: "old", Address: n.backend("old")}}
	c.Reads, c.Fallbacks = free(t), filepath.Join(n.dir, "fallbacks.log")
	c.StatusURL, c.GateAddress = n.url+"/_transship/generation", "http://"+gateAddress
	nginx := []string{"nginx", "-p", n.dir, "-c", filepath.Join(n.dir, "nginx.conf")}
	c.TestCommand, c.ReloadCommand = append(nginx[:len(nginx):len(nginx)], "-t"), append(nginx[:len(nginx):len(nginx)], "-s", "reload")
	n.writeSite(c)
	var err error
	n.Edge, err = New(c, slog.New(slog.DiscardHandler), n.tell())
	require.NoError(t, err)
	require.NoError(t, n.Prepare(t.Context(), "old"))
	listener, err := net.Listen("tcp", gateAddress)
	require.NoError(t, err)
	n.gate = &http.Server{Handler: n.Gate()}
	go func() { _ = n.gate.Serve(listener) }()
	t.Cleanup(func() { n.gate.Close() })
	n.start(nginx)
	require.NoError(t, n.CaughtUp(t.Context(), nil, time.Now()))
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = n.Run(ctx) })
	t.Cleanup(func() { stop(); running.Wait() })
	return n
}

// tell remembers what the edge asks for, and does it at once.
func (n *node) tell() Tell {
	return Tell{
		Expired: func(r routing.Route) { n.ranOut <- r },
		Carry: func(_ context.Context, _ routing.Route, from string, changes []journal.Change, _ []routing.Upload) error {
			n.mu.Lock()
			defer n.mu.Unlock()
			for _, c := range changes {
				n.carried = append(n.carried, from+" "+c.Repository+" "+c.Reference)
			}
			return nil
		},
		Narrow: func(routing.Route, routing.Deletes) {},
	}
}

func free(t testing.TB) string {
	t.Helper()
	ports, err := servers.FreePorts(1)
	require.NoError(t, err)
	return ports[0]
}

// backend answers every write with 201 and every read with its name.
func (n *node) backend(name string) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		n.mu.Lock()
		n.got = append(n.got, name+" "+r.Method+" "+r.URL.Path)
		n.mu.Unlock()
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			if n.without(name, filepath.Base(r.URL.Path)) {
				http.Error(w, name+" does not have it", http.StatusNotFound)
				return
			}
			fmt.Fprint(w, name)
			return
		}
		w.Header().Set("Docker-Content-Digest", "sha256:abc")
		w.Header().Set("Docker-Upload-Uuid", "session-1")
		w.WriteHeader(http.StatusCreated)
	}))
	n.t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// without reports whether a backend lacks a digest.
func (n *node) without(backend, digest string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lacks[backend+" "+digest]
}

func (n *node) writeSite(c Config) {
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;"
	}
	require.NoError(n.t, os.WriteFile(filepath.Join(n.dir, "htpasswd"), []byte("u:{PLAIN}p\n"), 0o644))
	site := fmt.Sprintf(`%[1]s
daemon off; worker_processes 2; pid %[2]s/nginx.pid; error_log %[2]s/error.log warn;
events { worker_connections 512; }
http {
  access_log off; %[5]s
  client_body_temp_path %[2]s/temp/body; proxy_temp_path %[2]s/temp/proxy;
  fastcgi_temp_path %[2]s/temp/fastcgi; uwsgi_temp_path %[2]s/temp/uwsgi; scgi_temp_path %[2]s/temp/scgi;
  include %[3]s/transship_http.conf;
  server {
    listen %[4]s;
    client_max_body_size 0;
    include %[3]s/transship_server.conf;
    proxy_buffering off; proxy_request_buffering off; proxy_http_version 1.1;
    location /v2 {
      error_page 418 = @read;
      if ($request_method ~ ^(GET|HEAD)$) { return 418; }
      limit_except GET HEAD OPTIONS { auth_basic "registry"; auth_basic_user_file %[2]s/htpasswd; }
      include %[3]s/transship_location.conf;
      proxy_pass $transship_upstream;
    }
    location @read { proxy_pass $transship_read_upstream; }
    include %[2]s/extra*.conf;
  }
}
`, user, n.dir, c.Directory, strings.TrimPrefix(n.url, "http://"), keepsIdle(n.t))
	require.NoError(n.t, os.WriteFile(filepath.Join(n.dir, "nginx.conf"), []byte(site), 0o644))
}

// keepsIdle is what doctor asks of a site whose nginx can do it.
func keepsIdle(t testing.TB) string {
	output, err := exec.Command("nginx", "-V").CombinedOutput()
	require.NoError(t, err)
	build, err := siteconf.ReadBuild(string(output))
	require.NoError(t, err)
	if !build.KeepsIdle() {
		return ""
	}
	return "keepalive_min_timeout 3s;"
}

// start runs nginx until the test ends, and stops exactly that process with its workers.
func (n *node) start(nginx []string) {
	path, err := exec.LookPath("nginx")
	if err != nil {
		path = "/usr/sbin/nginx"
	}
	log, err := os.Create(filepath.Join(n.dir, "nginx.log"))
	require.NoError(n.t, err)
	cmd := exec.Command(path, nginx[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(n.t, cmd.Start())
	n.t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		_ = cmd.Wait()
		log.Close()
	})
	require.Eventually(n.t, func() bool {
		answer, err := ask[confirmation](context.Background(), n.StatusURL)
		return err == nil && answer.Edge == "e1"
	}, 5*time.Second, 10*time.Millisecond, "nginx does not answer: see %s", log.Name())
}

func (n *node) apply(generation int64, r ...routing.Route) Applied {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), 10*time.Second)
	defer cancel()
	applied, err := n.Apply(ctx, table(generation, r...))
	require.NoError(n.t, err)
	return applied
}

// answered is what a client saw.
type answered struct {
	status     int
	body       string
	retryAfter string
	took       time.Duration
	err        error
}

func (n *node) send(method, path, password string) answered {
	req, err := http.NewRequest(method, n.url, strings.NewReader("body"))
	if err != nil {
		return answered{err: err}
	}
	req.URL.Opaque = "//" + req.URL.Host + path // as it is, not normalised by the client
	if password != "" {
		req.SetBasicAuth("u", password)
	}
	begin := time.Now()
	resp, err := newConnections().Do(req)
	if err != nil {
		return answered{err: err, took: time.Since(begin)}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answered{resp.StatusCode, string(body), resp.Header.Get("Retry-After"), time.Since(begin), err}
}

// write sends a write that may wait, with a client as patient as a hold is long.
func (n *node) write(path string) <-chan answered {
	done := make(chan answered, 1)
	go func() {
		req, _ := http.NewRequest(http.MethodPut, n.url, strings.NewReader("body"))
		req.URL.Opaque = "//" + req.URL.Host + path
		req.SetBasicAuth("u", "p")
		begin := time.Now()
		client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Do(req)
		if err != nil {
			done <- answered{err: err, took: time.Since(begin)}
			return
		}
		resp.Body.Close()
		done <- answered{status: resp.StatusCode, retryAfter: resp.Header.Get("Retry-After"), took: time.Since(begin)}
	}()
	return done
}

// reached are the requests that a backend was sent.
func (n *node) reached(backend string) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var found []string
	for _, line := range n.got {
		if name, what, _ := strings.Cut(line, " "); name == backend {
			found = append(found, what)
		}
	}
	return found
}

func (n *node) parked(want int) {
	n.t.Helper()
	require.Eventually(n.t, func() bool { return n.Gate().Parked("restricted") == want }, 3*time.Second, 2*time.Millisecond, "%d writes should wait", want)
}

func (n *node) journaled(path string) (found journal.Entry) {
	n.t.Helper()
	require.Eventually(n.t, func() bool {
		for e, err := range journal.Read(context.Background(), n.Journal, journal.Position{}) {
			if err == nil && e.Path == path {
				found = e
				return true
			}
		}
		return false
	}, 3*time.Second, 10*time.Millisecond)
	return found
}
