//go:build lab

package edge

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"transship/internal/routing"
)

// fitted is a node whose nginx is a site's: TLS, passwords of their own for pushing and pulling, reads split off by a status, and a cache that keeps what it
// reads in slices. Its backends answer with ranges, as registries do.
type fitted struct {
	*node
	site   string // https
	client *http.Client
}

// newFitted starts such a node with a key for its cache, and more lines in its server block. Its status is asked over plain HTTP, on a port of its own.
func newFitted(t *testing.T, cacheKey string, more ...string) *fitted {
	f := &fitted{node: &node{t: t, dir: t.TempDir(), ranOut: make(chan routing.Route, 8)}}
	public := free(t)
	f.url, f.site = "http://"+free(t), "https://"+public
	for _, dir := range []string{"generated", "temp"} {
		require.NoError(t, os.Mkdir(filepath.Join(f.dir, dir), 0o755))
	}
	c := settings(filepath.Join(f.dir, "generated"))
	gate, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c.Prefixes = []routing.Prefix{"restricted"}
	c.Upstreams = []Upstream{{Name: "new", Address: f.ranged("new")}, {Name: "old", Address: f.ranged("old")}}
	c.Reads, c.Fallbacks = free(t), filepath.Join(f.dir, "fallbacks.log")
	c.StatusURL, c.GateAddress = f.url+"/_transship/generation", "http://"+gate.Addr().String()
	nginx := []string{"nginx", "-p", f.dir, "-c", filepath.Join(f.dir, "nginx.conf")}
	c.TestCommand, c.ReloadCommand = append(nginx[:len(nginx):len(nginx)], "-t"), append(nginx[:len(nginx):len(nginx)], "-s", "reload")
	f.certify()
	f.write(c, public, cacheKey, strings.Join(more, " "))
	f.Edge, err = New(c, slog.New(slog.DiscardHandler), f.tell())
	require.NoError(t, err)
	require.NoError(t, f.Prepare(t.Context(), "old"))
	f.node.gate = &http.Server{Handler: f.Gate()}
	go func() { _ = f.node.gate.Serve(gate) }()
	t.Cleanup(func() { f.node.gate.Close() })
	f.start(nginx)
	require.NoError(t, f.CaughtUp(t.Context(), nil, time.Now()))
	return f
}

// ranged is a backend whose tags all have its name as their content.
func (f *fitted) ranged(name string) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		f.mu.Lock()
		f.got = append(f.got, name+" "+r.Method+" "+r.URL.Path)
		f.mu.Unlock()
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			w.Header().Set("ETag", `"`+name+`"`)
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader(name))
			return
		}
		w.WriteHeader(http.StatusCreated)
	}))
	f.t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func (f *fitted) certify() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(f.t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "registry"}, NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(f.t, err)
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(f.t, err)
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	require.NoError(f.t, os.WriteFile(filepath.Join(f.dir, "registry.pem"), certificate, 0o644))
	require.NoError(f.t, os.WriteFile(filepath.Join(f.dir, "registry.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), 0o600))
	roots := x509.NewCertPool()
	require.True(f.t, roots.AppendCertsFromPEM(certificate))
	f.client = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots}}}
}

func (f *fitted) write(c Config, public, cacheKey, more string) {
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;"
	}
	files := map[string]string{"push": "pusher:{PLAIN}p\n", "read": "reader:{PLAIN}r\npusher:{PLAIN}p\n", "all": "other:{PLAIN}o\n"}
	files["nginx.conf"] = strings.NewReplacer("DIR", f.dir, "GENERATED", c.Directory, "PUBLIC", public, "STATUS", strings.TrimPrefix(f.url, "http://"), "USER", user, "KEEPS", keepsIdle(f.t)).Replace(`USER
daemon off; worker_processes 2; pid DIR/nginx.pid; error_log DIR/error.log warn;
events { worker_connections 512; }
http {
  access_log DIR/access.log; KEEPS
  client_body_temp_path DIR/temp/body; proxy_temp_path DIR/temp/proxy; fastcgi_temp_path DIR/temp/fastcgi; uwsgi_temp_path DIR/temp/uwsgi; scgi_temp_path DIR/temp/scgi;
  proxy_cache_path DIR/cache keys_zone=blobs:1m;
  include GENERATED/transship_http.conf;
  include DIR/registry.conf;
  server {
    listen STATUS;
    include GENERATED/transship_server.conf;
  }
}
`)
	files["registry.conf"] = strings.NewReplacer("DIR", f.dir, "GENERATED", c.Directory, "PUBLIC", public, "CACHEKEY", cacheKey, "MORE", more).Replace(`server {
  listen PUBLIC ssl;
  ssl_certificate DIR/registry.pem;
  ssl_certificate_key DIR/registry.key;
  client_max_body_size 0; MORE
  access_log DIR/access.log;
  include GENERATED/transship_server.conf;
  proxy_http_version 1.1;
  proxy_set_header Host $http_host;
  location /v2/restricted/ {
    error_page 418 = @restricted_read;
    recursive_error_pages on;
    if ($request_method ~ ^(GET|HEAD)$) { return 418; }
    auth_basic "push"; auth_basic_user_file DIR/push;
    proxy_request_buffering off; proxy_buffering off;
    include GENERATED/transship_location.conf;
    proxy_pass $transship_upstream;
  }
  location @restricted_read {
    auth_basic "read"; auth_basic_user_file DIR/read;
    slice 1m;
    proxy_cache blobs;
    proxy_cache_key CACHEKEY;
    proxy_cache_valid 200 206 10m;
    proxy_set_header Range $slice_range;
    add_header X-Cache $upstream_cache_status;
    proxy_pass $transship_read_upstream;
  }
  location = /v2/ {
    auth_basic "registry"; auth_basic_user_file DIR/read;
    proxy_pass $transship_read_upstream;
  }
  location /v2/ {
    limit_except GET HEAD OPTIONS { auth_basic "push"; auth_basic_user_file DIR/all; }
    proxy_request_buffering off; proxy_buffering off;
    include GENERATED/transship_location.conf;
    proxy_pass $transship_upstream;
  }
}
`)
	for name, content := range files {
		require.NoError(f.t, os.WriteFile(filepath.Join(f.dir, name), []byte(content), 0o644))
	}
}

// ask sends one request as a client of the site.
func (f *fitted) ask(method, path, user, password string) (status int, body, cache string) {
	f.t.Helper()
	req, err := http.NewRequest(method, f.site+path, strings.NewReader("body"))
	require.NoError(f.t, err)
	if method == http.MethodGet {
		req.Body, req.ContentLength = nil, 0
	}
	if user != "" {
		req.SetBasicAuth(user, password)
	}
	resp, err := f.client.Do(req)
	require.NoError(f.t, err)
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	require.NoError(f.t, err)
	return resp.StatusCode, string(content), resp.Header.Get("X-Cache")
}

func (f *fitted) pull() (body, cache string) {
	f.t.Helper()
	status, body, cache := f.ask(http.MethodGet, tag, "reader", "r")
	require.Equal(f.t, http.StatusOK, status)
	return body, cache
}

// wrong are the findings that are not well.
func wrong(findings []Finding) (all []string) {
	for _, f := range findings {
		if !f.OK {
			all = append(all, fmt.Sprintf("%s: %s; %s (warning %t)", f.What, f.Detail, f.Cure, f.Warning))
		}
	}
	return all
}

func TestASiteWithTLSPasswordsASplitOfReadsAndACacheIsFittedAndServes(t *testing.T) {
	f := newFitted(t, `"$transship_route$uri$slice_range"`)
	f.apply(1, route("restricted", routing.Watched, "old"))
	require.Empty(t, wrong(f.Check(t.Context())))

	status, _, _ := f.ask(http.MethodGet, tag, "", "")
	require.Equal(t, http.StatusUnauthorized, status, "reads are asked for their password")
	body, cache := f.pull()
	require.Equal(t, "old MISS", body+" "+cache)
	body, cache = f.pull()
	require.Equal(t, "old HIT", body+" "+cache, "the cache is at work")
	status, _, _ = f.ask(http.MethodPut, tag, "reader", "r")
	require.Equal(t, http.StatusUnauthorized, status, "who may pull may not push")
	status, _, _ = f.ask(http.MethodPut, tag, "pusher", "p")
	require.Equal(t, http.StatusCreated, status)
	require.Contains(t, f.reached("old"), "PUT "+tag)
	status, _, _ = f.ask(http.MethodPut, "/v2/elsewhere/app/manifests/v1", "other", "o")
	require.Equal(t, http.StatusCreated, status)

	f.apply(2, held(20*time.Second))
	waiting := make(chan int, 1)
	go func() {
		status, _, _ := f.ask(http.MethodPut, tag, "pusher", "p")
		waiting <- status
	}()
	f.parked(1)
	status, _, _ = f.ask(http.MethodPut, tag, "reader", "r")
	require.Equal(t, http.StatusUnauthorized, status, "a hold comes after the password")
	f.apply(3, route("restricted", routing.Prepared, "old"))
	f.apply(4, route("restricted", routing.Switched, "new"))
	body, cache = f.pull()
	require.Equal(t, "new MISS", body+" "+cache, "the cache does not answer for the old backend")
	f.apply(5, route("restricted", routing.Watched, "new"))
	require.Equal(t, http.StatusCreated, <-waiting)
	require.Contains(t, f.reached("new"), "PUT "+tag)
	body, cache = f.pull()
	require.Equal(t, "new HIT", body+" "+cache)
	require.Empty(t, wrong(f.Check(t.Context())))
}

func TestACacheWhoseKeyLacksTheRouteIsFoundBeforeItServesTheOldBackend(t *testing.T) {
	f := newFitted(t, `"$uri$slice_range"`)
	f.apply(1, route("restricted", routing.Watched, "old"))
	found := wrong(f.Check(t.Context()))
	require.Len(t, found, 1)
	require.Contains(t, found[0], filepath.Join(f.dir, "registry.conf")+":23: location @restricted_read answers from the cache blobs")
	require.Contains(t, found[0], "(warning false)")

	body, _ := f.pull()
	require.Equal(t, "old", body)
	f.apply(2, held(20*time.Second))
	f.apply(3, route("restricted", routing.Prepared, "old"))
	f.apply(4, route("restricted", routing.Switched, "new"))
	f.apply(5, route("restricted", routing.Watched, "new"))
	body, cache := f.pull()
	require.Equal(t, "old HIT", body+" "+cache, "this is what the finding is about")
}

func TestAGateWhoseYesLetsEverybodyInIsFound(t *testing.T) {
	f := newFitted(t, `"$transship_route$uri$slice_range"`, "satisfy any;")
	f.apply(1, route("restricted", routing.Watched, "old"))
	found := wrong(f.Check(t.Context()))
	require.NotEmpty(t, found)
	require.Contains(t, found[0], filepath.Join(f.dir, "registry.conf")+":5: satisfy any counts in location /v2/restricted/")
	status, _, _ := f.ask(http.MethodPut, tag, "", "")
	require.Equal(t, http.StatusCreated, status, "this is what the finding is about: a push without a password")
}

func TestANodeWhoseConfigurationCannotBeReadIsToldSoAndIsNoFailure(t *testing.T) {
	n := newNode(t)
	n.apply(1, route("restricted", routing.Open, "old"))
	script := filepath.Join(n.dir, "check")
	require.NoError(t, os.WriteFile(script, []byte("#!/bin/sh\n[ \"$1\" = -t ] || { echo 'not allowed' >&2; exit 1; }\n"), 0o755))
	for _, c := range []struct {
		command []string
		detail  string
	}{
		{[]string{"true"}, "there is no -t to make -T of"},
		{[]string{script, "-t"}, "not allowed"},
	} {
		n.TestCommand = c.command
		var unread []Finding
		for _, f := range n.Check(t.Context()) {
			require.False(t, f.Failed(), "%+v", f)
			if f.Warned() && strings.Contains(f.Detail, c.detail) {
				unread = append(unread, f)
			}
		}
		require.NotEmpty(t, unread, c.detail)
	}
}

func TestTheSnippetIsAcceptedByNginxAndServes(t *testing.T) {
	n := newNode(t)
	n.apply(1, route("restricted", routing.Watched, "old"))
	var lines strings.Builder
	require.NoError(t, SiteFiles(n.Directory).Snippet(&lines, "e1", []string{"restricted", "team/app"}))
	http1, server, ok := strings.Cut(lines.String(), "# --- In the server block")
	require.True(t, ok)
	path := filepath.Join(n.dir, "nginx.conf")
	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	before, _, ok := strings.Cut(string(raw), "  include "+n.Directory+"/transship_http.conf;")
	require.True(t, ok)
	listen := strings.TrimPrefix(n.url, "http://")
	require.NoError(t, os.WriteFile(path, []byte(before+http1+"server {\nlisten "+listen+";\n# "+server+"}\n}\n"), 0o644))
	require.NoError(t, n.run(t.Context(), n.TestCommand))
	require.NoError(t, n.run(t.Context(), n.ReloadCommand))
	require.Empty(t, wrong(n.Check(t.Context())))
	require.Eventually(t, func() bool {
		return n.send(http.MethodPut, "/v2/team/app/x/manifests/v1", "").status == http.StatusCreated
	}, 3*time.Second, 20*time.Millisecond)
	require.Equal(t, "old", n.send(http.MethodGet, tag, "").body)
	n.apply(2, held(20*time.Second))
	waiting := n.write(tag)
	n.parked(1)
	require.Equal(t, "old", n.send(http.MethodGet, tag, "").body)
	n.apply(3, route("restricted", routing.Switched, "new"))
	n.apply(4, route("restricted", routing.Watched, "new"))
	require.Equal(t, http.StatusCreated, (<-waiting).status)
	require.Contains(t, n.reached("new"), "PUT "+tag)
}
