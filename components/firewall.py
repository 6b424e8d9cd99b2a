"""The firewall of every host: one nftables table, closed in both directions but for what the site file says.

New rules come first, before any service is touched: they are loaded with a timer that takes them back
(``ROLLBACK_SECONDS``), and a step of its own, over a new connection, confirms them: rules that would cut off SSH end
by themselves. What a host no longer needs is closed last, when everybody has moved (``hostkit.firewall``). Other
tables of the host are not touched, and what they drop stays dropped.
"""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import TYPE_CHECKING, NamedTuple

import pulumi

from keadb import naming, ports
from keadb.bundle import APPLIER, Bundle, File, Packages, Step, Unit
from keadb.platforms import platform
from keadb.templating import render

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from ipaddress import IPv4Address

    from components.host import Host as HostComponent
    from keadb.site import Host, Site

UNIT = "keadb-firewall.service"
UNIT_FILE = f"/etc/systemd/system/{UNIT}"
RULES = "/etc/keadb/firewall.nft"
CONFIRMED = "/var/lib/keadb/firewall.nft"
"""The rules that were confirmed last: what the host starts with."""
ROLLBACK_SECONDS = 40
"""Unconfirmed rules are taken back after this time: the engine dials a silent host for a minute, so it learns why."""


class Peers(NamedTuple):
    """A port of the site's hosts: who listens, and which of them connect to it (roles, or ``control``)."""

    port: int
    on: str
    by: tuple[str, ...]


PEERS = (
    Peers(ports.POSTGRESQL, "database", ("database", "control")),
    Peers(ports.POOLER, "database", ("database",)),
    Peers(ports.PATRONI_REST, "database", ("database", "control")),
    Peers(ports.ETCD_CLIENT, "etcd", ("database", "etcd", "control")),
    Peers(ports.ETCD_PEER, "etcd", ("etcd",)),
)
"""What the site's hosts need of each other. The read port past the virtual address is among what clients get."""


def _is(site: Site, host: Host, what: str) -> bool:
    return host == site.control_host if what == "control" else what in host.roles


def _pairs(site: Site, host: Host, *, coming: bool) -> list[tuple[IPv4Address, int, str]]:
    """Return address, port and name of the hosts that come to ``host``, or that it goes to."""
    found = []
    for port, on, by in PEERS:
        mine = any(_is(site, host, one) for one in ((on,) if coming else by))
        theirs = by if coming else (on,)
        if mine:
            found += [
                (other.address, port, other.name)
                for other in site.hosts.values()
                if any(_is(site, other, one) for one in theirs)
            ]
    # A set cannot be empty: a host that nobody asks, or that asks nobody, names itself.
    return found or [(host.address, ports.ETCD_CLIENT, host.name)]


def _sources(named: Iterable[tuple[IPv4Network, str]]) -> list[tuple[str, str]]:
    """Return sources in order, with names, without those that lie in others: an nftables set takes no overlap."""
    names = dict(sorted(named, reverse=True))
    alone = [n for n in sorted(names) if not any(n != other and n.subnet_of(other) for other in names)]
    return [(str(n.network_address) if n.prefixlen == n.max_prefixlen else str(n), names[n]) for n in alone]


def firewall_bundle(site: Site, host: Host) -> Bundle:
    """Return the rules of one host, and the step that loads them until they are confirmed or taken back."""
    packages = platform(site.platform, postgresql=site.postgresql.version).packages["firewall"]
    database = "database" in host.roles
    deploy = [(network, "runs keadb") for network in site.network.deploy]
    clients = [(network, "named client") for network in site.network.clients]
    own = [(IPv4Network(other.address), other.name) for other in site.hosts.values()]
    way = [*((IPv4Network(address), name) for name, address in site.kea.servers.items()), *clients, *own]
    rules = render(
        "firewall/rules.nft.j2",
        peers_in=_pairs(site, host, coming=True),
        peers_out=[
            *_pairs(site, host, coming=False),
            *((other.address, ports.READ, other.name) for other in site.database_hosts),
        ],
        databases=site.database_hosts,
        vip=site.network.vip,
        deploy=_sources(deploy),
        known=_sources([*deploy, *(way if database else own)]),
        way=_sources(way),
        direct=_sources(clients) if database else [],
        database=database,
        ssh_port=host.ssh_port,
        write_port=ports.WRITE,
        read_port=ports.READ,
        postgresql_port=ports.POSTGRESQL,
        dns=site.network.dns,
        ntp=site.network.ntp,
        packages=[" . ".join(place.split(":")) for place in site.network.packages],
    )
    return Bundle(
        name="firewall",
        host=host.name,
        packages=Packages(install=packages),
        files={RULES: File(content=rules, mode="0640")},
        steps=(Step(name="load the rules", run=(APPLIER, "firewall", "load", str(ROLLBACK_SECONDS))),),
    )


def firewall_confirm_bundle(host: Host, loaded: Bundle) -> Bundle:
    """Return the step that confirms what was loaded: that it comes to run proves that SSH gets through."""
    return Bundle(
        name="firewall-confirm",
        host=host.name,
        steps=(Step(name="confirm the rules", run=(APPLIER, "firewall", "confirm")),),
        inputs={f"{loaded.host}/{loaded.name}": loaded.digest()},
    )


def firewall_close_bundle(host: Host, loaded: Bundle) -> Bundle:
    """Return what closes the openings of before, and loads the rules whenever the host starts."""
    return Bundle(
        name="firewall-close",
        host=host.name,
        files={UNIT_FILE: File(content=render("firewall/keadb-firewall.service.j2", confirmed=CONFIRMED))},
        units={UNIT: Unit(reload_on=(UNIT_FILE,))},
        steps=(Step(name="close what is not needed any more", run=(APPLIER, "firewall", "close")),),
        inputs={f"{loaded.host}/{loaded.name}": loaded.digest()},
    )


def firewall_bundles(site: Site) -> dict[str, list[Bundle]]:
    """Return the bundles of every host, in their order."""
    made = {}
    for host in site.hosts.values():
        loaded = firewall_bundle(site, host)
        made[host.name] = [loaded, firewall_confirm_bundle(host, loaded), firewall_close_bundle(host, loaded)]
    return made


class Firewall(pulumi.ComponentResource):
    """Three commands a host: load and confirm before anything else there, close at the end."""

    def __init__(
        self, site: Site, hosts: Mapping[str, HostComponent], opts: pulumi.ResourceOptions | None = None
    ) -> None:
        """Register loading and confirming; every bundle that a host is given from now on waits for its own."""
        super().__init__(
            naming.type_token("components", "Firewall"), naming.resource(site.name, "firewall"), {}, opts
        )
        self._hosts = hosts
        self._bundles = firewall_bundles(site)
        for name, (load, confirm, _) in self._bundles.items():
            loaded = hosts[name].apply(load, parent=self)
            hosts[name].wait_for(hosts[name].apply(confirm, depends_on=[loaded], parent=self))
        self.register_outputs({"hosts": sorted(self._bundles)})

    def close(self, depends_on: Sequence[pulumi.Resource]) -> None:
        """Register closing; give it everything that may still need an opening of before."""
        for name, (_, _, close) in self._bundles.items():
            self._hosts[name].apply(close, depends_on=depends_on, parent=self)
