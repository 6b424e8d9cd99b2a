"""Writes or reads through the virtual address and notes each acknowledgement; run inside the lab's network.

usage: way_client.py write|read CONNINFO ACKS STOP

As writer.py, but for clients of the poolers: an attempt is cut after 2 s by the client itself, since a pooler takes
no ``options``. Every failed attempt is a line in the file ERRORS beside ACKS. Ends when the file STOP exists. The
password comes from the environment (PGPASSWORD).
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from pathlib import Path
from typing import Any

import psycopg

PAUSE = 0.02
ATTEMPT = 2.0
STATEMENTS = {
    "write": "INSERT INTO drill.written (id) VALUES (%s)",
    "read": "SELECT %s::bigint, host_id FROM hosts ORDER BY host_id LIMIT 1",
}


class TooSlowError(Exception):
    """An attempt took longer than it may."""


def _alarm(_signal: int, _frame: Any) -> None:
    raise TooSlowError


def main(statement: str, conninfo: str, acks: Path, stop: Path) -> None:
    """Go on until told to stop."""
    signal.signal(signal.SIGALRM, _alarm)
    connection: psycopg.Connection | None = None
    number = 0
    with acks.open("a", buffering=1) as out, acks.with_name("ERRORS").open("a", buffering=1) as errors:
        while not stop.exists():
            number += 1
            signal.setitimer(signal.ITIMER_REAL, ATTEMPT)
            try:
                connection = connection or psycopg.connect(conninfo, autocommit=True, prepare_threshold=1)
                connection.execute(statement, (number,))
                signal.setitimer(signal.ITIMER_REAL, 0)
            except (psycopg.Error, TooSlowError) as error:
                signal.setitimer(signal.ITIMER_REAL, 0)
                errors.write(f"{time.monotonic():.3f} {type(error).__name__} {' '.join(str(error).split())}\n")
                with contextlib.suppress(psycopg.Error):
                    if connection is not None:
                        connection.close()
                connection = None
            else:
                out.write(f"{number} {time.monotonic():.3f}\n")
            time.sleep(PAUSE)


if __name__ == "__main__":
    main(STATEMENTS[sys.argv[1]], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
