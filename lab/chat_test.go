//go:build lab

package lab

import (
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
)

// chat is a Slack-compatible place that may be down.
type chat struct {
	up       atomic.Bool
	mu       sync.Mutex
	messages []string
}

func (c *chat) listen(t *testing.T) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !c.up.Load() {
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		body, _ := io.ReadAll(r.Body)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.messages = append(c.messages, string(body))
	}))
	t.Cleanup(server.Close)
	return server.URL + "/services/secret-token"
}

func (c *chat) told() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.messages...)
}
