"""Fixtures: one throw-away PostgreSQL for all tests, and a stand-in for kea-admin."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.kea.kea_server import KEA_ADMIN, PG_BIN, SCHEMA, Server, running


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    if PG_BIN is None:
        pytest.skip("no PostgreSQL server under /usr/lib/postgresql: the statements are not run for real")
    me = pwd.getpwuid(os.geteuid()).pw_name
    if os.geteuid() == 0:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("running as root without a user 'postgres': PostgreSQL does not run as root")
        me = "postgres"
    # pytest's own folders are closed to others; the server's user must pass through.
    base = Path(f"/tmp/keadb-pg-{os.getpid()}")  # noqa: S108 -- a socket path has at most 107 bytes
    base.mkdir(mode=0o755)
    try:
        with running(base, me) as found:
            yield found
    finally:
        shutil.rmtree(base, ignore_errors=True)


@pytest.fixture
def kea_admin(tmp_path: Path) -> Path:
    script, schema = tmp_path / "kea-admin", tmp_path / "schema.sql"
    schema.write_text(SCHEMA)
    script.write_text(KEA_ADMIN.replace("PSQL", str((PG_BIN or Path()) / "psql")).replace('"SCHEMA"', f'"{schema}"'))
    script.chmod(0o755)
    return script
