package history

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// op is an operation on the one tag, in seconds after noon.
func op(kind Kind, digest string, began, ended int, outcome Outcome) Operation {
	at := func(s int) time.Time { return noon.Add(time.Duration(s) * time.Second) }
	return Operation{Client: "c", Kind: kind, Repository: "a", Tag: "v", Digest: digest, Began: at(began), Ended: at(ended), Outcome: outcome}
}

func TestWhatIsWrongIsFound(t *testing.T) {
	excused := op(PushTag, "d2", 3, 4, Failed)
	excused.Excuse = "nginx was dead"
	wrong := op(PullTag, "d1", 3, 4, OK)
	wrong.Wrong = true
	for _, c := range []struct {
		name  string
		all   []Operation
		final string
		want  []string
	}{
		{"all is well", []Operation{op(PullTag, "", 0, 1, Absent), op(PushTag, "d1", 1, 2, OK), op(PullTag, "d1", 3, 4, OK), op(PushTag, "d2", 5, 6, OK), op(PullTag, "d2", 7, 8, OK)}, "d2", nil},
		{"a pull during a push may see either", []Operation{op(PushTag, "d1", 0, 1, OK), op(PushTag, "d2", 2, 9, OK), op(PullTag, "d1", 3, 4, OK), op(PullTag, "d2", 5, 6, OK)}, "d2", nil},
		{"pushes at the same time may take effect in either order", []Operation{op(PushTag, "d1", 0, 5, OK), op(PushTag, "d2", 1, 4, OK)}, "d1", nil},
		{"a push without an answer took effect", []Operation{op(PushTag, "d1", 0, 1, OK), {Client: "c", Kind: PushTag, Repository: "a", Tag: "v", Digest: "d2", Began: noon.Add(2e9), Ended: noon.Add(3e9), Outcome: Unknown, Excuse: "killed"}}, "d2", nil},
		{"a push without an answer did not take effect", []Operation{op(PushTag, "d1", 0, 1, OK), {Client: "c", Kind: PushTag, Repository: "a", Tag: "v", Digest: "d2", Began: noon.Add(2e9), Ended: noon.Add(3e9), Outcome: Unknown, Excuse: "killed"}}, "d1", nil},
		{"a deleted tag is gone", []Operation{op(PushTag, "d1", 0, 1, OK), op(Delete, "d1", 2, 3, OK), op(PullTag, "", 4, 5, Absent)}, "", nil},
		{"a push is lost", []Operation{op(PushTag, "d1", 0, 1, OK)}, "", []string{Lost}},
		{"a push over another is lost", []Operation{op(PushTag, "d1", 0, 1, OK), op(PushTag, "d2", 2, 3, OK)}, "d1", []string{Stale}},
		{"a pull is told that an acknowledged tag is not there", []Operation{op(PushTag, "d1", 0, 1, OK), op(PullTag, "", 2, 3, Absent)}, "d1", []string{Lost}},
		{"a pull sees an older push", []Operation{op(PushTag, "d1", 0, 1, OK), op(PushTag, "d2", 2, 3, OK), op(PullTag, "d1", 4, 5, OK)}, "d2", []string{Stale}},
		{"a tag goes back in time between two pulls during a push", []Operation{op(PushTag, "d1", 0, 1, OK), op(PushTag, "d2", 2, 9, OK), op(PullTag, "d2", 3, 4, OK), op(PullTag, "d1", 5, 6, OK)}, "d2", []string{Stale}},
		{"a push that was seen is lost, although it was not acknowledged", []Operation{op(PushTag, "d1", 0, 1, OK), {Client: "c", Kind: PushTag, Repository: "a", Tag: "v", Digest: "d2", Began: noon.Add(2e9), Ended: noon.Add(3e9), Outcome: Unknown, Excuse: "killed"}, op(PullTag, "d2", 4, 5, OK)}, "d1", []string{Stale}},
		{"a pull sees what nobody pushed", []Operation{op(PushTag, "d1", 0, 1, OK), op(PullTag, "d9", 2, 3, OK)}, "d1", []string{Invented}},
		{"a pull sees what was pushed later", []Operation{op(PullTag, "d1", 0, 1, OK), op(PushTag, "d1", 2, 3, OK)}, "d1", []string{Invented}},
		{"what was deleted is there again", []Operation{op(PushTag, "d1", 0, 1, OK), op(Delete, "d1", 2, 3, OK)}, "d1", []string{Undeleted}},
		{"what was deleted is seen again", []Operation{op(PushTag, "d1", 0, 1, OK), op(Delete, "d1", 2, 3, OK), op(PullTag, "d1", 4, 5, OK)}, "", []string{Undeleted}},
		{"bytes are wrong", []Operation{op(PushTag, "d1", 0, 1, OK), wrong}, "d1", []string{WrongBytes}},
		{"a push fails", []Operation{op(PushTag, "d1", 0, 1, OK), op(PushTag, "d2", 3, 4, Failed)}, "d1", []string{Refused}},
		{"a push fails for another reason", []Operation{op(PushTag, "d1", 0, 1, OK), excused}, "d1", nil},
		{"a pull fails", []Operation{op(PushTag, "d1", 0, 1, OK), op(PullTag, "", 3, 4, Failed)}, "d1", []string{Refused}},
		{"an upload fails", []Operation{{Kind: UploadBlob, Repository: "a", Outcome: Failed}}, "", []string{Refused}},
	} {
		t.Run(c.name, func(t *testing.T) {
			final := Final{At: noon.Add(time.Hour), Serves: "new", Backends: map[string]Contents{"new": {Tags: map[string]string{}}, "old": {Tags: map[string]string{"a:v": "d1"}}}}
			if c.final != "" {
				final.Backends["new"].Tags["a:v"] = c.final
			}
			found, err := Check(c.all, final)
			require.NoError(t, err)
			var what []string
			for _, a := range found {
				what = append(what, a.What)
			}
			require.Equal(t, c.want, what, "%v", found)
		})
	}
}

func TestATagOfWhichSomethingIsMissingIsFound(t *testing.T) {
	found, err := Check([]Operation{op(PushTag, "d1", 0, 1, OK)}, Final{At: noon.Add(time.Hour), Serves: "new", Backends: map[string]Contents{
		"new": {Tags: map[string]string{"a:v": "d1"}, Broken: map[string]string{"a:v": "a layer is missing"}},
	}})
	require.NoError(t, err)
	require.Equal(t, []Anomaly{{Broke, "a:v", "a layer is missing"}}, found)
}

func TestAHistoryThatCannotBeJudgedIsAnError(t *testing.T) {
	_, err := Check([]Operation{op(PushTag, "d1", 0, 1, OK), op(PushTag, "d1", 2, 3, OK)}, Final{Serves: "new", Backends: map[string]Contents{"new": {}}})
	require.ErrorContains(t, err, "twice")
	_, err = Check(nil, Final{Serves: "new"})
	require.ErrorContains(t, err, "no final state")
}

func TestAHistoryIsReadAsItWasRecorded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.jsonl")
	r, err := Record(path)
	require.NoError(t, err)
	want := []Operation{op(PushTag, "d1", 0, 1, OK), op(PullTag, "", 2, 3, Failed)}
	for _, o := range want {
		require.NoError(t, r.Add(o))
	}
	require.NoError(t, r.Close())
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	got, err := Read(f)
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.Equal(t, want, r.Operations())
}
