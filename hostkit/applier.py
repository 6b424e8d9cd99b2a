"""Bringing a bundle into force, and new certificates into the places where applied bundles want them.

Order of an apply: validate, right host, what would change, refusals; only then masks, packages, the plan of
restarts on disk, what is to go, users and directories, TLS and files, units, steps, probes, the record. Cut
anywhere, the next run of the same bundle, or of a newer one, ends in the same state.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hostkit import applied, edits, files, packages, prune, steps, store, tls, units
from hostkit import bundle as bundles
from hostkit.errors import BadInput, HostError, Refused, during
from hostkit.known import Known, forget_accepted, look
from hostkit.pending import Pending
from hostkit.placing import Placement, changes, place, placements, tls_placements

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hostkit.context import Context

HOST = "/etc/keadb/host"
"""Holds the name of this host; placed by the base bundle."""
_SYSUSERS = ("/etc/sysusers.d/", "/usr/lib/sysusers.d/")
_TMPFILES = ("/etc/tmpfiles.d/", "/usr/lib/tmpfiles.d/")
_DEFINITIONS_LIMIT = 60


@dataclass
class Summary:
    """What an apply did; ``changed`` false means that nothing on the host was touched."""

    bundle: str
    host: str
    files: dict[str, str] = field(default_factory=dict)
    packages: list[str] = field(default_factory=list)
    units: dict[str, str] = field(default_factory=dict)
    steps: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return it as the program reads it."""
        changed = bool(self.files or self.packages or self.units or steps.RAN in self.steps.values())
        return {**vars(self), "changed": changed}


def apply(ctx: Context, bundle: bundles.Bundle) -> Summary:
    """Bring the bundle into force. The caller holds the lock.

    Refused (and nothing touched) on the wrong host, for hostile paths, for a file that somebody edited since it was
    applied, and for a running unit of a cluster that the bundle no longer has. Everything else that fails is a
    HostError that names bundle and step.
    """
    with during(f"bundle {bundle.name}"):
        return _apply(ctx, bundle)


def apply_again(ctx: Context, name: str) -> Summary:
    """Apply a bundle as it was last applied; BadInput when it never was. The caller holds the lock."""
    record = next((r for r in applied.records(ctx) if r.bundle.name == name), None)
    if record is None:
        msg = f"bundle {name!r}: given is none that is applied on this host; see the verb 'version'"
        raise BadInput(msg)
    return apply(ctx, record.bundle)


@dataclass(frozen=True)
class _Plan:
    """What an apply is about to do; making it reads only, and raises every refusal there is."""

    wanted: list[Placement]
    leaving: prune.Leaving
    units: Mapping[str, bundles.Unit]
    """The bundle's, which also watch what is to go and they watched before."""
    new: bool
    """Whether something is to be noted before the first change."""

    found: Mapping[str, Mapping[str, Any]]
    """What stood, before keadb ever came, where the bundle places a file."""

    def before(self, path: str) -> list[tuple[str, Mapping[str, Any]]]:
        """Return the state to expect when a run is cut before it writes a path for the first time."""
        return [(path, self.found[path])] if path in self.found else []

    def changing(self, ctx: Context) -> dict[str, str]:
        """Return which paths change, and how."""
        return {**changes(ctx, self.wanted), **dict.fromkeys(self.leaving.paths, prune.REMOVED)}


def _planned(ctx: Context, bundle: bundles.Bundle) -> _Plan:
    refuse_other_host(ctx, "it", bundle.host)
    for name in bundle.secrets:
        store.secret(ctx, name, wanted_by=f"bundle {bundle.name}")
    wanted = placements(ctx, bundle)
    known = Known.load(ctx)
    keep = {item.path for item in wanted}
    leaving = prune.leaving(ctx, known, bundle.name, keep_paths=keep, keep_units=bundle.units)
    for item in wanted:
        blocked = files.in_the_way(ctx, item.path)
        if blocked is not None and blocked not in leaving.paths:
            msg = (
                f"nothing was changed: {blocked} is not a folder, and {item.path} would lie in it; remove it by hand"
            )
            raise Refused(msg)
    record = known.records.get(bundle.name)
    had = set(record.bundle.units) if record else set()
    watching = {name: _watching(unit, leaving, name) for name, unit in bundle.units.items()}
    new = bool(leaving.units or set(bundle.units) - had)
    found = {path: look(ctx, path).before() for path in sorted(keep) if not known.recorded(path)}
    plan = _Plan(wanted, leaving, watching, new, {path: state for path, state in found.items() if state})
    changing = plan.changing(ctx)
    edits.refuse(ctx, known, (i for i in wanted if i.path in bundle.files), changing, bundle.host)
    prune.refuse(ctx, known, [leaving], bundle.host)
    return plan


def _watching(unit: bundles.Unit, leaving: prune.Leaving, name: str) -> bundles.Unit:
    old = leaving.watchers.get(name)
    if old is None:
        return unit
    restart, reload = (tuple(p for p in paths if p in leaving.paths) for paths in (old.restart_on, old.reload_on))
    return dataclasses.replace(unit, restart_on=unit.restart_on + restart, reload_on=unit.reload_on + reload)


def would_refuse(ctx: Context, bundle: bundles.Bundle) -> str | None:
    """Return why an apply of this bundle would be refused now, None when it would not; reads only.

    None also where it cannot be told yet: secrets or certificates of the next run may not be here.
    """
    try:
        _planned(ctx, bundle)
    except Refused as e:
        return str(e)
    except HostError:
        return None
    return None


def _apply(ctx: Context, bundle: bundles.Bundle) -> Summary:
    summary = Summary(bundle.name, bundle.host)
    plan = _planned(ctx, bundle)

    installing = bool(packages.missing(ctx, bundle.packages.install))
    with during("masking"):
        masked = units.mask(ctx, bundle.packages.mask, bundle.units, installing=installing)
        summary.units.update(dict.fromkeys(masked, "masked"))
    summary.packages += packages.converge(ctx, bundle.packages)

    todo = Pending.load(ctx, bundle.name)
    for path in todo.about:
        files.sweep(ctx, path)
    changing = plan.changing(ctx)
    _note(todo, plan, changing)
    todo.save(ctx)
    units.record_due(ctx, plan.units, set(changing))
    removed, stopped = prune.carry_out(ctx, plan.leaving)
    summary.files.update(removed)
    summary.units.update(stopped)
    first = [item for item in plan.wanted if item.path.startswith(_SYSUSERS + _TMPFILES)]
    summary.files.update(place(ctx, first))
    _define(ctx, todo)
    summary.files.update(place(ctx, [item for item in plan.wanted if item not in first]))
    summary.units.update(units.converge(ctx, bundle.units, todo))
    summary.steps.update(steps.run_steps(ctx, bundle.steps))
    steps.run_probes(ctx, bundle.probes)
    applied.write(ctx, bundle, plan.wanted)
    forget_accepted(ctx, (*bundle.files, *plan.leaving.paths))
    todo.ended(ctx)
    return summary


def _note(todo: Pending, plan: _Plan, changing: Mapping[str, str]) -> None:
    """Put into the plan on disk what is about to change, so that a cut run is never taken for somebody's edit."""
    _acts(todo, plan.units, changing)
    for item in plan.wanted:
        if item.path in changing:
            todo.expect([*plan.before(item.path), (item.path, item.record())])
    if changing or plan.new:
        todo.units.update({name: unit.start for name, unit in plan.units.items()})
    prune.expect(todo, plan.leaving)


def refuse_other_host(ctx: Context, what: str, host: str) -> None:
    """Refuse what is meant for another host than this one."""
    try:
        name = ctx.path(HOST).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return  # the base bundle has yet to place it
    if name != host:
        msg = f"{what} is for host {host!r}, but this is {name!r} ({HOST}); nothing was changed"
        raise Refused(msg)


def _acts(todo: Pending, watching: Mapping[str, bundles.Unit], changing: Mapping[str, str]) -> None:
    """Add to the plan what these changes ask for; an earlier run's plan stays in it."""
    todo.sysusers.update(p for p in changing if p.startswith(_SYSUSERS))
    todo.tmpfiles.update(p for p in changing if p.startswith(_TMPFILES))
    todo.daemon_reload = todo.daemon_reload or any(p.startswith(units.FILES) for p in changing)
    for name, unit in watching.items():
        # The applier never restarts a unit of a cluster: that it is due is recorded.
        if unit.start == bundles.NOW and not changing.keys().isdisjoint(unit.restart_on):
            todo.restart.add(name)
        if not changing.keys().isdisjoint(unit.reload_on):
            todo.reload.add(name)
    # A unit that the bundle no longer names can't be acted on.
    todo.restart &= set(watching)
    todo.reload &= set(watching)


def _define(ctx: Context, todo: Pending) -> None:
    """Make users and directories from their definition files, users first."""
    present = {path for path in todo.sysusers | todo.tmpfiles if ctx.path(path).exists()}
    if todo.sysusers & present:
        with during("systemd-sysusers"):
            ctx.system.run(["systemd-sysusers", *sorted(todo.sysusers & present)], timeout=_DEFINITIONS_LIMIT)
    if todo.tmpfiles & present:
        argv = ["systemd-tmpfiles", "--create", *sorted(todo.tmpfiles & present)]
        with during("systemd-tmpfiles"):
            ctx.system.run(argv, timeout=_DEFINITIONS_LIMIT)
    if todo.sysusers or todo.tmpfiles:
        todo.sysusers.clear()
        todo.tmpfiles.clear()
        todo.save(ctx)


def certify(ctx: Context, material: tls.Material) -> dict[str, Any]:
    """Store certificates and put them where applied bundles use them, by the rules of their units.

    The caller holds the lock and has had the material validated.
    """
    known = tls.Material.stored(ctx)
    merged = tls.Material(material.ca, {**known.certificates, **material.certificates})
    using = [(r, tls_placements(ctx, r.bundle, merged)) for r in applied.records(ctx) if r.bundle.tls]
    stored = tls.store(ctx, material)
    done: dict[str, str] = {}
    happened: dict[str, str] = {}
    for record, wanted in using:
        with during(f"certificates of bundle {record.bundle.name}"):
            replaced, acted = _recertify(ctx, record, wanted)
        done.update(replaced)
        happened.update(acted)
    return {"changed": bool(stored or done or happened), "stored": stored, "files": done, "units": happened}


def _recertify(
    ctx: Context, record: applied.Record, wanted: list[Placement]
) -> tuple[dict[str, str], dict[str, str]]:
    bundle = record.bundle
    changing = changes(ctx, wanted)
    todo = Pending.load(ctx, bundle.name)
    _acts(todo, bundle.units, changing)
    todo.save(ctx)
    units.record_due(ctx, bundle.units, set(changing))
    done = place(ctx, wanted)
    concerned = {n: u for n, u in bundle.units.items() if n in todo.restart | todo.reload}
    happened = units.converge(ctx, concerned, todo) if concerned else {}
    applied.refresh(ctx, record, wanted)
    return done, happened
