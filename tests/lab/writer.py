"""Writes ids to the cluster one by one and notes each acknowledgement; run inside the lab's network.

usage: python -m tests.lab.writer CONNINFO ACKS STOP

Each attempt is one id in a transaction of its own, at most 2 s long; ACKS gets a line "ID MONOTONIC_SECONDS" for
each that the server acknowledged, and only then. An attempt that failed is never repeated under the same id, so
an id is either acknowledged or nobody was told that it was. Ends when the file STOP exists, or with the process
that started it. The password comes from the environment (PGPASSWORD).
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path

import psycopg

from tests.lab.attempts import PAUSE, ask, connect


def main(conninfo: str, acks: Path, stop: Path) -> None:
    """Write until told to stop."""
    connection: psycopg.Connection | None = None
    number, parent = 0, os.getppid()
    with acks.open("a", buffering=1) as out:
        while not stop.exists() and os.getppid() == parent:
            number += 1
            try:
                connection = connection or connect(conninfo)
                ask(connection, "INSERT INTO drill.written (id) VALUES ($1::bigint)", str(number).encode())
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
