"""The program of each stack file, loaded once."""

from __future__ import annotations

import pytest

from tests.program.harness import STACKS, Program, load_program


@pytest.fixture(scope="session", params=STACKS)
def program(request: pytest.FixtureRequest) -> Program:
    """Return the program of one stack file."""
    return load_program(request.param)
