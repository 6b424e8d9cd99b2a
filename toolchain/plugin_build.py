"""Builds keadb's own command plugin into the cache, so that it needs neither a checkout nor its .venv any more.

A build is a folder named by the digest of all that is in it: our source, and copies of the few installed
packages that it imports (they came through the hash-locked requirements, so no network is needed).
The interpreter is the one that .venv was made from.
"""

from __future__ import annotations

import compileall
import hashlib
import importlib.metadata
import os
import py_compile
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from toolchain import paths
from toolchain.errors import ToolchainError

if TYPE_CHECKING:
    from collections.abc import Callable

_ROOTS = ("pulumi", "asyncssh")
# Required by the SDK for debugging and for its `pulumi install`; never imported by a plugin. 40 MB.
_LEFT_OUT = frozenset({"debugpy", "pip", "setuptools"})
_KEPT_BUILDS = 3
_DONE = "complete"
_START = '''\
"""Starts keadb's own command plugin; nothing outside this folder and the standard library is imported."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "lib"))

from command_plugin.server import main

sys.exit(main(sys.argv[1:]))
'''


@dataclass(frozen=True)
class Plan:
    """What a build consists of: digest, interpreter, package names, and our source files."""

    digest: str
    python: str
    packages: tuple[str, ...]
    sources: tuple[Path, ...]

    @property
    def folder(self) -> Path:
        """Return where the build is."""
        return paths.plugin_builds() / self.digest

    def complete(self) -> bool:
        """Tell whether the build is there, and its interpreter still is."""
        return (self.folder / _DONE).exists() and os.access(self.python, os.X_OK)

    def wrapper(self) -> str:
        """Return the executable that the engine starts: isolated from the caller's Python settings."""
        command = [self.python, "-I", "-S", "-B", str(self.folder / "start.py")]
        return (
            "#!/bin/sh\n"
            f"# keadb's own command plugin, build {self.digest}. Made by `python -m toolchain setup`.\n"
            f'exec {shlex.join(command)} "$@"\n'
        )


def plan() -> Plan:
    """Work out the build of this checkout's sources with the packages of the running interpreter."""
    packages = _closure()
    sources = tuple(sorted((Path(__file__).parent / "command_plugin").glob("*.py")))
    # The interpreter that the virtual environment stands on: .venv goes away with its checkout.
    python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    digest = hashlib.sha256()
    for part in (python, sys.version, _START, *(f"{name}=={version}" for name, version in packages.items())):
        digest.update(part.encode() + b"\0")
    for source in sources:
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    return Plan(digest.hexdigest()[:16], python, tuple(packages), sources)


def _closure() -> dict[str, str]:
    """Return name and version of every installed package that pulumi and asyncssh need here."""
    found: dict[str, str] = {}
    waiting = [*_ROOTS]
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found or name in _LEFT_OUT:
            continue
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError as error:
            message = f"Python package {name} is not installed in {sys.prefix}: run `make setup`"
            raise ToolchainError(message) from error
        found[name] = package.version
        for line in package.requires or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return dict(sorted(found.items()))


def build(wanted: Plan, report: Callable[[str], None]) -> None:
    """Make the build unless it is there; the caller holds the lock. A cut one is made anew.

    Raises ToolchainError if the result does not start.
    """
    if wanted.complete():
        return
    report("building keadb's own command plugin")
    temporary = wanted.folder.with_name(f".{wanted.digest}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    library = temporary / "lib"
    for name in wanted.packages:
        _copy_package(name, library)
    own = library / "command_plugin"
    own.mkdir(parents=True)
    for source in wanted.sources:
        shutil.copyfile(source, own / source.name)
    (temporary / "start.py").write_text(_START, encoding="utf-8")
    # Compiled now, because the plugin starts with every run; and never checked again, because a build's
    # files do not change.
    compileall.compile_dir(
        library, quiet=2, workers=0, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
    )
    check = subprocess.run(  # noqa: S603  # our own words, no shell
        [wanted.python, "-I", "-S", "-B", str(temporary / "start.py"), "--version"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd="/",
    )
    if check.returncode:
        message = f"keadb's own command plugin does not start with {wanted.python}:\n{check.stderr.strip()}"
        raise ToolchainError(message)
    (temporary / _DONE).touch()
    shutil.rmtree(wanted.folder, ignore_errors=True)
    temporary.replace(wanted.folder)
    _prune(wanted)


def _copy_package(name: str, library: Path) -> None:
    """Copy an installed package's modules: what its RECORD lists inside site-packages."""
    for file in importlib.metadata.files(name) or []:
        if ".." in file.parts or "__pycache__" in file.parts:
            continue
        source = Path(str(file.locate()))
        if not source.is_file():
            continue
        target = library.joinpath(*file.parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def _prune(wanted: Plan) -> None:
    """Keep the newest builds: other checkouts may still use theirs."""
    builds = [entry for entry in paths.plugin_builds().iterdir() if not entry.name.startswith(".")]
    builds.sort(key=lambda entry: entry.stat().st_mtime, reverse=True)
    for old in [entry for entry in builds[_KEPT_BUILDS:] if entry != wanted.folder]:
        shutil.rmtree(old, ignore_errors=True)
