//go:build lab

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"transship/config"
	"transship/internal/routing"
	"transship/lab/servers"
)

// asNode names the configuration of a node that this test program serves, instead of running tests.
const asNode = "TRANSSHIP_TEST_NODE"

func TestMain(m *testing.M) {
	if path := os.Getenv(asNode); path != "" {
		if err := serveNode(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// serveNode is an edge worker without Temporal: it takes tables from its standard input, and answers each with what came of it.
func serveNode(path string) error {
	c, err := config.Load(path, nil, config.NeedSecrets)
	if err != nil {
		return err
	}
	node, err := newEdgeNode(context.Background(), c, "edge1", slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	defer node.close()
	fmt.Println(`{"ready":true}`)
	for in := json.NewDecoder(os.Stdin); ; {
		var t routing.Table
		if err := in.Decode(&t); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
		applied, err := node.Apply(ctx, t)
		if err == nil {
			err = node.CaughtUp(ctx, nil, time.Now()) // as Routes would say
		}
		var wrong []string
		for _, f := range node.Check(ctx) {
			if f.Failed() || f.Warned() {
				wrong = append(wrong, f.What+": "+f.Detail)
			}
		}
		cancel()
		said := answer{Reload: applied.Reload, Wrong: wrong, UID: os.Geteuid()}
		if err != nil {
			said.Error = err.Error()
		}
		if err := json.NewEncoder(os.Stdout).Encode(said); err != nil {
			return err
		}
	}
}

type answer struct {
	Ready  bool          `json:"ready"`
	Reload time.Duration `json:"reload"`
	Wrong  []string      `json:"wrong"`
	UID    int           `json:"uid"`
	Error  string        `json:"error"`
}

// plainNode is a node set up as runbooks/edge.md says in variant A: nginx belongs to root, its worker processes to www-data, and the edge worker to nobody,
// whom sudo lets test, show and reload exactly this nginx.
type plainNode struct {
	t        *testing.T
	dir, url string
	nginx    []string
	tables   io.Writer
	answers  *bufio.Scanner
}

func newPlainNode(t *testing.T) *plainNode {
	require.Zero(t, os.Geteuid(), "this test sets up a node for an unprivileged user: run it as root")
	dir, err := os.MkdirTemp("", "transship-node-") // the test's own folder is closed to other users
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	free, err := servers.FreePorts(1)
	require.NoError(t, err)
	n := &plainNode{t: t, dir: dir, url: "http://" + free[0], nginx: []string{"/usr/sbin/nginx", "-p", dir, "-c", dir + "/nginx.conf"}}
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusCreated)
	}))
	t.Cleanup(backend.Close)
	nobody, web := id(t, "nobody"), id(t, "www-data")
	for _, folder := range []struct {
		name  string
		user  int
		group int
		mode  os.FileMode
	}{
		{"generated", nobody, nobody, 0o755}, {"state", nobody, nobody, 0o700}, {"run", nobody, web, 0o750 | os.ModeSetgid},
		{"log", 0, 0, 0o755}, {"temp", 0, 0, 0o755}, {"sudoers.d", 0, 0, 0o755},
	} {
		path := filepath.Join(dir, folder.name)
		require.NoError(t, os.Mkdir(path, 0o755))
		require.NoError(t, os.Chown(path, folder.user, folder.group))
		require.NoError(t, os.Chmod(path, folder.mode))
	}
	command := strings.Join(n.nginx, " ")
	n.write("sudoers.d/transship", 0o440, fmt.Sprintf("nobody ALL=(root) NOPASSWD: %[1]s -t, %[1]s -T, %[1]s -s reload\n", command))
	n.write("nginx.conf", 0o644, strings.NewReplacer("DIR", dir, "LISTEN", free[0]).Replace(`user www-data;
daemon off; worker_processes 2; pid DIR/nginx.pid; error_log DIR/log/error.log warn;
events { worker_connections 256; }
http {
  access_log off;
  client_body_temp_path DIR/temp/body; proxy_temp_path DIR/temp/proxy; fastcgi_temp_path DIR/temp/fastcgi; uwsgi_temp_path DIR/temp/uwsgi; scgi_temp_path DIR/temp/scgi;
  include DIR/generated/transship_http.conf;
  server {
    listen LISTEN;
    include DIR/generated/transship_server.conf;
    location /v2/ {
      include DIR/generated/transship_location.conf;
      proxy_pass $transship_upstream;
    }
  }
}
`))
	// As logrotate leaves them: only www-data writes, and group adm reads.
	for _, name := range []string{"journal.log", "traffic.log"} {
		n.write("log/"+name, 0o640, "")
		require.NoError(t, os.Chown(filepath.Join(dir, "log", name), web, group(t, "adm")))
	}
	n.write("transship.yaml", 0o644, fmt.Sprintf(`backends: {old: {url: %[2]q}, new: {url: %[2]q}}
default_backend: old
edges:
  edge1:
    url: %[3]q
    nginx:
      directory: %[1]s/generated
      test_command: [sudo, -n, %[4]s, -t]
      reload_command: [sudo, -n, %[4]s, -s, reload]
    gate: unix:%[1]s/run/gate.sock
    journal: %[1]s/log/journal.log
    traffic: %[1]s/log/traffic.log
    state: %[1]s/state/edge1.json
prefixes: [{prefix: restricted, from: old, to: new}]
`, dir, backend.URL, n.url, strings.Join(n.nginx, ", ")))
	return n
}

func (n *plainNode) write(name string, mode os.FileMode, content string) {
	n.t.Helper()
	path := filepath.Join(n.dir, name)
	require.NoError(n.t, os.WriteFile(path, []byte(content), mode))
	require.NoError(n.t, os.Chmod(path, mode))
}

func id(t *testing.T, name string) int {
	t.Helper()
	u, err := user.Lookup(name)
	require.NoError(t, err)
	n, err := strconv.Atoi(u.Uid)
	require.NoError(t, err)
	return n
}

func group(t *testing.T, name string) int {
	t.Helper()
	g, err := user.LookupGroup(name)
	require.NoError(t, err)
	n, err := strconv.Atoi(g.Gid)
	require.NoError(t, err)
	return n
}

// start runs the edge worker as nobody. It sees our rules for sudo in the place of the machine's, by a mount that nobody else sees and that ends with it.
func (n *plainNode) start() {
	self, err := os.ReadFile("/proc/self/exe")
	require.NoError(n.t, err)
	require.NoError(n.t, os.WriteFile(filepath.Join(n.dir, "worker"), self, 0o755))
	script := fmt.Sprintf("mount --bind %s/sudoers.d /etc/sudoers.d && exec setpriv --reuid=nobody --regid=nogroup --groups=adm --inh-caps=-all %s/worker", n.dir, n.dir)
	cmd := exec.Command("unshare", "--mount", "sh", "-c", script)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", asNode + "=" + n.dir + "/transship.yaml"}
	log, err := os.Create(filepath.Join(n.dir, "worker.log"))
	require.NoError(n.t, err)
	defer log.Close()
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := cmd.StdinPipe()
	require.NoError(n.t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(n.t, err)
	require.NoError(n.t, cmd.Start())
	n.tables, n.answers = in, bufio.NewScanner(out)
	n.t.Cleanup(func() {
		_ = in.Close() // it ends by that
		end := time.AfterFunc(5*time.Second, func() { _ = cmd.Process.Kill() })
		defer end.Stop()
		_ = cmd.Wait()
	})
	require.True(n.t, n.hear().Ready)
}

func (n *plainNode) hear() (a answer) {
	n.t.Helper()
	require.True(n.t, n.answers.Scan(), "the worker said nothing: %s", servers.Tail(filepath.Join(n.dir, "worker.log")))
	require.NoError(n.t, json.Unmarshal(n.answers.Bytes(), &a), n.answers.Text())
	return a
}

func (n *plainNode) apply(generation int64, routes ...routing.Route) answer {
	n.t.Helper()
	require.NoError(n.t, json.NewEncoder(n.tables).Encode(routing.Table{Generation: generation, Default: "old", Routes: routes}))
	return n.hear()
}

func (n *plainNode) push(path string) int {
	req, err := http.NewRequest(http.MethodPut, n.url+path, strings.NewReader("body"))
	require.NoError(n.t, err)
	resp, err := (&http.Client{Timeout: 20 * time.Second}).Do(req)
	require.NoError(n.t, err)
	defer resp.Body.Close()
	return resp.StatusCode
}

func TestAnEdgeWorkerWithoutPrivilegesServesItsNode(t *testing.T) {
	n := newPlainNode(t)
	n.start()
	nginx := &servers.Process{Name: "nginx", Args: n.nginx, Log: filepath.Join(n.dir, "nginx.log"), Ready: servers.AnswersHTTP(n.url + "/_transship/generation")}
	require.NoError(t, nginx.Start(t.Context()))
	t.Cleanup(nginx.Stop)

	info, err := os.Stat(filepath.Join(n.dir, "run/gate.sock"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o660), info.Mode().Perm())
	require.EqualValues(t, id(t, "www-data"), info.Sys().(*syscall.Stat_t).Gid, "the socket has the group of its folder")

	watched := routing.Route{Prefix: "restricted", Backend: "old", Mode: routing.Watched, Owner: "m"}
	said := n.apply(1, watched)
	require.Empty(t, said.Error)
	require.Equal(t, id(t, "nobody"), said.UID)
	require.Zero(t, said.Reload)
	require.Empty(t, said.Wrong)

	// A prefix that nginx has not seen takes new files, nginx's test of them, and a reload.
	said = n.apply(2, watched, routing.Route{Prefix: "unknown-so-far", Backend: "new", Mode: routing.Open, Owner: "m"})
	require.Empty(t, said.Error)
	require.Positive(t, said.Reload)
	require.Empty(t, said.Wrong)

	// A held write waits, which it does only where nginx's www-data reaches the gate by its socket; a push that nobody releases goes on when the lease is over.
	held := watched
	held.Mode, held.Hold, held.Lease = routing.Held, "h1", 8*time.Second
	require.Empty(t, n.apply(3, held).Error) // and a look at everything, which takes a part of the hold
	begin := time.Now()
	require.Equal(t, http.StatusCreated, n.push("/v2/restricted/app/manifests/v1"))
	require.Greater(t, time.Since(begin), time.Second, "the gate parked it")

	// It has no other right.
	for _, args := range [][]string{{"-s", "stop"}, {"-t", "-c", "/etc/passwd"}} {
		script := fmt.Sprintf("mount --bind %s/sudoers.d /etc/sudoers.d && exec setpriv --reuid=nobody --regid=nogroup --clear-groups sudo -n %s %s", n.dir, strings.Join(n.nginx, " "), strings.Join(args, " "))
		out, err := exec.Command("unshare", "--mount", "sh", "-c", script).CombinedOutput()
		require.Error(t, err)
		require.Contains(t, string(out), "password is required")
	}
	require.NotZero(t, nginx.PID())
}
