"""Drift: what on this host is not as it was last applied. Reads only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hostkit import bundle as bundles
from hostkit import check_cluster, due, edits, firewall, packages, software, units
from hostkit.errors import CommandTimeout, HostError
from hostkit.known import Known, look

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hostkit.applied import Record
    from hostkit.context import Context

_OFF = frozenset(["disabled", "masked", "masked-runtime", "enabled-runtime", "linked"])
_GUARD_LIMIT = 20
_CLOSED = "firewall-close"
"""The bundle after which the firewall's rules are exactly the declared ones; applied again it puts them back."""


def drift(ctx: Context) -> dict[str, Any]:
    """Return every difference between the host and the applied bundles, and the runs that did not end.

    An item has ``bundle``, ``kind`` (file, tls, unit, package, mask, step, program, rules; of a cluster: member,
    setting, role), ``name``, ``is`` (in words), for files and rules the lines of the ``diff`` without secrets, and
    ``accepted`` when an operator has seen exactly this. ``in_sync`` is true when there is nothing but accepted edits.
    What a run that did not end has written is not drift.
    """
    known = Known.load(ctx)
    found: list[dict[str, Any]] = []
    for name, record in known.records.items():
        for item in _of_bundle(ctx, known, record):
            found.append({"bundle": name, "accepted": False, "diff": [], **item})  # noqa: PERF401 - one item a line
    for item in _programs(ctx):
        found.append({"accepted": False, "diff": [], **item})  # noqa: PERF401 - one item a line
    ended = known.records.keys() - known.runs.keys()
    found += [{"bundle": n, "accepted": False, "diff": [], **item} for n, item in check_cluster.items(ctx, ended)]
    if _CLOSED in ended:
        found += [{"bundle": _CLOSED, "accepted": False, "diff": [], **item} for item in _rules(ctx)]
    unfinished = sorted(known.runs)
    return {
        "bundles": sorted(known.records),
        "in_sync": not unfinished and all(item["accepted"] for item in found),
        "drift": found,
        "unfinished": unfinished,
    }


def _of_bundle(ctx: Context, known: Known, record: Record) -> Iterator[dict[str, Any]]:
    bundle = record.bundle
    for path in sorted(record.files):
        yield from _file(ctx, known, path, "file" if path in bundle.files else "tls")
    for name, what in _units(ctx, bundle.units):
        yield {"kind": "unit", "name": name, "is": what}
    for name, what in _packages(ctx, bundle.packages):
        yield {"kind": "package", "name": name, "is": what}
    for name in bundle.packages.mask:
        if name not in bundle.units and not units.null_link(ctx, f"/etc/systemd/system/{name}"):
            yield {"kind": "mask", "name": name, "is": "not masked"}
    for step in bundle.steps:
        if step.check is not None and not _holds(ctx, step.check):
            yield {"kind": "step", "name": step.name, "is": "what it brought about does not hold any more"}


def _file(ctx: Context, known: Known, path: str, kind: str) -> Iterator[dict[str, Any]]:
    seen = look(ctx, path)
    differs = known.drift(ctx, path, seen)
    if differs:
        item = {"kind": kind, "name": path, "is": ", ".join(differs), "accepted": known.is_accepted(path, seen)}
        yield {**item, "diff": edits.shown(ctx, known, path) if kind == "file" else []}


def _units(ctx: Context, wanted: Mapping[str, bundles.Unit]) -> Iterator[tuple[str, str]]:
    for name, state in units.states(ctx, wanted).items():
        # A unit of a cluster that never ran on this boot waits for its cluster-level step.
        expected = wanted[name].start == bundles.NOW or state.ran
        if state.load != "loaded":
            yield name, state.load or "unknown"
            continue
        if state.file in _OFF:
            yield name, state.file
        if expected and not state.running:
            yield name, f"{state.active} ({state.sub})"
        if paths := due.due(ctx, name):
            yield name, f"its restart is due: it still runs with the former {', '.join(paths)}"


def _packages(ctx: Context, wanted: bundles.Packages) -> Iterator[tuple[str, str]]:
    have = packages.known(ctx, (*wanted.install, *wanted.hold))
    for name in wanted.install:
        package, _, version = name.partition("=")
        _, status, installed = have.get(package, ("", "", ""))
        if status != "installed":
            yield package, "missing"
        elif version not in {"", installed}:
            yield package, f"version {installed} instead of {version}"
    for name in wanted.hold:
        want, status, _ = have.get(name, ("", "", ""))
        if status == "installed" and want != "hold":
            yield name, "not held"


def _programs(ctx: Context) -> Iterator[dict[str, Any]]:
    """Yield the programs that run what was installed before; their bundle is the one whose step restarts them."""
    for key, program in software.state(ctx).items():
        if since := tuple(program["newer"]):
            what = software.told(program["name"], since)
            if key == software.POSTGRESQL:
                what += "; 'keadb restart --rolling' restarts it"
            yield {"bundle": software.RESTARTED_BY[key], "kind": "program", "name": program["name"], "is": what}


def _rules(ctx: Context) -> list[dict[str, Any]]:
    try:
        return list(firewall.drift(ctx))
    except HostError as e:
        return [{"kind": "rules", "name": "firewall", "is": f"could not be compared: {e}"}]


def _holds(ctx: Context, argv: tuple[str, ...]) -> bool:
    try:
        return ctx.system.run(argv, timeout=_GUARD_LIMIT, check=False).returncode == 0
    except CommandTimeout:
        return False
