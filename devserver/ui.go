package main

import (
	uiserver "github.com/temporalio/ui-server/v2/server"
	uiconfig "github.com/temporalio/ui-server/v2/server/config"
	"github.com/temporalio/ui-server/v2/server/server_options"
)

// startUI serves the web UI and returns what stops it. The UI ends the process itself, with a message, when its port was
// taken since pickPorts looked.
func startUI(at ports, namespace string) (stop func()) {
	host := at.ui.Addr().String()
	if at.ui.Addr().Is6() {
		host = "[" + host + "]"
	}
	server := uiserver.NewServer(server_options.WithConfigProvider(&uiconfig.Config{
		TemporalGRPCAddress: reach(at.frontend),
		Host:                host,
		Port:                int(at.ui.Port()),
		EnableUI:            true,
		DefaultNamespace:    namespace,
		HideLogs:            true,
		DisableNewsFetch:    true,
		// There is no TLS here, and without this the buttons (signal, terminate, …) are refused in some browsers.
		CORS: uiconfig.CORS{CookieInsecure: true},
	}))
	go func() { _ = server.Start() }() // nil or no return at all
	return server.Stop
}
