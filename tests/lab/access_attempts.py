"""Tries logins one after the other from wherever it runs, and says who got in; run inside a network by test_access.

Reads JSON on standard input: ``places`` (name to address and port), ``logins`` (name to the libpq settings that it
logs in with), ``databases``. Writes a list of ``[place, login, database, outcome]``: ``in as ROLE``, ``refused: WHY``
or ``not reached: WHY``.
"""

from __future__ import annotations

import json
import socket
import sys
from typing import Any

import psycopg

SECONDS = 2
NOT_REACHED = "not reached"


def main(given: dict[str, Any]) -> list[list[str]]:
    """Return the outcome of every attempt."""
    outcomes = []
    for place, (address, port) in given["places"].items():
        closed = _closed(address, port)
        for login, settings in given["logins"].items():
            for database in given["databases"]:
                outcome = closed or _attempt({"hostaddr": address, "port": port, "user": login} | settings, database)
                outcomes.append([place, login, database, outcome])
    return outcomes


def _closed(address: str, port: int) -> str:
    """Return why nothing takes connections there; a firewall that says nothing would cost a wait for each login."""
    try:
        socket.create_connection((address, port), timeout=SECONDS).close()
    except OSError as error:
        return f"{NOT_REACHED}: {error}"
    return ""


def _attempt(settings: dict[str, Any], database: str) -> str:
    where: dict[str, Any] = {"replication": "true"} if database == "replication" else {"dbname": database}
    try:
        connection = psycopg.connect(**settings, **where, connect_timeout=SECONDS, autocommit=True)
    except psycopg.OperationalError as error:
        return f"refused: {' '.join(str(error).split())}"
    with connection:
        if database == "replication":  # no SQL there
            return f"in as {connection.info.user}"
        row = connection.execute("SELECT current_user").fetchone()
        return f"in as {row[0] if row else '?'}"


if __name__ == "__main__":
    json.dump(main(json.load(sys.stdin)), sys.stdout)
