"""The engine's `command` plugin: the official one where it can be had, else keadb's own.

Order: already the official one in keadb's PULUMI_HOME; a copy of the one in the caller's own Pulumi
installation; a short try to download it; else ours, which serves exactly `remote.Command`
(toolchain/command_plugin, built by toolchain/plugin_build.py).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from toolchain import locks, paths, plugin_build, versions

if TYPE_CHECKING:
    from collections.abc import Callable

    from toolchain.cli import Cli

EXECUTABLE = "pulumi-resource-command"
_MARKER = "keadb-plugin.json"
_TRY_SECONDS = 10
_REMEMBER_SECONDS = 24 * 3600
OFFICIAL = f"official {versions.COMMAND_PLUGIN}"
OWN = "keadb's own"


def which() -> str:
    """Tell which plugin is installed in keadb's PULUMI_HOME: OFFICIAL, OWN or "none"."""
    folder = paths.plugin_dir()
    if not os.access(folder / EXECUTABLE, os.X_OK):
        return "none"
    return OWN if (folder / _MARKER).exists() else OFFICIAL


def ensure(cli: Cli, report: Callable[[str], None]) -> str:
    """Install a command plugin if none, or an outdated one of ours, is there; return what `which` says.

    KEADB_OFFLINE=1 skips the try to download. A failed try is remembered for a day.
    """
    with locks.exclusive(
        paths.cache_dir() / "command-plugin.lock",
        waiting=lambda: report("another run is installing the command plugin: waiting for it"),
    ):
        if which() == OFFICIAL:
            return OFFICIAL
        source = _in_callers_home() or _download(cli, report)
        if source is not None:
            _install_official(source)
            report(f"command plugin: {OFFICIAL}")
            return OFFICIAL
        _ensure_own(report)
        return OWN


def _in_callers_home() -> Path | None:
    """Return the official plugin of the caller's own Pulumi installation, if it has one."""
    home = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")
    folder = home / "plugins" / paths.plugin_dir().name
    executable = folder / EXECUTABLE
    ours = (folder / _MARKER).exists() or folder.with_name(f"{folder.name}.partial").exists()
    return executable if os.access(executable, os.X_OK) and not ours else None


def _tried_lately() -> bool:
    try:
        tried = json.loads(_memory().read_text(encoding="utf-8"))["failed_at"]
        return 0 <= time.time() - float(tried) < _REMEMBER_SECONDS
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _memory() -> Path:
    return paths.cache_dir() / "official-plugin-try.json"


def _download(cli: Cli, report: Callable[[str], None]) -> Path | None:
    """Try `pulumi plugin install` for at most 10 s, into a folder of its own; None if that gives none."""
    if os.environ.get("KEADB_OFFLINE") == "1" or _tried_lately():
        return None
    report(f"trying to download the official command plugin {versions.COMMAND_PLUGIN} (at most {_TRY_SECONDS} s)")
    home = paths.cache_dir() / "official-plugin"
    shutil.rmtree(home, ignore_errors=True)
    environment = {**os.environ, "PULUMI_HOME": str(home), "PULUMI_SKIP_UPDATE_CHECK": "true"}
    environment.pop("PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION", None)
    # The last line of what it prints says why it failed; its retries are of no interest.
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        try:
            code = subprocess.run(  # noqa: S603  # our own words, no shell
                [str(cli.path), "plugin", "install", "resource", "command", versions.COMMAND_PLUGIN],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=_TRY_SECONDS,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            code = None
        log.seek(0)
        lines = [line.strip() for line in log if line.strip()]
    executable = home / "plugins" / paths.plugin_dir().name / EXECUTABLE
    if code == 0 and os.access(executable, os.X_OK):
        return executable
    report(f"  not to be had ({'no answer in time' if code is None else lines[-1] if lines else code})")
    report("  keadb's own command plugin is used; the next try is in a day")
    _memory().write_text(json.dumps({"failed_at": time.time()}), encoding="utf-8")
    return None


def _install_official(source: Path) -> None:
    folder = paths.plugin_dir()
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{EXECUTABLE}.{os.getpid()}"
    shutil.copy(source, temporary)
    temporary.replace(folder / EXECUTABLE)
    (folder / _MARKER).unlink(missing_ok=True)


def _ensure_own(report: Callable[[str], None]) -> None:
    """Place the wrapper script of our plugin as built from this checkout's sources, unless it is there."""
    folder = paths.plugin_dir()
    wanted = plugin_build.plan()
    script = wanted.wrapper()
    try:
        if (folder / EXECUTABLE).read_text(encoding="utf-8") == script and wanted.complete():
            return
    except (OSError, UnicodeDecodeError):
        pass  # nothing there yet, or a broken one: place ours
    plugin_build.build(wanted, report)
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / _MARKER, json.dumps({"digest": wanted.digest}) + "\n", mode=0o644)
    _replace(folder / EXECUTABLE, script, mode=0o755)
    report(f"command plugin: {OWN} ({wanted.digest})")


def _replace(path: Path, text: str, *, mode: int) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.chmod(mode)
    temporary.replace(path)
