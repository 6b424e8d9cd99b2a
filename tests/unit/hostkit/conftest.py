"""What the tests of the applier share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.hostkit.fakes import FakeSystem, Machine
from tests.unit.hostkit.scenes import quick

__all__ = ["quick"]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """An empty machine with the usual users, all of them whoever runs the tests."""
    root = tmp_path / "root"
    root.mkdir()
    users = dict.fromkeys(["etcd", "postgres"], os.geteuid())
    return Machine(root, FakeSystem(root, users=users))
