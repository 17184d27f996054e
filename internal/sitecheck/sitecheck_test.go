package sitecheck

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/require"

	"transship/internal/registry"
)

// fake is a registry that answers by the handler.
func fake(t *testing.T, handler http.HandlerFunc) *registry.Registry {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	r, err := registry.New(registry.Options{Name: "r", URL: server.URL, RetryWait: time.Millisecond})
	require.NoError(t, err)
	return r
}

func TestAClockThatIsOffIsAWarning(t *testing.T) {
	for _, c := range []struct {
		off  time.Duration
		want string
	}{
		{0, ""}, {time.Second, ""}, {-2 * time.Second, ""},
		{10 * time.Second, "ahead"}, {-10 * time.Second, "behind"},
	} {
		r := fake(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", time.Now().Add(c.off).UTC().Format(http.TimeFormat))
		})
		f := clock(t.Context(), node(r))
		require.False(t, f.Failed())
		require.Equal(t, c.want != "", f.Warned(), "%s: %+v", c.off, f)
		require.Contains(t, f.Detail, c.want)
	}
	f := clock(t.Context(), node(fake(t, func(w http.ResponseWriter, _ *http.Request) { w.Header()["Date"] = nil })))
	require.True(t, f.Warned())
}

func TestADateIsSomewhereInItsSecond(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	require.Zero(t, difference(at, at.Add(900*time.Millisecond), at.Add(950*time.Millisecond)))
	require.Equal(t, 3*time.Second, difference(at.Add(4*time.Second), at, at.Add(time.Second)))
	require.Equal(t, -3*time.Second, difference(at, at.Add(4*time.Second), at.Add(5*time.Second)))
}

func TestARedirectWithoutAnAddress(t *testing.T) {
	r := fake(t, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path != "/v2/" {
			w.WriteHeader(http.StatusTemporaryRedirect)
		}
	})
	f := redirects(t.Context(), node(r), "a/b", v1.Hash{Algorithm: "sha256", Hex: nobodys()[7:]})
	require.True(t, f.Failed())
	require.Contains(t, f.Detail, "without a Location")
}

func TestWhoMayNotPushIsToldWhatIsMissing(t *testing.T) {
	r := fake(t, func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path != "/v2/" {
			w.WriteHeader(http.StatusForbidden)
		}
	})
	f := instances(t.Context(), backend(r), "a/b")
	require.True(t, f.Warned())
	require.Contains(t, f.Cure, "prefixes.probe")
}

func TestAPrefixThatIsHeldJustNowIsNoFault(t *testing.T) {
	r := fake(t, func(w http.ResponseWriter, req *http.Request) {
		switch req.Method {
		case http.MethodPost:
			w.Header().Set("Location", "/v2/a/b/blobs/uploads/1")
			w.WriteHeader(http.StatusAccepted)
		case http.MethodPatch:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	f := instances(t.Context(), node(r), "a/b")
	require.True(t, f.Warned(), "%+v", f)
}
