package lab

import (
	"crypto/sha1" //nolint:gosec // the format of an htpasswd file
	"encoding/base64"
	"fmt"
	"os"
	"strings"
)

// writeSite writes an nginx configuration shaped like a real registry edge: prefixes with passwords of their own, reads split off by a status that
// nobody else uses, and writes limited to those who may push. transship adds the lines that are marked.
func (e *Edge) writeSite() error {
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;"
	}
	generated := e.path("generated")
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
`, prefix, e.Dir, generated)
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
`, user, e.Dir, generated, strings.TrimPrefix(e.URL, "http://"), prefixed)
	push, pull := credential(PushUser), credential(PullUser)
	for name, content := range map[string]string{"nginx.conf": site, "push.htpasswd": push, "read.htpasswd": push + pull} {
		if err := os.WriteFile(e.path(name), []byte(content), 0o644); err != nil {
			return fmt.Errorf("nginx: %w", err)
		}
	}
	return nil
}

func credential(user string) string {
	sum := sha1.Sum([]byte(Password)) //nolint:gosec // see the import
	return user + ":{SHA}" + base64.StdEncoding.EncodeToString(sum[:]) + "\n"
}
