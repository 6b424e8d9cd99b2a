"""Writes ids to the cluster one by one and notes each acknowledgement; run inside the lab's network.

usage: writer.py CONNINFO ACKS STOP

Each attempt is one id in a transaction of its own, at most 2 s long; ACKS gets a line "ID MONOTONIC_SECONDS" for
each that the server acknowledged, and only then. An attempt that failed is never repeated under the same id, so
an id is either acknowledged or nobody was told that it was. Ends when the file STOP exists. The password comes
from the environment (PGPASSWORD).
"""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

import psycopg

PAUSE = 0.02
ATTEMPT = 2


def connect(conninfo: str) -> psycopg.Connection:
    """Return a connection to whoever takes writes now; each host of the list gets 2 s."""
    return psycopg.connect(
        conninfo,
        connect_timeout=ATTEMPT,
        autocommit=True,
        options=f"-c statement_timeout={ATTEMPT * 1000}",
        tcp_user_timeout=ATTEMPT * 1000,
        keepalives_idle=1,
        keepalives_interval=1,
        keepalives_count=2,
    )


def main(conninfo: str, acks: Path, stop: Path) -> None:
    """Write until told to stop."""
    connection: psycopg.Connection | None = None
    number = 0
    with acks.open("a", buffering=1) as out:
        while not stop.exists():
            number += 1
            try:
                connection = connection or connect(conninfo)
                connection.execute("INSERT INTO drill.written (id) VALUES (%s)", (number,))
            except psycopg.Error:
                with contextlib.suppress(psycopg.Error):
                    if connection is not None:
                        connection.close()
                connection = None
            else:
                out.write(f"{number} {time.monotonic():.3f}\n")
            time.sleep(PAUSE)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
