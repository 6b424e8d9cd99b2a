"""PostgreSQL under Patroni: staged on each database host, formed together, its dynamic settings one resource.

Per-host bundles only stage. Three cluster-level steps follow: the control host puts the declared settings into etcd
if the cluster was never born (``patroni-settings``), each database host starts Patroni and waits until it runs
(``patroni-form``), the control host brings the settings into force and waits for the standby (``patroni-converge``).
What needs a restart of PostgreSQL is brought into force by that last step, node by node. When all of them use the
declared login at etcd, the control host removes the other one (``patroni-login``). Schema, logins at PostgreSQL and
backups are not made here.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Any

import pulumi

from components import patroni_settings as settings
from keadb import ciphers, naming
from keadb.bundle import APPLIER, Bundle, File, Packages, Probe, Start, Step, TlsUse, Unit, plain_json, program_file
from keadb.platforms import platform
from keadb.templating import render

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from components.etcd_cluster import EtcdCluster
    from components.host import Host as HostComponent
    from keadb.site import Host, Site

UNIT = "patroni.service"
CONFIG = "/etc/patroni/config.yml"
READ_AT_START = "/etc/patroni/read-at-start.json"
DROP_IN = f"/etc/systemd/system/{UNIT}.d/keadb.conf"
START_ONCE = "/run/keadb/patroni-start"
"""Lets the unit start until the next boot: a birth or first copy that was cut by a power loss is not gone on with."""
START_ALWAYS = "/var/lib/keadb/patroni-member"
"""Lets the unit start by itself at boot: this node ran once."""
PLAN = "/etc/keadb/cluster/patroni.json"
FORM_PLAN = "/etc/keadb/cluster/patroni-form.json"
PLAN_FORMAT = 1

BIRTH_SECONDS = 180
"""Limit for the database hosts to see each other blank, and for the first one's initdb."""
COPY_SECONDS = 1800
"""Limit for a standby's base backup: 50 GB at a modest 30 MB/s."""
TURN_SECONDS = 2400
"""Limit for a restart of Patroni in turn with the other database hosts: four waits of ten minutes."""
CONVERGE_SECONDS = 300
"""Limit for the settings to be in force everywhere and the standby to stream, with the longest loops allowed."""
ROLLING_SECONDS = 3 * (300 + CONVERGE_SECONDS)
"""Limit for restarts: three (a standby twice, where limits go up and down at once), and health after each."""


def postgresql_prepare_bundle(site: Site, host: Host) -> Bundle:
    """Return what must be there before PostgreSQL's packages: no cluster of the distribution's making."""
    return Bundle(
        name="postgresql-prepare",
        host=host.name,
        files={
            "/etc/postgresql-common/createcluster.d/keadb.conf": File(
                content=render("postgresql/createcluster.conf.j2", site=site)
            )
        },
    )


def patroni_bundle(site: Site, host: Host) -> Bundle:
    """Return Patroni and PostgreSQL staged on one database host: installed, configured, enabled, not started."""
    on = platform(site.platform, postgresql=site.postgresql.version)
    services = ("postgresql", "patroni")
    packages = tuple(name for service in services for name in on.packages[service])
    wanted = tuple(name for service in services for name in on.install(service, site.packages.versions))
    start = settings.read_at_start(site, host)
    tls = {name: settings.tls_paths(name) for name in ("postgres", settings.REPLICATOR, settings.REWINDER)}
    config = render(
        "patroni/config.yml.j2",
        start=start,
        address=host.address,
        control_host=site.control_host.name,
        plan=PLAN,
        server=tls["postgres"],
        ciphers=ciphers.OPENSSL,
        rest_port=settings.REST_PORT,
        rest_sources=settings.rest_sources(site),
        etcd=[f"{member.address}:{settings.ETCD_CLIENT_PORT}" for member in site.etcd_hosts],
        etcd_login=settings.etcd_login(site),
        postgresql_port=settings.POSTGRESQL_PORT,
        bin_dir=on.pg_bindir,
        certificate_logins={
            "replication": {"name": settings.REPLICATOR, "tls": tls[settings.REPLICATOR]},
            "rewind": {"name": settings.REWINDER, "tls": tls[settings.REWINDER]},
        },
        access_rules=settings.access_rules(site),
        failover_priority=settings.failover_priority(site, host),
    )
    data_dir = settings.data_dir(site)
    return Bundle(
        name="patroni",
        host=host.name,
        packages=Packages(install=wanted, hold=packages, mask=(*on.mask["postgresql"], *on.mask["patroni"])),
        files={
            CONFIG: File(content=config, group="postgres", mode="0640"),
            READ_AT_START: File(content=plain_json(dict(start))),
            DROP_IN: File(
                content=render("patroni/patroni.service.conf.j2", start_once=START_ONCE, start_always=START_ALWAYS)
            ),
            "/etc/tmpfiles.d/keadb-postgresql.conf": File(
                content=render(
                    "postgresql/tmpfiles.conf.j2",
                    data_dir=data_dir,
                    version_dir=posixpath.dirname(data_dir),
                )
            ),
            **program_file("patroni", shown="Patroni", unit=UNIT, packages=on.runs["patroni"], interpreted=True),
            **program_file(
                "postgresql",
                shown="PostgreSQL",
                pid_file=f"{data_dir}/postmaster.pid",
                packages=on.runs["postgresql"],
            ),
        },
        tls={name: TlsUse(**paths, owner="postgres", group="postgres") for name, paths in tls.items()},
        units={
            UNIT: Unit(
                start=Start.CLUSTER,
                restart_on=(DROP_IN, READ_AT_START),
                # SIGHUP: Patroni reads its file and certificates again and has PostgreSQL do the same.
                reload_on=(CONFIG, *(tls["postgres"][part] for part in ("cert", "key", "ca"))),
            )
        },
    )


def patroni_settings_bundle(site: Site) -> Bundle:
    """Return the declared settings of the cluster, on the control host; put into etcd only before its birth."""
    host = site.control_host
    plan = {
        **_plan(site),
        "etcd": _members(site.etcd_hosts),
        "wants_sync_standby": settings.waits_for_standby(site),
        "seconds": CONVERGE_SECONDS,
        "config": settings.dynamic_config(site),
    }
    return Bundle(
        name="patroni-settings",
        host=host.name,
        files={PLAN: File(content=plain_json(plan))},
        steps=(Step(name="settings for a birth", run=(APPLIER, "patroni-seed"), timeout=60),),
        uses_secrets=(settings.etcd_login(site)["secret"],),
    )


def patroni_form_bundle(site: Site, host: Host, staged: Mapping[str, str]) -> Bundle:
    """Return the step that starts Patroni on one database host and waits until it runs or streams.

    ``staged`` is the digest of this host's staged bundle by its name.
    """
    plan = {
        **_plan(site),
        "host": host.name,
        "etcd": _members(site.etcd_hosts),
        "unit": UNIT,
        "certificate": settings.tls_paths("postgres")["cert"],
        "data_dir": settings.data_dir(site),
        "start_once": START_ONCE,
        "start_always": START_ALWAYS,
        "first": host == site.database_hosts[0],
        "birth_seconds": BIRTH_SECONDS,
        "copy_seconds": COPY_SECONDS,
    }
    return Bundle(
        name="patroni-form",
        host=host.name,
        files={FORM_PLAN: File(content=plain_json(plan))},
        steps=(
            Step(
                name="start Patroni",
                run=(APPLIER, "patroni-form"),
                timeout=BIRTH_SECONDS + COPY_SECONDS + TURN_SECONDS + 60,
            ),
        ),
        uses_secrets=(settings.etcd_login(site)["secret"], "patroni_rest_password"),
        inputs=staged,
    )


def patroni_converge_bundle(site: Site, inputs: Mapping[str, str]) -> Bundle:
    """Return the step that brings the declared settings into force, on the control host.

    ``inputs`` are the digests of everything it brings into force: settings, staged and formed bundles.
    """
    return Bundle(
        name="patroni-converge",
        host=site.control_host.name,
        steps=(
            Step(
                name="settings in force",
                run=(APPLIER, "patroni-converge"),
                timeout=CONVERGE_SECONDS * 2 + ROLLING_SECONDS + 60,
            ),
        ),
        probes=(Probe(name="cluster is healthy", run=(APPLIER, "patroni-probe"), timeout=60),),
        uses_secrets=(settings.etcd_login(site)["secret"], "patroni_rest_password"),
        inputs=inputs,
    )


def patroni_login_bundle(site: Site) -> Bundle:
    """Return the step that removes Patroni's other login at etcd, on the control host: the last step of a rotation.

    It runs again when the login or its password changes, and for nothing else.
    """
    return Bundle(
        name="patroni-login",
        host=site.control_host.name,
        steps=(
            Step(
                name="the other login at etcd is closed",
                run=(APPLIER, "patroni-login"),
                timeout=2 * CONVERGE_SECONDS + 60,
            ),
        ),
        uses_secrets=("etcd_root_password", settings.etcd_login(site)["secret"]),
    )


def patroni_bundles(site: Site) -> dict[str, list[Bundle]]:
    """Return every bundle of the cluster by host, in the order in which a host gets them."""
    bundles: dict[str, list[Bundle]] = {}
    staged = {host.name: patroni_bundle(site, host) for host in site.database_hosts}
    for host in site.database_hosts:
        bundles[host.name] = [postgresql_prepare_bundle(site, host), staged[host.name]]
    declared = patroni_settings_bundle(site)
    bundles.setdefault(declared.host, []).append(declared)
    formed = [patroni_form_bundle(site, host, _digests(staged[host.name])) for host in site.database_hosts]
    for bundle in formed:
        bundles[bundle.host].append(bundle)
    converged = patroni_converge_bundle(site, _digests(declared, *staged.values(), *formed))
    bundles[converged.host] += [converged, patroni_login_bundle(site)]
    return bundles


class PostgresCluster(pulumi.ComponentResource):
    """The cluster: two commands to stage each database host, one to form it, three for what the cluster shares.

    ``converged`` is what everything that needs a leader waits for. Patroni's configuration waits until its login is
    open at etcd: one that cannot log in must not lead.
    """

    converged: pulumi.Resource

    def __init__(
        self,
        site: Site,
        hosts: Mapping[str, HostComponent],
        etcd: EtcdCluster,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Register the cluster under the site's name; ``etcd`` must be formed with its user for Patroni."""
        super().__init__(
            naming.type_token("components", "PostgresCluster"), naming.resource(site.name, "postgres"), {}, opts
        )
        bundles = {(b.host, b.name): b for group in patroni_bundles(site).values() for b in group}

        def apply(host: str, name: str, *depends_on: pulumi.Resource) -> pulumi.Resource:
            return hosts[host].apply(bundles[host, name], depends_on=depends_on, parent=self)

        databases = [host.name for host in site.database_hosts]
        control = site.control_host.name
        staged = [apply(host, "patroni", apply(host, "postgresql-prepare"), etcd.opened) for host in databases]
        declared = apply(control, "patroni-settings", *etcd.formed)
        formed = [apply(host, "patroni-form", *staged, declared) for host in databases]
        self.converged = apply(control, "patroni-converge", declared, *formed)
        apply(control, "patroni-login", self.converged)
        self.register_outputs({"cluster": site.cluster})


def _plan(site: Site) -> dict[str, Any]:
    return {
        "format": PLAN_FORMAT,
        "scope": site.cluster,
        "namespace": settings.NAMESPACE,
        "members": _members(site.database_hosts),
        "rest_port": settings.REST_PORT,
        "etcd_port": settings.ETCD_CLIENT_PORT,
        "etcd_login": settings.etcd_login(site),
    }


def _members(hosts: Sequence[Host]) -> list[dict[str, str]]:
    return [{"name": host.name, "address": str(host.address)} for host in hosts]


def _digests(*bundles: Bundle) -> dict[str, str]:
    return {f"{b.host}/{b.name}": b.digest() for b in bundles}
