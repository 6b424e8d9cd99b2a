"""The virtual address: keepalived on every database host, so that one of them has it.

It does not follow the leader: any proxy finds the leader. It leaves a node whose proxy is dead or finds no leader
while another node is one, and a node that is cut off or frozen; it does not go back by itself. VRRP has no
authentication worth its name: docs/decisions, the record on it, says what stands in for that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pulumi

from keadb import naming, ports
from keadb.bundle import APPLIER, Bundle, File, Packages, Probe, Unit, plain_json
from keadb.platforms import platform
from keadb.templating import render

if TYPE_CHECKING:
    from collections.abc import Mapping

    from components.host import Host as HostComponent
    from components.proxy import Proxy
    from keadb.site import Host, Site

UNIT = "keepalived.service"
CONFIG = "/etc/keepalived/keepalived.conf"
DROP_IN = f"/etc/systemd/system/{UNIT}.d/keadb.conf"
CHECK = "/usr/lib/keadb/way-check"
FIND_INTERFACE = "/usr/lib/keadb/way-interface"
INTERFACE_FILE = "/run/keepalived/interface.conf"
SCRIPT_USER = "keepalived_script"
CA_FILE = "/etc/keadb/tls/ca.crt"
PLAN = "/etc/keadb/cluster/way.json"
"""What ``keadb status`` asks about on this node."""
PLAN_FORMAT = 1
FIRST_PRIORITY = 110


def priority(site: Site, host: Host) -> int:
    """Return a priority of its own for each node, the first one's highest: two equal ones could both stay master."""
    return FIRST_PRIORITY - 10 * site.database_hosts.index(host)


def router_id(site: Site) -> int:
    """Return VRRP's number for the address: its last byte, so that two sites on one wire differ; 1 to 255."""
    return int(site.network.vip) % 256 or 255


def _seconds(milliseconds: int) -> str:
    """Return milliseconds as keepalived takes them: seconds, with as many places as it needs."""
    return f"{milliseconds / 1000:g}"


def virtual_address_bundle(site: Site, host: Host) -> Bundle:
    """Return keepalived of one database host."""
    on = platform(site.platform, postgresql=site.postgresql.version)
    packages = on.packages["virtual_address"]
    peers = [other for other in site.database_hosts if other != host]
    others = [{"address": peer.address, "port": ports.PATRONI_REST} for peer in peers]
    if peers:
        others.append({"address": site.control_host.address, "port": ports.ETCD_CLIENT})
    config = render(
        "keepalived/keepalived.conf.j2",
        interface_file=INTERFACE_FILE,
        name=host.name,
        instance=site.cluster,
        script_user=SCRIPT_USER,
        check=CHECK,
        priority=priority(site, host),
        router_id=router_id(site),
        address=host.address,
        peers=[peer.address for peer in peers],
        vip=site.network.vip,
        advert=_seconds(site.virtual_address.advert_ms),
        silence=_seconds(3 * site.virtual_address.advert_ms),
    )
    check = render(
        "keepalived/check.sh.j2",
        health_port=ports.PROXY_HEALTH,
        rest_port=ports.PATRONI_REST,
        ca=CA_FILE,
        peers=[{"address": peer.address, "full": site.fqdn(peer)} for peer in peers],
        others=others,
    )
    plan = {
        "format": PLAN_FORMAT,
        "address": str(host.address),
        "vip": str(site.network.vip),
        "ports": {
            "write": ports.WRITE,
            "read": ports.READ,
            "pooler": ports.POOLER,
            "proxy_health": ports.PROXY_HEALTH,
        },
    }
    interface = render("keepalived/interface.sh.j2", address=host.address, interface_file=INTERFACE_FILE)
    return Bundle(
        name="virtual-address",
        host=host.name,
        packages=Packages(install=packages, hold=packages, mask=on.mask["virtual_address"]),
        files={
            "/etc/sysusers.d/keadb-keepalived.conf": File(
                content=render("keepalived/sysusers.conf.j2", script_user=SCRIPT_USER)
            ),
            CONFIG: File(content=config, mode="0640"),
            DROP_IN: File(content=render("keepalived/keepalived.service.conf.j2", find_interface=FIND_INTERFACE)),
            CHECK: File(content=check, mode="0755"),
            FIND_INTERFACE: File(content=interface, mode="0755"),
            PLAN: File(content=plain_json(plan)),
        },
        units={UNIT: Unit(restart_on=(DROP_IN, FIND_INTERFACE), reload_on=(CONFIG, CHECK))},
        probes=(
            Probe(
                name="the virtual address answers",
                run=(APPLIER, "way-probe", "answers", str(site.network.vip), str(ports.WRITE)),
            ),
        ),
    )


def virtual_address_bundles(site: Site) -> dict[str, list[Bundle]]:
    """Return the bundles of all nodes by host."""
    return {host.name: [virtual_address_bundle(site, host)] for host in site.database_hosts}


class VirtualAddress(pulumi.ComponentResource):
    """keepalived on every database host: one command each, one host after the other."""

    ready: list[pulumi.Resource]
    """Done when somebody answers under the address."""

    def __init__(
        self,
        site: Site,
        hosts: Mapping[str, HostComponent],
        proxy: Proxy,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Register the address under the site's name; ``proxy`` is what answers there."""
        super().__init__(
            naming.type_token("components", "VirtualAddress"), naming.resource(site.name, "virtual-address"), {}, opts
        )
        self.ready = []
        for host in site.database_hosts:
            bundle = virtual_address_bundle(site, host)
            self.ready.append(hosts[host.name].apply(bundle, depends_on=[*proxy.ready, *self.ready], parent=self))
        self.register_outputs({"address": str(site.network.vip)})
