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

LOSSES = {"all": ("sent", "received"), "sent": ("sent",), "received": ("received",)}
"""Which packets of a host can be lost on the way, while its link stays up: by what they are to the host."""
_HOOKS = {"sent": ("prerouting", "iifname"), "received": ("postrouting", "oifname")}


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
netns=$1 bridge=$2 end=$3 mac=$4 address=$5
shift 5
ip link add host0 address "$mac" type veth peer name "$end" netns "$netns"
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
    # The same each time: hosts remember for seconds where an address was.
    mac = f"02:4b:{address.packed.hex(':')}"
    return [
        *("unshare", "--net", "--", "sh", "-c", _STRANGER, "sh", spec.netns, BRIDGE, end, mac),
        *(f"{address}/{SUBNET.prefixlen}", *argv),
    ]


def set_loss(spec: LabSpec, host: LabHost, packets: str | None) -> None:
    """Have the bridge drop packets of the host (a key of `LOSSES`), or none (None). Nobody is told of a loss.

    By name of the interface: it holds for a host that is powered off and comes back.
    """
    table = f"bridge loss-{host.machine}"
    commands = [f"add table {table}", f"delete table {table}"]  # also when there was none
    if packets is not None:
        commands.append(f"add table {table}")
        for which in LOSSES[packets]:
            hook, match = _HOOKS[which]
            commands += [
                f"add chain {table} {which} {{ type filter hook {hook} priority 0; policy accept; }}",
                f'add rule {table} {which} {match} "{host.interface}" drop',
            ]
    run("nsenter", f"--net={spec.netns_path}", "nft", "; ".join(commands))


def plugged(spec: LabSpec, host: LabHost) -> bool | None:
    """Say whether the host's cable is up at the bridge; None when there is no cable (powered off)."""
    with contextlib.suppress(LabError):
        flags = run("ip", "-n", spec.netns, "-o", "link", "show", host.interface)
        return ",UP" in flags.partition(">")[0]
    return None
