# rings.py DIR KIND:PORT...: a ring with one device for each kind of server.
import sys

from swift.common.ring import RingBuilder

for kind, port in (argument.split(":") for argument in sys.argv[2:]):
    builder = RingBuilder(6, 1, 0)
    builder.add_dev({
        "region": 1, "zone": 1, "ip": "127.0.0.1", "port": int(port), "replication_ip": "127.0.0.1", "replication_port": int(port),
        "device": "d1", "weight": 1.0, "meta": "",
    })
    builder.rebalance()
    builder.get_ring().save("%s/%s.ring.gz" % (sys.argv[1], kind))
