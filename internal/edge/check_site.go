package edge

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"transship/internal/siteconf"
)

// checkSite reads the site's nginx configuration on this node, and says what in it keeps writes from being held or requests from following the
// route. Only what is found leaves the node.
func (e *Edge) checkSite(ctx context.Context) []Finding {
	build, found := e.checkBuild(ctx)
	return append(found, e.checkConfiguration(ctx, build)...)
}

func (e *Edge) checkBuild(ctx context.Context) (build siteconf.Build, found []Finding) {
	f := Finding{What: "edge " + e.Name + ": nginx has what holding and routing need"}
	command, ok := e.asking("-V")
	if !ok {
		return build, nil // said of the configuration
	}
	// It needs no rights, and a site's sudo may not let it.
	if i := slices.IndexFunc(command, func(arg string) bool { return filepath.Base(arg) == "nginx" }); i > 0 && filepath.Base(command[0]) == "sudo" {
		command = command[i:]
	}
	output, err := e.output(ctx, command)
	if err != nil {
		return build, []Finding{f.unknown(err, "let the edge worker's user run "+strings.Join(command, " "))}
	}
	build, err = siteconf.ReadBuild(output)
	if err != nil {
		return build, []Finding{f.unknown(err, "run "+strings.Join(command, " ")+": is it nginx?")}
	}
	tls := slices.ContainsFunc(e.Upstreams, func(u Upstream) bool { return u.TLS })
	return build, f.of(build.Faults(tls))
}

func (e *Edge) checkConfiguration(ctx context.Context, build siteconf.Build) []Finding {
	f := Finding{What: "edge " + e.Name + ": the site's nginx configuration routes and holds what it should"}
	site, cure, err := e.readSite(ctx)
	if err != nil {
		return []Finding{f.unknown(err, cure)}
	}
	expected := siteconf.Expected{KeepsIdle: build.KeepsIdle()}
	for _, p := range e.known(e.Table()) {
		expected.Prefixes = append(expected.Prefixes, string(p))
	}
	for _, u := range e.Upstreams {
		expected.Backends = append(expected.Backends, u.Address)
	}
	return f.of(site.Faults(expected))
}

// readSite reads the site's configuration; where it cannot, it says what would let it.
func (e *Edge) readSite(ctx context.Context) (site *siteconf.Site, cure string, err error) {
	command, ok := e.asking("-T")
	if !ok {
		return nil, "let test_command end in nginx … -t, or compare the site's files with `transship edge snippet` yourself",
			fmt.Errorf("edges.%s.nginx.test_command is %q, in which there is no -t to make -T of", e.Name, strings.Join(e.TestCommand, " "))
	}
	output, err := e.output(ctx, command)
	if err != nil {
		return nil, "let the edge worker's user run " + strings.Join(command, " ") + ", as it may with -t (runbooks/edge.md)", err
	}
	site, err = siteconf.Read([]byte(output), e.generated())
	return site, "compare the site's files with `transship edge snippet` yourself", err
}

func (c Config) generated() siteconf.Generated { return SiteFiles(c.Directory) }

// SiteFiles are the generated files in a folder, as a site includes them.
func SiteFiles(directory string) siteconf.Generated {
	return siteconf.Generated{Directory: filepath.Clean(directory), HTTP: FileHTTP, Server: FileServer, Location: FileLocation}
}

// asking is the command that tests nginx's configuration, with another letter in the place of -t.
func (c Config) asking(letter string) ([]string, bool) {
	i := slices.Index(c.TestCommand, "-t")
	if i < 0 {
		return nil, false
	}
	command := slices.Clone(c.TestCommand)
	command[i] = letter
	return command, true
}

// output is what a command of nginx prints: the configuration to its standard output, what it was built with to the other.
func (c Config) output(ctx context.Context, command []string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var out, messages bytes.Buffer
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &messages
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %.300s", strings.Join(command, " "), err, bytes.TrimSpace(messages.Bytes()))
	}
	if out.Len() == 0 {
		return messages.String(), nil
	}
	return out.String(), nil
}

// unknown is a finding that could not be made: the node may be well.
func (f Finding) unknown(err error, cure string) Finding {
	f.Detail, f.Cure, f.Warning = err.Error(), cure, true
	return f
}

// of makes a finding of each fault, or one that says that there is none.
func (f Finding) of(faults []siteconf.Fault) (findings []Finding) {
	if len(faults) == 0 {
		f.OK = true
		return []Finding{f}
	}
	for _, fault := range faults {
		g := f
		g.Detail, g.Cure, g.Warning = fault.What, fault.Cure, fault.Warning
		if fault.File != "" {
			g.Detail = fault.Where() + ": " + fault.What
		}
		findings = append(findings, g)
	}
	return findings
}
