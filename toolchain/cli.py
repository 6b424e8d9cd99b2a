"""The Pulumi CLI: one on PATH if it is new enough, else built from its published Go module into the cache."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from toolchain import go, locks, paths, versions
from toolchain.errors import ToolchainError

if TYPE_CHECKING:
    from collections.abc import Callable

_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)(?![\w-])")
_ASK_SECONDS = 20


@dataclass(frozen=True)
class Cli:
    """A usable Pulumi CLI: where it is, its version, and where it came from ("PATH" or "built")."""

    path: Path
    version: tuple[int, int, int]
    origin: str


def parse_version(text: str) -> tuple[int, int, int] | None:
    """Read `v3.259.0`; None for anything else, pre-releases and development builds included."""
    match = _VERSION.fullmatch(text.strip())
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def usable(version: tuple[int, int, int] | None) -> bool:
    """Tell whether a CLI of this version may drive our SDK: same major version, not older than the SDK."""
    wanted = versions.PULUMI_CLI
    return version is not None and version[0] == wanted[0] and version >= wanted


def ask_version(path: Path) -> tuple[int, int, int] | None:
    """Run `pulumi version`; None if it does not run or answers something else."""
    environment = {**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"}
    try:
        answer = subprocess.run(  # noqa: S603  # our own words, no shell
            [str(path), "version"],
            capture_output=True,
            text=True,
            timeout=_ASK_SECONDS,
            check=False,
            env=environment,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_version(answer.stdout) if answer.returncode == 0 else None


def known_version(path: Path) -> tuple[int, int, int] | None:
    """Like ask_version, but remembered in the cache by path, size and time: asking takes 0.2 s each time."""
    try:
        found = path.stat()
    except OSError:
        return None
    key = [str(path), found.st_size, found.st_mtime_ns]
    memory = paths.cache_dir() / "cli-version.json"
    try:
        remembered = json.loads(memory.read_text(encoding="utf-8"))
        if remembered["key"] == key:
            return parse_version(remembered["version"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no memory, or one of another format: ask
    version = ask_version(path)
    if version is not None:
        temporary = memory.with_name(f".{memory.name}.{os.getpid()}")
        memory.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps({"key": key, "version": versions.dotted(version)}), encoding="utf-8")
        temporary.replace(memory)
    return version


def look() -> Cli | None:
    """Return the CLI that is used: a good enough one on PATH first, else the one we built; None if neither."""
    on_path = shutil.which("pulumi")
    candidates = [(Path(on_path), "PATH")] if on_path else []
    candidates.append((paths.cli_path(), "built"))
    for path, origin in candidates:
        version = known_version(path)
        if version is not None and usable(version):
            return Cli(path, version, origin)
    return None


def find() -> Cli:
    """Return the CLI that is used. Raises ToolchainError if there is none yet."""
    found = look()
    if found is None:
        message = (
            f"no Pulumi CLI >= {versions.dotted(versions.PULUMI_CLI)} on PATH or in {paths.cli_path()}: "
            "run `make setup` (it builds one)"
        )
        raise ToolchainError(message)
    return found


def ensure(report: Callable[[str], None]) -> Cli:
    """Return the CLI that is used, building it first where there is none. `report` gets lines of progress."""
    found = look()
    if found is not None:
        return found
    with locks.exclusive(
        paths.cache_dir() / "pulumi-cli.lock",
        waiting=lambda: report("another run is building the Pulumi CLI: waiting for it"),
    ):
        found = look()  # the run that we waited for may have built it
        if found is None:
            build(report)
    return find()


def build(report: Callable[[str], None]) -> None:
    """Build the CLI of versions.PULUMI_CLI into the cache; the caller holds the lock.

    A cut build leaves nothing that later runs take for a CLI. Raises ToolchainError with the compiler's last
    lines.
    """
    started = time.monotonic()
    compiler = go.ensure(report)
    target = paths.cli_path()
    target.parent.mkdir(parents=True, exist_ok=True)
    source = paths.checkout() / "toolchain" / "pulumi-cli"
    version = "v" + versions.dotted(versions.PULUMI_CLI)
    report(f"building the Pulumi CLI {version} from its Go module with {compiler.describe()}")
    report("  (once; 3 to 6 minutes on two cores and about 2 GB of module cache the first time)")
    temporary = target.with_name(f".pulumi.{os.getpid()}")
    command = [
        str(compiler.path),
        "build",
        "-mod=readonly",
        "-trimpath",
        "-tags=osusergo,grpcnotrace",
        f"-ldflags=-s -w -X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version={version}",
        f"-o={temporary}",
        "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi",
    ]
    try:
        go.run(compiler, command, cwd=source, report=report, what="the Pulumi CLI")
        built = ask_version(temporary)
        if built != versions.PULUMI_CLI:
            message = f"the CLI just built says it is {built}, not {version}: {temporary} is thrown away"
            raise ToolchainError(message)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    report(f"built {target} in {time.monotonic() - started:.0f} s")
