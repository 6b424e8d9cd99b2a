"""One site in the lab for the whole run: made, brought up by the real engine, taken down at the end."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from lab.api import Lab
from tests.lab.clients import reading, writing
from tests.lab.harness import BARE, MEASURED, NAME, CommandLines, Site, Writer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def why_not() -> str | None:
    """Return why this machine cannot run the lab, or None."""
    if os.geteuid() != 0:
        return "the lab needs root (network namespaces, containers)"
    probe = subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        return f"this machine refuses namespaces: {probe.stderr.strip()}"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip lab tests with the reason where the lab cannot run."""
    reason = why_not()
    for item in items:
        if item.get_closest_marker("lab") and reason:
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what was measured: seconds on this machine, with whatever else it had to do."""
    if MEASURED:
        terminalreporter.section("measured")
        for line in MEASURED:
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    """A whole site, brought up once."""
    lab = Lab(NAME)
    made = Site(NAME, lab)
    lab.down()
    try:
        lab.up(bare=[BARE])
        sampler = CommandLines()
        sampler.start()
        started = time.monotonic()
        done = made.keadb("up", "--stack", NAME, "--yes")
        made.first_up_seconds = time.monotonic() - started
        MEASURED.append(f"first up of a whole site: {made.first_up_seconds:.0f} s")
        made.first_up_output = done.stdout + done.stderr
        made.command_lines = sampler.stop()
        made.keadb("lab", "load", "--name", NAME)
        yield made
    finally:
        if not os.environ.get("KEADB_KEEP_TEST_LAB"):
            lab.down()


@pytest.fixture
def settled(site: Site) -> Site:
    """The site with a leader and a streaming sync standby."""
    site.wait_until_healthy()
    return site


@pytest.fixture
def writer(settled: Site, tmp_path: Path) -> Iterator[Writer]:
    """A writer that has already written; its table is new for each test."""
    with writing(settled, tmp_path) as running:
        yield running
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture
def reader(settled: Site, tmp_path: Path) -> Iterator[Writer]:
    """A reader of the sample reservations that has already read."""
    with reading(settled, tmp_path) as running:
        yield running
