package edge

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Finding is one precondition of a node, and how to meet it when it is not met.
type Finding struct {
	What string `json:"what"`
	OK   bool   `json:"ok"`
	// Detail is what was seen.
	Detail string `json:"detail,omitempty"`
	// Cure is what to do about it.
	Cure string `json:"cure,omitempty"`
	// Warning says of what is not OK that it stops nothing: people should know, and may have their reasons.
	Warning bool `json:"warning,omitempty"`
}

// Failed reports whether the precondition must be met first.
func (f Finding) Failed() bool { return !f.OK && !f.Warning }

// Warned reports whether people should know of it although it stops nothing.
func (f Finding) Warned() bool { return !f.OK && f.Warning }

// Check looks at everything this node needs, touching nothing but a file of its own.
func (e *Edge) Check(ctx context.Context) []Finding {
	var findings []Finding
	found := func(what string, err error, cure string) {
		f := Finding{What: "edge " + e.Name + ": " + what, OK: err == nil}
		if err != nil {
			f.Detail, f.Cure = err.Error(), cure
		}
		findings = append(findings, f)
	}
	found("generated files can be written to "+e.Directory, writable(e.Directory), "give the edge worker's user write access to "+e.Directory)
	found("state can be written to "+filepath.Dir(e.State), writable(filepath.Dir(e.State)), "give the edge worker's user write access to the folder, or set edges."+e.Name+".state")
	accepted := e.run(ctx, e.TestCommand)
	found("nginx accepts its configuration", accepted, "run "+strings.Join(e.TestCommand, " ")+" and mend what it names")
	if accepted == nil { // or it shows none
		findings = append(findings, e.checkSite(ctx)...)
	}
	// Under the lock, so that no table changes between the two that are compared.
	e.mu.Lock()
	answer, err := ask[confirmation](ctx, e.StatusURL)
	want := e.state.Table.Generation
	e.mu.Unlock()
	found("nginx answers at "+e.StatusURL, err, "start nginx, and include "+filepath.Join(e.Directory, FileServer)+" in the server block of the registry")
	if err == nil {
		if answer.Edge != e.Name {
			err = fmt.Errorf("it answers as edge %q", answer.Edge)
		} else if answer.Generation != want {
			err = fmt.Errorf("it has generation %d, the edge worker %d", answer.Generation, want)
		}
		found("nginx has the generation of the edge worker", err, "point edges."+e.Name+".nginx.status_url at this node's nginx; else restart the edge worker")
	}
	for _, log := range []string{e.Journal, e.Traffic, e.Fallbacks} {
		if log == "" {
			continue
		}
		f, err := os.Open(log)
		if err == nil {
			f.Close()
		}
		found("log "+log+" can be read", err, "let nginx's log be read by the edge worker's user; nginx creates it when it starts with the generated files")
	}
	return append(findings, checkGarbage(e.Name, "/")...)
}

func writable(dir string) error {
	f, err := os.CreateTemp(dir, ".transship-check-*")
	if err != nil {
		return err
	}
	f.Close()
	return os.Remove(f.Name())
}

// newConnections is a client that never reuses one, so that each answer is of a process that takes new connections.
func newConnections() *http.Client {
	return &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
}
