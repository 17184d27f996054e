package journal

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func written(id, method, path, query string, status int) string {
	return fmt.Sprintf(`{"t":"1795466553.023","id":%q,"m":%q,"u":%q,"q":%q,"s":%d,"d":"sha256:3c5f","up":"","b":"old","usr":"ci","ua":"x"}`+"\n", id, method, path, query, status)
}

func appendTo(t *testing.T, path, text string) {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	require.NoError(t, err)
	_, err = f.WriteString(text)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

func ids(t *testing.T, path string, from Position) (ids []string, last Position) {
	last = from
	for e, err := range Read(t.Context(), path, from) {
		require.NoError(t, err)
		ids, last = append(ids, e.ID), e.Position
	}
	return ids, last
}

func TestReadGoesOnFromAPositionAndLeavesAHalfLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.log")
	got, at := ids(t, path, Position{})
	assert.Empty(t, got, "a journal that does not exist yet is empty")
	appendTo(t, path, written("a", "PUT", "/v2/r/x/manifests/v1", "", 201)+`{"t":"17954`)
	got, at = ids(t, path, at)
	assert.Equal(t, []string{"a"}, got)
	appendTo(t, path, `66553.1","id":"b","m":"PUT","u":"/v2/r/x/manifests/v2","s":201}`+"\n")
	got, at = ids(t, path, at)
	assert.Equal(t, []string{"b"}, got)
	end, err := End(path)
	require.NoError(t, err)
	assert.Equal(t, end, at)
}

func TestReadFollowsOneRotationAndNoticesALoss(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.log")
	appendTo(t, path, written("a", "PUT", "/v2/r/x/manifests/v1", "", 201))
	_, at := ids(t, path, Position{})
	appendTo(t, path, written("b", "PUT", "/v2/r/x/manifests/v1", "", 201))
	require.NoError(t, os.Rename(path, path+".1"))
	appendTo(t, path, written("c", "PUT", "/v2/r/x/manifests/v1", "", 201))
	got, _ := ids(t, path, at)
	assert.Equal(t, []string{"b", "c"}, got)

	require.NoError(t, os.Remove(path+".1"))
	for _, err := range Read(t.Context(), path, at) {
		require.ErrorIs(t, err, ErrLost)
	}
	_, at = ids(t, path, Position{})
	require.NoError(t, os.Truncate(path, 3))
	for _, err := range Read(t.Context(), path, at) {
		require.ErrorIs(t, err, ErrLost)
	}
}

func TestReadGivesABrokenLineAsErrorAndGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.log")
	appendTo(t, path, "not json\n"+written("a", "PUT", "/v2/r/x/manifests/v1", "", 201))
	var failures, entries int
	for _, err := range Read(t.Context(), path, Position{}) {
		if err != nil {
			failures++
		} else {
			entries++
		}
	}
	assert.Equal(t, 1, failures)
	assert.Equal(t, 1, entries)
}

func TestFollowSeesWhatIsAppended(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.log")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	go appendTo(t, path, written("a", "PUT", "/v2/r/x/manifests/v1", "", 201))
	for e, err := range Follow(ctx, path, Position{}, time.Millisecond) {
		require.NoError(t, err)
		if e.ID == "b" {
			return
		}
		appendTo(t, path, written("b", "PUT", "/v2/r/x/manifests/v1", "", 201))
	}
	t.Fatal("the second line was not seen")
}

func TestParseTarget(t *testing.T) {
	for _, c := range []struct {
		method, path, query string
		want                Target
	}{
		{"PUT", "/v2/r/x/manifests/v1", "", Target{Manifest, "r/x", "v1", ""}},
		{"DELETE", "/v2/r/x/manifests/sha256:ab", "", Target{Manifest, "r/x", "sha256:ab", ""}},
		{"POST", "/v2/r/x/blobs/uploads/", "", Target{Upload, "r/x", "", ""}},
		{"POST", "/v2/r/x/blobs/uploads/", "mount=sha256:ab&from=r/y", Target{Upload, "r/x", "", "sha256:ab"}},
		{"POST", "/v2/r/x/blobs/uploads/", "digest=sha256:ab", Target{Upload, "r/x", "", "sha256:ab"}},
		{"PATCH", "/v2/r/x/blobs/uploads/u1", "_state=zz", Target{Upload, "r/x", "u1", ""}},
		{"PUT", "/v2/r/x/blobs/uploads/u1", "_state=zz&digest=sha256%3Aab", Target{Upload, "r/x", "u1", "sha256:ab"}},
		{"DELETE", "/v2/r/x/blobs/sha256:ab", "", Target{Blob, "r/x", "sha256:ab", ""}},
		{"PUT", "/v2/r/manifests/manifests/v1", "", Target{Manifest, "r/manifests", "v1", ""}},
	} {
		got, ok := ParseTarget(c.method, c.path, c.query)
		assert.True(t, ok, c.path)
		assert.Equal(t, c.want, got, c.path)
	}
	_, ok := ParseTarget("POST", "/v2/", "")
	assert.False(t, ok)
}

func TestChangesKeepOneOfEachWithBlobsFirst(t *testing.T) {
	var c Changes
	for _, w := range [][3]string{
		{"PUT", "/v2/r/x/manifests/v1", ""}, {"PUT", "/v2/r/x/manifests/v2", ""}, {"PUT", "/v2/r/x/blobs/uploads/u", "digest=sha256:ab"},
		{"PATCH", "/v2/r/x/blobs/uploads/u", ""}, {"DELETE", "/v2/r/x/manifests/v1", ""}, {"DELETE", "/v2/r/x/blobs/sha256:cd", ""},
	} {
		target, ok := ParseTarget(w[0], w[1], w[2])
		require.True(t, ok)
		c.Add(target, w[0])
	}
	assert.Equal(t, []Change{
		{Blob, "r/x", "sha256:ab", false}, {Manifest, "r/x", "v2", false}, {Manifest, "r/x", "v1", true},
	}, c.List())
}
