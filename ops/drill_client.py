"""A client of the drill: writes or reads one row at a time through the virtual address, inside the site's network.

usage: python -m ops.drill_client write|read < REQUEST

REQUEST is one JSON object on standard input: ``conninfo``, ``password``, ``log`` (a file), ``stop`` (ends when this
file exists; it also ends with its parent). An attempt takes at most `ATTEMPT` seconds, connecting included,
then the connection is closed: nothing is cancelled on the server, where a cancelled wait for the standby would count
as acknowledged. A failed attempt is not made again under its number. Each attempt is a line of the log, written when
it ended: number, begin, end (monotonic clock), ``ok`` or ``failed`` or ``wrong``, and what was said: of a write the
timeline and the server's addresses, of a failure its reason.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg

from lab.reservations import HW_ADDRESS, generate

PAUSE = 0.02
ATTEMPT = 2.0
CONNECT_FAILED_PAUSE = 0.1
"""A server that refuses at once must not be asked a thousand times a second."""
WRITE = """
INSERT INTO drill.written (id) VALUES (%s)
RETURNING substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8), current_setting('listen_addresses')
"""
READ = """
SELECT ipv4_address FROM hosts
 WHERE dhcp4_subnet_id = %s AND dhcp_identifier_type = %s AND dhcp_identifier = %s
"""

Row = tuple[Any, ...]
Attempt = Callable[[psycopg.Connection, int], str]
"""Makes attempt NUMBER; returns what to note. ``WrongAnswerError`` for an answer that cannot be right."""


class TooSlowError(Exception):
    """An attempt took longer than it may."""


class WrongAnswerError(Exception):
    """The server answered, and not with what is true."""


def writes(connection: psycopg.Connection, number: int) -> str:
    """Write one row; say on which timeline, and who wrote it."""
    row = connection.execute(WRITE, (number,)).fetchone()
    if row is None:
        raise WrongAnswerError
    return f"{int(row[0], 16)} {row[1].split(',')[0]}"


def reads(seed: int = 1) -> Attempt:
    """Return a reader of single reservations, as a Kea server looks them up; the lab's sample data must be there."""
    rows = list(generate())
    chance = random.Random(seed)  # noqa: S311 -- which rows, not secrets

    def read(connection: psycopg.Connection, _number: int) -> str:
        row = chance.choice(rows)
        found = connection.execute(READ, (row.subnet_id, HW_ADDRESS, row.hw_address)).fetchall()
        if found != [(int(row.address),)]:
            msg = f"{row.hw_address.hex()} has {found}"
            raise WrongAnswerError(msg)
        return ""

    return read


def attempts(
    attempt: Attempt, connect: Callable[[], psycopg.Connection], go_on: Callable[[], bool]
) -> Iterator[tuple[int, float, float, str, str]]:
    """Make one attempt after the other; yield number, begin, end, ``ok|failed|wrong`` and what was said.

    Uses SIGALRM: for the main thread of a process of its own.
    """
    signal.signal(signal.SIGALRM, _alarm)
    connection: psycopg.Connection | None = None
    number = 0
    while go_on():
        number += 1
        begin = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, ATTEMPT)
        try:
            try:
                connection = connection or connect()
                said, how = attempt(connection, number), "ok"
            finally:
                # Inside of the other: the alarm may still come in between, and is caught then.
                signal.setitimer(signal.ITIMER_REAL, 0)
            end = time.monotonic()
        except (psycopg.Error, TooSlowError, WrongAnswerError) as error:
            end = time.monotonic()
            how = "wrong" if isinstance(error, WrongAnswerError) else "failed"
            said = f"{type(error).__name__} {' '.join(str(error).split())}"
            with contextlib.suppress(psycopg.Error):
                if connection is not None:
                    connection.close()
            connection = None
        yield number, begin, end, how, said
        time.sleep(PAUSE if how == "ok" else max(PAUSE, CONNECT_FAILED_PAUSE - (end - begin)))


def _alarm(_signal: int, _frame: Any) -> None:
    raise TooSlowError


def main(what: str, request: dict[str, str]) -> None:
    """Go on until told to stop."""
    stop, parent = Path(request["stop"]), os.getppid()

    def connect() -> psycopg.Connection:
        return psycopg.connect(
            request["conninfo"], password=request["password"], autocommit=True, prepare_threshold=1
        )

    def go_on() -> bool:
        return not stop.exists() and os.getppid() == parent

    attempt = writes if what == "write" else reads()
    with Path(request["log"]).open("a", buffering=1, encoding="utf-8") as log:
        log.writelines(
            f"{number} {begin:.4f} {end:.4f} {how} {said}\n"
            for number, begin, end, how, said in attempts(attempt, connect, go_on)
        )


if __name__ == "__main__":
    main(sys.argv[1], json.load(sys.stdin))
