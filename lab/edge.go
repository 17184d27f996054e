package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"transship/lab/servers"
)

// Edge is one proxy node: an nginx, the worker beside it that hosts its gate, and a folder of their own.
type Edge struct {
	Name string
	URL  string
	// Gate is where the edge worker listens for nginx.
	Gate string
	// Reads is where nginx itself reads from a second backend.
	Reads string
	// Dir has the configuration, the generated files, the journal and the traffic of nginx.
	Dir string
	// State is the file in which the edge worker keeps its table.
	State         string
	Nginx, Worker *Process
	// Link is what the edge worker reaches Temporal through; nil without the part Links.
	Link *Link
}

func (e *Edge) path(name string) string { return filepath.Join(e.Dir, name) }

// Edges is how many edges a test's stack has; without it, one, or two with SecondEdge.
type Edges int

func (n Edges) apply(o *Options) { o.Edges = n }

// layOutEdges chooses where the edges are. The first one's processes and folder carry no number, so that most tests need not know of others.
func (s *Stack) layOutEdges() error {
	count := max(1, int(s.Options.Edges))
	if s.has(SecondEdge) {
		count = max(2, count)
	}
	suffixes := []string{""}
	for i := 2; i <= count; i++ {
		suffixes = append(suffixes, fmt.Sprintf("-%d", i))
	}
	free, err := servers.FreePorts(3 * len(suffixes))
	if err != nil {
		return err
	}
	for i, suffix := range suffixes {
		e := &Edge{
			Name: fmt.Sprintf("edge%d", i+1), URL: "http://" + free[3*i], Gate: free[3*i+1], Reads: free[3*i+2],
			Dir: s.path("nginx" + suffix), State: s.path(fmt.Sprintf("edge/edge%d.json", i+1)),
		}
		for _, dir := range []string{"generated", "temp"} {
			if err := os.MkdirAll(e.path(dir), 0o755); err != nil {
				return err
			}
		}
		worker := []string{filepath.Join(s.Bin, "transship-worker"), "--config", s.Addresses.Config, "--edge", e.Name}
		if s.has(Links) {
			if e.Link, err = OpenLink(s.Addresses.Temporal); err != nil {
				return err
			}
			worker = append(worker, "--temporal-address", e.Link.Address())
		}
		e.Worker = s.process("edge-worker"+suffix, e.generated, worker...)
		e.Nginx = s.process("nginx"+suffix, servers.AnswersHTTP(e.URL+"/_transship/generation"), "nginx", "-p", e.Dir, "-c", e.path("nginx.conf"))
		s.Edges = append(s.Edges, e)
		s.Addresses.Edges = append(s.Addresses.Edges, e.URL)
	}
	first := s.Edges[0]
	s.Addresses.Edge, s.EdgeWorker, s.Nginx = first.URL, first.Worker, first.Nginx
	return nil
}

func (s *Stack) writeSites() error {
	var errs []error
	for _, e := range s.Edges {
		errs = append(errs, e.writeSite())
	}
	return errors.Join(errs...)
}

// startEdges starts the edges' workers before their nginxes, which do not start without the files that the workers write.
func (s *Stack) startEdges(ctx context.Context) error {
	var workers, nginxes []*Process
	for _, e := range s.Edges {
		workers, nginxes = append(workers, e.Worker), append(nginxes, e.Nginx)
	}
	if err := s.started.Start(ctx, workers...); err != nil {
		return err
	}
	return s.started.Start(ctx, nginxes...)
}

// generated waits for the files that the edge worker writes.
func (e *Edge) generated(context.Context) error {
	for _, name := range []string{"transship_http.conf", "transship_server.conf", "transship_location.conf"} {
		if _, err := os.Stat(e.path("generated/" + name)); err != nil {
			return err
		}
	}
	return nil
}
