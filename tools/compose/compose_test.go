// Package compose checks docker-compose.yml with the loader that Docker itself uses, because the machines that build transship
// need not have a Docker daemon.
package compose

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// load reads the project as `docker compose` would, with no environment of ours, and fails on anything the schema does not know.
func load(t *testing.T) *types.Project {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	options, err := cli.NewProjectOptions([]string{filepath.Join(root, "docker-compose.yml")}, cli.WithWorkingDirectory(root), cli.WithEnv(nil))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatalf("docker-compose.yml: %v", err)
	}
	return project
}

func TestServices(t *testing.T) {
	project := load(t)
	for _, name := range []string{"postgresql", "temporal", "temporal-setup", "temporal-ui", "registry-old", "registry-new", "worker", "edge"} {
		if _, ok := project.Services[name]; !ok {
			t.Errorf("no service %s", name)
		}
	}
}

func TestImagesArePinned(t *testing.T) {
	version := regexp.MustCompile(`^[^:@]+:v?[0-9]+\.[0-9]+(\.[0-9]+)?([.-][a-z0-9.-]+)?$`)
	for name, service := range load(t).Services {
		if !version.MatchString(service.Image) {
			t.Errorf("%s: image %q names no version", name, service.Image)
		}
	}
}

func TestDockerfileIsPinned(t *testing.T) {
	text, err := os.ReadFile("../../deploy/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	stages := map[string]bool{}
	for _, from := range regexp.MustCompile(`(?m)^FROM (\S+) AS (\S+)$`).FindAllStringSubmatch(string(text), -1) {
		if image := from[1]; !stages[image] && (!strings.Contains(image, ":") || strings.HasSuffix(image, ":latest")) {
			t.Errorf("deploy/Dockerfile: FROM %s names no version", image)
		}
		stages[from[2]] = true
	}
	for name, service := range load(t).Services {
		if service.Build == nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(service.Build.Context, service.Build.Dockerfile)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !stages[service.Build.Target] {
			t.Errorf("%s: deploy/Dockerfile has no stage %q", name, service.Build.Target)
		}
	}
	for _, copied := range regexp.MustCompile(`(?m)^COPY (?:--chmod=\S+ )?(deploy/\S+)`).FindAllStringSubmatch(string(text), -1) {
		if _, err := os.Stat(filepath.Join("../..", copied[1])); err != nil {
			t.Errorf("deploy/Dockerfile copies what is not there: %v", err)
		}
	}
}

func TestMountsExist(t *testing.T) {
	project := load(t)
	for name, service := range project.Services {
		for _, mount := range service.Volumes {
			switch mount.Type {
			case types.VolumeTypeBind:
				if info, err := os.Stat(mount.Source); err != nil || !info.Mode().IsRegular() || !mount.ReadOnly {
					t.Errorf("%s: %s must be a file in the repository, mounted read-only (%v)", name, mount.Source, err)
				}
			case types.VolumeTypeVolume:
				if _, ok := project.Volumes[mount.Source]; !ok {
					t.Errorf("%s: volume %s is not declared", name, mount.Source)
				}
			default:
				t.Errorf("%s: a mount of type %s", name, mount.Type)
			}
		}
	}
}

func TestPortsAreOnLoopback(t *testing.T) {
	taken := map[string]string{}
	for name, service := range load(t).Services {
		for _, port := range service.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s: port %s is published on %q", name, port.Published, port.HostIP)
			}
			if other := taken[port.Published]; other != "" {
				t.Errorf("%s and %s both publish port %s", name, other, port.Published)
			}
			taken[port.Published] = name
		}
	}
	if len(taken) == 0 {
		t.Error("nothing is published")
	}
}

func TestDependenciesCanBeMet(t *testing.T) {
	project := load(t)
	for name, service := range project.Services {
		for other, dependency := range service.DependsOn {
			needed, ok := project.Services[other]
			switch {
			case !ok:
				t.Errorf("%s waits for %s, which does not exist", name, other)
			case dependency.Condition == types.ServiceConditionHealthy:
				if needed.HealthCheck == nil || needed.HealthCheck.Disable || len(needed.HealthCheck.Test) == 0 {
					t.Errorf("%s waits for %s to be healthy, which has no healthcheck", name, other)
				}
			case dependency.Condition == types.ServiceConditionCompletedSuccessfully:
				if needed.Restart == types.RestartPolicyAlways || needed.Restart == types.RestartPolicyUnlessStopped {
					t.Errorf("%s waits for %s to end, which is restarted for ever", name, other)
				}
			default:
				t.Errorf("%s waits for %s only to be started", name, other)
			}
		}
	}
}
