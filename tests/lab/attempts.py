"""One statement at a time against the cluster, as a client does it: at most 2 s long, from whoever answers."""

from __future__ import annotations

import select
import time

import psycopg
from psycopg.pq import ExecStatus

ATTEMPT = 2
"""Seconds: the limit of one statement, and of connecting to one host of a list."""
PAUSE = 0.02
"""Seconds between attempts."""


def connect(conninfo: str, *, password: str | None = None) -> psycopg.Connection:
    """Return a connection to the first host of the list that will do; each gets `ATTEMPT` seconds."""
    return psycopg.connect(
        conninfo,
        password=password,
        connect_timeout=ATTEMPT,
        autocommit=True,
        options=f"-c statement_timeout={ATTEMPT * 1000}",
        tcp_user_timeout=ATTEMPT * 1000,
        keepalives_idle=1,
        keepalives_interval=1,
        keepalives_count=2,
    )


def ask(connection: psycopg.Connection, statement: str, *values: bytes) -> list[tuple[bytes | None, ...]]:
    """Run one statement with text parameters and return its rows; psycopg.Error when it failed or took too long.

    The limit is this side's: a commit that waits for a standby is not ended by ``statement_timeout``. Nothing is
    cancelled then (a cancelled wait would count as acknowledged): close the connection and ask on a new one.
    """
    server, end = connection.pgconn, time.monotonic() + ATTEMPT
    server.send_query_params(statement.encode(), values)
    rows: list[tuple[bytes | None, ...]] = []
    while True:
        while server.is_busy():
            left = end - time.monotonic()
            if left <= 0 or not select.select([server.socket], [], [], left)[0]:
                msg = f"no answer within {ATTEMPT} s"
                raise psycopg.OperationalError(msg)
            server.consume_input()
        result = server.get_result()
        if result is None:
            return rows
        if result.status not in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK):
            raise psycopg.OperationalError(result.error_message.decode(errors="replace"))
        rows += [
            tuple(result.get_value(row, column) for column in range(result.nfields)) for row in range(result.ntuples)
        ]
