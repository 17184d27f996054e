//go:build lab

package sitecheck

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"transship/internal/registry"
	"transship/lab/servers"
	"transship/lab/servers/shared"
)

func TestMain(m *testing.M) { shared.Main(m) }

const probes = "restricted/transship-probe"

// distribution starts a registry whose configuration is adapted, as old, new pairs for a strings.Replacer. It stores in dir/name.
func distribution(t *testing.T, dir, name string, o servers.RegistryOptions, adapt ...string) *servers.Registry {
	t.Helper()
	r, err := servers.PrepareRegistry(dir, name, o)
	require.NoError(t, err)
	path := filepath.Join(dir, name+".yml")
	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	for i := 0; i < len(adapt); i += 2 {
		require.Contains(t, string(raw), adapt[i])
	}
	require.NoError(t, os.WriteFile(path, []byte(strings.NewReplacer(adapt...).Replace(string(raw))), 0o600))
	require.NoError(t, r.Start(t.Context()))
	t.Cleanup(r.Stop)
	return r
}

// proxy starts an nginx whose requests go to the registries in turn.
func proxy(t *testing.T, behind ...*servers.Registry) string {
	t.Helper()
	dir := t.TempDir()
	free, err := servers.FreePorts(1)
	require.NoError(t, err)
	upstream := ""
	for _, r := range behind {
		upstream += "server " + strings.TrimPrefix(r.URL, "http://") + "; "
	}
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;"
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "nginx.conf"), fmt.Appendf(nil, `%[1]s
daemon off; worker_processes 1; pid %[2]s/nginx.pid; error_log %[2]s/error.log warn;
events { worker_connections 128; }
http {
  access_log off;
  client_body_temp_path %[2]s/body; proxy_temp_path %[2]s/proxy; fastcgi_temp_path %[2]s/fastcgi; uwsgi_temp_path %[2]s/uwsgi; scgi_temp_path %[2]s/scgi;
  upstream registries { %[3]s }
  server { listen %[4]s; location / { proxy_pass http://registries; proxy_set_header Host $http_host; } }
}
`, user, dir, upstream, free[0]), 0o644))
	p := &servers.Process{Name: "nginx", Args: []string{"nginx", "-p", dir, "-c", filepath.Join(dir, "nginx.conf")}, Log: filepath.Join(dir, "log"), Ready: servers.Answers(free[0])}
	require.NoError(t, p.Start(t.Context()))
	t.Cleanup(p.Stop)
	return "http://" + free[0]
}

func client(t *testing.T, name, url string) *registry.Registry {
	t.Helper()
	r, err := registry.New(registry.Options{Name: name, URL: url})
	require.NoError(t, err)
	return r
}

// wrong are the findings that are not well, failures in capitals.
func wrong(findings []Finding) (all []string) {
	for _, f := range findings {
		switch {
		case f.Failed():
			all = append(all, "FAIL "+f.What+": "+f.Detail+"; "+f.Cure)
		case f.Warned():
			all = append(all, "warn "+f.What+": "+f.Detail+"; "+f.Cure)
		}
	}
	return all
}

// only asserts that there is exactly one finding, which says all of the parts.
func only(t *testing.T, found []string, parts ...string) {
	t.Helper()
	require.Len(t, found, 1, "%s", strings.Join(found, "\n"))
	for _, part := range parts {
		require.Contains(t, found[0], part)
	}
}

func TestASiteThatIsWell(t *testing.T) {
	dir := t.TempDir()
	old, target := distribution(t, dir, "old", servers.RegistryOptions{}), distribution(t, dir, "new", servers.RegistryOptions{})
	require.Empty(t, wrong(Backends(t.Context(), client(t, "old", old.URL), client(t, "new", target.URL), probes)))
	findings := Edges(t.Context(), []*registry.Registry{client(t, "a", proxy(t, old)), client(t, "b", proxy(t, old))}, probes)
	require.Empty(t, wrong(findings))
	require.Len(t, findings, 8)
	// What it pushed, it took away again: no link to a blob is left.
	links, err := filepath.Glob(filepath.Join(dir, "*/docker/registry/v2/repositories/restricted/transship-probe/_layers/sha256/*/link"))
	require.NoError(t, err)
	require.Empty(t, links)
}

func TestBackendsThatShareACacheOfBlobDescriptors(t *testing.T) {
	redis, err := servers.StartRedis(t.Context(), t.TempDir())
	require.NoError(t, err)
	t.Cleanup(redis.Stop)
	dir := t.TempDir()
	cached := func(name string, db int) *registry.Registry {
		return client(t, name, distribution(t, dir, name, servers.RegistryOptions{}, "redirect: {disable: true}",
			"redirect: {disable: true}\n  cache: {blobdescriptor: redis}", "http: {", fmt.Sprintf("redis: {addr: %q, db: %d}\nhttp: {", redis.Address, db)).URL)
	}
	old, target, apart := cached("old", 0), cached("new", 0), cached("apart", 1)
	found := wrong(Backends(t.Context(), old, target, probes))
	require.Len(t, found, 2, "in both directions: %v", found)
	require.Contains(t, found[0], "FAIL backend new knows only blobs of its own, none of backend old: it says that it has a blob of restricted/transship-probe that only backend old was given")
	require.Contains(t, found[0], "give each registry a Redis")
	require.Contains(t, found[1], "FAIL backend old knows only blobs of its own")
	require.Empty(t, wrong(Backends(t.Context(), old, apart, probes)))
}

func TestBackendsWithOneStore(t *testing.T) {
	dir := t.TempDir()
	old := distribution(t, dir, "old", servers.RegistryOptions{})
	same := distribution(t, dir, "same", servers.RegistryOptions{}, filepath.Join(dir, "same"), filepath.Join(dir, "old"))
	found := wrong(Backends(t.Context(), client(t, "old", old.URL), client(t, "new", same.URL), probes))
	require.Len(t, found, 2)
	require.Contains(t, found[0], "both have one store")
}

func TestInstancesWithDifferentSecrets(t *testing.T) {
	dir := t.TempDir()
	one := distribution(t, dir, "one", servers.RegistryOptions{})
	two := distribution(t, dir, "two", servers.RegistryOptions{}, filepath.Join(dir, "two"), filepath.Join(dir, "one"), "secret: lab", "secret: another")
	same := distribution(t, dir, "same", servers.RegistryOptions{}, filepath.Join(dir, "same"), filepath.Join(dir, "one"))
	only(t, wrong(Edges(t.Context(), []*registry.Registry{client(t, "e", proxy(t, one, two))}, probes)),
		"FAIL edge e: an upload goes on whichever instance gets its next part: an upload began and could not go on", "give all instances the same http.secret")
	require.Empty(t, wrong(Edges(t.Context(), []*registry.Registry{client(t, "e", proxy(t, one, same))}, probes)))
}

func TestInstancesWithoutACommonStoreAndProxyNodesOfDifferentRegistries(t *testing.T) {
	dir := t.TempDir()
	one, two := distribution(t, dir, "one", servers.RegistryOptions{}), distribution(t, dir, "two", servers.RegistryOptions{})
	found := wrong(Edges(t.Context(), []*registry.Registry{client(t, "e", proxy(t, one, two))}, probes))
	require.NotEmpty(t, found)
	require.Contains(t, found[0], "let all instances have one store")
	found = wrong(Edges(t.Context(), []*registry.Registry{client(t, "a", proxy(t, one)), client(t, "b", proxy(t, two))}, probes))
	require.Len(t, found, 2)
	require.Contains(t, found[0], "FAIL an upload begun through edge a goes on through edge b and back")
	require.Contains(t, found[1], "FAIL an upload begun through edge b goes on through edge a and back")
}

func TestUploadsThatAreSentWhereNobodyIs(t *testing.T) {
	r := distribution(t, t.TempDir(), "r", servers.RegistryOptions{}, "relativeurls: true", "relativeurls: false, host: \"http://127.0.0.1:1\"")
	found := wrong(Edges(t.Context(), []*registry.Registry{client(t, "e", proxy(t, r))}, probes))
	only(t, found, "FAIL edge e: an upload goes on", "the Location of an upload leads nowhere: 127.0.0.1:1 cannot be reached", "http.relativeurls: true")
}

func TestARegistryThatDeletesNothing(t *testing.T) {
	dir := t.TempDir()
	old := distribution(t, dir, "old", servers.RegistryOptions{}, "delete: {enabled: true}", "delete: {enabled: false}")
	target := distribution(t, dir, "new", servers.RegistryOptions{})
	only(t, wrong(Backends(t.Context(), client(t, "old", old.URL), client(t, "new", target.URL), probes)),
		"warn backend old: it deletes what clients delete: deleting is switched off", "storage.delete.enabled: true")
}

func TestABackendThatIsNotThereIsUnknownAndNoFailure(t *testing.T) {
	old := distribution(t, t.TempDir(), "old", servers.RegistryOptions{})
	gone := client(t, "new", "http://127.0.0.1:1")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, f := range Backends(ctx, client(t, "old", old.URL), gone, probes) {
		require.False(t, f.Failed(), "%+v", f)
	}
}

// Its object store has a name that only the registry knows: a file of hosts that nobody else sees.
func TestRedirectsToAStoreThatOnlyTheRegistryReaches(t *testing.T) {
	lab := shared.Shared(t)
	dir := t.TempDir()
	reached := distribution(t, dir, "reached", servers.RegistryOptions{Ceph: lab.Ceph, Bucket: lab.NewBucket(t)}, "disable: true", "disable: false")
	require.Empty(t, wrong(Edges(t.Context(), []*registry.Registry{client(t, "e", proxy(t, reached))}, probes)))

	inside := strings.Replace(lab.Ceph.Endpoint, "127.0.0.1", "store.inside.invalid", 1)
	require.NotEqual(t, lab.Ceph.Endpoint, inside)
	hosts := filepath.Join(dir, "hosts")
	require.NoError(t, os.WriteFile(hosts, []byte("127.0.0.1 localhost store.inside.invalid\n"), 0o644))
	r, err := servers.PrepareRegistry(dir, "hidden", servers.RegistryOptions{Ceph: lab.Ceph, Bucket: lab.NewBucket(t)})
	require.NoError(t, err)
	path := filepath.Join(dir, "hidden.yml")
	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, []byte(strings.NewReplacer(lab.Ceph.Endpoint, inside, "disable: true", "disable: false").Replace(string(raw))), 0o600))
	r.Args = append([]string{"unshare", "--mount", "sh", "-c", `mount --bind "$0" /etc/hosts && exec "$@"`, hosts}, r.Args...)
	require.NoError(t, r.Start(t.Context()))
	t.Cleanup(r.Stop)
	host := strings.TrimPrefix(inside, "http://")
	only(t, wrong(Edges(t.Context(), []*registry.Registry{client(t, "e", proxy(t, r))}, probes)),
		"FAIL edge e: where it sends clients for blobs can be reached: it sends clients elsewhere, and "+host+" cannot be reached from this worker", "storage.redirect.disable: true")
}
