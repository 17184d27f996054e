package servers

import (
	"context"
	_ "embed" // the programs that Swift's own Python runs
	"fmt"
	"os/user"
	"path/filepath"
	"strings"
)

// The same in every lab, so that what one wrote another can read.
const (
	swiftHashPrefix = "lab"
	swiftHashSuffix = "transship"
)

// python is Debian's, for which Swift is installed; another may be first in the path.
const python = "/usr/bin/python3"

// runPy starts a program of Swift with our swift.conf: 2.30 reads /etc/swift/swift.conf whatever swift_dir says.
//
//go:embed swift_run.py
var runPy string

// ringsPy builds all rings in one process, because Python's start is most of what swift-ring-builder takes.
//
//go:embed swift_rings.py
var ringsPy string

// configure writes everything for the addresses of the account, container, object and proxy servers and memcached.
func (s *Swift) configure(ctx context.Context, addresses []string) error {
	if err := makeDirs(s.Dir, "etc", "srv/d1", "cache", "log"); err != nil {
		return err
	}
	etc := filepath.Join(s.Dir, "etc")
	files := map[string]string{
		"run.py": runPy, "rings.py": ringsPy,
		"swift.conf": fmt.Sprintf("[swift-hash]\nswift_hash_path_prefix = %s\nswift_hash_path_suffix = %s\n", swiftHashPrefix, swiftHashSuffix),
		"proxy.conf": fmt.Sprintf(swiftProxy, port(addresses[3]), etc, me(), swiftPassword, addresses[4]),
	}
	rings := []string{python, filepath.Join(etc, "rings.py"), etc}
	for i, kind := range []string{"account", "container", "object"} {
		files[kind+".conf"] = fmt.Sprintf(swiftServer, port(addresses[i]), etc, me(), filepath.Join(s.Dir, "srv"), filepath.Join(s.Dir, "cache"), kind)
		rings = append(rings, kind+":"+port(addresses[i]))
	}
	if err := writeFiles(etc, files); err != nil {
		return err
	}
	return command(ctx, nil, rings...)
}

// me is the user who runs this, as whom the daemons run as well.
func me() string {
	u, err := user.Current()
	if err != nil {
		return "root"
	}
	return strings.TrimSpace(u.Username)
}

// The timeouts are far above Swift's own, and a node that failed is tried again at once: the lab has one node, shares two cores with everything else, and a
// minute without it after a test killed it would be a fault of the lab.
const swiftProxy = `[DEFAULT]
bind_ip = 127.0.0.1
bind_port = %s
workers = 2
swift_dir = %s
user = %s
log_level = WARNING
[pipeline:main]
pipeline = catch_errors healthcheck cache listing_formats bulk tempurl tempauth slo dlo proxy-logging proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
conn_timeout = 5
node_timeout = 30
error_suppression_limit = 1000
error_suppression_interval = 1
[filter:tempauth]
use = egg:swift#tempauth
user_registry_registry = %s .admin
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:proxy-logging]
use = egg:swift#proxy_logging
[filter:cache]
use = egg:swift#memcache
memcache_servers = %s
error_suppression_limit = 1000
error_suppression_interval = 1
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:bulk]
use = egg:swift#bulk
[filter:tempurl]
use = egg:swift#tempurl
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
`

// The object server waits long for the listing to take an object, so that listings lag only when something is broken; then the updater brings it later.
const swiftServer = `[DEFAULT]
bind_ip = 127.0.0.1
bind_port = %s
workers = 1
swift_dir = %s
user = %s
devices = %s
mount_check = false
log_level = WARNING
recon_cache_path = %s
conn_timeout = 5
node_timeout = 30
container_update_timeout = 10
[pipeline:main]
pipeline = %[6]s-server
[app:%[6]s-server]
use = egg:swift#%[6]s
[%[6]s-replicator]
[%[6]s-updater]
interval = 10
[%[6]s-auditor]
`
