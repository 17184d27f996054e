package main

import (
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"time"

	"go.temporal.io/server/common/cluster"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/dynamicconfig"
	"go.temporal.io/server/common/log"
	"go.temporal.io/server/common/membership/static"
	"go.temporal.io/server/common/persistence/sql/sqlplugin/sqlite"
	"go.temporal.io/server/common/primitives"
	"go.temporal.io/server/temporal"
)

// clusterName is written into the database at its first start and cannot change afterwards; nor can the number of shards.
const clusterName = "active"

// dynamicValues are the settings in which one small process differs from a cluster.
var dynamicValues = dynamicconfig.StaticClient{
	// Nothing here calls home.
	dynamicconfig.EnableServerVersionCheck.Key(): false,
	// One process gains nothing from partitions; with one, a task is matched at once.
	dynamicconfig.MatchingNumTaskqueueReadPartitions.Key():  1,
	dynamicconfig.MatchingNumTaskqueueWritePartitions.Key(): 1,
	// A shard hands out the tasks of its queues 20 times a second by default, and here all workflows share one shard: a burst of small steps, such as a freeze, would wait 50 ms
	// for each.
	dynamicconfig.TransferProcessorMaxPollRPS.Key():   1000,
	dynamicconfig.TimerProcessorMaxPollRPS.Key():      1000,
	dynamicconfig.VisibilityProcessorMaxPollRPS.Key(): 1000,
	// A search attribute added at start is usable as soon as we say that we are ready.
	dynamicconfig.ForceSearchAttributesCacheRefreshOnRead.Key(): true,
	// The list page, its counters and `transship status --watch` share this; the default of 10 a second is meant for tenants.
	dynamicconfig.FrontendMaxNamespaceVisibilityRPSPerInstance.Key(): 100,
	// Archive soon after a workflow closes rather than minutes later: the archive then is a backup too.
	dynamicconfig.ArchivalProcessorArchiveDelay.Key(): time.Second,
}

// serverConfig is the whole configuration of the four services.
//
// Archiving, and what it does and does not do: when a workflow closes, its history and its visibility record (with memo and
// search attributes) are written as files below FILE.archive/, beside the database. Both archivals work with SQLite and the
// filestore archiver. After the retention, the list page no longer shows the workflow; `temporal workflow list --archived`,
// the UI's archival page and the API's ListArchivedWorkflowExecutions do, and its history opens by workflow and run ID as
// before. The archive can be searched by workflow ID, run ID, type, status and close time only, not by search attributes, and
// not with OR; it shows search attributes under their columns' names (Keyword01 is the prefix, and so on in the order of
// searchAttributes), so what people must be able to read there belongs in the memo as well. It is never pruned. Workflows
// that are still open are not in it.
func serverConfig(db *database, at ports) *config.Config {
	frontend := reach(at.frontend)
	history, visibility := archiveURI(db.path, "history"), archiveURI(db.path, "visibility")
	archiver := &config.FilestoreArchiver{FileMode: "0600", DirMode: "0700"}
	return &config.Config{
		Persistence: config.Persistence{
			DefaultStore:     sqlite.PluginName,
			VisibilityStore:  sqlite.PluginName,
			NumHistoryShards: 1,
			DataStores:       map[string]config.DataStore{sqlite.PluginName: {SQL: db.sql()}},
		},
		ClusterMetadata: &cluster.Config{
			FailoverVersionIncrement: 10,
			MasterClusterName:        clusterName,
			CurrentClusterName:       clusterName,
			ClusterInformation: map[string]cluster.ClusterInformation{
				clusterName: {Enabled: true, InitialFailoverVersion: 1, RPCAddress: frontend},
			},
		},
		DCRedirectionPolicy: config.DCRedirectionPolicy{Policy: "noop"},
		PublicClient:        config.PublicClient{HostPort: frontend},
		Services: map[string]config.Service{
			string(primitives.FrontendService): rpc(at.frontend),
			string(primitives.HistoryService):  rpc(at.history),
			string(primitives.MatchingService): rpc(at.matching),
			string(primitives.WorkerService):   rpc(at.workers),
		},
		Archival: config.Archival{
			History: config.HistoryArchival{
				State: config.ArchivalEnabled, EnableRead: true,
				Provider: &config.HistoryArchiverProvider{Filestore: archiver},
			},
			Visibility: config.VisibilityArchival{
				State: config.ArchivalEnabled, EnableRead: true,
				Provider: &config.VisibilityArchiverProvider{Filestore: archiver},
			},
		},
		NamespaceDefaults: config.NamespaceDefaults{Archival: config.ArchivalNamespaceDefaults{
			History:    config.HistoryArchivalNamespaceDefaults{State: config.ArchivalEnabled, URI: history},
			Visibility: config.VisibilityArchivalNamespaceDefaults{State: config.ArchivalEnabled, URI: visibility},
		}},
	}
}

// rpc is a service's listener.
func rpc(address netip.AddrPort) config.Service {
	return config.Service{RPC: config.RPC{GRPCPort: int(address.Port()), BindOnIP: address.Addr().String()}}
}

// archiveURI names the folder for one kind of archive of the database at path.
func archiveURI(path, kind string) string {
	return (&url.URL{Scheme: "file", Path: filepath.Join(path+".archive", kind)}).String()
}

// startServer starts all four services and returns when each listens.
func startServer(cfg *config.Config, at ports, logger log.Logger) (temporal.Server, error) {
	server, err := temporal.NewServer(
		temporal.WithConfig(cfg),
		temporal.ForServices(temporal.DefaultServices),
		// Gossip would look for the peers that the file names, and those ports may belong to another devserver by now.
		temporal.WithStaticHosts(map[primitives.ServiceName]static.Hosts{
			primitives.FrontendService: static.SingleLocalHost(reach(at.frontend)),
			primitives.HistoryService:  static.SingleLocalHost(reach(at.history)),
			primitives.MatchingService: static.SingleLocalHost(reach(at.matching)),
			primitives.WorkerService:   static.SingleLocalHost(reach(at.workers)),
		}),
		temporal.WithDynamicConfigClient(dynamicValues),
		temporal.WithLogger(logger),
	)
	if err != nil {
		return nil, fmt.Errorf("set up the Temporal server: %w", err)
	}
	if err := server.Start(); err != nil {
		return nil, fmt.Errorf("start the Temporal server on %s: %w", at.frontend, err)
	}
	return server, nil
}
