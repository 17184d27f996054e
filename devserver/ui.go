package main

import (
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"

	uiserver "github.com/temporalio/ui-server/v2/server"
	uiconfig "github.com/temporalio/ui-server/v2/server/config"
	"github.com/temporalio/ui-server/v2/server/server_options"
)

// entry is the page at "/". It shows the list of migrations with the columns that say at a glance which prefix is in which phase. The UI keeps its columns in
// the browser (localStorage, "namespace-workflow-table-columns") and has no setting for a default, so this page sets them where nobody has
// chosen any, and leads on to the UI.
//
//go:embed entry.html
var entryHTML string

var entry = template.Must(template.New("entry").Parse(entryHTML))

// startUI serves the web UI, with the entry page in front of it, and returns what stops it.
func startUI(at ports, namespace string, log *slog.Logger) (stop func(), err error) {
	server := uiserver.NewServer(server_options.WithConfigProvider(&uiconfig.Config{
		TemporalGRPCAddress: reach(at.frontend),
		Host:                at.behindUI.Addr().String(),
		Port:                int(at.behindUI.Port()),
		EnableUI:            true,
		DefaultNamespace:    namespace,
		HideLogs:            true,
		DisableNewsFetch:    true,
		// These end or rewind a migration without its way back. `transship abort` and `rollback` are what is meant.
		WorkflowTerminateDisabled: true,
		WorkflowResetDisabled:     true,
		BatchActionsDisabled:      true,
		// There is no TLS here, and without this the buttons (signal, terminate, …) are refused in some browsers.
		CORS: uiconfig.CORS{CookieInsecure: true},
	}))
	go func() { _ = server.Start() }() // nil or no return at all

	listener, err := net.Listen("tcp", at.ui.String())
	if err != nil {
		server.Stop()
		return nil, fmt.Errorf("serve the UI: %w", err)
	}
	front := &http.Server{Handler: withEntry(at.behindUI.String(), namespace), ReadHeaderTimeout: 10 * time.Second}
	go func() {
		if err := front.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("the UI is not served any more", "error", err)
		}
	}()
	return func() { _ = front.Close(); server.Stop() }, nil
}

// withEntry answers "/" with the entry page, and passes everything else on to the UI.
func withEntry(ui, namespace string) http.Handler {
	behind := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: ui})
			r.Out.Host = r.In.Host // the UI compares it with the origin of what it is asked to do
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, "the UI does not answer: "+err.Error(), http.StatusBadGateway)
		},
	}
	mux := http.NewServeMux()
	mux.Handle("/", behind)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_ = entry.Execute(w, map[string]string{
			"Namespace": namespace,
			"List":      "/namespaces/" + url.PathEscape(namespace) + "/workflows?query=" + url.QueryEscape(`WorkflowType="Migrate"`),
		}) // an error here is a browser that went away
	})
	return mux
}
