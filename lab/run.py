"""Running the few system commands that the lab needs."""

from __future__ import annotations

import subprocess

from lab.errors import LabError


def run(*argv: str, timeout: float = 60) -> str:
    """Run a command and return its output; LabError with its last words when it fails or isn't there."""
    try:
        done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=timeout)  # noqa: S603 -- callers pass literals and the lab's own paths
    except FileNotFoundError:
        message = f"{argv[0]} is not installed; run: python -m lab.packages"
        raise LabError(message) from None
    except subprocess.TimeoutExpired:
        message = f"{' '.join(argv)}: no end after {timeout:.0f} s"
        raise LabError(message) from None
    if done.returncode != 0:
        message = f"{' '.join(argv)}: exit {done.returncode}: {(done.stderr or done.stdout).strip()}"
        raise LabError(message)
    return done.stdout
