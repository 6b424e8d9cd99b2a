"""As many reservations as a measurement wants, in a lab's database; none of them is left afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.api import Lab

_TIMEOUT = 900

# Subnets of their own, /16s of 10.0.0.0/8, and a maker's range of their own: never one of the sample's.
_FIRST_SUBNET = 100_000
_MORE = """
INSERT INTO hosts (dhcp_identifier, dhcp_identifier_type, dhcp4_subnet_id, ipv4_address, hostname)
SELECT decode('064b' || lpad(to_hex(n), 8, '0'), 'hex'), 0, {first} + n / 65536, 167772160 + n, 'bench-' || n
  FROM generate_series({start} + 1, {start} + {number}) AS n
"""
_OURS = f"hosts WHERE dhcp4_subnet_id >= {_FIRST_SUBNET}"


class Reservations:
    """The reservations of a lab's database, as its superuser on the host that leads."""

    def __init__(self, lab: Lab, leader: str) -> None:
        self._lab, self._leader = lab, leader

    def count(self) -> int:
        """Return how many there are."""
        return int(self._sql("SELECT count(*) FROM hosts"))

    def grow_to(self, number: int) -> None:
        """Add what is missing to ``number``; SystemExit when there are more already."""
        missing = number - self.count()
        if missing < 0:
            message = f"there are {number - missing} reservations already: measure {number} first"
            raise SystemExit(message)
        if missing:
            start = self._sql(f"SELECT count(*) FROM {_OURS}")  # noqa: S608 -- a constant
            self._sql(_MORE.format(first=_FIRST_SUBNET, start=start, number=missing))
        self._sql("VACUUM ANALYZE hosts")

    def shrink(self) -> None:
        """Delete what was added."""
        self._sql(f"DELETE FROM {_OURS}")  # noqa: S608 -- a constant
        self._sql("VACUUM ANALYZE hosts")

    def _sql(self, statement: str) -> str:
        command = ["runuser", "-u", "postgres", "--", "psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", "kea"]
        done = self._lab.exec(self._leader, [*command, "-c", statement], timeout=_TIMEOUT)
        if done.returncode:
            message = f"{self._leader}: {done.stderr.strip()}"
            raise SystemExit(message)
        return str(done.stdout).strip()
