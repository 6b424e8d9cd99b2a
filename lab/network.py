"""The lab's network: a namespace with one bridge, reached from nowhere else and reaching nowhere else."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from lab.errors import LabError
from lab.model import BRIDGE, GATEWAY, SUBNET, LabHost, LabSpec
from lab.run import run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ipaddress import IPv4Address


def exists(spec: LabSpec) -> bool:
    """Say whether the namespace is there."""
    return spec.netns_path.exists()


def create(spec: LabSpec) -> None:
    """Make the namespace with loopback and the bridge up; a second call only fills in what is missing."""
    if not exists(spec):
        run("ip", "netns", "add", spec.netns)
    script = (
        "link set lo up",
        f"link add {BRIDGE} type bridge forward_delay 0 stp_state 0",
        f"addr replace {GATEWAY}/{SUBNET.prefixlen} dev {BRIDGE}",
        f"link set {BRIDGE} up",
    )
    for line in script:
        try:
            run("ip", "-n", spec.netns, *line.split())
        except LabError as error:
            if "File exists" not in str(error):
                raise


def delete(spec: LabSpec) -> None:
    """Remove the namespace; whatever was in it goes with its last process.

    iproute2's folder of namespaces goes as well when it is empty: not removed while anything is in it or uses it.
    """
    if exists(spec):
        run("ip", "netns", "delete", spec.netns)
    folder = spec.netns_path.parent
    with contextlib.suppress(LabError, OSError):
        if not any(folder.iterdir()):
            run("umount", str(folder))
            folder.rmdir()


def set_cable(spec: LabSpec, host: LabHost, *, plugged: bool) -> None:
    """Take the bridge's end of the host's cable down, or up again. The host itself isn't touched."""
    run("ip", "-n", spec.netns, "link", "set", host.interface, "up" if plugged else "down")


_STRANGER = """\
set -e
netns=$1 bridge=$2 end=$3 address=$4
shift 4
ip link add host0 type veth peer name "$end" netns "$netns"
ip -n "$netns" link set "$end" master "$bridge" up
ip link set lo up
ip address add "$address" dev host0
ip link set host0 up
exec "$@"
"""
"""A namespace that lives as long as the command in it: with its last process its cable is gone as well."""


def as_stranger(spec: LabSpec, address: IPv4Address, argv: Sequence[str]) -> list[str]:
    """Return the command that runs ``argv`` as a machine of its own, with this address, on the lab's bridge.

    Two at once cannot have the same address: the second one fails with ``File exists``.
    """
    end = f"as-{int(address) - int(SUBNET.network_address)}"
    return [
        *("unshare", "--net", "--", "sh", "-c", _STRANGER, "sh", spec.netns, BRIDGE, end),
        *(f"{address}/{SUBNET.prefixlen}", *argv),
    ]


def plugged(spec: LabSpec, host: LabHost) -> bool | None:
    """Say whether the host's cable is up at the bridge; None when there is no cable (powered off)."""
    with contextlib.suppress(LabError):
        flags = run("ip", "-n", spec.netns, "-o", "link", "show", host.interface)
        return ",UP" in flags.partition(">")[0]
    return None
