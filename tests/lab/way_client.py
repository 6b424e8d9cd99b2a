"""Writes or reads through the virtual address and notes each acknowledgement; run inside the lab's network.

usage: way_client.py write|read CONNINFO ACKS STOP

Attempts are those of the drill's clients (``ops.drill_client``). Every failed attempt is a line in the file ERRORS
beside ACKS. Ends when the file STOP exists. The password comes from the environment (PGPASSWORD).
"""

from __future__ import annotations

import sys
from pathlib import Path

import psycopg

sys.path.insert(0, str(Path(__file__).parents[2]))
from ops.drill_client import attempts

STATEMENTS = {
    "write": "INSERT INTO drill.written (id) VALUES (%s)",
    "read": "SELECT %s::bigint, host_id FROM hosts ORDER BY host_id LIMIT 1",
}


def main(statement: str, conninfo: str, acks: Path, stop: Path) -> None:
    """Go on until told to stop."""

    def once(connection: psycopg.Connection, number: int) -> str:
        connection.execute(statement, (number,))
        return ""

    def connect() -> psycopg.Connection:
        return psycopg.connect(conninfo, autocommit=True, prepare_threshold=1)

    with acks.open("a", buffering=1) as out, acks.with_name("ERRORS").open("a", buffering=1) as errors:
        for number, _begin, end, how, said in attempts(once, connect, lambda: not stop.exists()):
            if how == "ok":
                out.write(f"{number} {end:.3f}\n")
            else:
                errors.write(f"{end:.3f} {said}\n")


if __name__ == "__main__":
    main(STATEMENTS[sys.argv[1]], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
