"""Which programs of the cluster run on this host, and whether one still runs what was installed before.

An upgraded package changes nothing in a process that runs: its restart is due, like that for a changed file, and made
by the same cluster-level step. Nothing is recorded for it: it is read from the process each time, so it holds as well
for a package that somebody upgraded by hand, and for a run that was cut between the installation and the restart.

A program's executable is gone (unlinked) once its package was unpacked anew. What an interpreter runs was loaded when
it started: there, dpkg's list of the package's files must not be younger than the process. A process that uses an
upgraded library is not told: that is needrestart's business.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hostkit import packages, units
from hostkit.errors import HostError

if TYPE_CHECKING:
    from hostkit.context import Context

FOLDER = "/etc/keadb/programs"
"""One file a program, placed by the bundle that installs it."""
ETCD, PATRONI, POSTGRESQL = "etcd", "patroni", "postgresql"
RESTARTED_BY = {ETCD: "etcd-roll", PATRONI: "patroni-form", POSTGRESQL: "patroni-form"}
"""This host's bundle whose step restarts a program in its turn, or asks for it."""
DPKG = "/var/lib/dpkg/info"
FORMAT = 1
_GONE = " (deleted)"


@dataclass(frozen=True)
class Program:
    """A program that runs on and on: its process is that of ``unit``, or the first number in ``pid_file``."""

    name: str
    packages: tuple[str, ...]
    unit: str | None
    pid_file: str | None
    interpreted: bool


def load(ctx: Context) -> dict[str, Program]:
    """Return this host's programs by their keys; HostError for a file that is not readable as one."""
    return {path.stem: _read(f"{FOLDER}/{path.name}", path.read_text()) for path in _files(ctx)}


def newer(ctx: Context, key: str) -> tuple[str, ...]:
    """Return what was installed since the program was started, as "package version"; empty when nothing was.

    Empty as well when it does not run, is not one of this host, or is not installed any more: then a restart would
    be no help.
    """
    program = load(ctx).get(key)
    return () if program is None else _newer(ctx, program)


def state(ctx: Context) -> dict[str, dict[str, Any]]:
    """Return by key: ``name``, ``installed`` (packages with their versions) and ``newer`` (those not yet run)."""
    found = {}
    for key, program in load(ctx).items():
        installed = _installed(ctx, program)
        found[key] = {"name": program.name, "installed": installed, "newer": list(_newer(ctx, program))}
    return found


def told(name: str, since: tuple[str, ...]) -> str:
    """Return in words that a program has to be restarted for what was installed since."""
    return f"{name} still runs what was there before {', '.join(since)} was installed"


def _files(ctx: Context) -> list[Any]:
    return sorted(ctx.path(FOLDER).glob("*.json"))


def _read(path: str, text: str) -> Program:
    try:
        data = json.loads(text)
        if data["format"] != FORMAT:
            msg = f"{path} has format {data['format']!r}, this applier reads format {FORMAT}: bootstrap first"
            raise HostError(msg)
        return Program(
            name=data["name"],
            packages=tuple(data["packages"]),
            unit=data["unit"],
            pid_file=data["pid_file"],
            interpreted=bool(data["interpreted"]),
        )
    except (ValueError, KeyError, TypeError) as e:
        msg = f"{path} does not describe a program ({type(e).__name__}); apply the bundle that places it again"
        raise HostError(msg) from None


def _newer(ctx: Context, program: Program) -> tuple[str, ...]:
    installed = _installed(ctx, program)
    if len(installed) < len(program.packages):
        return ()
    process, started = _process(ctx, program)
    if program.interpreted:
        since = [name for name in installed if started and _unpacked(ctx, name) > started]
        return tuple(f"{name} {installed[name]}" for name in since)
    if not _replaced(ctx, process):
        return ()
    return tuple(f"{name} {version}" for name, version in installed.items()) or ("another executable",)


def _installed(ctx: Context, program: Program) -> dict[str, str]:
    """Return the versions of its packages, those only that are wholly installed."""
    have = packages.known(ctx, program.packages)
    return {name: have[name][2] for name in program.packages if have.get(name, ("", "", ""))[1] == "installed"}


def _process(ctx: Context, program: Program) -> tuple[str, float]:
    """Return the number of its process and, of a unit's, when it was started (seconds since 1970); "0": none."""
    if program.unit is None:
        try:
            lines = ctx.path(str(program.pid_file)).read_text(encoding="ascii", errors="replace").splitlines()
        except FileNotFoundError:
            return "0", 0.0
        return (lines[0].strip() if lines else "0"), 0.0
    asked = ("--property=MainPID", "--property=ExecMainStartTimestamp", "--timestamp=unix")
    said = units.systemctl(ctx, "show", *asked, "--", program.unit)
    found = dict(line.partition("=")[::2] for line in said.splitlines())
    try:
        # Cut to whole seconds: what was unpacked within this one may have been there before. systemd notes the time
        # at the start, so that a clock which was set since does no harm.
        started = float(found.get("ExecMainStartTimestamp", "").removeprefix("@")) + 1
    except ValueError:
        started = 0.0
    process = found.get("MainPID", "0")
    return process, started if process != "0" else 0.0


def _replaced(ctx: Context, process: str) -> bool:
    if not process.isdecimal() or process == "0":
        return False
    try:
        return str(ctx.path(f"/proc/{process}/exe").readlink()).endswith(_GONE)
    except OSError:  # it ended, or a stale pid file names what is none of ours
        return False


def _unpacked(ctx: Context, package: str) -> float:
    """Return when a package's files were unpacked last; dpkg writes their list anew each time."""
    folder = ctx.path(DPKG)
    lists = [folder / f"{package}.list", *folder.glob(f"{package}:*.list")]
    return max((path.stat().st_mtime for path in lists if path.exists()), default=0.0)
