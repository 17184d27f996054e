package siteconf

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var generated = Generated{Directory: "/etc/nginx/transship", HTTP: "transship_http.conf", Server: "transship_server.conf", Location: "transship_location.conf"}

var expected = Expected{Prefixes: []string{"restricted", "team/platform"}, Backends: []string{"127.0.0.1:5001", "127.0.0.1:5002"}}

const nginxConf = `user www-data;
events { worker_connections 512; }
http {
  include /etc/nginx/mime.types;
  map $request_method $is_write { default 1; GET 0; HEAD 0; "~^OPT" 0; }
  proxy_cache_path /var/cache/nginx keys_zone=blobs:10m;
  include transship/transship_http.conf;
  include /etc/nginx/sites-enabled/*;
}
`

// site is a registry's file as sites have it: passwords of their own for each prefix, reads split off, TLS, blobs cached in slices.
const site = `server {
  listen 80;
  return 301 https://$host$request_uri;
}
server {
  listen 443 ssl;
  ssl_certificate /etc/ssl/registry.pem;
  ssl_certificate_key /etc/ssl/registry.key;
  client_max_body_size 0;
  access_log /var/log/nginx/registry.log;
  include transship/transship_server.conf;
  proxy_cache_key "$transship_route$uri$slice_range";
  location / {
    proxy_pass http://127.0.0.1:8080;
  }
  location /v2/restricted/ {
    error_page 418 = @restricted_read;
    recursive_error_pages on;
    if ($request_method ~ ^(GET|HEAD)$) { return 418; }
    auth_basic "push"; auth_basic_user_file restricted.push;
    include transship/transship_location.conf;
    proxy_pass $transship_upstream;
  }
  location @restricted_read {
    auth_basic "read"; auth_basic_user_file restricted.read;
    slice 8m;
    proxy_cache blobs;
    proxy_set_header Range $slice_range;
    proxy_pass $transship_read_upstream;
  }
  location /v2/team/platform/ {
    limit_except GET HEAD OPTIONS { auth_basic "push"; auth_basic_user_file platform.push; }
    include transship/transship_location.conf;
    proxy_pass $transship_upstream;
  }
  location /v2/mirror/ {
    limit_except GET { deny all; }
    proxy_pass $transship_read_upstream;
  }
  location /v2/frozen/ {
    if ($is_write) { return 405; }
    proxy_pass $transship_read_upstream;
  }
  location = /v2/ {
    auth_basic "registry"; auth_basic_user_file all.read;
    proxy_pass $transship_read_upstream;
  }
  location /v2/ {
    limit_except GET HEAD OPTIONS { auth_basic "push"; auth_basic_user_file all.push; }
    include transship/transship_location.conf;
    proxy_pass $transship_upstream;
  }
}
`

// dump writes what nginx -T would print. Of our own files, only that nothing in them counts matters.
func dump(nginxConf, site string) []byte {
	var b strings.Builder
	for _, f := range [][2]string{
		{"/etc/nginx/nginx.conf", nginxConf}, {"/etc/nginx/mime.types", "types { text/html html; }\n"},
		{"/etc/nginx/transship/transship_http.conf", "include transship/of_a_later_version.conf;\nserver { listen unix:/run/x; location /v2/ { proxy_pass http://127.0.0.1:5001; } }\n"},
		{"/etc/nginx/transship/of_a_later_version.conf", "server { location /v2/ { proxy_pass http://127.0.0.1:5001; } }\n"},
		{"/etc/nginx/sites-enabled/registry", site},
		{"/etc/nginx/transship/transship_server.conf", "access_log /x;\nlocation /v2/restricted/x { proxy_pass http://y; }\n"},
		{"/etc/nginx/transship/transship_location.conf", "auth_request /_transship/gate;\nerror_page 500 = @transship_unavailable;\n"},
	} {
		fmt.Fprintf(&b, "# configuration file %s:\n%s\n", f[0], f[1])
	}
	return []byte(b.String())
}

func faults(t *testing.T, nginxConf, site string) []Fault {
	t.Helper()
	return parsed(t, nginxConf, site).Faults(expected)
}

func parsed(t *testing.T, nginxConf, site string) *Site {
	t.Helper()
	s, err := Read(dump(nginxConf, site), generated)
	require.NoError(t, err)
	return s
}

func TestASiteThatIsWellHasNoFault(t *testing.T) {
	require.Empty(t, faults(t, nginxConf, site))
}

func TestNothingInOurOwnFolderIsAFault(t *testing.T) {
	require.Empty(t, faults(t, strings.Replace(nginxConf, "transship/transship_http.conf", "transship/*_http.conf", 1), site))
	require.Empty(t, faults(t, strings.Replace(nginxConf, "  include transship/transship_http.conf;\n", "  include transship/transship_http.conf;\n  include transship/of_a_later_version.conf;\n", 1), site))
}

// What Docker's documentation shows for nginx, as most sites begin with: https://distribution.github.io/distribution/recipes/nginx/.
func TestASiteLikeTheDocumentationsIsToldWhatItLacks(t *testing.T) {
	const documented = `upstream docker-registry { server registry:5000; }
map $upstream_http_docker_distribution_api_version $docker_distribution_api_version { '' 'registry/2.0'; }
server {
  listen 443 ssl;
  client_max_body_size 0;
  chunked_transfer_encoding on;
  location /v2/ {
    if ($http_user_agent ~ "^(docker\/1\.(3|4|5(?!\.[0-9]-dev))|Go ).*$" ) { return 404; }
    auth_basic "Registry realm";
    auth_basic_user_file /etc/nginx/conf.d/nginx.htpasswd;
    add_header 'Docker-Distribution-Api-Version' $docker_distribution_api_version always;
    proxy_pass http://docker-registry;
  }
}
`
	var said []string
	for _, f := range faults(t, nginxConf, documented) {
		said = append(said, fmt.Sprintf("%d: %s", f.Line, f.What))
	}
	require.Equal(t, []string{
		"3: this server block serves the registry and lacks transship_server.conf",
		"7: location /v2/ takes writes (POST, PUT, PATCH, DELETE) without the hold",
		"12: location /v2/ passes writes (POST, PUT, PATCH, DELETE) to http://docker-registry, past the route",
	}, said)
}

func TestVariablesOfTheSitesOwnCountWhenTheyAreMadeOfOurs(t *testing.T) {
	conf := strings.Replace(nginxConf, "  include /etc/nginx/sites", "  map $http_x_debug $where { default $transship_upstream; }\n  map $transship_route $zone { old blobs_old; new blobs_new; }\n  include /etc/nginx/sites", 1)
	own := strings.ReplaceAll(site, "proxy_pass $transship_upstream;", "proxy_pass $where;")
	require.Empty(t, faults(t, conf, strings.Replace(own, `"$transship_route$uri$slice_range"`, `"${zone}$uri$slice_range"`, 1)))
	require.NotEmpty(t, faults(t, conf, strings.Replace(own, `"$transship_route$uri$slice_range"`, `"$host$uri$slice_range"`, 1)))
	require.NotEmpty(t, faults(t, strings.Replace(conf, "default $transship_upstream", "default http://127.0.0.1:5001", 1), own))
	// nginx's own default key names the upstream of the backend.
	require.Empty(t, faults(t, nginxConf, strings.Replace(site, "  proxy_cache_key \"$transship_route$uri$slice_range\";\n", "", 1)))
}

func TestEveryFaultIsFoundWithItsLineAndItsCure(t *testing.T) {
	for _, c := range []struct {
		name     string
		old, new string // in the site's file, once
		at       string // the text of the line that is to be named
		what     string
		cure     string
		warning  bool
	}{
		{name: "a server without our file", old: "  include transship/transship_server.conf;\n", new: "", at: "server {\n  listen 443", what: "serves the registry and lacks transship_server.conf", cure: "write include /etc/nginx/transship/transship_server.conf; into it"},
		{name: "a push location without the hold", old: "user_file restricted.push;\n    include transship/transship_location.conf;\n", new: "user_file restricted.push;\n", at: "location /v2/restricted/ {", what: "location /v2/restricted/ takes writes (OPTIONS", cure: ""},
		{name: "a location with limit_except without the hold", old: "user_file platform.push; }\n    include transship/transship_location.conf;\n", new: "user_file platform.push; }\n", at: "location /v2/team/platform/ {", what: "location /v2/team/platform/ takes writes (POST, PUT, PATCH, DELETE) without the hold", cure: "write include /etc/nginx/transship/transship_location.conf; into it"},
		{name: "the rest without the hold", old: "user_file all.push; }\n    include transship/transship_location.conf;\n", new: "user_file all.push; }\n", at: "location /v2/ {", what: "location /v2/ takes writes (POST, PUT, PATCH, DELETE) without the hold", cure: "write include", warning: true},
		{name: "writes past the route", old: "    include transship/transship_location.conf;\n    proxy_pass $transship_upstream;\n  }\n  location @", new: "    include transship/transship_location.conf;\n    proxy_pass http://127.0.0.1:5001;\n  }\n  location @", at: "proxy_pass http://127.0.0.1:5001;", what: "passes writes (POST, PUT, PATCH, DELETE) to http://127.0.0.1:5001, past the route", cure: "write proxy_pass $transship_upstream;"},
		{name: "reads past the route", old: "Range $slice_range;\n    proxy_pass $transship_read_upstream;", new: "Range $slice_range;\n    proxy_pass http://registry;", at: "proxy_pass http://registry;", what: "location @restricted_read passes reads to http://registry, past the route", cure: "write proxy_pass $transship_read_upstream;"},
		{name: "the base past the route", old: "all.read;\n    proxy_pass $transship_read_upstream;", new: "all.read;\n    proxy_pass http://registry;", at: "proxy_pass http://registry;", what: "location = /v2/ passes reads", cure: "write proxy_pass $transship_read_upstream;", warning: true},
		{name: "writes by the route of reads", old: "transship_location.conf;\n    proxy_pass $transship_upstream;\n  }\n  location /v2/mirror/", new: "transship_location.conf;\n    proxy_pass $transship_read_upstream;\n  }\n  location /v2/mirror/", at: "proxy_pass $transship_read_upstream;\n  }\n  location /v2/mirror/", what: "takes writes (POST, PUT, PATCH, DELETE) and passes them to $transship_read_upstream", cure: "write proxy_pass $transship_upstream;"},
		{name: "a cache that does not know the route", old: `"$transship_route$uri$slice_range"`, new: `"$uri$slice_range"`, at: "proxy_cache_key", what: `whose key "$uri$slice_range" does not say which backend serves`, cure: `proxy_cache_key "$transship_route $uri$slice_range";`},
		{name: "a check of the site's own instead of the hold", old: "user_file restricted.push;\n    include transship/transship_location.conf;\n", new: "user_file restricted.push;\n    auth_request /auth;\n", at: "auth_request /auth;", what: "without the hold: its own auth_request", cure: "let another server block in front"},
		{name: "a check of the site's own beside the include", old: "user_file restricted.push;\n", new: "user_file restricted.push;\n    auth_request /auth;\n", at: "auth_request /auth;", what: "auth_request is there twice", cure: elsewhere},
		{name: "a check of the site's own around the include", old: "  client_max_body_size 0;\n", new: "  client_max_body_size 0;\n  auth_request /auth;\n", at: "location /v2/restricted/ {", what: "does not count in location /v2/restricted/", cure: elsewhere},
		{name: "a yes of the gate that lets everybody in", old: "  client_max_body_size 0;\n", new: "  client_max_body_size 0;\n  satisfy any;\n", at: "satisfy any;", what: "its yes would let everybody in", cure: elsewhere},
		{name: "a split of the server that the include hides", old: "    error_page 418 = @restricted_read;\n", new: "", at: "", what: "", cure: ""},
		{name: "a log that our file replaces", old: "  access_log /var/log/nginx/registry.log;\n", new: "", at: "server {\n  listen 443", what: "the access_log of the http block", cure: "write access_log /var/log/nginx/all.log; into the server block as well", warning: true},
		{name: "blobs taken elsewhere by a regular expression", old: "  location = /v2/ {", new: "  location ~ ^/v2/.+/blobs/sha256: {\n    proxy_cache blobs;\n    limit_except GET { deny all; }\n    proxy_pass http://registry;\n  }\n  location = /v2/ {", at: "proxy_pass http://registry;", what: "passes reads to http://registry, past the route", cure: "write proxy_pass $transship_read_upstream;"},
		{name: "a location in a location that turns the hold off", old: "auth_basic_user_file platform.push; }\n", new: "auth_basic_user_file platform.push; }\n    location ~ /manifests/ {\n      auth_request off;\n      proxy_pass $transship_upstream;\n    }\n", at: "auth_request off;", what: "takes writes (PUT, DELETE) without the hold", cure: "write include"},
		{name: "writes split off to a named location", old: "    if ($request_method ~ ^(GET|HEAD)$) { return 418; }\n", new: "    if ($request_method !~ ^(GET|HEAD)$) { return 418; }\n", at: "location @restricted_read {", what: "location @restricted_read takes writes (OPTIONS", cure: ""},
		{name: "writes that a condition passes elsewhere", old: "    auth_basic \"push\"; auth_basic_user_file restricted.push;\n", new: "    if ($http_x_direct) { proxy_pass http://127.0.0.1:5002; }\n", at: "if ($http_x_direct)", what: "passes writes (POST, PUT, PATCH, DELETE) to http://127.0.0.1:5002", cure: "write proxy_pass $transship_upstream;"},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, 1, strings.Count(site, c.old), "what is replaced is there once")
			planted, conf := strings.Replace(site, c.old, c.new, 1), nginxConf
			switch c.name {
			case "a split of the server that the include hides":
				planted = strings.Replace(planted, "  client_max_body_size 0;\n", "  client_max_body_size 0;\n  error_page 418 = @restricted_read;\n", 1)
				c.at, c.what, c.cure, c.warning = "location /v2/restricted/ {", "error_page of /etc/nginx/sites-enabled/registry:10 does not count", "write error_page 418 = @restricted_read; into the location as well", true
			case "a log that our file replaces":
				conf = strings.Replace(conf, "http {\n", "http {\n  access_log /var/log/nginx/all.log;\n", 1)
			}
			c.what = strings.Replace(c.what, "(OPTIONS", "(POST", 1)
			line := 1 + strings.Count(planted[:strings.Index(planted, c.at)], "\n")
			var seen []string
			for _, f := range faults(t, conf, planted) {
				if f.Line == line && strings.Contains(f.What, c.what) && strings.Contains(f.Cure, c.cure) && f.Warning == c.warning {
					require.Equal(t, "/etc/nginx/sites-enabled/registry", f.File)
					return
				}
				seen = append(seen, fmt.Sprintf("%s: %s; %s (warning %t)", f.Where(), f.What, f.Cure, f.Warning))
			}
			t.Fatalf("not found at line %d, only: %s", line, strings.Join(seen, "\n"))
		})
	}
}

func TestASiteThatNobodyFittedIsToldEverything(t *testing.T) {
	conf := strings.Replace(nginxConf, "  include transship/transship_http.conf;\n", "", 1)
	const bare = `upstream registry { server 127.0.0.1:5001; }
server {
  listen 443;
  location / { proxy_pass http://registry; }
}
`
	found := faults(t, conf, bare)
	require.Len(t, found, 4)
	require.Contains(t, found[0].What, "http block lacks transship_http.conf")
	require.Equal(t, "/etc/nginx/nginx.conf:3", found[0].Where())
	require.Contains(t, found[1].What, "server block serves the registry and lacks")
	require.Equal(t, "/etc/nginx/sites-enabled/registry:2", found[1].Where())
	require.Contains(t, found[2].What, "location / takes writes (POST, PUT, PATCH, DELETE) without the hold")
	require.Contains(t, found[3].What, "location / passes writes (POST, PUT, PATCH, DELETE) to http://registry")
	for _, f := range found {
		require.False(t, f.Warning)
	}
}

func TestAnNginxWithoutARegistryIsToldSo(t *testing.T) {
	found := faults(t, nginxConf, "server {\n  listen 80;\n  location / { proxy_pass http://127.0.0.1:8080; }\n}\n")
	require.Len(t, found, 1)
	require.Contains(t, found[0].What, "no server block serves /v2/")
}

func TestTheSnippetFitsAndNamesEveryPrefix(t *testing.T) {
	var b strings.Builder
	require.NoError(t, generated.Snippet(&b, "edge1", expected.Prefixes))
	http, server, _ := strings.Cut(b.String(), "# --- In the server block")
	conf := strings.Replace(nginxConf, "  include transship/transship_http.conf;\n", http, 1)
	planted := "server {\n  listen 443;\n" + strings.ReplaceAll(server, "of the registry, once in each ---", "") + "}\n"
	planted = strings.Replace(planted, "server {\n  listen 443;\n", "server {\n  listen 443;\n#", 1)
	require.Empty(t, faults(t, conf, planted))
	for _, p := range expected.Prefixes {
		require.Contains(t, planted, "location /v2/"+p+"/ {")
		require.NotContains(t, planted, "past the route")
	}
	// Without its includes, each of its write locations is a fault.
	require.Len(t, faults(t, conf, strings.ReplaceAll(planted, "  include /etc/nginx/transship/transship_location.conf;", "")), 3)
}

func TestWhatIsNoDumpIsRefused(t *testing.T) {
	_, err := Read([]byte("nginx: configuration file test is successful\n"), generated)
	require.ErrorIs(t, err, ErrDump)
	_, err = Read([]byte("# configuration file /etc/nginx/nginx.conf:\nhttp {\n"), generated)
	require.Error(t, err)
	_, err = Read([]byte("# configuration file /etc/nginx/nginx.conf:\ninclude gone.conf;\n"), generated)
	require.ErrorContains(t, err, "gone.conf is not in the output")
}

func TestABuildThatLacksSomething(t *testing.T) {
	const v = "nginx version: nginx/1.22.1\nbuilt with OpenSSL 3\nconfigure arguments: --prefix=/x --with-http_ssl_module --with-http_auth_request_module --with-http_v2_module\n"
	for _, c := range []struct {
		output string
		tls    bool
		what   []string
	}{
		{v, true, nil},
		{strings.Replace(v, "1.22.1", "1.11.7", 1), false, []string{"nginx is 1.11.7"}},
		{strings.Replace(v, "nginx/1.22.1", "openresty/1.25.3.1", 1), false, nil},
		{strings.Replace(v, "--with-http_auth_request_module ", "", 1), false, []string{"without http_auth_request_module"}},
		{strings.Replace(v, "--with-http_ssl_module ", "", 1), true, []string{"without http_ssl_module"}},
		{strings.Replace(v, "--with-http_ssl_module ", "", 1), false, nil},
	} {
		b, err := ReadBuild(c.output)
		require.NoError(t, err)
		found := b.Faults(c.tls)
		require.Len(t, found, len(c.what), "%v", found)
		for i := range found {
			require.Contains(t, found[i].What, c.what[i])
		}
	}
	_, err := ReadBuild("sudo: a password is required")
	require.ErrorIs(t, err, ErrBuild)
}

func TestWhatAReloadDoesToIdleConnections(t *testing.T) {
	for _, c := range []struct {
		server  string
		version [3]int
		what    string
		warning bool
		kept    time.Duration
	}{
		{server: "", version: [3]int{1, 22, 1}},
		{server: ""},
		{server: "", version: [3]int{1, 30, 6}, what: "a reload of nginx closes idle connections at once", warning: true},
		{server: "keepalive_timeout 0;", version: [3]int{1, 30, 6}},
		{server: "keepalive_min_timeout 10s;", version: [3]int{1, 30, 6}, kept: 10 * time.Second},
		{server: "keepalive_min_timeout 10;", version: [3]int{1, 30, 6}, kept: 10 * time.Second},
		{server: `keepalive_min_timeout "1m 30";`, version: [3]int{1, 30, 6}, kept: 90 * time.Second},
		{server: "keepalive_min_timeout 1h;", version: [3]int{1, 30, 6}, kept: time.Hour, what: "idle connections outlast a reload by 1h"},
		{server: "keepalive_min_timeout 1d;", kept: 24 * time.Hour, what: "idle connections outlast a reload by 1d"},
	} {
		planted := strings.Replace(site, "  client_max_body_size 0;\n", "  client_max_body_size 0;\n  "+c.server+"\n", 1)
		s := parsed(t, nginxConf, planted)
		require.Equal(t, c.kept, s.KeptOpen(), c.server)
		e := expected
		e.KeepsIdle = Build{Version: c.version}.KeepsIdle()
		found := s.Faults(e)
		if c.what == "" {
			require.Empty(t, found, c.server)
			continue
		}
		require.Len(t, found, 1, c.server)
		require.Contains(t, found[0].What, c.what)
		require.Contains(t, found[0].Cure, "write keepalive_min_timeout 10s;")
		require.Equal(t, c.warning, found[0].Warning)
	}
}
