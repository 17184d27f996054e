package edge

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"transship/internal/routing"
)

func settings(dir string) Config {
	return Config{
		Name: "e1", Upstreams: []Upstream{{Name: "new", Address: "10.0.0.2:5000", TLS: true}, {Name: "old", Address: "10.0.0.1:5000"}},
		Directory: dir, GateAddress: "http://127.0.0.1:9099", TestCommand: []string{"true"}, ReloadCommand: []string{"true"}, Journal: filepath.Join(dir, "journal.log"), Traffic: filepath.Join(dir, "traffic.log"),
		State: filepath.Join(dir, "state.json"), StatusURL: "http://127.0.0.1:1/_transship/generation", RetryAfter: 5 * time.Second,
	}
}

func route(prefix string, mode routing.Mode, backend string) routing.Route {
	r := routing.Route{Prefix: routing.Prefix(prefix), Backend: backend, Other: "new", Mode: mode, Owner: "m"}
	if mode.Parks() {
		r.Hold, r.Lease = "h1", 15*time.Second
	}
	return r
}

func table(generation int64, routes ...routing.Route) routing.Table {
	return routing.Table{Generation: generation, Default: "old", Routes: routes}
}

func TestPrefixesOfSeveralDepthsAreLookedUpAsExactKeysAndTheDeepestWins(t *testing.T) {
	files, err := settings("/etc/nginx/transship").Render(table(1, route("a", routing.Open, "new"), route("b/c/d", routing.Open, "new"), route("default", routing.Open, "old")))
	require.NoError(t, err)
	http := files[FileHTTP]
	for _, want := range []string{
		`map $transship_path $transship_lead_1 { default ""; "~^/v2/(?<transship_c1>[^/]+)/" $transship_c1; }`,
		`map $transship_path $transship_lead_3 { default ""; "~^/v2/(?<transship_c3>[^/]+/[^/]+/[^/]+)/" $transship_c3; }`,
		"map $transship_lead_1 $transship_prefix_1 {\n  default \"\";\n  \"a\" \"a\";\n  \\default \"default\";\n}",
		"map $transship_lead_3 $transship_prefix_3 {\n  default $transship_prefix_1;\n  \"b/c/d\" \"b/c/d\";\n}",
		"map $transship_prefix_3 $transship_prefix { default $transship_prefix_3; }",
		`"b/c/d" "b+c+d";`,
		"upstream transship_gate { server 127.0.0.1:9099; }",
		"upstream transship_new { server 10.0.0.2:5000; }",
		`":new" https://transship_new;`,
		`":old" http://transship_old;`,
	} {
		require.Contains(t, http, want)
	}
	require.NotContains(t, http, "map_hash_max_size")
	require.Contains(t, files[FileServer], "add_header Retry-After 5 always;")
	require.Contains(t, files[FileServer], "proxy_pass http://transship_gate/hold;")
}

func TestWhatChangesFromOneTableToTheNextIsNotInTheFiles(t *testing.T) {
	c := settings("/d")
	c.Prefixes = []routing.Prefix{"restricted"}
	first, err := c.Render(table(1))
	require.NoError(t, err)
	for _, mode := range []routing.Mode{routing.Open, routing.Watched, routing.Held, routing.Prepared, routing.Switched} {
		next, err := c.Render(table(7, route("restricted", mode, "new")))
		require.NoError(t, err)
		require.Equal(t, first, next, "%s needs no reload", mode)
	}
	other, err := c.Render(table(8, route("another", routing.Open, "new")))
	require.NoError(t, err)
	require.NotEqual(t, hashIn(first), hashIn(other), "nginx answers with the hash of its files")
	require.Len(t, hashIn(first), 16)
}

func TestATableWithABackendThatTheEdgeDoesNotKnowIsRefused(t *testing.T) {
	_, err := settings("/d").Render(table(3, route("a", routing.Open, "elsewhere")))
	require.ErrorContains(t, err, `backend "elsewhere" of a is not in this edge's configuration`)
	_, err = settings("/d").Render(routing.Table{Generation: 3, Default: "elsewhere"})
	require.ErrorContains(t, err, `default backend "elsewhere"`)
}

func TestManyOrLongPrefixesGetTheHashesTheyNeed(t *testing.T) {
	c := settings("/d")
	for i := range 600 {
		c.Prefixes = append(c.Prefixes, routing.Prefix("p"+strings.Repeat("x", 40)+string(rune('a'+i%26))+strings.Repeat("y", i/26)))
	}
	files, err := c.Render(table(1))
	require.NoError(t, err)
	require.Contains(t, files[FileHTTP], "map_hash_max_size 2400;")
	require.Contains(t, files[FileHTTP], "map_hash_bucket_size 512;")
}

// raised are the flags of a prefix that are in force.
func raised(t *testing.T, c Config, prefix string) []string {
	t.Helper()
	found, err := os.ReadDir(filepath.Join(c.flags(), "at", flagKey(prefix)))
	require.NoError(t, err)
	var names []string
	for _, f := range found {
		names = append(names, f.Name())
	}
	return names
}

func TestFlagsSayWhoServesAndWhatHappensToWrites(t *testing.T) {
	c := settings(t.TempDir())
	c.Prefixes = []routing.Prefix{"a/b"}
	require.NoError(t, c.raise(state{Table: table(1)}, time.Time{}))
	require.Empty(t, raised(t, c, "a/b"))
	for mode, want := range map[routing.Mode][]string{
		routing.Open:     {"route.old"},
		routing.Watched:  {"route.old", "watched"},
		routing.Prepared: {"held", "route.old", "watched"},
		routing.Switched: {"held", "route.old", "watched"},
	} {
		s, err := (state{Leases: map[routing.Prefix]lease{"a/b": {Hold: "h1", Mode: routing.Held, Deadline: time.Now().Add(time.Minute)}}}).next(table(2, route("a/b", mode, "old")), time.Now())
		require.NoError(t, err)
		require.NoError(t, c.raise(s, time.Time{}))
		require.Equal(t, want, raised(t, c, "a/b"), "%s", mode)
	}
}

func TestAHoldHasAFlagForEachSecondUntilItsDeadlineAndNoneAfter(t *testing.T) {
	c := settings(t.TempDir())
	s, err := (state{}).next(table(2, route("a", routing.Held, "old")), time.Now())
	require.NoError(t, err)
	end := s.Leases["a"].Deadline.Unix()
	require.NoError(t, c.raise(s, time.Time{}))
	flags := raised(t, c, "a")
	require.NotContains(t, flags, "held", "a hold without an end would outlive everybody")
	held := slices.DeleteFunc(flags, func(f string) bool { return !strings.HasPrefix(f, "held.") })
	require.Contains(t, held, "held."+itoa(end-1))
	require.NotContains(t, held, "held."+itoa(end))
	require.GreaterOrEqual(t, len(held), 15)
	require.Contains(t, held, "held."+itoa(time.Now().Unix()-clockStep+1), "a clock may be set back within the hold")

	l := s.Leases["a"]
	l.Lost = true
	s.Leases["a"] = l
	require.NoError(t, c.raise(s, time.Time{}))
	require.Equal(t, []string{"route.old", "watched"}, raised(t, c, "a"), "a hold that ran out holds no more")
}

func TestFlagsSayWhereDigestsAreRead(t *testing.T) {
	c := settings(t.TempDir())
	r := route("a", routing.Watched, "old")
	r.Fallback = routing.Digests
	require.NoError(t, c.raise(state{Table: table(1, r)}, time.Time{}))
	require.Equal(t, []string{"blobs.second.new", "manifests.second.new", "route.old", "watched"}, raised(t, c, "a"))

	r.Fallback, r.Canary = routing.Nothing, &routing.Canary{Scope: routing.Blobs, Percent: 2, Networks: []string{"10.0.0.0/8"}}
	require.NoError(t, c.raise(state{Table: table(2, r)}, time.Time{}))
	require.Equal(t, []string{"blobs.first.new.0", "blobs.first.new.1", "blobs.first.new.net", "route.old", "watched"}, raised(t, c, "a"), "nothing of manifests once one was deleted")

	r.Canary, r.Uploads = nil, []routing.Upload{{Repository: "a/x", Session: "u1"}}
	require.NoError(t, c.raise(state{Table: table(3, r)}, time.Time{}))
	require.Contains(t, raised(t, c, "a"), "strict")
}

func TestOnlyWhatChangesIsReplacedAndThatOfJustBeforeStays(t *testing.T) {
	c := settings(t.TempDir())
	still := route("still", routing.Open, "new")
	link := func(key string) string {
		to, err := os.Readlink(filepath.Join(c.flags(), "at", key))
		require.NoError(t, err)
		return to
	}
	require.NoError(t, c.raise(state{Table: table(1, still, route("a", routing.Open, "old"))}, time.Time{}))
	before := link("still")
	for i := range 5 {
		require.NoError(t, c.raise(state{Table: table(int64(i)+2, still, route("a", routing.Open, []string{"new", "old"}[i%2]))}, time.Time{}))
	}
	require.Equal(t, before, link("still"))
	kept, err := filepath.Glob(filepath.Join(c.flags(), "sets", "a.*"))
	require.NoError(t, err)
	require.Len(t, kept, 2)
	answer, err := os.ReadFile(filepath.Join(c.flags(), "generation.json"))
	require.NoError(t, err)
	require.JSONEq(t, `{"edge":"e1","generation":6}`, string(answer))

	require.NoError(t, c.raise(state{Table: table(7, route("a", routing.Watched, "old"))}, time.Time{}))
	require.NoFileExists(t, filepath.Join(c.flags(), "at", "still"), "a prefix that is not known any more")
}
