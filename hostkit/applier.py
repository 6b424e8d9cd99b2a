"""Bringing a bundle into force, and new certificates into the places where applied bundles want them.

Order of an apply: validate, right host, what would change, refusals; only then masks, packages, the plan of
restarts on disk, users and directories, TLS and files, units, steps, probes, the record. Cut anywhere, the next
run of the same bundle ends in the same state.

Not done here: overwriting is not refused for files that drifted, and what a newer bundle lacks is not removed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hostkit import applied, packages, steps, store, tls, units
from hostkit import bundle as bundles
from hostkit.errors import Refused, during
from hostkit.pending import Pending
from hostkit.placing import Placement, changes, place, placements, tls_placements

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hostkit.context import Context

HOST = "/etc/keadb/host"
"""Holds the name of this host; placed by the base bundle."""
_SYSUSERS = ("/etc/sysusers.d/", "/usr/lib/sysusers.d/")
_TMPFILES = ("/etc/tmpfiles.d/", "/usr/lib/tmpfiles.d/")
_UNITS = ("/etc/systemd/system/", "/usr/lib/systemd/system/", "/lib/systemd/system/")
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

    Refused (and nothing touched) on the wrong host, for hostile paths, and for a change that would need the
    restart of a running staged unit. Everything else that fails is a HostError that names bundle and step.
    """
    with during(f"bundle {bundle.name}"):
        return _apply(ctx, bundle)


def _apply(ctx: Context, bundle: bundles.Bundle) -> Summary:
    summary = Summary(bundle.name, bundle.host)
    _refuse_other_host(ctx, bundle)
    for name in bundle.secrets:
        store.secret(ctx, name, wanted_by=f"bundle {bundle.name}")
    wanted = placements(ctx, bundle)
    units.refuse_if_running(ctx, bundle.units, set(changes(ctx, wanted)))

    installing = bool(packages.missing(ctx, bundle.packages.install))
    with during("masking"):
        masked = units.mask(ctx, bundle.packages.mask, bundle.units, installing=installing)
        summary.units.update(dict.fromkeys(masked, "masked"))
    summary.packages += packages.converge(ctx, bundle.packages)

    todo = Pending.load(ctx, bundle.name)
    _plan(todo, bundle.units, changes(ctx, wanted))
    todo.save(ctx)
    units.record_due(ctx, bundle.units, set(changes(ctx, wanted)))
    first = [item for item in wanted if item.path.startswith(_SYSUSERS + _TMPFILES)]
    summary.files.update(place(ctx, first))
    _define(ctx, todo)
    summary.files.update(place(ctx, [item for item in wanted if item not in first]))
    summary.units.update(units.converge(ctx, bundle.units, todo))
    summary.steps.update(steps.run_steps(ctx, bundle.steps))
    steps.run_probes(ctx, bundle.probes)
    applied.write(ctx, bundle, wanted)
    return summary


def _refuse_other_host(ctx: Context, bundle: bundles.Bundle) -> None:
    try:
        name = ctx.path(HOST).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return  # the base bundle has yet to place it
    if name != bundle.host:
        msg = f"it is for host {bundle.host!r}, but this is {name!r} ({HOST}); nothing was changed"
        raise Refused(msg)


def _plan(todo: Pending, watching: Mapping[str, bundles.Unit], changing: Mapping[str, str]) -> None:
    """Add to the plan what these changes ask for; an earlier run's plan stays in it."""
    todo.sysusers.update(p for p in changing if p.startswith(_SYSUSERS))
    todo.tmpfiles.update(p for p in changing if p.startswith(_TMPFILES))
    todo.daemon_reload = todo.daemon_reload or any(p.startswith(_UNITS) for p in changing)
    for name, unit in watching.items():
        # The applier never restarts a staged unit (one that runs was refused before) or one of a cluster (recorded).
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

    The caller holds the lock and has had the material validated. Refused before anything is stored when a
    running staged unit would need a restart.
    """
    known = tls.Material.stored(ctx)
    merged = tls.Material(material.ca, {**known.certificates, **material.certificates})
    using = [(r, tls_placements(ctx, r.bundle, merged)) for r in applied.records(ctx) if r.bundle.tls]
    for record, wanted in using:
        with during(f"certificates of bundle {record.bundle.name}"):
            units.refuse_if_running(ctx, record.bundle.units, set(changes(ctx, wanted)))
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
    _plan(todo, bundle.units, changing)
    todo.save(ctx)
    units.record_due(ctx, bundle.units, set(changing))
    done = place(ctx, wanted)
    concerned = {n: u for n, u in bundle.units.items() if n in todo.restart | todo.reload}
    happened = units.converge(ctx, concerned, todo) if concerned else {}
    applied.refresh(ctx, record, wanted)
    return done, happened
