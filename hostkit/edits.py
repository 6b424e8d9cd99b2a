"""What people change by hand: told with the difference, accepted, or put back. Never silently undone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hostkit import applied, bundle, difference, packages, placing, units
from hostkit.errors import BadInput, Refused, during
from hostkit.known import Known, accepted, forget_accepted, look, remember_accepted
from hostkit.pending import Pending

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from hostkit.context import Context

_SHOWN_LINES = 60
"""Of the differences in a refusal, all its files together; ``check`` tells them whole."""


def refuse(
    ctx: Context, known: Known, wanted: Iterable[placing.Placement], changing: Collection[str], host: str
) -> None:
    """Refuse to write over files that somebody edited since they were applied; reads only.

    A file that is already as wanted is no reason to refuse: somebody did by hand what the bundle says now.
    """
    edited = {
        item.path: found for item in wanted if item.path in changing and (found := known.edits(ctx, item.path, item))
    }
    if edited:
        raise Refused(message(ctx, known, edited, host, "write over"))


def message(ctx: Context, known: Known, edited: Mapping[str, list[str]], host: str, verb: str) -> str:
    """Return what was edited by hand, with differences, and how to go on."""
    many = len(edited) > 1
    what = f"{len(edited)} file{'s' if many else ''} of {host}, edited since keadb wrote {'them' if many else 'it'}"
    lines = [f"nothing was changed: this would {verb} {what}"]
    room, left = _SHOWN_LINES, 0
    for path in sorted(edited):
        differing = shown(ctx, known, path)
        lines += [f"{host}:{path}: {', '.join(edited[path])}", *differing[:room]]
        left += len(differing[room:])
        room = max(0, room - len(differing))
    if left:
        lines.append(f"... and {left} more lines of differences: 'keadb drift --stack STACK' shows all of them")
    example = f"{host}:{min(edited)}"
    lines += [
        "To keep an edit, put it into the site file (or the template) first. Otherwise one of",
        f"  keadb drift --stack STACK --restore {example}   puts back what was applied",
        f"  keadb drift --stack STACK --accept {example}   seen: the next run may {verb} it",
    ]
    return "\n".join(lines)


def shown(ctx: Context, known: Known, path: str) -> list[str]:
    """Return the difference between a bundle's file as applied and as it is; empty where there is none to show."""
    seen = look(ctx, path)
    if seen.kind == "other":
        return []
    for record in known.records.values():
        if path in record.bundle.files:
            data = seen.data if seen.kind == "file" else None
            return difference.unified(ctx, path, record.bundle.files[path].content, data)
    return []


def accept(ctx: Context, paths: Iterable[str]) -> dict[str, Any]:
    """Remember these files as they are now: the next apply may write over them, ``check`` counts them as known.

    BadInput for a path that no applied bundle places as a file; Refused for what is not a plain file. A file that
    is as it was applied is left out. Nothing on the host changes but the note. The caller holds the lock.
    """
    known, states = Known.load(ctx), accepted(ctx)
    done = []
    for path in paths:
        if not any(path in record.bundle.files for record in known.records.values()):
            msg = f"{path}: given is not a file that an applied bundle places on this host; see the verb 'check'"
            raise BadInput(msg)
        seen = look(ctx, path)
        if seen.kind == "other":
            msg = f"{path} is not a plain file and is never written over; remove it by hand"
            raise Refused(msg)
        if known.drift(ctx, path, seen):
            states[path] = seen.state()
            done.append(path)
    if done:
        remember_accepted(ctx, states)
    return {"changed": bool(done), "accepted": done}


def restore(ctx: Context, names: Iterable[str]) -> dict[str, Any]:
    """Put files, units (``x.service``) and packages back to what was applied; the caller holds the lock.

    Units that read a file are reloaded or restarted by their rules; one of a cluster is never restarted here, only
    named in ``waiting``. Named itself, a member that ran before is started again, as a reboot would; one that never
    did is left to its cluster-level step. BadInput for what no applied bundle has; Refused while a bundle's last
    run has not come to its end, and for a file whose secrets have changed since.
    """
    known = Known.load(ctx)
    found = [(name, _owner(known, name)) for name in names]
    answer: dict[str, Any] = {"files": {}, "units": {}, "packages": [], "waiting": []}
    for name, record in found:
        with during(f"restoring {name}"):
            if name.startswith("/"):
                _restore_file(ctx, record, name, answer)
            elif name in record.bundle.units:
                _restore_unit(ctx, record.bundle, name, answer)
            else:
                _restore_package(ctx, record.bundle, name, answer)
    return {**answer, "changed": bool(answer["files"] or answer["units"] or answer["packages"])}


def _owner(known: Known, name: str) -> applied.Record:
    for record in known.records.values():
        of_packages = {p.partition("=")[0] for p in (*record.bundle.packages.install, *record.bundle.packages.hold)}
        if name in record.files or name in record.bundle.units or name in of_packages:
            if not _only_restored(known, record):
                msg = (
                    f"{name}: the last run of bundle {record.bundle.name} did not come to its end; run it again first"
                )
                raise Refused(msg)
            return record
    msg = f"{name}: given is not a file, unit or package of a bundle applied on this host; see the verb 'check'"
    raise BadInput(msg)


def _only_restored(known: Known, record: applied.Record) -> bool:
    """Say whether nothing newer than the record was begun: no run, or one that was putting files back and was cut."""
    run = known.runs.get(record.bundle.name)
    if run is None:
        return True
    states = ((path, state) for path, of_path in run.about.items() for state in of_path)
    return bool(run.about) and not run.units and all(state == record.files.get(path) for path, state in states)


def _restore_file(ctx: Context, record: applied.Record, path: str, answer: dict[str, Any]) -> None:
    item = next(i for i in placing.placements(ctx, record.bundle) if i.path == path)
    if path in record.bundle.files and item.record() != record.files[path]:
        msg = "its secrets have changed since it was applied; accept it, then run 'keadb up'"
        raise Refused(msg)
    todo = Pending.load(ctx, record.bundle.name)
    watching = record.bundle.units
    if placing.changes(ctx, [item]):
        todo.daemon_reload = todo.daemon_reload or path.startswith(units.FILES)
        todo.restart |= {n for n, u in watching.items() if u.start == bundle.NOW and path in u.restart_on}
        todo.reload |= {n for n, u in watching.items() if path in u.reload_on}
        todo.expect([(path, item.record())])
        todo.save(ctx)
        units.record_due(ctx, watching, {path})
    elif path not in todo.about:  # there: an earlier restore was cut after it had written the file
        return
    answer["files"].update(placing.place(ctx, [item]))
    concerned = {n: u for n, u in watching.items() if n in todo.restart | todo.reload}
    answer["units"].update(units.converge(ctx, concerned, todo))
    theirs = [n for n, u in watching.items() if u.start != bundle.NOW and path in u.restart_on]
    answer["waiting"] += [n for n, s in units.states(ctx, theirs).items() if s.running]
    forget_accepted(ctx, [path])
    todo.about.pop(path, None)
    todo.save(ctx)


def _restore_unit(ctx: Context, owner: bundle.Bundle, name: str, answer: dict[str, Any]) -> None:
    unit = owner.units[name]
    answer["units"].update(units.converge(ctx, {name: unit}, Pending.load(ctx, owner.name)))
    state = units.states(ctx, [name])[name]
    if unit.start == bundle.NOW or state.running:
        return
    if not state.ran:
        msg = "it was never started here: its cluster-level step does that, run 'keadb up'"
        raise Refused(msg)
    if state.active == "failed":
        units.systemctl(ctx, "reset-failed", "--", name)
    # A member may wait for the others for long; whether it is healthy is told by 'keadb status'.
    units.systemctl(ctx, "start", "--no-block", "--", name)
    answer["units"][name] = "started"


def _restore_package(ctx: Context, owner: bundle.Bundle, name: str, answer: dict[str, Any]) -> None:
    wanted = bundle.Packages(
        install=tuple(p for p in owner.packages.install if p.partition("=")[0] == name),
        hold=tuple(p for p in owner.packages.hold if p == name),
        mask=owner.packages.mask,
    )
    installing = bool(packages.missing(ctx, wanted.install))
    if installing:
        units.mask(ctx, wanted.mask, owner.units, installing=True)
    answer["packages"] += packages.converge(ctx, wanted)
    if installing:  # takes away the masks that were only for the installation
        answer["units"].update(units.converge(ctx, owner.units, Pending.load(ctx, owner.name)))
