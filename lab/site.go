package lab

import (
	"context"
	"crypto/sha1" //nolint:gosec // the format of an htpasswd file
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"transship/lab/servers"
)

// EdgeName is the lab's proxy node.
const EdgeName = "edge1"

// registry prepares a Docker Distribution on local disk.
func (s *Stack) registry(name, url string) (*Process, error) {
	r, err := servers.PrepareRegistry(s.Dir, name, servers.RegistryOptions{Address: strings.TrimPrefix(url, "http://")})
	if err != nil {
		return nil, err
	}
	return r.Process, nil
}

// writeSite writes an nginx configuration shaped like a real registry edge: prefixes with passwords of their own, reads split off by a status that
// nobody else uses, and writes limited to those who may push. transship adds the lines that are marked.
func (s *Stack) writeSite() error {
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;"
	}
	generated := s.path("nginx/generated")
	prefixed := ""
	for _, prefix := range []string{"restricted", "platform"} {
		prefixed += fmt.Sprintf(`
    location /v2/%[1]s/ {
      error_page 418 = @%[1]s_read;
      recursive_error_pages on;
      if ($request_method ~ ^(GET|HEAD)$) { return 418; }
      auth_basic "push to %[1]s"; auth_basic_user_file %[2]s/push.htpasswd;
      include %[3]s/transship_location.conf;                       # transship
      proxy_pass $transship_upstream;                              # transship
    }
    location @%[1]s_read {
      auth_basic "read %[1]s"; auth_basic_user_file %[2]s/read.htpasswd;
      proxy_pass $transship_read_upstream;                         # transship
    }
`, prefix, s.path("nginx"), generated)
	}
	site := fmt.Sprintf(`# An edge of the lab.
%[1]s
daemon off;
worker_processes 2;
pid %[2]s/nginx.pid;
error_log %[2]s/error.log warn;
events { worker_connections 1024; }
http {
  access_log %[2]s/access.log;
  client_body_temp_path %[2]s/temp/body; proxy_temp_path %[2]s/temp/proxy;
  fastcgi_temp_path %[2]s/temp/fastcgi; uwsgi_temp_path %[2]s/temp/uwsgi; scgi_temp_path %[2]s/temp/scgi;
  include %[3]s/transship_http.conf;                                 # transship
  server {
    listen %[4]s backlog=1024;
    client_max_body_size 0;
    access_log %[2]s/access.log;
    include %[3]s/transship_server.conf;                             # transship
    proxy_redirect off; proxy_buffering off; proxy_request_buffering off; proxy_http_version 1.1;
    proxy_set_header Host $http_host;
    proxy_read_timeout 300s;
%[5]s
    location = /v2/ {
      auth_basic "registry"; auth_basic_user_file %[2]s/read.htpasswd;
      proxy_pass $transship_read_upstream;                           # transship
    }
    location /v2 {
      limit_except GET HEAD OPTIONS { auth_basic "registry"; auth_basic_user_file %[2]s/push.htpasswd; }
      include %[3]s/transship_location.conf;                         # transship
      proxy_pass $transship_upstream;                                # transship
    }
  }
}
`, user, s.path("nginx"), generated, strings.TrimPrefix(s.Addresses.Edge, "http://"), prefixed)
	push, pull := credential(PushUser), credential(PullUser)
	for name, content := range map[string]string{"nginx.conf": site, "push.htpasswd": push, "read.htpasswd": push + pull} {
		if err := os.WriteFile(s.path("nginx/"+name), []byte(content), 0o644); err != nil {
			return fmt.Errorf("nginx: %w", err)
		}
	}
	return nil
}

func credential(user string) string {
	sum := sha1.Sum([]byte(Password)) //nolint:gosec // see the import
	return user + ":{SHA}" + base64.StdEncoding.EncodeToString(sum[:]) + "\n"
}

func (s *Stack) nginxCommand(more ...string) []string {
	return append([]string{"nginx", "-p", s.path("nginx"), "-c", filepath.Join(s.Dir, "nginx/nginx.conf")}, more...)
}

func (s *Stack) nginx() *Process {
	return s.process("nginx", func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Addresses.Edge+"/_transship/generation", nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		return resp.Body.Close()
	}, s.nginxCommand()...)
}
