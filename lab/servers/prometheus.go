package servers

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// Prometheus is a running Prometheus.
type Prometheus struct {
	URL string
	*Process
}

// StartPrometheus starts a Prometheus below dir that asks targets: addresses by the job they get as label.
func StartPrometheus(ctx context.Context, dir string, targets map[string]string) (*Prometheus, error) {
	if err := present(map[string]string{"prometheus": "prometheus"}); err != nil {
		return nil, err
	}
	free, err := FreePorts(1)
	if err != nil {
		return nil, err
	}
	var config strings.Builder
	fmt.Fprintf(&config, "global: {scrape_interval: 5s, evaluation_interval: 5s}\nscrape_configs:\n  - {job_name: prometheus, static_configs: [{targets: [%q]}]}\n", free[0])
	for _, job := range slices.Sorted(maps.Keys(targets)) {
		fmt.Fprintf(&config, "  - {job_name: %q, static_configs: [{targets: [%q]}]}\n", job, targets[job])
	}
	if err := makeDirs(dir, "prometheus", "log"); err != nil {
		return nil, fmt.Errorf("start Prometheus: %w", err)
	}
	if err := writeFiles(dir, map[string]string{"prometheus.yml": config.String()}); err != nil {
		return nil, fmt.Errorf("start Prometheus: %w", err)
	}
	p := &Prometheus{URL: "http://" + free[0], Process: &Process{
		Name: "prometheus", Log: filepath.Join(dir, "log/prometheus.log"), Ready: AnswersHTTP("http://" + free[0] + "/-/ready"),
		Args: []string{
			"prometheus", "--config.file=" + filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path=" + filepath.Join(dir, "prometheus"),
			"--web.listen-address=" + free[0], "--web.enable-lifecycle",
		},
	}}
	return p, p.Start(ctx)
}
