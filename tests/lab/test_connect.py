"""``keadb connect``: a real psql through each way, as who and where it should be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.lab.harness import Site

pytestmark = pytest.mark.lab
WHO = "SELECT current_user, pg_is_in_recovery(), inet_server_port() FROM hosts HAVING count(*) >= 0"


def _answer(site: Site, *options: str, statement: str = WHO) -> list[str]:
    done = site.keadb(
        "connect", "--stack", site.name, *options, "--", "-X", "--csv", "--tuples-only", "-c", statement
    )
    return done.stdout.strip().split(",")


def test_write_read_and_past_both(settled: Site) -> None:
    """The owner on the leader, the reader on the standby, and the owner at PostgreSQL itself."""
    assert _answer(settled) == ["kea_owner", "f", "5432"]
    assert _answer(settled, "--read") == [settled.login("read")[0], "t", "5432"]
    assert _answer(settled, "--direct") == ["kea_owner", "f", "5432"]


def test_the_reader_cannot_write(settled: Site) -> None:
    """Psql's own exit code tells."""
    done = settled.keadb(
        "connect", "--stack", settled.name, "--read", "--", "-X", "-c", "DELETE FROM hosts", check=False
    )
    assert done.returncode == 1
    assert "read-only transaction" in done.stderr
