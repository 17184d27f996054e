package activities

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"go.temporal.io/sdk/temporal"

	"transship/internal/policy"
	"transship/internal/probe"
	"transship/internal/registry"
)

// Probes look at the registry as clients do.
type Probes struct {
	// Edges are the proxy nodes of the configuration as clients reach them, by name.
	Edges map[string]*registry.Registry
	// Backends are the registries behind them.
	Backends map[string]*registry.Registry
}

// ProbeEdgeParams says through which edge to probe, and who should serve it.
type ProbeEdgeParams struct {
	Edge       string `json:"edge"`
	Backend    string `json:"backend"`
	Repository string `json:"repository"`
}

// ProbeEdge pushes and pulls a synthetic image through an edge, every byte checked.
func (p *Probes) ProbeEdge(ctx context.Context, q ProbeEdgeParams) (probe.Result, error) {
	through, ok := p.Edges[q.Edge]
	if !ok {
		return probe.Result{}, temporal.NewNonRetryableApplicationError(
			fmt.Sprintf("edge %q is not in the configuration of this worker: add it to edges and restart the worker", q.Edge), KindConfig, nil)
	}
	defer beat(ctx, func() any { return nil })()
	return probe.Run(ctx, through, p.Backends[q.Backend], q.Repository)
}

// AskCheck asks one of the site's own checks. Anything but 2xx is an error.
func (p *Probes) AskCheck(ctx context.Context, c policy.HTTPCheck) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL, nil)
	if err != nil {
		return fmt.Errorf("check %s: %w", c.Name, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("check %s: %w", c.Name, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("check %s: %s answers %s", c.Name, c.URL, resp.Status)
	}
	return nil
}
