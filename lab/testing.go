package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"transship/lab/servers"
	"transship/lab/servers/shared"
)

// Option says what a test's stack has: a Part, Parts such as Full, Edges, or Adapt.
type Option interface{ apply(*Options) }

// Adapt changes the configuration before it is written.
type Adapt func(*Settings)

func (p Part) apply(o *Options)  { o.Parts = append(o.Parts, p) }
func (p Parts) apply(o *Options) { o.Parts = append(o.Parts, p...) }
func (a Adapt) apply(o *Options) { o.Adapt = a }

// bin has the programs under test, built by Main.
var bin string

// Main builds the programs under test, runs a package's tests, and stops what they shared. TestMain calls it.
func Main(m *testing.M) {
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "transship-bin-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	module, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return 0, fmt.Errorf("find the module: %w", err)
	}
	root := strings.TrimSpace(string(module))
	for name, source := range map[string][2]string{
		"transship": {root, "./starter"}, "transship-worker": {root, "./worker"}, "transship-devserver": {filepath.Join(root, "devserver"), "."},
		"crane": {filepath.Join(root, "tools"), "github.com/google/go-containerregistry/cmd/crane"}, // a client of the load; Debian has none
	} {
		cmd := exec.Command("go", "build", "-o", filepath.Join(dir, name), source[1])
		cmd.Dir = source[0]
		if out, err := cmd.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("build %s: %w: %s", name, err, out)
		}
	}
	bin = dir
	return shared.Run(m), nil
}

// Start brings up a stack until the test ends. Swift and Ceph are those of the test run, with a container and a bucket for this stack alone. The logs are
// shown when the test fails.
func Start(t testing.TB, options ...Option) *Stack {
	t.Helper()
	if bin == "" {
		t.Fatal("the programs were not built: add func TestMain(m *testing.M) { lab.Main(m) } to the package")
	}
	o := Options{Dir: t.TempDir(), Bin: bin}
	for _, option := range options {
		option.apply(&o)
	}
	s := &Stack{Options: o}
	if (s.has(Swift) || s.has(Ceph)) && !s.has(OwnStores) {
		stores := shared.Shared(t)
		o.Swift, o.Ceph = stores.Swift, stores.Ceph
	}
	s, err := Up(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Stop()
		if !t.Failed() {
			return
		}
		for _, p := range s.started.Processes() {
			t.Logf("--- the log of %s ends with:\n%s", p.Name, servers.Tail(p.Log))
		}
	})
	return s
}
