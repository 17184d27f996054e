// Package shared gives tests one Swift and one Ceph for a whole run: those of `go run ./lab/stores run -- go test …`, or else a pair that lives as long as
// the test program. Every caller gets containers and buckets of its own. A test that kills a store starts its own with servers.StartSwift or StartCeph.
package shared

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"transship/lab/servers"
)

// Variable names the file with the addresses of stores that run already.
const Variable = "TRANSSHIP_LAB"

// Stores are a Swift and a Ceph.
type Stores struct {
	Swift     *servers.Swift    `json:"swift"`
	Ceph      *servers.Ceph     `json:"ceph"`
	Processes []servers.Running `json:"processes"`
}

// Start brings up both stores side by side, in folders of their own below dir.
func Start(ctx context.Context, dir string) (*Stores, error) {
	s := &Stores{}
	var starting errgroup.Group
	starting.Go(func() (err error) { s.Swift, err = servers.StartSwift(ctx, filepath.Join(dir, "swift")); return err })
	starting.Go(func() (err error) { s.Ceph, err = servers.StartCeph(ctx, filepath.Join(dir, "ceph")); return err })
	if err := starting.Wait(); err != nil {
		s.Stop()
		return nil, err
	}
	s.Processes = append(s.Swift.Running(), s.Ceph.Running()...)
	return s, nil
}

// Stop ends what Start started.
func (s *Stores) Stop() {
	var wait sync.WaitGroup
	if s.Swift != nil {
		wait.Go(s.Swift.Stop)
	}
	if s.Ceph != nil {
		wait.Go(s.Ceph.Stop)
	}
	wait.Wait()
}

// Write writes the addresses for Attach.
func (s *Stores) Write(path string) error {
	raw, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(raw, '\n'), 0o600)
}

// Attach finds stores that another process runs.
func Attach(path string) (*Stores, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("attach to the stores of %s: %w", Variable, err)
	}
	s := &Stores{}
	if err := json.Unmarshal(raw, s); err != nil {
		return nil, fmt.Errorf("attach to the stores of %s: %s: %w", Variable, path, err)
	}
	if s.Swift == nil || s.Ceph == nil {
		return nil, fmt.Errorf("attach to the stores of %s: %s names no Swift or no Ceph", Variable, path)
	}
	return s, nil
}

// one is the pair of this test program.
var one struct {
	sync.Once
	dir    string
	stores *Stores
	err    error
}

// Shared returns the stores of this test run. The package's TestMain calls Main.
func Shared(t testing.TB) *Stores {
	t.Helper()
	one.Do(func() {
		if path := os.Getenv(Variable); path != "" {
			one.stores, one.err = Attach(path)
			return
		}
		if !managed {
			one.err = errors.New("nobody would stop the stores: add func TestMain(m *testing.M) { shared.Main(m) } to the package")
			return
		}
		if one.dir, one.err = os.MkdirTemp("", "transship-stores-"); one.err != nil {
			return
		}
		one.stores, one.err = Start(context.Background(), one.dir)
	})
	if one.err != nil {
		t.Fatal(one.err)
	}
	return one.stores
}

// managed is set when Main runs the tests.
var managed bool

// Main runs a package's tests, and stops the stores that they started.
func Main(m interface{ Run() int }) {
	os.Exit(Run(m))
}

// Run is Main for a TestMain that has something else to do after the tests.
func Run(m interface{ Run() int }) int {
	managed = true
	defer func() {
		if one.dir == "" {
			return
		}
		if one.stores != nil {
			one.stores.Stop()
		}
		_ = os.RemoveAll(one.dir) // a folder of the temporary directory; nothing depends on it any more
	}()
	return m.Run()
}

// NewContainer makes an empty container that nobody else has.
func (s *Stores) NewContainer(t testing.TB) string {
	t.Helper()
	name := unique()
	if err := s.Swift.CreateContainer(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	return name
}

// NewBucket makes an empty bucket that nobody else has.
func (s *Stores) NewBucket(t testing.TB) string {
	t.Helper()
	name := unique()
	if err := s.Ceph.CreateBucket(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	return name
}

// SwiftRegistry starts a registry on a container, until the test ends.
func (s *Stores) SwiftRegistry(t testing.TB, container string) *servers.Registry {
	t.Helper()
	return registry(t, "swift", servers.RegistryOptions{Swift: s.Swift, Container: container})
}

// CephRegistry starts a registry on a bucket, until the test ends.
func (s *Stores) CephRegistry(t testing.TB, bucket string) *servers.Registry {
	t.Helper()
	return registry(t, "ceph", servers.RegistryOptions{Ceph: s.Ceph, Bucket: bucket})
}

func registry(t testing.TB, name string, o servers.RegistryOptions) *servers.Registry {
	t.Helper()
	r, err := servers.StartRegistry(t.Context(), t.TempDir(), name, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Stop)
	return r
}

func unique() string { return "t" + strings.ReplaceAll(uuid.NewString(), "-", "") }
