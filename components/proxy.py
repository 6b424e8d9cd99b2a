"""HAProxy on every database host: finds the leader for writes, and whoever may answer for reads.

It asks Patroni who leads (TLS, verified) and then the pooler whether it answers, so a node whose pooler is dead is
passed by; when no pooler answers, clients are sent to PostgreSQL itself. It listens on the virtual address on every
node, and for reads on the node's own address too. It lets in the site's Kea servers, the named clients and the site's
own hosts, and never sees what they say: TLS ends behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pulumi

from keadb import naming, ports
from keadb.bundle import APPLIER, Bundle, File, Packages, Probe, Unit
from keadb.clients import sources
from keadb.platforms import platform
from keadb.templating import render

if TYPE_CHECKING:
    from collections.abc import Mapping

    from components.host import Host as HostComponent
    from components.pooler import Pooler
    from keadb.site import Host, Site

UNIT = "haproxy.service"
CONFIG = "/etc/haproxy/haproxy.cfg"
DROP_IN = f"/etc/systemd/system/{UNIT}.d/keadb.conf"
SAVE_STATE = "/usr/lib/keadb/haproxy-save-state"
RUNTIME = "keadb-haproxy"
SOCKET = f"/run/{RUNTIME}/admin.sock"
STATE_FILE = f"/run/{RUNTIME}/server-state"
CA_FILE = "/etc/keadb/tls/ca.crt"
HARD_STOP = "10m"
"""How long sessions of before a reload may go on: no check ends them any more when the leader changes."""


def proxy_bundle(site: Site, host: Host) -> Bundle:
    """Return HAProxy of one database host."""
    on = platform(site.platform, postgresql=site.postgresql.version)
    packages = on.packages["proxy"]
    config = render(
        "haproxy/haproxy.cfg.j2",
        address=host.address,
        vip=site.network.vip,
        sources=sources(site),
        servers=[
            {"name": other.name, "full": site.fqdn(other), "address": other.address} for other in site.database_hosts
        ],
        max_clients=site.pooler.max_clients,
        read_lag_mb=site.proxy.read_lag_mb,
        check=site.proxy.check,
        ca=CA_FILE,
        socket=SOCKET,
        state_file=STATE_FILE,
        hard_stop=HARD_STOP,
        write_port=ports.WRITE,
        read_port=ports.READ,
        health_port=ports.PROXY_HEALTH,
        rest_port=ports.PATRONI_REST,
        pooler_port=ports.POOLER,
        postgresql_port=ports.POSTGRESQL,
    )
    drop_in = render("haproxy/haproxy.service.conf.j2", runtime=RUNTIME, save_state=SAVE_STATE)
    return Bundle(
        name="proxy",
        host=host.name,
        packages=Packages(install=packages, hold=packages, mask=on.mask["proxy"]),
        files={
            CONFIG: File(content=config),
            DROP_IN: File(content=drop_in),
            SAVE_STATE: File(
                content=render("haproxy/save-state.py.j2", socket=SOCKET, state_file=STATE_FILE), mode="0755"
            ),
        },
        units={UNIT: Unit(restart_on=(DROP_IN,), reload_on=(CONFIG,))},
        probes=(Probe(name="the proxy finds a leader", run=(APPLIER, "way-probe", "proxy"), timeout=60),),
    )


def proxy_bundles(site: Site) -> dict[str, list[Bundle]]:
    """Return the bundles of all proxies by host."""
    return {host.name: [proxy_bundle(site, host)] for host in site.database_hosts}


class Proxy(pulumi.ComponentResource):
    """A proxy on every database host: one command each, one host after the other."""

    ready: list[pulumi.Resource]
    """Done when every proxy finds a leader."""

    def __init__(
        self,
        site: Site,
        hosts: Mapping[str, HostComponent],
        pooler: Pooler,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Register the proxies under the site's name; ``pooler`` is what they send clients to."""
        super().__init__(naming.type_token("components", "Proxy"), naming.resource(site.name, "proxy"), {}, opts)
        self.ready = []
        for host in site.database_hosts:
            bundle = proxy_bundle(site, host)
            self.ready.append(hosts[host.name].apply(bundle, depends_on=[*pooler.ready, *self.ready], parent=self))
        self.register_outputs({"write": ports.WRITE, "read": ports.READ})
