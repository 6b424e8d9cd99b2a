"""The prober of the drill: sits on a site's host and tells what this host's own services say. Sent there as text.

Standard library and psycopg2 (which Patroni brings along), run as root by the host's Python: ``python3 -c TEXT NAME
DATABASE``, where DATABASE is 1 on a database host. One JSON object a line on standard output, each with ``at`` (the
monotonic clock, which all hosts of a lab share) and ``kind``:

- ``role``: ``leader``, ``replica`` or ``gone`` (PostgreSQL gave no answer within the limit), ``timeline``, and how
  many sync standbys stream from it. When it changed, and once a second.
- ``ack``: PostgreSQL acknowledged the write ``id``, made past all proxies; with its ``timeline``.
- ``etcd``: identity of this member (``me``) and of the leader that it knows (``leader``, 0: none). When it changed.

A write that is not acknowledged within `LIMIT` counts as not acknowledged: the limit is this side's, since a commit
whose wait for the standby is ended by the server is told as success. Ends when nobody reads its output any more.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import ssl
import sys
import threading
import time
from typing import Any

EVERY = 0.12
ETCD_EVERY = 0.4
LIMIT = 2.0
TELL_AGAIN = 1.0
CLIENT = ("/var/lib/keadb/tls/client.crt", "/var/lib/keadb/tls/client.key")
CA = "/etc/keadb/tls/ca.crt"
ROLE = """
SELECT r.standby,
       CASE WHEN r.standby THEN (SELECT received_tli FROM pg_stat_wal_receiver)
            ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int END,
       (SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state IN ('sync', 'quorum'))
  FROM (SELECT pg_is_in_recovery() AS standby) AS r
"""
WRITE = """
INSERT INTO drill.probed (host, id) VALUES (%s, %s)
RETURNING ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int
"""
_telling = threading.Lock()


def tell(kind: str, **what: Any) -> None:
    """Write one line; end the process when nobody reads."""
    line = json.dumps({"at": round(time.monotonic(), 4), "kind": kind, **what})
    with _telling:
        try:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
        except OSError:
            os._exit(0)


class TooSlowError(Exception):
    """No answer within the limit."""


class Database:
    """One connection to this host's own PostgreSQL, as its superuser over the socket."""

    def __init__(self) -> None:
        self.connection: Any = None

    def ask(self, statement: str, values: tuple[Any, ...] = ()) -> tuple[Any, ...]:
        """Return the statement's row; whatever goes wrong closes the connection and is raised."""
        import psycopg2  # type: ignore[import-untyped] # noqa: PLC0415 -- a host without PostgreSQL has none

        end = time.monotonic() + LIMIT
        try:
            if self.connection is None:
                self.connection = psycopg2.connect(
                    host="/var/run/postgresql", dbname="kea", user="postgres", application_name="drill", async_=1
                )
                self._wait(end)
            with self.connection.cursor() as cursor:
                cursor.execute(statement, values)
                self._wait(end)
                row: tuple[Any, ...] = cursor.fetchone()
                return row
        except Exception:
            self.close()
            raise

    def _wait(self, end: float) -> None:
        from psycopg2 import extensions  # noqa: PLC0415

        while (state := self.connection.poll()) != extensions.POLL_OK:
            left = end - time.monotonic()
            if left <= 0:
                raise TooSlowError
            link = [self.connection.fileno()]
            reads = state == extensions.POLL_READ
            select.select(link if reads else [], [] if reads else link, [], left)

    def close(self) -> None:
        """Close the connection; the server is not asked to cancel anything."""
        with contextlib.suppress(Exception):
            self.connection.close()
        self.connection = None


class Node:
    """What the two threads on a database host share."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.leads = False

    def roles(self) -> None:
        """Tell the role, for good."""
        database, before, told = Database(), None, 0.0
        while True:
            try:
                standby, timeline, streaming = database.ask(ROLE)
                now = ("replica" if standby else "leader", timeline, streaming)
            except Exception:  # noqa: BLE001 -- whatever it is, this PostgreSQL gives no answer
                now = ("gone", None, 0)
            self.leads = now[0] == "leader"
            if now != before or time.monotonic() - told > TELL_AGAIN:
                tell("role", role=now[0], timeline=now[1], streaming=now[2])
                before, told = now, time.monotonic()
            time.sleep(EVERY)

    def writes(self) -> None:
        """Try a write whenever PostgreSQL here says that it takes them, for good."""
        database = Database()
        # Ids of its own for each start of the prober.
        number = time.monotonic_ns() // 1000 * 1000
        while True:
            time.sleep(EVERY)
            if not self.leads:
                continue
            number += 1
            with contextlib.suppress(Exception):
                (timeline,) = database.ask(WRITE, (self.name, number))
                tell("ack", id=number, timeline=timeline)


def etcd(context: ssl.SSLContext) -> None:
    """Tell which leader this host's own member of etcd knows, for good."""
    before: Any = None
    connection: http.client.HTTPSConnection | None = None
    while True:
        try:
            if connection is None:
                connection = http.client.HTTPSConnection("127.0.0.1", 2379, timeout=LIMIT, context=context)
            connection.request("POST", "/v3/maintenance/status", body="{}")
            said = json.loads(connection.getresponse().read())
            now = (said["header"]["member_id"], said.get("leader", "0"))
        except (OSError, http.client.HTTPException, ValueError, KeyError):
            if connection is not None:
                connection.close()
            connection, now = None, ("", "")
        if now != before:
            tell("etcd", me=now[0], leader=now[1])
            before = now
        time.sleep(ETCD_EVERY)


def main(name: str, database: str) -> None:
    """Start every part that this host has; the last one runs in this thread."""
    context = ssl.create_default_context(cafile=CA)
    context.load_cert_chain(*CLIENT)
    parts: list[tuple[Any, ...]] = [(etcd, context)]
    if database == "1":
        import pwd  # noqa: PLC0415

        # The key is read; from here on as who may open PostgreSQL's socket.
        os.setuid(pwd.getpwnam("postgres").pw_uid)
        node = Node(name)
        parts += [(node.roles,), (node.writes,)]
    for part, *arguments in parts:
        threading.Thread(target=part, args=arguments, daemon=True).start()
    while True:
        time.sleep(TELL_AGAIN)
        tell("alive")


if __name__ == "__main__":
    main(*sys.argv[1:])
