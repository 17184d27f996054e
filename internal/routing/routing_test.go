package routing

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParsePrefixRefusesWhatNoRepositoryCanHave(t *testing.T) {
	for in, want := range map[string]string{
		"":                "prefix is empty",
		"/":               "prefix is empty",
		"/restricted":     `starts with a slash: write "restricted"`,
		"a/../b":          `path component ".."`,
		"..":              `path component ".."`,
		"a//b":            "empty path component",
		"Restricted":      "no repository name can have",
		"restricted/%2e":  "no repository name can have",
		"restricted;evil": "no repository name can have",
		"a\nb":            "no repository name can have",
	} {
		_, err := ParsePrefix(in)
		require.ErrorContains(t, err, want, "prefix %q", in)
	}
	for _, in := range []string{"restricted", "restricted/", "a/b-c/d__e.f", "0"} {
		_, err := ParsePrefix(in)
		require.NoError(t, err, in)
	}
}

func TestPrefixHoldsWholeComponentsOnly(t *testing.T) {
	p := Prefix("restricted")
	assert.True(t, p.Contains("restricted/a"))
	assert.True(t, p.Contains("restricted"))
	assert.False(t, p.Contains("restricted2"))
	assert.False(t, p.Contains("other/restricted/a"))
	assert.True(t, p.Overlaps("restricted/a"))
	assert.True(t, Prefix("restricted/a").Overlaps(p))
	assert.False(t, p.Overlaps("restricted2"))
}

func TestTableGrowsAndChecks(t *testing.T) {
	empty := Table{Default: "old"}
	one := empty.With(Route{Prefix: "b", Backend: "old", Mode: Watched})
	two := one.With(Route{Prefix: "a", Backend: "new", Mode: Open})
	require.NoError(t, two.Check())
	assert.Equal(t, int64(2), two.Generation)
	assert.Len(t, one.Routes, 1, "With leaves its receiver alone")
	assert.Equal(t, "new", two.Backend("a/x"))
	assert.Equal(t, "old", two.Backend("c/x"))
	assert.ErrorContains(t, two.With(Route{Prefix: "a/x", Backend: "old", Mode: Open}).Check(), "overlap")
	assert.ErrorContains(t, two.With(Route{Prefix: "a", Backend: "old", Mode: Held}).Check(), "without a hold")
	assert.NoError(t, two.With(Route{Prefix: "a", Backend: "old", Mode: Held, Hold: "h", Lease: time.Second}).Check())
	assert.ErrorContains(t, two.With(Route{Prefix: "a", Backend: "old", Mode: "bogus"}).Check(), "unknown mode")
	assert.Equal(t, "old", two.Without("a").Backend("a/x"))
}
