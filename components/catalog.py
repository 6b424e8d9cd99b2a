"""Every bundle of a site, host by host, in the order in which a host gets them.

This is what ``keadb render`` writes and what decides which secrets a host needs. The components send the same
bundles; a test holds the two together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.base_system import base_bundle
from components.etcd_cluster import etcd_bundles
from components.firewall import firewall_bundles
from components.kea_database import kea_bundles
from components.pooler import pooler_bundles
from components.postgres_cluster import patroni_bundles
from components.proxy import proxy_bundles
from components.virtual_address import virtual_address_bundles

if TYPE_CHECKING:
    from keadb.bundle import Bundle
    from keadb.site import Site


def bundles(site: Site) -> dict[str, list[Bundle]]:
    """Return the bundles of every host of the site, by host name in the order of the site file."""
    per_host = {host.name: [base_bundle(site, host)] for host in site.hosts.values()}
    services = (etcd_bundles, patroni_bundles, kea_bundles, pooler_bundles, proxy_bundles, virtual_address_bundles)
    for service in services:
        for name, of_host in service(site).items():
            per_host[name].extend(of_host)
    for name, (load, confirm, close) in firewall_bundles(site).items():
        first, *others = per_host[name]
        per_host[name] = [first, load, confirm, *others, close]
    return per_host
