"""What keys of a site file must hold together, and what the calendar says about a valid site.

Rules work on a `Draft`, which holds the parts that could be read: one bad key does not hide what is wrong elsewhere.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from ipaddress import IPv4Address, IPv4Network

from keadb.logins import LETTERS, PAIRS
from keadb.platforms import platform
from keadb.postgresql_parameters import reserved_because
from keadb.problems import Problem, show
from keadb.site_draft import Draft
from keadb.site_model import Host
from keadb.versions import FLOORS, below_floor, etcd_patroni_mismatch, parse

CA_DAYS = 3650
LEAF_DAYS = 400
"""Days before their end at which certificates must have been renewed."""

LONGEST_COMMON_NAME = 64
"""Limit of X.509 for the subject's common name, which holds a host's full name."""

DATABASES_OF_HA = 2
POOLED_LOGINS = 2
"""Logins that are in use at the same time: the owner's and the reader's."""
UNPOOLED_CONNECTIONS = 15
"""Connections that poolers leave to the superuser, Patroni, direct clients and the proxies' direct way."""
FEWEST_VOTERS = 3


def broken_rules(draft: Draft) -> list[Problem]:
    """Return every broken rule of ``draft``, in the order of the rules."""
    return [problem for rule in _RULES for problem in rule(draft)]


def _problem(path: str, given: object, allowed: str, message: str) -> Problem:
    return Problem(
        path=path, given=given if isinstance(given, str) else show(given), allowed=allowed, message=message
    )


def _names(draft: Draft) -> Iterator[Problem]:
    for host in draft.hosts.values():
        path = f"hosts.{host.name}"
        if draft.name and not host.name.startswith(f"{draft.name}-"):
            yield _problem(
                path,
                show(host.name),
                f'a name that starts with "{draft.name}-"',
                "is not named after its site",
            )
        full = f"{host.name}.{draft.domain}"
        if draft.domain and len(full) > LONGEST_COMMON_NAME:
            yield _problem(
                path,
                show(full),
                f"at most {LONGEST_COMMON_NAME} characters with the domain",
                "has too long a full name",
            )
    for server in draft.kea.servers if draft.kea else ():
        if server in draft.hosts:
            yield _problem(
                f"kea.servers.{server}",
                show(server),
                "a machine that is not under hosts",
                "is also a host of the cluster",
            )


def _addresses(draft: Draft) -> Iterator[Problem]:
    """Addresses: the cluster's lie inside the subnet; no two machines share one.

    DNS, NTP and Kea servers may sit in another subnet (only ports are needed), but never on a machine of the cluster.
    """
    own = {f"hosts.{host.name}.address": host.address for host in draft.hosts.values()}
    clients = {f"kea.servers.{name}": address for name, address in (draft.kea.servers.items() if draft.kea else ())}
    shared: dict[str, IPv4Address] = {}
    if network := draft.network:
        own = {"network.gateway": network.gateway, "network.vip": network.vip, **own}
        for key, servers in (("dns", network.dns), ("ntp", network.ntp)):
            shared.update({f"network.{key}.{position}": address for position, address in enumerate(servers)})
        yield from _outside(network.subnet, own, {**own, **clients, **shared})
    taken: dict[IPv4Address, str] = {}
    for path, address in {**own, **clients}.items():
        if address in taken:
            yield _problem(path, show(str(address)), "an address of its own", f"is also that of {taken[address]}")
        taken.setdefault(address, path)
    for path, address in shared.items():
        holder = taken.get(address, "")
        if holder.startswith(("hosts.", "network.vip")):
            yield _problem(path, show(str(address)), "a server outside the cluster", f"is also that of {holder}")


def _outside(
    subnet: IPv4Network, inside: Mapping[str, IPv4Address], every: Mapping[str, IPv4Address]
) -> Iterator[Problem]:
    for path, address in inside.items():
        if address not in subnet:
            yield _problem(path, show(str(address)), f"an address inside {subnet}", "is outside the site's subnet")
    for path, address in every.items():
        if address in (subnet.network_address, subnet.broadcast_address):
            allowed = f"a machine's address inside {subnet}"
            yield _problem(path, show(str(address)), allowed, "is the subnet's network or broadcast address")


def _host_keys(draft: Draft) -> Iterator[Problem]:
    first: dict[str, str] = {}
    for host in draft.hosts.values():
        if host.ssh_host_key in first:
            yield _problem(
                f"hosts.{host.name}.ssh_host_key",
                show(host.ssh_host_key),
                "a key of its own (a copied machine must make new ones)",
                f"is also that of {first[host.ssh_host_key]}",
            )
        first.setdefault(host.ssh_host_key, host.name)


def _topology(draft: Draft) -> Iterator[Problem]:
    """Voters and databases. Skipped while a host cannot be read: the count would be wrong."""
    if not draft.hosts_complete or draft.topology is None:
        return
    databases, voters, witnesses = (draft.with_role(role) for role in ("database", "etcd", "witness"))
    expected = DATABASES_OF_HA if draft.topology == "ha" else 1
    if len(databases) != expected:
        allowed = f'{expected} in topology "{draft.topology}"'
        yield _problem("hosts", _listed(databases), allowed, "has the wrong number of database hosts")
    if draft.topology == "single":
        if len(voters) != 1 or voters != databases:
            allowed = "one, on the database host"
            yield _problem("hosts", _listed(voters), allowed, 'has the wrong etcd members for topology "single"')
        if witnesses:
            yield _problem("hosts", _listed(witnesses), "none", 'has a witness, which topology "single" cannot have')
        return
    if len(voters) < FEWEST_VOTERS or len(voters) % 2 == 0:
        allowed = f"an odd number, at least {FEWEST_VOTERS}"
        yield _problem("hosts", _listed(voters), allowed, "has a number of etcd members that cannot elect safely")
    if len(witnesses) != 1:
        yield _problem("hosts", _listed(witnesses), "exactly one", "has the wrong number of witnesses")
    for host in witnesses:
        if "etcd" not in host.roles or "database" in host.roles:
            yield _problem(
                f"hosts.{host.name}.roles",
                f"[{', '.join(host.roles)}]",
                "witness and etcd, not database",
                "is a witness that is not the third voter outside both database hosts",
            )


def _listed(hosts: list[Host]) -> str:
    return f"{len(hosts)} ({', '.join(host.name for host in hosts)})" if hosts else "0"


def _failure_domains(draft: Draft) -> Iterator[Problem]:
    if draft.topology != "ha" or "shared_hypervisor" in draft.accepted:
        return
    for role, what in (("database", "database hosts"), ("etcd", "etcd members")):
        shared: dict[str, list[Host]] = defaultdict(list)
        for host in draft.with_role(role):
            shared[host.failure_domain].append(host)
        for domain, hosts in shared.items():
            if len(hosts) > 1:
                names = " and ".join(host.name for host in hosts)
                yield _problem(
                    f"hosts.{hosts[-1].name}.failure_domain",
                    show(domain),
                    "a hypervisor of its own, or accept.shared_hypervisor with a reason and an end",
                    f"puts two {what} on one hypervisor ({names})",
                )


def _patroni(draft: Draft) -> Iterator[Problem]:
    patroni = draft.patroni
    if patroni is None:
        return
    needed = patroni.loop_wait + 2 * patroni.retry_timeout
    if needed > patroni.ttl:
        yield _problem(
            "patroni.ttl",
            patroni.ttl,
            f"at least loop_wait + 2 * retry_timeout = {needed}",
            "ends the leader's lease before Patroni has retried",
        )
    asked = "synchronous_mode" in patroni.model_fields_set and patroni.synchronous_mode
    databases = len(draft.with_role("database"))
    if asked and (draft.topology == "single" or (draft.hosts_complete and databases < DATABASES_OF_HA)):
        yield _problem(
            "patroni.synchronous_mode",
            "true",
            "false, or two database hosts",
            "waits for a standby that cannot be there",
        )


def _etcd(draft: Draft) -> Iterator[Problem]:
    etcd = draft.etcd
    if etcd is None:
        return
    if etcd.election_ms < 5 * etcd.heartbeat_ms:
        yield _problem(
            "etcd.election_ms",
            etcd.election_ms,
            f"at least 5 * heartbeat_ms = {5 * etcd.heartbeat_ms}",
            "elects anew after too few lost heartbeats",
        )
    if draft.platform is None:
        return
    from_archive = platform(draft.platform).etcd_from_archive
    if from_archive and etcd.archive is None:
        yield _problem(
            "etcd.archive",
            "nothing",
            "url and sha256 of a release archive",
            f"is missing: {draft.platform} has no etcd 3.5",
        )
    if from_archive and etcd.archive is not None:
        yield from _archive(etcd.archive.url)
    if not from_archive and etcd.archive is not None:
        yield _problem(
            "etcd.archive",
            show(etcd.archive.url),
            "nothing",
            f"is not used: {draft.platform} has a package of etcd 3.5",
        )


def _archive(url: str) -> Iterator[Problem]:
    """Judge the version in the file's name, if there is one: the checksum alone would accept any release."""
    named = _named(url)
    low = below_floor("etcd", named) if named else None
    if low:
        allowed = f"etcd {FLOORS['etcd'].version} or later"
        yield _problem("etcd.archive.url", show(url), allowed, f"names {low.replace(' is ', ', which is ', 1)}")


def _named(url: str) -> str | None:
    found = re.search(r"etcd-v(\d+\.\d+\.\d+)[^/]*$", url)
    return found[1] if found else None


def _versions(draft: Draft) -> Iterator[Problem]:
    if draft.platform is None:
        return
    carried = platform(draft.platform)
    if draft.postgresql and draft.postgresql.version not in carried.postgresql_versions:
        allowed = " or ".join(str(version) for version in carried.postgresql_versions)
        message = f"is a version that {carried.name} does not carry"
        yield _problem("postgresql.version", draft.postgresql.version, allowed, message)
    if draft.kea and draft.kea.version not in carried.kea_versions:
        allowed = " or ".join(f'"{version}"' for version in carried.kea_versions)
        message = f"is a version that {carried.name} does not carry"
        yield _problem("kea.version", show(draft.kea.version), allowed, message)


def _packages(draft: Draft) -> Iterator[Problem]:
    """Judge pinned versions by what they begin with; whether there is such a package is for the hosts to say."""
    versions = draft.packages.versions if draft.packages else {}
    for program, version in versions.items():
        path = f"packages.{program}"
        if low := below_floor(program, version) if program in FLOORS else None:
            yield _problem(path, show(version), f"{FLOORS[program].version} or later", f"is too old: {low}")
    if (pin := versions.get("postgresql")) and draft.postgresql and parse(pin)[0] != draft.postgresql.version:
        allowed = f"a version of PostgreSQL {draft.postgresql.version} (postgresql.version)"
        yield _problem("packages.postgresql", show(pin), allowed, "is of another major version")
    if (pin := versions.get("kea_admin")) and draft.kea and parse(pin)[:2] != parse(draft.kea.version):
        allowed = f"a version of Kea {draft.kea.version} (kea.version)"
        yield _problem("packages.kea_admin", show(pin), allowed, "is of another version than the Kea servers")
    etcd = versions.get("etcd")
    if draft.platform and platform(draft.platform).etcd_from_archive:
        if etcd:
            message = f"names a package that {draft.platform} does not have"
            yield _problem("packages.etcd", show(etcd), "nothing: etcd.archive says which etcd runs", message)
        etcd = _named(draft.etcd.archive.url) if draft.etcd and draft.etcd.archive else None
    patroni = versions.get("patroni")
    if etcd and patroni and (why := etcd_patroni_mismatch(etcd, patroni)):
        allowed = "versions of etcd and Patroni that work together"
        yield _problem("packages.patroni", show(patroni), allowed, f"does not fit: {why}")


def _postgresql(draft: Draft) -> Iterator[Problem]:
    if draft.postgresql is None:
        return
    for name, value in draft.postgresql.parameters.items():
        if why := reserved_because(name):
            yield _problem(f"postgresql.parameters.{name}", value, "parameters that keadb does not set itself", why)
    buffers = draft.postgresql.shared_buffers_mb
    databases = draft.with_role("database")
    if buffers is None or not databases:
        return
    smallest = min(databases, key=lambda host: host.memory_mb)
    most = smallest.memory_mb * 40 // 100
    if buffers > most:
        yield _problem(
            "postgresql.shared_buffers_mb",
            buffers,
            f"at most {most} (40 % of the {smallest.memory_mb} MiB of {smallest.name})",
            "leaves too little memory",
        )


def _pooler(draft: Draft) -> Iterator[Problem]:
    if draft.pooler is None or draft.postgresql is None or draft.pooler.pool_size is None:
        return
    most = (draft.postgresql.max_connections - UNPOOLED_CONNECTIONS) // POOLED_LOGINS
    if draft.pooler.pool_size > most:
        yield _problem(
            "pooler.pool_size",
            draft.pooler.pool_size,
            f"at most (max_connections - {UNPOOLED_CONNECTIONS}) / {POOLED_LOGINS} = {most}",
            "leaves PostgreSQL no connection for anybody else",
        )


def _proxy(draft: Draft) -> Iterator[Problem]:
    if draft.proxy is None:
        return
    check = draft.proxy.check
    if check.fast_ms > check.interval_ms:
        yield _problem(
            "proxy.check.fast_ms",
            check.fast_ms,
            f"at most interval_ms = {check.interval_ms}",
            "looks at a node that is changing less often than at one that is not",
        )


def _tls(draft: Draft) -> Iterator[Problem]:
    tls = draft.tls
    if tls is None:
        return
    if tls.epoch < tls.ca_epoch:
        yield _problem("tls.epoch", show(str(tls.epoch)), f"{tls.ca_epoch} or later", "is before the CA's first day")
    elif tls.epoch.toordinal() + LEAF_DAYS > tls.ca_epoch.toordinal() + CA_DAYS:
        last = date.fromordinal(tls.ca_epoch.toordinal() + CA_DAYS - LEAF_DAYS)
        message = "makes certificates that outlive their CA; set a new tls.ca_epoch"
        yield _problem("tls.epoch", show(str(tls.epoch)), f"{last} or earlier", message)


def _logins(draft: Draft) -> Iterator[Problem]:
    for position, name in enumerate(draft.logins.keep if draft.logins else ()):
        pair = next(p for p in PAIRS if name in (p.login(letter) for letter in LETTERS))
        if draft.logins and name == pair.login(pair.active(draft.logins)):
            allowed = f'"{pair.login(pair.spare(draft.logins))}", or nothing'
            yield _problem(f"logins.keep.{position}", show(name), allowed, "is the login in use: it is open anyway")


_RULES: tuple[Callable[[Draft], Iterator[Problem]], ...] = (
    _names, _addresses, _host_keys, _topology, _failure_domains, _patroni, _etcd, _versions, _packages, _postgresql,
    _pooler, _proxy, _tls, _logins,
)  # fmt: skip
