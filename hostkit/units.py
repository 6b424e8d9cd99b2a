"""systemd units: enabled, started, restarted or reloaded only where something asks for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hostkit import bundle as bundles
from hostkit import due
from hostkit.errors import CommandFailed, HostError, during
from hostkit.store import redact
from hostkit.system import last_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from hostkit.context import Context
    from hostkit.pending import Pending

LIMIT = 120.0
"""Seconds for one systemctl call; a unit's own TimeoutStartSec should be shorter."""
SETTLE = 1.0
"""Seconds after which a unit that was started must still be active: most bad configurations show by then."""
FILES = ("/etc/systemd/system/", "/usr/lib/systemd/system/", "/lib/systemd/system/")
"""Where definitions of units lie: a change there needs a reload of systemd."""
JOURNAL_LINES = 15
_PROPERTIES = "Id,LoadState,ActiveState,SubState,UnitFileState,Type,Result,ExecMainStartTimestampMonotonic"
_ACTIVE = frozenset(["active", "reloading", "refreshing"])


@dataclass(frozen=True)
class State:
    """What systemd says of a unit."""

    load: str
    active: str
    sub: str
    file: str
    done: bool
    """A one-shot unit that ran to a good end and does not stay active."""
    ran: bool
    """It was started at least once since the machine's own start."""

    @property
    def running(self) -> bool:
        """Whether it does, or did, what it is for."""
        return self.active in _ACTIVE or self.done


def systemctl(ctx: Context, *argv: str, timeout: float = LIMIT) -> str:
    """Run systemctl and return its output; a HostError carries systemctl's message."""
    return ctx.system.run(["systemctl", *argv], timeout=timeout).stdout


def states(ctx: Context, names: Iterable[str]) -> dict[str, State]:
    """Return the state of each unit, in one call; a unit that does not exist has ``load`` "not-found"."""
    names = list(names)
    if not names:
        return {}
    text = systemctl(ctx, "show", f"--property={_PROPERTIES}", "--", *names)
    blocks = [dict(line.partition("=")[::2] for line in b.splitlines()) for b in text.strip().split("\n\n")]
    if len(blocks) != len(names):
        msg = f"systemctl show: asked for {len(names)} units, got {len(blocks)}"
        raise HostError(msg)
    return {name: _state(block) for name, block in zip(names, blocks, strict=True)}


def _state(block: Mapping[str, str]) -> State:
    ran = block.get("ExecMainStartTimestampMonotonic", "0") not in {"", "0"}
    active = block.get("ActiveState", "")
    return State(
        load=block.get("LoadState", ""),
        active=active,
        sub=block.get("SubState", ""),
        file=block.get("UnitFileState", ""),
        done=block.get("Type") == "oneshot" and active == "inactive" and ran and block.get("Result") == "success",
        ran=ran,
    )


def mask(ctx: Context, wanted: Sequence[str], own: Iterable[str], *, installing: bool) -> list[str]:
    """Mask units before a package could start them, and stop those that run; return those newly masked.

    A unit that the bundle itself manages (``own``) is masked only in /run, only while packages are installed, and
    never stopped; ``converge`` takes that mask away. One that runs is left alone: masked, it could not come back
    after a crash. Packages do not restart it either, the base system's policy sees to that.
    """
    own = set(own)
    others = [n for n in wanted if n not in own]
    forever = [n for n in others if not null_link(ctx, f"/etc/systemd/system/{n}")]
    for_now = [n for n in wanted if n in own and not null_link(ctx, f"/run/systemd/system/{n}")]
    if forever:
        systemctl(ctx, "mask", "--", *forever)
    # Not "mask --now": it fails for units that no package brought yet, and a cut run may have masked only.
    # A template (x@.service) can't run.
    running = [n for n, s in states(ctx, (n for n in others if "@." not in n)).items() if s.active in _ACTIVE]
    if running:
        systemctl(ctx, "stop", "--", *running)
    if for_now and installing:
        idle = [n for n, s in states(ctx, for_now).items() if s.active in {"inactive", "failed"}]
        if idle:
            systemctl(ctx, "mask", "--runtime", "--", *idle)
    return forever


def null_link(ctx: Context, path: str) -> bool:
    """Say whether this is the link by which a unit is masked."""
    link = ctx.path(path)
    return link.is_symlink() and str(link.readlink()) == "/dev/null"


def record_due(ctx: Context, units: Mapping[str, bundles.Unit], changing: set[str]) -> None:
    """Record, before anything is written, which ``cluster`` units run and will have to be restarted for it."""
    at_stake = {
        name: changing.intersection(unit.restart_on)
        for name, unit in units.items()
        if unit.start == bundles.CLUSTER and changing.intersection(unit.restart_on)
    }
    for name, state in states(ctx, at_stake).items():
        # One that does not run reads the new files when it starts. A crash loop may start between now and then.
        if state.active not in {"inactive", "failed"}:
            due.add(ctx, name, at_stake[name])


def converge(ctx: Context, units: Mapping[str, bundles.Unit], todo: Pending) -> dict[str, str]:
    """Bring units into force and strike off ``todo`` what was done; return what happened to which unit.

    ``now`` units end enabled and active, restarted or reloaded if ``todo`` says so. ``cluster`` ones
    are enabled, reloaded when they run, and never started or restarted.
    """
    if todo.daemon_reload:
        systemctl(ctx, "daemon-reload")
        todo.daemon_reload = False
        todo.save(ctx)
    happened = _enable(ctx, units)
    started = []
    for name, state in states(ctx, units).items():
        action = _action(units[name], state, restart=name in todo.restart, reload=name in todo.reload)
        if action is not None:
            ctx.say(f"{name}: {action}")
            with during(f"unit {name}: {action}"):
                if state.active == "failed":
                    systemctl(ctx, "reset-failed", "--", name)  # else its start limit may still hold
                _act(ctx, name, action)
            happened[name] = f"{action}ed"
            if action != "reload":
                started.append(name)
        if name in todo.restart | todo.reload:
            todo.restart.discard(name)
            todo.reload.discard(name)
            todo.save(ctx)
    if started:
        _verify(ctx, started)
    return happened


def _enable(ctx: Context, units: Mapping[str, bundles.Unit]) -> dict[str, str]:
    now = states(ctx, units)
    hidden = [name for name, state in now.items() if state.file == "masked-runtime"]
    if hidden:
        systemctl(ctx, "unmask", "--runtime", "--", *hidden)
        now = states(ctx, units)
    for name, state in now.items():
        if state.file == "masked" or state.load == "masked":
            msg = f"unit {name} is masked on this host; if that is not wanted any more: systemctl unmask {name}"
            raise HostError(msg)
        if state.load != "loaded":
            msg = f"unit {name} cannot be used: systemd says {state.load or 'nothing'} of its file"
            raise HostError(msg)
    off = [name for name, state in now.items() if state.file in {"disabled", "enabled-runtime", "linked"}]
    if off:
        systemctl(ctx, "enable", "--", *off)
    return dict.fromkeys(off, "enabled")


def _action(unit: bundles.Unit, state: State, *, restart: bool, reload: bool) -> str | None:
    if unit.start != bundles.NOW:
        return "reload" if reload and state.active in _ACTIVE else None
    if not state.running:
        # In a crash loop a plain start would do nothing now. One that is still on its way (an earlier run was cut
        # while it waited) is only waited for, unless it read the old files.
        looping = state.sub == "auto-restart"
        return "restart" if looping or (restart and state.active == "activating") else "start"
    if restart:
        return "restart"
    return "reload" if reload and state.active in _ACTIVE else None


def _act(ctx: Context, name: str, action: str) -> None:
    try:
        systemctl(ctx, action, "--", name)
    except CommandFailed as e:
        msg = f"{last_lines(str(e), 3)}\nlast journal lines:\n{journal(ctx, name)}"
        raise HostError(msg) from None


def _verify(ctx: Context, names: list[str]) -> None:
    ctx.system.sleep(SETTLE)
    for name, state in states(ctx, names).items():
        if not state.running:
            msg = (
                f"unit {name} was started but is {state.active} ({state.sub}) after {SETTLE:g} s; "
                f"last journal lines:\n{journal(ctx, name)}"
            )
            raise HostError(msg)


def journal(ctx: Context, name: str) -> str:
    """Return the last journal lines of a unit with secrets blanked; never fails."""
    argv = [
        "journalctl",
        f"--unit={name}",
        f"--lines={JOURNAL_LINES}",
        "--no-pager",
        "--output=cat",
        "--quiet",
    ]
    try:
        text = ctx.system.run(argv, timeout=20, check=False).stdout
    except HostError as e:
        return f"(no journal: {e})"
    return redact(ctx, last_lines(text, JOURNAL_LINES)) or "(none)"
