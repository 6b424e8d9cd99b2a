"""etcd, the store in which Patroni elects: one member on each host of the role, born together.

``etcd_bundle`` only stages a member. ``etcd_form_bundle`` brings it into force with its peers on the host's own
side (``hostkit.etcd_form``), because who is blank, healthy or leading is only known there and then.
``etcd_roll_bundle`` restarts a running member whose files changed, one host after the other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pulumi

from keadb import ciphers, naming, ports
from keadb.bundle import APPLIER, Bundle, File, Packages, Probe, Start, Step, TlsUse, Unit, program_file
from keadb.logins import ETCD_PATRONI
from keadb.platforms import platform
from keadb.templating import render

if TYPE_CHECKING:
    from components.host import Host as HostComponent
    from keadb.site import Host, Site

CLIENT_PORT = ports.ETCD_CLIENT
PEER_PORT = ports.ETCD_PEER
PATRONI_ROLE = "patroni"
"""etcd's role for Patroni, which both logins of the pair have."""

UNIT = "keadb-etcd.service"
"""A unit of our own: the distribution's stays masked, so no package upgrade starts or changes it."""
CONFIG = "/etc/etcd/keadb.yml"
DATA = "/var/lib/etcd/keadb"
PLAN = "/etc/keadb/cluster/etcd.json"

_BIRTH_FILE = "/var/lib/keadb/etcd-birth.env"
_REJOIN_FILE = "/var/lib/keadb/etcd-rejoin.env"
_REJOIN_CONFIG = "/etc/etcd/keadb-rejoin.yml"
_INSTALLER = "/usr/lib/keadb/install-etcd"
_SYSTEMD = "/etc/systemd/system"
_LEAD_TIMER = "keadb-etcd-lead.timer"
_TLS = TlsUse(
    key="/etc/etcd/tls/server.key",
    cert="/etc/etcd/tls/server.crt",
    ca="/etc/etcd/tls/ca.crt",
    owner="etcd",
    group="etcd",
)
_BIRTH_SECONDS = 120
_HEALTH_SECONDS = 60


def patroni_prefix(site: Site) -> str:
    """Return the keys of this site's Patroni: all that its user may read and write."""
    return f"/service/{site.cluster}/"


def auth_host(site: Site) -> Host:
    """Return the one host that sets up users and rights: the control host if it carries etcd, else the first."""
    return next((h for h in site.etcd_hosts if h.name == site.control_host.name), site.etcd_hosts[0])


def leading_host(site: Site) -> Host | None:
    """Return the host on which etcd's leadership is kept: a witness that carries etcd, else nobody's."""
    return next((h for h in site.etcd_hosts if site.witness and h.name == site.witness.name), None)


def etcd_bundle(site: Site, host: Host) -> Bundle:
    """Stage one member: software, configuration, certificates, unit. Starts nothing."""
    runs_on = platform(site.platform, postgresql=site.postgresql.version)
    unit_file = f"{_SYSTEMD}/{UNIT}"
    files = {
        "/etc/sysusers.d/keadb-etcd.conf": File(content=render("etcd/sysusers.conf.j2")),
        "/etc/tmpfiles.d/keadb-etcd.conf": File(content=render("etcd/tmpfiles.conf.j2", data_dir=DATA)),
        CONFIG: File(
            content=render(
                "etcd/etcd.yml.j2",
                site=site,
                host=host,
                data_dir=DATA,
                client_port=CLIENT_PORT,
                peer_port=PEER_PORT,
                tls=_TLS,
                tls_minimum=ciphers.ETCD_MINIMUM,
                cipher_suites=ciphers.ETCD,
            )
        ),
        unit_file: File(
            content=render(
                "etcd/keadb-etcd.service.j2",
                site=site,
                binary=f"{runs_on.etcd_bindir}/etcd",
                config_file=CONFIG,
                data_dir=DATA,
                birth_file=_BIRTH_FILE,
                rejoin_file=_REJOIN_FILE,
            )
        ),
    }
    # Certificates are read again at every handshake, so a renewed one needs nothing. The CA is read once.
    restart_on = [CONFIG, unit_file, _TLS.ca]
    steps: tuple[Step, ...] = ()
    if runs_on.etcd_from_archive:
        archive = site.etcd.archive
        if archive is None:
            msg = f"site {site.name}: etcd.archive is not set, allowed is url and sha256: {site.platform} has no etcd"
            raise ValueError(msg)
        files[_INSTALLER] = File(
            content=render(
                "etcd/install-archive.sh.j2", archive=archive, target=runs_on.etcd_bindir, script=_INSTALLER
            ),
            mode="0755",
        )
        restart_on.append(_INSTALLER)
        steps = (
            Step(
                name="etcd from its release archive",
                run=(_INSTALLER,),
                check=(_INSTALLER, "--check"),
                timeout=300,
            ),
        )
    return Bundle(
        name="etcd",
        host=host.name,
        packages=Packages(
            install=runs_on.install("etcd", site.packages.versions),
            hold=runs_on.packages["etcd"],
            mask=runs_on.mask["etcd"],
        ),
        files=files | program_file("etcd", shown="etcd", unit=UNIT, packages=runs_on.runs["etcd"]),
        tls={"etcd": _TLS},
        units={UNIT: Unit(start=Start.CLUSTER, restart_on=tuple(restart_on))},
        steps=steps,
    )


def etcd_form_bundle(site: Site, host: Host, staged: Mapping[str, str]) -> Bundle:
    """Bring the staged member of one host into force together with its peers, and see that all is as declared.

    ``staged`` maps each etcd host to the digest of its staged bundle, so that a change there runs this again.
    """
    sets_up_auth = host.name == auth_host(site).name
    leading = leading_host(site)
    leads = leading is not None and leading.name == host.name
    files = {PLAN: File(content=_plan(site, host, sets_up_auth=sets_up_auth, leads=leads))}
    units = {}
    if leads:
        timer = f"{_SYSTEMD}/{_LEAD_TIMER}"
        service = f"{_SYSTEMD}/keadb-etcd-lead.service"
        files[service] = File(
            content=render("etcd/keadb-etcd-lead.service.j2", site=site, unit=UNIT, applier=APPLIER)
        )
        files[timer] = File(content=render("etcd/keadb-etcd-lead.timer.j2", site=site))
        units[_LEAD_TIMER] = Unit(restart_on=(timer,))
    secrets = [*_root_password(site, host)]
    if sets_up_auth:
        secrets.append(ETCD_PATRONI.secret(ETCD_PATRONI.active(site.logins)))
    return Bundle(
        name="etcd-form",
        host=host.name,
        files=files,
        units=units,
        steps=(
            Step(
                name="etcd member in force",
                run=(APPLIER, "etcd-form"),
                # Birth or joining (with its waits for others), health and rights, and a margin for a slow machine.
                timeout=_BIRTH_SECONDS + 4 * _HEALTH_SECONDS + 60,
            ),
        ),
        probes=(Probe(name="etcd members as declared", run=(APPLIER, "etcd-probe"), timeout=_HEALTH_SECONDS),),
        uses_secrets=tuple(secrets),
        inputs={
            **staged,
            # A new CA is placed by the certificates of a host, which restart nothing.
            "ca_epoch": site.tls.ca_epoch.isoformat(),
            # A host that lost its data is taken in by another one, which must run too.
            **{f"generation of {h.name}": str(h.generation) for h in site.etcd_hosts},
        },
    )


def etcd_roll_bundle(site: Site, host: Host, formed: Mapping[str, str]) -> Bundle:
    """Restart the running member of one host where that is due; hosts take turns (see ``EtcdCluster``).

    ``formed`` maps each etcd host to the digest of its forming bundle, so that a change there runs this again.
    """
    return Bundle(
        name="etcd-roll",
        host=host.name,
        steps=(
            Step(
                name="etcd member runs what is on disk",
                run=(APPLIER, "etcd-roll"),
                # Waits for the others, restarts, waits for itself.
                timeout=3 * _HEALTH_SECONDS + 30,
            ),
        ),
        uses_secrets=_root_password(site, host),
        inputs=dict(formed),
    )


def _root_password(site: Site, host: Host) -> tuple[str, ...]:
    """Return the name of etcd's root password where a host needs it: to set up rights, or to move leadership."""
    leading = leading_host(site)
    needs = host.name in {auth_host(site).name, leading.name if leading else None}
    return ("etcd_root_password",) if needs else ()


def rolling_order(site: Site) -> tuple[Host, ...]:
    """Return in which order members restart: as in the site file, the one that leads last."""
    leading = leading_host(site)
    return tuple(sorted(site.etcd_hosts, key=lambda h: leading is not None and h.name == leading.name))


def _plan(site: Site, host: Host, *, sets_up_auth: bool, leads: bool) -> str:
    """Return what ``hostkit.etcd_plan`` reads."""
    data = {
        "format": 1,
        "cluster": site.cluster,
        "host": host.name,
        "unit": UNIT,
        "data_dir": DATA,
        "birth_file": _BIRTH_FILE,
        "config": CONFIG,
        "rejoin_config": _REJOIN_CONFIG,
        "rejoin_file": _REJOIN_FILE,
        "members": [{"name": m.name, "address": str(m.address)} for m in site.etcd_hosts],
        "client_port": CLIENT_PORT,
        "peer_port": PEER_PORT,
        "tls": {"cert": _TLS.cert, "key": _TLS.key, "ca": _TLS.ca},
        "sets_up_auth": sets_up_auth,
        "leads": leads,
        "patroni_role": PATRONI_ROLE,
        "patroni_user": ETCD_PATRONI.login(ETCD_PATRONI.active(site.logins)),
        "patroni_secret": ETCD_PATRONI.secret(ETCD_PATRONI.active(site.logins)),
        "patroni_prefix": patroni_prefix(site),
        "birth_seconds": _BIRTH_SECONDS,
        "health_seconds": _HEALTH_SECONDS,
    }
    return json.dumps(data, indent=2) + "\n"


def etcd_bundles(site: Site) -> dict[str, tuple[Bundle, Bundle, Bundle]]:
    """Return the staged, the forming and the rolling bundle of each etcd host, by host name, in rolling order."""
    staged = {host.name: etcd_bundle(site, host) for host in site.etcd_hosts}
    digests = {name: bundle.digest() for name, bundle in staged.items()}
    formed = {host.name: etcd_form_bundle(site, host, digests) for host in site.etcd_hosts}
    digests = {name: bundle.digest() for name, bundle in formed.items()}
    return {h.name: (staged[h.name], formed[h.name], etcd_roll_bundle(site, h, digests)) for h in rolling_order(site)}


@dataclass(frozen=True, kw_only=True)
class EtcdClusterArgs:
    """The site, and its hosts by name (those that carry etcd at least)."""

    site: Site
    hosts: Mapping[str, HostComponent]


class EtcdCluster(pulumi.ComponentResource):
    """The site's etcd cluster: staged members, all brought into force in parallel, restarted one after the other.

    Creates three commands an etcd host. ``formed`` is what users of etcd wait for: a quorum with all declared
    members that run what is on disk, and Patroni's user with its rights. ``opened`` has no more than that user.
    """

    formed: list[pulumi.Resource]
    opened: pulumi.Resource

    def __init__(self, args: EtcdClusterArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Register the cluster under the site's name."""
        super().__init__(
            naming.type_token("components", "EtcdCluster"), naming.resource(args.site.name, "etcd"), {}, opts
        )
        bundles = etcd_bundles(args.site)
        # Members are born together or not at all: none may try before all are staged.
        staged = [args.hosts[name].apply(stage, parent=self) for name, (stage, _, _) in bundles.items()]
        formed: dict[str, pulumi.Resource] = {
            name: args.hosts[name].apply(form, depends_on=staged, parent=self)
            for name, (_, form, _) in bundles.items()
        }
        self.opened = formed[auth_host(args.site).name]
        done = [*formed.values()]
        # Turns: each waits for the one before it, so never are two members down at once.
        for name, (_, _, roll) in bundles.items():
            done = [*done, args.hosts[name].apply(roll, depends_on=done, parent=self)]
        self.formed = done
        self.register_outputs({"members": list(bundles)})
