"""SQL through the psql client: statements on stdin, answers as JSON. The standard library has no PostgreSQL driver.

A password is only ever given in the environment of the one psql process (readable by root alone), never in argv
or in a statement.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hostkit.context import Context
from hostkit.errors import HostError

IDENTIFIER = re.compile(r"[a-z][a-z0-9_]{0,62}\Z")
LITERAL = re.compile(r"[ -&(-\[\]-~]*\Z")


@dataclass(frozen=True)
class Psql:
    """One way to a server: program, database, operating-system user (peer login) and libpq's environment."""

    ctx: Context
    program: str = "psql"
    database: str = "postgres"
    user: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 30

    def on(self, database: str) -> Psql:
        """Return the same way to another database."""
        return Psql(self.ctx, self.program, database, self.user, self.environment, self.timeout)

    def execute(self, statements: Sequence[str]) -> None:
        """Run statements in one transaction; CommandFailed shows the server's message."""
        self._run("BEGIN;\n" + "".join(f"{s};\n" for s in statements) + "COMMIT;\n")

    def execute_alone(self, statement: str) -> None:
        """Run one statement that may not stand in a transaction (CREATE DATABASE)."""
        self._run(f"{statement};\n")

    def json(self, query: str) -> Any:
        """Return the one JSON value that a query gives; HostError when it gives something else."""
        answer = self._run(f"{query};\n").strip()
        try:
            return json.loads(answer)
        except ValueError:
            msg = f"the server's answer is not JSON: {answer[:200]!r}"
            raise HostError(msg) from None

    def _run(self, sql: str) -> str:
        argv = [self.program, "-X", "-A", "-t", "-q", "-w", "-v", "ON_ERROR_STOP=1", "-d", self.database, "-f", "-"]
        done = self.ctx.system.run(
            argv,
            timeout=self.timeout,
            input=sql,
            # A second is a long time for a connection inside a site; a dead host must not eat the whole limit.
            env={"PGCONNECT_TIMEOUT": "5", "PGAPPNAME": "keadb", "PGTZ": "UTC", **self.environment},
            user=self.user,
        )
        return done.stdout


def identifier(name: str) -> str:
    """Return a name that needs no quoting in SQL; HostError for any other."""
    if not IDENTIFIER.match(name):
        msg = f"SQL name {name!r}: allowed are lower-case letters, digits and _ (first a letter, at most 63)"
        raise HostError(msg)
    return name


def literal(text: str) -> str:
    """Return a text as an SQL literal; HostError when it would need escaping."""
    if not LITERAL.match(text):
        msg = "an SQL literal may hold only printable ASCII without quote and backslash"
        raise HostError(msg)
    return f"'{text}'"
