package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"transship/activities"
	"transship/internal/registry"
	"transship/internal/report"
	"transship/workflows"
)

func TestProgressCountsNothingTwice(t *testing.T) {
	ended := registry.Progress{Tags: 10, Bytes: 1000}
	under := map[string]activities.Cursor{
		"7":  {Progress: registry.Progress{Tags: 2, Bytes: 50}},
		"12": {Progress: registry.Progress{Tags: 5, Bytes: 300}},
	}
	// 12 goes on with a batch that a pause interrupted: what it was handed is in the report.
	before := map[string]registry.Progress{"12": {Tags: 4, Bytes: 200}}
	got := sum(ended, under, before)
	assert.Equal(t, int64(13), got.Tags)
	assert.Equal(t, int64(1150), got.Bytes)
}

func TestCopiesAreHandedOnAfterAPauseAndWhenTheyAreBounded(t *testing.T) {
	for what, want := range map[string]bool{"approved": false, "resumed": true, workflows.DecisionBounds + "8.0 MiB/s": true} {
		assert.Equal(t, want, handedOn(report.Report{Decisions: []report.Decision{{What: what}}}), what)
	}
}

func TestRateAndTimeLeft(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r := report.Report{
		Plan:  report.Plan{Bytes: 5000, BytesPresent: 1000},
		Steps: []report.Step{{Name: workflows.Mirror, Began: now.Add(-10 * time.Second)}},
	}
	e := &estimator{}
	p := e.at(now, r, registry.Progress{Bytes: 1000})
	assert.Equal(t, int64(4000), p.Total)
	assert.Equal(t, int64(100), p.Rate, "one look: since the step began")
	assert.Equal(t, 30*time.Second, p.Left)

	p = e.at(now.Add(5*time.Second), r, registry.Progress{Bytes: 2000})
	assert.Equal(t, int64(200), p.Rate, "two looks: between them")
	assert.Equal(t, 10*time.Second, p.Left)

	p = e.at(now.Add(10*time.Second), r, registry.Progress{Bytes: 4500})
	assert.Zero(t, p.Left, "more than was planned has no time left")

	p = e.at(now.Add(60*time.Second), r, registry.Progress{Bytes: 4500})
	assert.Zero(t, p.Rate, "nothing moves any more: what was long ago does not count")
}

func TestARateOfAMomentForetellsNothing(t *testing.T) {
	now := time.Now()
	r := report.Report{Plan: report.Plan{Bytes: 5000}, Steps: []report.Step{{Name: workflows.Mirror, Began: now.Add(-2 * time.Second)}}}
	assert.Zero(t, (&estimator{}).at(now, r, registry.Progress{Bytes: 1}).Left)
}
