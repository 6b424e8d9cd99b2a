"""Starts Patroni on this database host and waits until its PostgreSQL runs (verb ``patroni-form``).

Birth: a cluster is only born when every database host has said, through etcd, that its data directory is blank; then
the first host starts and is initialised, and the others start when it is through and copy from it. A host with data,
or of a cluster that was born, simply starts. What a birth that was cut left behind is moved aside, not deleted: etcd
knows that it never came to its end. Nothing of a cluster that was born is ever moved or wiped. A Patroni that has yet
to read what was placed while it ran is restarted in turn (``patroni_turn``); a standby whose data can follow no
leader any more is copied anew where that loses nothing (``patroni_repair``).
"""

from __future__ import annotations

import itertools
import json
import ssl
import sys
from typing import TYPE_CHECKING, Any

from hostkit import (
    due,
    etcd_client,
    files,
    patroni_outdated,
    patroni_plan,
    patroni_repair,
    patroni_turn,
    software,
    units,
)
from hostkit.errors import HostError, Refused
from hostkit.patroni_client import Rest, RestError
from hostkit.patroni_dcs import DECLARED_SECONDS, Dcs

if TYPE_CHECKING:
    from hostkit.context import Context
    from hostkit.patroni_plan import Form

BLANK = "blank"
DATA = "data"
POLL_SECONDS = 1.0
STALL_SECONDS = 120.0
"""Limit for a node that is neither running nor copying: Patroni answers within seconds of its start."""
NOTICE_SECONDS = 15.0
"""Time for a reload that was just made: a few of Patroni's loops, as long as they usually are."""
RELOAD_SECONDS = 130.0
"""Limit for a reload to be taken over: two loops of the longest that a site file may have."""
CRASHES = 5
"""Restarts by systemd after which waiting on makes no sense."""
_COPYING = "creating replica"


def main(ctx: Context, argv: list[str]) -> int:  # noqa: ARG001 - the signature of every verb
    """Start Patroni where it is not running, wait for it, and print the node's role."""
    plan = patroni_plan.form(ctx)
    started = not units.states(ctx, [plan.unit])[plan.unit].running
    if started:
        _before_start(ctx, plan)
        _say(f"starting {plan.unit} on {plan.me.name}")
        _mark(ctx, plan.start_once)
        units.systemctl(ctx, "reset-failed", "--", plan.unit)
        units.systemctl(ctx, "start", "--", plan.unit)
    elif _restarts(ctx, plan) >= CRASHES:
        # Those were before what was just placed, such as the address that its host has by now.
        units.systemctl(ctx, "reset-failed", "--", plan.unit)
    rest = Rest(ctx, plan.cluster)
    # One that was just started has read everything.
    stale = () if started else due.due(ctx, plan.unit) + software.newer(ctx, software.PATRONI)
    if stale:
        patroni_turn.restart(ctx, plan, rest, stale)
    node, copied = _until_running(ctx, plan, rest)
    _mark(ctx, plan.start_always)
    renewed = _until_certificate(ctx, plan, rest)
    if stale:
        patroni_turn.finish(ctx, plan, rest)
    due.clear(ctx, plan.unit)
    patroni_outdated.declare(ctx, plan, rest)
    changed = started or renewed or copied or bool(stale)
    json.dump({"changed": changed, "role": node["role"], "timeline": node.get("timeline")}, sys.stdout)
    sys.stdout.write("\n")
    return 0


def ready(node: dict[str, Any]) -> bool:
    """Say whether a node, by its own words, leads or streams from the leader."""
    if node.get("state") != "running":
        return False
    return node.get("role") == "primary" or node.get("replication_state") == "streaming"


def described(node: dict[str, Any]) -> str:
    """Return what a node says of itself in a few words."""
    if not node:
        return "does not answer yet"
    stream = node.get("replication_state")
    return f"{node.get('role', 'no role')}, {node.get('state', 'no state')}" + (f", {stream}" if stream else "")


def _before_start(ctx: Context, plan: Form) -> None:
    """Return when Patroni may start here; Refused or HostError, with nothing started, when it may not."""
    deadline = ctx.system.monotonic() + plan.birth_seconds
    dcs: Dcs | None = None
    renew_at = 0.0
    said = ""
    while True:
        try:
            dcs = dcs or Dcs(ctx, plan.cluster)
            if dcs.initialized():
                return
            # The beginning of a birth on the host that may be born: its unit does not run, so nor does initdb.
            left_over = plan.first and dcs.birth_was_begun()
            what = DATA if plan.has_data(ctx) and not left_over else BLANK
            if ctx.system.monotonic() >= renew_at:
                dcs.declare(plan.me.name, what)
                renew_at = ctx.system.monotonic() + DECLARED_SECONDS / 3
            if what == DATA:
                return  # a blank peer is not born beside this data; it waits for us to lead
            waiting = _waits_for(plan, dcs)
            if not waiting:
                _undo_birth(ctx, plan, dcs)
                return
        except etcd_client.EtcdError as e:
            dcs = None
            waiting = str(e)
        if waiting != said:
            _say(f"{plan.me.name} waits: {waiting}")
            said = waiting
        if ctx.system.monotonic() >= deadline:
            msg = (
                f"cluster {plan.cluster.scope} was not born within {plan.birth_seconds:g} s: {waiting}; "
                f"nothing was started on {plan.me.name}, a later run goes on from here"
            )
            raise HostError(msg)
        ctx.system.sleep(POLL_SECONDS)


def _undo_birth(ctx: Context, plan: Form, dcs: Dcs) -> None:
    """Make this host and etcd blank again after a birth that was begun and cut; nothing is deleted."""
    if not dcs.birth_was_begun():
        return
    if plan.has_data(ctx):
        folder = ctx.path(plan.data_dir)
        aside = next(
            path
            for n in itertools.count(1)
            if not (path := folder.with_name(f"{folder.name}.cut-birth-{n}")).exists()
        )
        folder.rename(aside)
        _say(f"{plan.me.name}: an earlier birth was cut; what it left was moved to {aside.name}")
    dcs.forget_birth()


def _mark(ctx: Context, path: str) -> None:
    """Make one of the files that let the unit start."""
    files.replace(ctx, path, b"made by keadb-apply patroni-form\n", mode=0o644, owner=files.Owner.root(ctx))


def _waits_for(plan: Form, dcs: Dcs) -> str:
    """Return what a blank host of an unborn cluster still waits for; empty when it may be born."""
    if not plan.first:
        return f"{plan.cluster.members[0].name} is initialised first"
    declared = {m.name: dcs.declared(m.name) for m in plan.others}
    with_data = [name for name, what in declared.items() if what == DATA]
    if with_data:
        return f"{', '.join(with_data)} has a database cluster and must lead first"
    silent = [name for name, what in declared.items() if what != BLANK]
    if silent:
        return f"{', '.join(silent)} has not said yet that its data directory is blank"
    if dcs.get("config") is None:
        msg = f"etcd holds no settings for cluster {plan.cluster.scope}: the bundle patroni-settings puts them there"
        raise Refused(msg)
    return ""


def _until_certificate(ctx: Context, plan: Form, rest: Rest) -> bool:
    """Have Patroni show the certificate that is on disk; say whether that took another reload.

    A reload that finds its file changed too does not look at the certificate (seen with 4.0.7): one that came
    together with other changes would stay out of use, unnoticed until the old one ends.
    """
    reloaded = False
    deadline = ctx.system.monotonic() + NOTICE_SECONDS
    while True:
        wanted = ssl.PEM_cert_to_DER_cert(ctx.path(plan.certificate).read_text(encoding="ascii"))
        try:
            if rest.served_certificate(plan.me) == wanted:
                return reloaded
        except RestError as e:
            _say(str(e))  # a reload restarts the API's listener
        if ctx.system.monotonic() >= deadline:
            if reloaded:
                msg = (
                    f"Patroni on {plan.me.name} does not show the certificate {plan.certificate}, even after a reload"
                )
                raise HostError(msg)
            _say(f"{plan.me.name} still shows an earlier certificate: reloading {plan.unit}")
            units.systemctl(ctx, "reload", "--", plan.unit)
            reloaded = True
            deadline = ctx.system.monotonic() + RELOAD_SECONDS
        ctx.system.sleep(POLL_SECONDS)


def _until_running(ctx: Context, plan: Form, rest: Rest) -> tuple[dict[str, Any], bool]:
    """Return the node when it leads or streams, and whether it was copied anew for that."""
    began = ctx.system.monotonic()
    stalled_since = began
    unfit_since: float | None = None
    copied = False
    said = ""
    while True:
        try:
            node = rest.node(plan.me)
        except RestError:
            node = {}
        if ready(node):
            _say(f"{plan.me.name}: {described(node)}")
            return node, copied
        words = described(node)
        if words != said:
            _say(f"{plan.me.name}: {words}")
            said = words
        now = ctx.system.monotonic()
        if node.get("state") == _COPYING:
            stalled_since = now
        why = "" if copied else patroni_repair.reason(ctx, plan, node)
        if not why:
            unfit_since = None
        elif unfit_since is None:
            unfit_since = now
        elif now - unfit_since >= patroni_repair.CERTAIN_SECONDS:
            patroni_repair.copy_anew(plan, rest, why)
            copied, stalled_since = True, now
        _give_up(ctx, plan, words, began=began, stalled_since=stalled_since)
        ctx.system.sleep(POLL_SECONDS)


def _restarts(ctx: Context, plan: Form) -> int:
    """Return how often systemd has restarted the unit since it was last started or its failures forgotten."""
    said = units.systemctl(ctx, "show", "--property=NRestarts", "--value", "--", plan.unit).strip()
    return int(said) if said.isdigit() else 0


def _give_up(ctx: Context, plan: Form, words: str, *, began: float, stalled_since: float) -> None:
    now = ctx.system.monotonic()
    restarts = _restarts(ctx, plan)
    if restarts >= CRASHES:
        why = f"{plan.unit} has been restarted {restarts} times"
    elif now - stalled_since >= STALL_SECONDS:
        why = f"no progress for {STALL_SECONDS:g} s"
    elif now - began >= plan.copy_seconds:
        why = f"not running after {plan.copy_seconds:g} s"
    else:
        return
    journal = units.journal(ctx, plan.unit)
    if plan.first and not Dcs(ctx, plan.cluster).initialized():
        # Stopped, so that the next run finds a birth that is over and can begin another.
        units.systemctl(ctx, "stop", "--", plan.unit)
        why += f"; the cluster was not born, {plan.unit} was stopped"
    elif words != described({}) and plan.others:
        why += f". If its data can follow no leader any more, 'keadb reinit {plan.me.name}' copies it anew"
    msg = f"{plan.me.name} {words}: {why}; last journal lines:\n{journal}"
    raise HostError(msg)


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
