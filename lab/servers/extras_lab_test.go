//go:build lab

package servers_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"transship/lab/servers"
)

func TestPrometheusAsksARegistry(t *testing.T) {
	free, err := servers.FreePorts(1)
	require.NoError(t, err)
	r, err := servers.StartRegistry(t.Context(), t.TempDir(), "old", servers.RegistryOptions{Metrics: free[0]})
	require.NoError(t, err)
	t.Cleanup(r.Stop)
	serves(t, r)
	p, err := servers.StartPrometheus(t.Context(), t.TempDir(), map[string]string{"registry-old": free[0]})
	require.NoError(t, err)
	t.Cleanup(p.Stop)
	assert.Eventually(t, func() bool {
		resp, err := http.Get(p.URL + `/api/v1/query?query=up{job="registry-old"}`)
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		var answer struct {
			Data struct{ Result []struct{ Value []any } }
		}
		raw, err := io.ReadAll(resp.Body)
		return err == nil && json.Unmarshal(raw, &answer) == nil && len(answer.Data.Result) == 1 && answer.Data.Result[0].Value[1] == "1"
	}, 20*time.Second, 200*time.Millisecond)
}

func TestTheIRCServerCarriesAMessage(t *testing.T) {
	i, err := servers.StartIRC(t.Context(), t.TempDir())
	require.NoError(t, err)
	t.Cleanup(i.Stop)
	join := func(nick string) (net.Conn, *bufio.Scanner) {
		conn, err := net.Dial("tcp", i.Address)
		require.NoError(t, err)
		t.Cleanup(func() { conn.Close() })
		require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
		fmt.Fprintf(conn, "NICK %s\r\nUSER %[1]s 0 * :%[1]s\r\nJOIN #releng\r\n", nick)
		lines := bufio.NewScanner(conn)
		read(t, lines, " 366 ") // the end of the channel's list of names
		return conn, lines
	}
	_, lines := join("reader")
	conn, _ := join("writer")
	fmt.Fprint(conn, "PRIVMSG #releng :flipped\r\n")
	read(t, lines, "PRIVMSG #releng :flipped")
}

func read(t *testing.T, lines *bufio.Scanner, until string) {
	t.Helper()
	for lines.Scan() {
		if strings.Contains(lines.Text(), until) {
			return
		}
	}
	t.Fatalf("no line with %q: %v", until, lines.Err())
}
