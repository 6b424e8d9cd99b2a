"""A full disk: one clear error that names host, step and file, and a later run that goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.lab.harness import Site

pytestmark = pytest.mark.lab


def test_a_full_disk_is_told_and_freed_up_goes_on(settled: Site) -> None:
    """The witness has no room for a changed file: nothing but that fails, and it is done when there is room."""
    host = f"{settled.name}-kea-witness"
    content = ("sh", "-c", "cat /etc/systemd/journald.conf.d/60-keadb.conf")

    def bigger(data: dict[str, Any]) -> None:
        data["hosts"][host]["disk_gb"] *= 2

    before = settled.lab.exec(host, content).stdout
    with settled.edited(bigger):
        try:
            settled.lab.fill_disk(host)
            failed = settled.keadb("up", "--stack", settled.name, "--yes", check=False)
        finally:
            settled.lab.free_disk(host)
        assert failed.returncode == 1
        errors = [line for line in failed.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1
        assert errors[0].startswith(f"error: {host}: base: ")
        assert "cannot be written: No space left on device; mend that and run it again" in errors[0]
        assert settled.lab.exec(host, content).stdout == before
        settled.keadb("up", "--stack", settled.name, "--yes")
        assert settled.lab.exec(host, content).stdout == before.replace("204M", "409M") != before
    settled.keadb("up", "--stack", settled.name, "--yes")
    assert settled.lab.exec(host, content).stdout == before
    settled.require_health()
