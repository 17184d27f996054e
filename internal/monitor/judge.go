package monitor

import (
	"fmt"
	"time"
)

// Sample is what clients saw of a prefix over some time.
type Sample struct {
	Requests int64 `json:"requests"`
	// Failed are answers of 500 and above.
	Failed int64 `json:"failed"`
	// Reads is how many reads Read95 rests on.
	Reads int64 `json:"reads"`
	// Read95 is the time to first byte that 95 % of the reads stayed under.
	Read95 time.Duration `json:"read95_ns"`
}

// Merge adds the sample of another edge. The slower edge's latency counts, since its clients see it.
func (s Sample) Merge(o Sample) Sample {
	return Sample{s.Requests + o.Requests, s.Failed + o.Failed, s.Reads + o.Reads, max(s.Read95, o.Read95)}
}

// ErrorRatio is the share of failed requests, 0 when there were none.
func (s Sample) ErrorRatio() float64 {
	if s.Requests == 0 {
		return 0
	}
	return float64(s.Failed) / float64(s.Requests)
}

func (s Sample) String() string {
	return fmt.Sprintf("%d requests, %.2f %% failed, 95 %% of reads under %s", s.Requests, 100*s.ErrorRatio(), s.Read95.Round(time.Millisecond))
}

// Limits say how much worse than before is too bad.
type Limits struct {
	// ErrorRatio is how much the share of failed requests may grow: 0.01 is one in a hundred.
	ErrorRatio float64 `json:"error_ratio" mapstructure:"error_ratio"`
	// LatencyFactor is how many times the latency from before is too slow.
	LatencyFactor float64 `json:"latency_factor" mapstructure:"latency_factor"`
	// LatencyFloor is a latency that is never too slow.
	LatencyFloor time.Duration `json:"latency_floor" mapstructure:"latency_floor"`
	// MinimumRequests is how many requests a sample needs before it is judged.
	MinimumRequests int64 `json:"minimum_requests" mapstructure:"minimum_requests"`
}

// Judge compares two samples. It returns what is too bad, or nothing.
func Judge(before, now Sample, l Limits) []string {
	if now.Requests < l.MinimumRequests {
		return nil
	}
	var findings []string
	if ratio, was := now.ErrorRatio(), before.ErrorRatio(); ratio > was+l.ErrorRatio {
		findings = append(findings, fmt.Sprintf("%.2f %% of requests fail, %.2f %% did before the flip (limit: %.2f %% more)", 100*ratio, 100*was, 100*l.ErrorRatio))
	}
	// Without reads before the flip there is nothing to compare with.
	if before.Reads >= l.MinimumRequests && now.Reads >= l.MinimumRequests && now.Read95 > l.LatencyFloor &&
		float64(now.Read95) > l.LatencyFactor*float64(before.Read95) {
		findings = append(findings, fmt.Sprintf("95 %% of reads take up to %s, %s before the flip (limit: %.1f times)",
			now.Read95.Round(time.Millisecond), before.Read95.Round(time.Millisecond), l.LatencyFactor))
	}
	return findings
}
