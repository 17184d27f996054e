package servers

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strings"
)

// key makes a cephx secret as `ceph-authtool --gen-key` does: type 1 (AES), when it was made, its length, 16 random bytes.
func key() string {
	raw := append([]byte{1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0}, make([]byte, 16)...)
	_, _ = rand.Read(raw[12:]) // never fails
	return base64.StdEncoding.EncodeToString(raw)
}

// keyring has the keys of everybody and what they may do.
func keyring() string {
	var b strings.Builder
	for _, entity := range []struct{ name, caps string }{
		{"mon.", `mon = "allow *"`},
		{"client.admin", `mon = "allow *" osd = "allow *" mgr = "allow *"`},
		{"mgr.x", `mon = "allow profile mgr" osd = "allow *"`},
		{"osd.0", `mon = "allow profile osd" mgr = "allow profile osd"`},
		{"client.rgw.a", `mon = "allow rw" osd = "allow rwx" mgr = "allow rw"`},
	} {
		fmt.Fprintf(&b, "[%s]\n\tkey = %s\n", entity.name, key())
		for caps := range strings.SplitSeq(entity.caps, `" `) {
			fmt.Fprintf(&b, "\tcaps %s\"\n", strings.TrimSuffix(caps, `"`))
		}
	}
	return b.String()
}

// configure writes ceph.conf and the keys of everybody.
func (c *Ceph) configure(id string, addresses []string) error {
	if err := makeDirs(c.Dir, "etc", "run", "log", "mon/a", "osd/0", "mgr/x", "rgw", "crash"); err != nil {
		return err
	}
	config := strings.NewReplacer("@DIR@", c.Dir, "@FSID@", id, "@V2@", addresses[0], "@V1@", addresses[1], "@S3@", addresses[2]).Replace(cephConfig)
	return writeFiles(c.Dir, map[string]string{"etc/ceph.conf": config, "keyring": keyring()})
}

// cephConfig has cephx on and both versions of the wire protocol: without the first the gateway hangs, with version 1 alone the OSD is refused. The
// manager loads no module that nothing asks for, and placement groups stay as they are: a lab has nothing to balance. The gateway sends the header and the body of an
// answer one after the other; without tcp_nodelay the body waits for the acknowledgement of the header, which the other side delays by 40 ms: a registry asks seven times for a blob.
const cephConfig = `[global]
fsid = @FSID@
mon_initial_members = a
mon_host = [v2:@V2@,v1:@V1@]
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pgp_num = 8
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
osd_crush_initial_weight = 1.0
crush_location = host=local root=default
mon_warn_on_pool_no_redundancy = false
mon_allow_pool_size_one = true
mon_allow_pool_delete = true
mon_max_pg_per_osd = 500
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
objecter_tick_interval = 0.5
mgr_initial_modules =
auth_allow_insecure_global_id_reclaim = false
run_dir = @DIR@/run
crash_dir = @DIR@/crash
admin_socket =
log_file = @DIR@/log/ceph-$name.log
pid_file =
keyring = @DIR@/keyring
mon_data = @DIR@/mon/$id
osd_data = @DIR@/osd/$id
mgr_data = @DIR@/mgr/$id
osd_objectstore = bluestore
bluestore_block_size = 21474836480
osd_memory_target = 1073741824
[client.rgw.a]
rgw_frontends = beast endpoint=@S3@ tcp_nodelay=1
rgw_data = @DIR@/rgw
`
