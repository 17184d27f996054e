package objectstore

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheRoomOfAFolderIsWhatItsFileSystemHasFree(t *testing.T) {
	store, err := NewFilesystem(FilesystemOptions{Path: filepath.Join(t.TempDir(), "not", "there", "yet")})
	require.NoError(t, err)
	room, err := RoomOf(t.Context(), store)
	require.NoError(t, err)
	require.True(t, room.Known)
	require.Positive(t, room.Bytes)
	rules, err := Expiring(t.Context(), store)
	require.NoError(t, err)
	require.Empty(t, rules)
}

func TestTheSmallestQuotaCounts(t *testing.T) {
	require.Equal(t, Room{}, quota("", "10", "x"))
	require.Equal(t, Room{}, quota("-1", "10", "x"))
	require.Equal(t, Room{}, quota("100", "", "x"))
	full := quota("100", "110", "x")
	require.True(t, full.Known)
	require.Zero(t, full.Bytes)
	require.Equal(t, full, Room{}.less(full))
	require.Equal(t, full, full.less(Room{}))
	require.Equal(t, full, quota("100", "10", "y").less(full))
}
