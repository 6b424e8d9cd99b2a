"""Sample data: plain host reservations like a site's BMCs have, the same ones each time. Pure.

Subnets are the /24s of 172.30.64.0/20 with Kea's ids 1 to 16. Every reservation has a hardware address, an address
and a host name, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

SUPERNET = IPv4Network("172.30.64.0/20")
SUBNETS: dict[int, IPv4Network] = dict(enumerate(SUPERNET.subnets(new_prefix=24), start=1))
COUNT = 2500
HW_ADDRESS = 0
"""Kea's identifier type of a hardware address."""

_FIRST_HOST = 10
_LAST_HOST = 254
_OUI = bytes.fromhex("024b45")  # locally administered: no maker's range


@dataclass(frozen=True)
class Reservation:
    """One reservation, in Kea's terms."""

    hw_address: bytes
    subnet_id: int
    address: IPv4Address
    hostname: str


def generate(count: int = COUNT) -> Iterator[Reservation]:
    """Yield that many reservations, spread evenly over the subnets; fewer are always the beginning of more.

    Raises ValueError when the subnets don't have that many addresses.
    """
    most = len(SUBNETS) * (_LAST_HOST - _FIRST_HOST + 1)
    if not 0 <= count <= most:
        message = f"{count} reservations: allowed are 0 to {most}"
        raise ValueError(message)
    for index in range(count):
        slot, position = divmod(index, len(SUBNETS))
        subnet_id, host = position + 1, _FIRST_HOST + slot
        yield Reservation(
            hw_address=_OUI + bytes([0, subnet_id, host]),
            subnet_id=subnet_id,
            address=SUBNETS[subnet_id][host],
            hostname=f"bmc-{subnet_id:02d}-{host:03d}",
        )
