"""Every port of a site's hosts, in one place, and who listens there.

A number here is a contract with clients and neighbours; change one with a reason and on all sides.
"""

POSTGRESQL = 5432
"""PostgreSQL, on the node's address and loopback: peers, proxies, the control host, named admin sources."""
POOLER = 6432
"""PgBouncer, on the node's address: the proxies of both nodes."""
WRITE = 5432
"""HAProxy, on the virtual address only."""
READ = 5433
"""HAProxy, on the virtual address, and on each node's address as a second way past it."""
PROXY_HEALTH = 8405
"""HAProxy's own view of the cluster, on loopback only, in clear: three words that are no secret."""
PATRONI_REST = 8008
ETCD_CLIENT = 2379
ETCD_PEER = 2380
