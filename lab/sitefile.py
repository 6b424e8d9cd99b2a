"""The lab's site file: data of a site like any other, with the lab's hosts and their pinned keys."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import yaml

from lab import keys
from lab.errors import LabError
from lab.model import DEPLOY_USER, DOMAIN, GATEWAY, KEA_SERVER, SUBNET, VIP

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab.model import LabHost, LabSpec

SITE_KEY = "keadb:site"
MEMORY_MB = 1024
CORES = 2


TOPOLOGIES = {"ha": ("kea-db-01", "kea-db-02", "kea-witness"), "single": ("kea-db-01",)}
"""Which machines a new site file declares; all others are there, and nobody's."""


def site(
    spec: LabSpec, host_keys: Mapping[str, str], *, disk_gb: int, first: dt.date, topology: str = "ha"
) -> dict[str, Any]:
    """Return the site's data. ``host_keys`` maps host names to lines ``ssh-ed25519 AAAA…``.

    ``first`` is the first day of CA and certificates.
    """
    return {
        "name": spec.name,
        "topology": topology,
        "domain": DOMAIN,
        "platform": "debian-13",
        "network": {
            "subnet": str(SUBNET),
            "gateway": str(GATEWAY),
            "vip": str(VIP),
            # No name server and no time server: the lab has none, and containers share the machine's clock.
            "dns": [],
            "ntp": [],
            # Where people and tests stand: the bridge, that is the machine inside the lab's namespace.
            "clients": [str(GATEWAY)],
            "deploy": [str(GATEWAY)],
        },
        "hosts": {
            host.name: entry(host, host_keys[host.name], disk_gb=disk_gb)
            for host in spec.hosts
            if host.short in TOPOLOGIES[topology]
        },
        "kea": {"version": "2.6", "servers": {f"{spec.name}-sprmcr-l01": str(KEA_SERVER)}},
        "tls": {"ca_epoch": first.isoformat(), "epoch": first.isoformat()},
    }


def entry(host: LabHost, host_key: str, *, disk_gb: int) -> dict[str, Any]:
    """Return what the site file says of a machine that it declares."""
    return {
        "roles": list(host.roles),
        "address": str(host.address),
        "ssh_host_key": host_key,
        "ssh_user": DEPLOY_USER,
        "failure_domain": host.failure_domain,
        "cores": CORES,
        "memory_mb": MEMORY_MB,
        "disk_gb": disk_gb,
    }


def ensure(spec: LabSpec, *, disk_mb: int, topology: str = "ha") -> bool:
    """Write Pulumi.yaml and the site file if they aren't there; True when something was written.

    In a site file that is there only the pinned host keys are put right: it is the user's to change, and holds
    the site's encrypted secrets.
    """
    (spec.folder / "backend").mkdir(mode=0o700, exist_ok=True)
    project = spec.folder / "Pulumi.yaml"
    if not project.exists():
        project.write_text(
            yaml.safe_dump({"name": "keadb", "runtime": "python", "description": "A lab's site"}, sort_keys=False),
            encoding="utf-8",
        )
    host_keys = {host.name: keys.public_line(spec.host_key(host)) for host in spec.hosts}
    if spec.site_file.exists():
        document = yaml.safe_load(spec.site_file.read_text(encoding="utf-8"))
        if not _pin(document["config"][SITE_KEY]["hosts"], host_keys):
            return False
    else:
        # Certificates of yesterday: an epoch of the future is refused, so that today's could not be renewed today.
        first = dt.datetime.now(tz=dt.UTC).date() - dt.timedelta(days=1)
        data = site(spec, host_keys, disk_gb=max(1, disk_mb // 1024), first=first, topology=topology)
        document = {"config": {SITE_KEY: data}}
    _write(spec, document)
    return True


def readdressed(spec: LabSpec, host: LabHost) -> bool:
    """Write a host's address down; False when the site file doesn't have the host."""
    document = yaml.safe_load(spec.site_file.read_text(encoding="utf-8"))
    hosts = document["config"][SITE_KEY]["hosts"]
    if host.name not in hosts:
        return False
    hosts[host.name]["address"] = str(host.address)
    _write(spec, document)
    return True


def rebuilt(spec: LabSpec, host: LabHost) -> int:
    """Write down that a host was installed anew: its new host key, and its generation raised; return that.

    LabError when the site file doesn't have the host.
    """
    document = yaml.safe_load(spec.site_file.read_text(encoding="utf-8"))
    hosts = document["config"][SITE_KEY]["hosts"]
    if host.name not in hosts:
        message = f"{spec.site_file} has no host {host.name}: nothing to raise the generation of"
        raise LabError(message)
    generation = int(hosts[host.name].get("generation", 1)) + 1
    hosts[host.name] |= {"ssh_host_key": keys.public_line(spec.host_key(host)), "generation": generation}
    _write(spec, document)
    return generation


def _write(spec: LabSpec, document: Any) -> None:
    temporary = spec.site_file.with_suffix(".new")
    temporary.write_text(_text(document), encoding="utf-8")
    temporary.replace(spec.site_file)


class _Dumper(yaml.SafeDumper):
    """Plain YAML for people: equal values are written out, not referred to."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


def _text(document: Any) -> str:
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


def _pin(hosts: dict[str, Any], host_keys: Mapping[str, str]) -> bool:
    changed = False
    for name, line in host_keys.items():
        if name in hosts and hosts[name].get("ssh_host_key") != line:
            hosts[name]["ssh_host_key"] = line
            changed = True
    return changed
