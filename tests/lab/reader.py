"""Reads single reservations as a Kea server does and notes each right answer; run inside the lab's network.

usage: python -m tests.lab.reader CONNINFO ACKS STOP

Each attempt looks up one hardware address of the lab's sample reservations (``keadb lab load``), at most 2 s long.
ACKS gets a line "NUMBER MONOTONIC_SECONDS" for each that got exactly the address that was reserved; a wrong or
missing row is no answer. One connection is used for `RENEW` attempts, then a new one, so that logins and access rules
are met as well. The logins of the pair are tried in turn, the last that worked first: their passwords are in the
environment (KEADB_READ_A, KEADB_READ_B). Ends when the file STOP exists, or with
the process that started it.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import time
from pathlib import Path

import psycopg

from lab.reservations import HW_ADDRESS, generate
from tests.lab.attempts import PAUSE, ask, connect

RENEW = 100
QUERY = """
SELECT ipv4_address FROM hosts
 WHERE dhcp4_subnet_id = $1::bigint AND dhcp_identifier_type = $2::smallint AND dhcp_identifier = decode($3, 'hex')
"""


def _connect(conninfo: str, logins: list[tuple[str, str]]) -> psycopg.Connection:
    """Connect with the first login that is open, and put it first."""
    for login in [*logins]:
        try:
            connection = connect(f"{conninfo} user={login[0]}", password=login[1])
        except psycopg.Error as error:
            failure = error
        else:
            logins.remove(login)
            logins.insert(0, login)
            return connection
    raise failure


def main(conninfo: str, acks: Path, stop: Path) -> None:
    """Read until told to stop."""
    rows = list(generate())
    logins = [(f"kea_read_{letter}", os.environ[f"KEADB_READ_{letter.upper()}"]) for letter in "ab"]
    chance = random.Random(1)  # noqa: S311 -- which rows, not secrets
    connection: psycopg.Connection | None = None
    number, parent = 0, os.getppid()
    with acks.open("a", buffering=1) as out:
        while not stop.exists() and os.getppid() == parent:
            number += 1
            row = chance.choice(rows)
            values = (str(row.subnet_id), str(HW_ADDRESS), row.hw_address.hex())
            try:
                if connection is None or number % RENEW == 0:
                    if connection is not None:
                        connection.close()
                    connection = None
                    connection = _connect(conninfo, logins)
                found = ask(connection, QUERY, *(value.encode() for value in values))
            except psycopg.Error:
                with contextlib.suppress(psycopg.Error):
                    if connection is not None:
                        connection.close()
                connection = None
            else:
                if found == [(str(int(row.address)).encode(),)]:
                    out.write(f"{number} {time.monotonic():.3f}\n")
            time.sleep(PAUSE)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
