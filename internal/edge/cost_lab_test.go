//go:build lab

package edge

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"transship/internal/routing"
)

// many is a table of so many prefixes, all moved and open.
func many(generation int64, prefixes int, extra ...routing.Route) routing.Table {
	t := table(generation, extra...)
	for i := range prefixes {
		t.Routes = append(t.Routes, routing.Route{Prefix: routing.Prefix(fmt.Sprintf("team-%04d/app", i)), Backend: "new", Mode: routing.Open})
	}
	return t
}

// BenchmarkTable is what a routing table costs an edge: a flip, which only changes flags, and a prefix that nginx did not know, which is a test of its configuration and
// a reload until no old worker takes connections.
func BenchmarkTable(b *testing.B) {
	for _, prefixes := range []int{2, 1000} {
		n := newNode(b)
		generation := int64(1)
		_, err := n.Apply(b.Context(), many(generation, prefixes, route("restricted", routing.Watched, "old")))
		require.NoError(b, err)
		b.Run(fmt.Sprintf("flip/prefixes=%d", prefixes), func(b *testing.B) {
			for i := range b.N {
				generation++
				_, err := n.Apply(b.Context(), many(generation, prefixes, route("restricted", routing.Watched, []string{"new", "old"}[i%2])))
				require.NoError(b, err)
			}
		})
		b.Run(fmt.Sprintf("reload/prefixes=%d", prefixes), func(b *testing.B) {
			for range b.N {
				generation++
				_, err := n.Apply(b.Context(), many(generation, prefixes, route("restricted", routing.Watched, "old"), route(fmt.Sprintf("more-%d", generation), routing.Open, "old")))
				require.NoError(b, err)
			}
		})
		b.Run(fmt.Sprintf("nginx-t/prefixes=%d", prefixes), func(b *testing.B) {
			for range b.N {
				require.NoError(b, n.run(b.Context(), n.TestCommand))
			}
		})
	}
}

// BenchmarkRequest is what our files cost a request, beside a plain proxy_pass in the same nginx to the same backend.
func BenchmarkRequest(b *testing.B) {
	for _, prefixes := range []int{2, 1000} {
		n := newNode(b)
		upstream := strings.TrimPrefix(n.Upstreams[1].Address, "http://")
		plain := fmt.Sprintf("location /plain/ { limit_except GET HEAD OPTIONS { auth_basic registry; auth_basic_user_file %s/htpasswd; } proxy_pass http://%s; }\n", n.dir, upstream)
		require.NoError(b, os.WriteFile(filepath.Join(n.dir, "extra-plain.conf"), []byte(plain), 0o644))
		for i, c := range []struct {
			name, path string
			mode       routing.Mode
		}{
			{"plain", "/plain/x/manifests/v1", routing.Open},
			{"unknown", "/v2/elsewhere/x/manifests/v1", routing.Open},
			{"open", "/v2/restricted/x/manifests/v1", routing.Open},
			{"watched", "/v2/restricted/x/manifests/v1", routing.Watched},
		} {
			_, err := n.Apply(b.Context(), many(int64(i+1), prefixes, route("restricted", c.mode, "old")))
			require.NoError(b, err)
			for _, method := range []string{http.MethodGet, http.MethodPut} {
				b.Run(fmt.Sprintf("%s/%s/prefixes=%d", method, c.name, prefixes), func(b *testing.B) { n.requests(b, method, c.path) })
			}
		}
	}
}

// requests sends them one after the other on one connection.
func (n *node) requests(b *testing.B, method, path string) {
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for range b.N {
		req, err := http.NewRequestWithContext(context.Background(), method, n.url+path, strings.NewReader(""))
		require.NoError(b, err)
		req.SetBasicAuth("u", "p")
		resp, err := client.Do(req)
		require.NoError(b, err)
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		require.Less(b, resp.StatusCode, 300)
	}
}
