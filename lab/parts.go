package lab

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"transship/lab/servers"
)

// Part is something that a stack may have beyond two registries on local disk behind one edge.
type Part int

// The parts.
const (
	// Swift is under the old registry.
	Swift Part = iota + 1
	// Ceph, by its S3 gateway, is under the new registry.
	Ceph
	// SecondEdge is one more nginx with its edge worker.
	SecondEdge
	// Prometheus asks whatever of the stack has metrics.
	Prometheus
	// IRC is a chat server.
	IRC
	// OwnStores are a Swift and a Ceph for this stack alone, which a test may kill; otherwise those of the test run are used.
	OwnStores
	// Folders has movers work on the folders of the registries, instead of through them.
	Folders
	// Links lets a test cut the edges' workers off from Temporal.
	Links
)

// Parts are several.
type Parts []Part

// Lag is how far the listings of Swift lag behind that a test's workers see.
type Lag time.Duration

func (l Lag) apply(o *Options) { o.Lag = l }

// Full is all of it.
var Full = Parts{Swift, Ceph, SecondEdge, Prometheus, IRC}

func (s *Stack) has(p Part) bool { return slices.Contains(s.Parts, p) }

// Stores is where the registries keep what they have.
type Stores struct {
	Swift *servers.Swift `json:"swift,omitempty"`
	// Container of Swift.
	Container string        `json:"container,omitempty"`
	Ceph      *servers.Ceph `json:"ceph,omitempty"`
	// Bucket of Ceph.
	Bucket string `json:"bucket,omitempty"`
}

// startStores starts the stores that are asked for and not there yet, side by side, and makes a container and a bucket for this stack alone.
func (s *Stack) startStores(ctx context.Context) error {
	if !s.has(Swift) && !s.has(Ceph) {
		return nil
	}
	s.Addresses.Stores = &Stores{}
	var starting errgroup.Group
	if s.has(Swift) {
		starting.Go(func() error { return s.startSwift(ctx) })
	}
	if s.has(Ceph) {
		starting.Go(func() error { return s.startCeph(ctx) })
	}
	return starting.Wait()
}

func (s *Stack) startSwift(ctx context.Context) (err error) {
	if s.Swift == nil {
		if s.Swift, err = servers.StartSwift(ctx, s.logging("swift")); err != nil {
			return err
		}
		s.stores.Add(s.Swift.Processes()...)
	}
	s.Addresses.Stores.Swift, s.Addresses.Stores.Container = s.Swift, s.own()
	if err := s.Swift.CreateContainer(ctx, s.own()); err != nil || s.Lag == 0 {
		return err
	}
	if s.lagging, err = servers.StartLagging(ctx, s.Swift, s.own(), time.Duration(s.Lag)); err != nil {
		return err
	}
	s.Addresses.Stores.Swift = s.lagging.Swift // which the workers' configuration names
	return nil
}

func (s *Stack) startCeph(ctx context.Context) (err error) {
	if s.Ceph == nil {
		if s.Ceph, err = servers.StartCeph(ctx, s.logging("ceph")); err != nil {
			return err
		}
		s.stores.Add(s.Ceph.Processes()...)
		s.ownCeph = true
	}
	s.Addresses.Stores.Ceph, s.Addresses.Stores.Bucket = s.Ceph, s.own()
	return s.Ceph.CreateBucket(ctx, s.own())
}

// own is a name for what is this stack's in a store that several may share.
func (s *Stack) own() string {
	return "registry-" + strings.TrimPrefix(s.Addresses.Old, "http://127.0.0.1:")
}

// logging is a folder of the stack whose logs are with all others.
func (s *Stack) logging(name string) string {
	dir := s.path(name)
	if err := os.MkdirAll(dir, 0o755); err == nil {
		_ = os.Symlink("../log", filepath.Join(dir, "log")) // else they stay in a folder of their own
	}
	return dir
}

// prepareRegistries prepares a Docker Distribution for each backend.
func (s *Stack) prepareRegistries() error {
	old := servers.RegistryOptions{Address: strings.TrimPrefix(s.Addresses.Old, "http://")}
	next := servers.RegistryOptions{Address: strings.TrimPrefix(s.Addresses.New, "http://")}
	if s.has(Swift) {
		old.Swift, old.Container = s.Swift, s.Addresses.Stores.Container
	}
	if s.has(Ceph) {
		next.Ceph, next.Bucket = s.Ceph, s.Addresses.Stores.Bucket
	}
	if s.has(Prometheus) {
		free, err := servers.FreePorts(2)
		if err != nil {
			return err
		}
		old.Metrics, next.Metrics = free[0], free[1]
		s.metrics = map[string]string{"registry-old": old.Metrics, "registry-new": next.Metrics}
	}
	o, err := servers.PrepareRegistry(s.Dir, "old", old)
	if err != nil {
		return err
	}
	n, err := servers.PrepareRegistry(s.Dir, "new", next)
	if err != nil {
		return err
	}
	s.Old, s.New = o.Process, n.Process
	return nil
}

// startExtras starts what watches and what is told.
func (s *Stack) startExtras(ctx context.Context) error {
	if s.has(Prometheus) {
		if s.ownCeph { // one that is shared is not ours to change
			address, err := s.Ceph.EnableMetrics(ctx)
			if err != nil {
				return err
			}
			s.metrics["ceph"] = address
		}
		p, err := servers.StartPrometheus(ctx, s.Dir, s.metrics)
		if err != nil {
			return err
		}
		s.started.Add(p.Process)
		s.Addresses.Prometheus = p.URL
	}
	if s.has(IRC) {
		i, err := servers.StartIRC(ctx, s.Dir)
		if err != nil {
			return err
		}
		s.started.Add(i.Process)
		s.Addresses.IRC = i.Address
	}
	return nil
}
