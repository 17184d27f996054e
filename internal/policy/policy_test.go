package policy

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestDefaultIsSound(t *testing.T) { require.Empty(t, Default().Check()) }

func TestEveryMistakeIsFoundAtOnce(t *testing.T) {
	p := Default()
	p.Mirror.Jobs = 0
	p.Audit.Broken = "ignore"
	p.Freeze.Drain = time.Minute
	p.Checks.HTTP = []HTTPCheck{{URL: "ftp://x"}}
	p.Approval.Window = Window{Days: []string{"monday"}, From: "9", To: "08:00", Timezone: "Mars/Olympus"}
	var keys []string
	for _, m := range p.Check() {
		keys = append(keys, m.Key)
		assert.NotEmpty(t, m.Problem)
	}
	assert.ElementsMatch(t, []string{
		"mirror.jobs", "audit.broken", "freeze.drain", "checks.http[0].name", "checks.http[0].url",
		"approval.window.days", "approval.window.from", "approval.window.timezone",
	}, keys)
}

func TestWindow(t *testing.T) {
	w := Window{Days: []string{"mon", "tue"}, From: "09:00", To: "16:00", Timezone: "Europe/Berlin"}
	at := func(s string) bool {
		moment, err := time.Parse(time.RFC3339, s)
		require.NoError(t, err)
		open, _ := w.Open(moment)
		return open
	}
	assert.True(t, at("2026-11-24T08:00:00Z"), "Tuesday, 09:00 in Berlin")
	assert.False(t, at("2026-11-24T07:59:00Z"))
	assert.False(t, at("2026-11-24T15:00:00Z"), "the end is not included")
	assert.False(t, at("2026-11-25T10:00:00Z"), "Wednesday")
	open, why := w.Open(time.Date(2026, 11, 25, 10, 0, 0, 0, time.UTC))
	assert.False(t, open)
	assert.Equal(t, "it is wed 11:00 CET; the window is mon, tue from 09:00 to 16:00 (Europe/Berlin)", why)
	open, _ = Window{}.Open(time.Now())
	assert.True(t, open)
}
