"""Facts for the audit: how the units of the applied bundles run, and who listens. See ``hostkit.audit``."""

from __future__ import annotations

import os
import pwd
import re
from typing import TYPE_CHECKING, Any

from hostkit import applied
from hostkit.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hostkit.context import Context

SECONDS = 30.0
CGROUPS = "/sys/fs/cgroup"
_EXPOSURE = re.compile(r"Overall exposure level for (\S+): ([0-9.]+)")
_PROGRAM = re.compile(r'\(\("([^"]+)"')


def units(ctx: Context, user: str) -> dict[str, Any]:  # noqa: ARG001 -- the parts' common signature
    """Return of each service: ``exposure`` (systemd's own score, 0 to 10) and ``processes``, each kind of them once.

    A timer counts with the service that it starts.
    """
    names = sorted({name.replace(".timer", ".service") for r in applied.records(ctx) for name in r.bundle.units})
    return {name: _unit(ctx, name) for name in names if name.endswith(".service")}


def _unit(ctx: Context, name: str) -> dict[str, Any]:
    said = ctx.system.run(["systemd-analyze", "security", "--no-pager", name], timeout=SECONDS, check=False)
    score = _EXPOSURE.search(said.stdout)
    shown = ctx.system.run(["systemctl", "show", "--property=ControlGroup,ActiveState", name], timeout=SECONDS)
    state = dict(line.partition("=")[::2] for line in shown.stdout.splitlines())
    group = state.get("ControlGroup", "")
    kinds = {str(found): found for found in _processes(ctx, group)}
    return {
        "active": state.get("ActiveState", ""),
        "exposure": float(score[2]) if score else None,
        "processes": [kinds[key] for key in sorted(kinds)],
    }


def _processes(ctx: Context, group: str) -> Iterable[dict[str, Any]]:
    if not group:
        return
    for folder, _, _ in os.walk(ctx.path(f"{CGROUPS}{group}")):
        with open(f"{folder}/cgroup.procs", encoding="ascii") as listed:  # noqa: PTH123 - a kernel's file
            pids = listed.read().split()
        for pid in pids:
            try:
                found = process(ctx, pid)
            except OSError:  # it ended meanwhile
                continue
            if not found["name"].startswith("("):  # systemd's own child, which has yet to become the service
                yield found


def process(ctx: Context, pid: str) -> dict[str, Any]:
    """Return how one process is confined, as the kernel says; OSError when it ended."""
    lines = ctx.path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
    status = dict(line.partition(":\t")[::2] for line in lines)
    limits = ctx.path(f"/proc/{pid}/limits").read_text(encoding="ascii").splitlines()
    core = next(line.split()[4:6] for line in limits if line.startswith("Max core file size"))
    names = ctx.path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return {
        "name": status["Name"],
        "user": _user(int(status["Uid"].split()[1])),
        "no_new_privileges": status["NoNewPrivs"].strip() == "1",
        "filtered": status["Seccomp"].strip() == "2",
        "capabilities": status["CapEff"].strip().lstrip("0") or "0",
        "bounding": status["CapBnd"].strip().lstrip("0") or "0",
        "umask": status["Umask"].strip(),
        "core": "none" if core == ["0", "0"] else "/".join(core),
        "password_in_environment": any(name.startswith((b"PGPASSWORD=", b"PATRONI_")) for name in names),
    }


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def sockets(ctx: Context, user: str) -> list[dict[str, Any]]:  # noqa: ARG001 -- the parts' common signature
    """Return everything that waits for others on the network: ``protocol``, ``address``, ``port``, ``program``."""
    said = ctx.system.run(["ss", "-H", "-l", "-n", "-t", "-u", "-p"], timeout=SECONDS).stdout
    found = []
    for line in said.splitlines():
        words = line.split(maxsplit=6)
        if len(words) < 5:  # noqa: PLR2004 - protocol, state, two queues, address
            msg = f"ss gave a line that is none: {line[:80]!r}"
            raise HostError(msg)
        address, _, port = words[4].rpartition(":")
        program = _PROGRAM.search(line)
        found.append(
            {
                "protocol": words[0],
                "address": address.strip("[]").partition("%")[0],
                "port": int(port),
                "program": program[1] if program else "",
            }
        )
    return found
