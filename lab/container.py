"""One host as a container: what it is given before its first start, and how it is started."""

from __future__ import annotations

import hashlib
import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from lab.model import BRIDGE, DEPLOY_USER, SUBNET, LabHost, LabSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

SEED_MARK = "seeded"
"""File on the host's disk, outside what the host sees: digest of what it was seeded with."""


def machine_id(spec: LabSpec, host: LabHost) -> str:
    """Return the host's machine id: another one for each lab folder and host, the same for each start."""
    return uuid.uuid5(uuid.NAMESPACE_URL, f"keadb-lab:{spec.folder}:{host.name}").hex


def seeds(spec: LabSpec, host: LabHost) -> dict[str, tuple[int, str]]:
    """Return what makes this root file system this host: path to mode and content."""
    host_key = spec.host_key(host)
    network = (
        "[Match]\nName=host0\n\n"
        # No gateway: what lies outside the lab is unreachable at once instead of after a timeout.
        f"[Network]\nAddress={host.address}/{SUBNET.prefixlen}\n"
        "LinkLocalAddressing=no\nIPv6AcceptRA=no\nLLDP=no\nEmitLLDP=no\n"
    )
    return {
        "etc/hostname": (0o644, f"{host.name}\n"),
        "etc/hosts": (0o644, f"127.0.0.1 localhost\n::1 localhost\n{host.address} {host.name}\n"),
        "etc/machine-id": (0o444, f"{machine_id(spec, host)}\n"),
        # 10-: the distribution's 80-container-host0.network would win over a later name.
        "etc/systemd/network/10-host0.network": (0o644, network),
        "etc/ssh/ssh_host_ed25519_key": (0o600, host_key.read_text(encoding="ascii")),
        "etc/ssh/ssh_host_ed25519_key.pub": (0o644, public(host_key).read_text(encoding="ascii")),
        f"home/{DEPLOY_USER}/.ssh/authorized_keys": (0o600, public(spec.deploy_key).read_text(encoding="ascii")),
    }


def readdress(spec: LabSpec, host: LabHost, root: Path) -> None:
    """Have a host that is off come back with this address; what else was seeded is not looked at again."""
    name = "etc/systemd/network/10-host0.network"
    (root / name).write_text(seeds(spec, host)[name][1], encoding="ascii")
    mark = spec.mounts(host) / "disk" / SEED_MARK
    mark.write_text(_digest(seeds(spec, host)), encoding="ascii")


def _digest(wanted: Mapping[str, tuple[int, str]]) -> str:
    return hashlib.sha256(repr(sorted(wanted.items())).encode()).hexdigest()


def public(key: Path) -> Path:
    """Return where a private key's public half is."""
    return key.with_name(key.name + ".pub")


def seed(spec: LabSpec, host: LabHost, root: Path) -> bool:
    """Write the host's identity into its root file system, once a disk; True when it was written.

    Later starts leave these files alone: they belong to the host then. Another identity (a host key that was
    made anew) is written again.
    """
    wanted = seeds(spec, host)
    digest = _digest(wanted)
    mark = spec.mounts(host) / "disk" / SEED_MARK
    if mark.exists() and mark.read_text(encoding="ascii") == digest:
        return False
    for name, (mode, content) in wanted.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.touch(mode=mode)
        path.chmod(mode)
        path.write_text(content, encoding="ascii")
        if name.startswith("home/"):
            owner = path.parent.stat()
            os.chown(path, owner.st_uid, owner.st_gid)
    mark.write_text(digest, encoding="ascii")
    return True


_ALONE = """\
own=$0
for folder in "${own%/*}"/*; do
    [ "$folder" = "$own" ] || for mount in root disk; do umount -R "$folder/$mount" 2>/dev/null; done
done
exec "$@"
"""
"""Lets go of the other hosts' mounts: systemd-nspawn only hides them, and a disk of theirs could never be let go."""


def command(spec: LabSpec, host: LabHost, root: Path) -> list[str]:
    """Return how the container is started, from the supervisor's namespaces, in the caller's control group."""
    return [
        *("unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", _ALONE, str(spec.mounts(host))),
        *("systemd-nspawn", "--quiet", "--boot", "--directory", str(root)),
        *("--machine", host.machine, "--hostname", host.name),
        *("--keep-unit", "--register=no", f"--network-bridge={BRIDGE}"),
        *("--resolv-conf=off", "--timezone=off", "--link-journal=no", "--console=read-only"),
        # PostgreSQL and etcd hold many files open; the container's first process hands this on.
        "--rlimit=NOFILE=65536:524288",
    ]
