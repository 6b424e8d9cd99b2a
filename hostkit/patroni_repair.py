"""A standby that can follow its leader no more: found by PostgreSQL's own words, copied anew where nothing is lost.

``up`` asks for it: the verb ``version`` tells the reason, ``patroni-form`` acts on it. Only under a leader that runs,
never while somebody holds the cluster (paused), and never a copy whose history is ahead of the leader's: that one may
hold what the leader does not have, and a person decides (``keadb reinit``). Everything else it holds was either never
acknowledged or is in the leader's history as well.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from hostkit import patroni_plan
from hostkit.errors import HostError
from hostkit.patroni_client import Rest
from hostkit.patroni_probe import look
from hostkit.patroni_wait import say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hostkit.context import Context
    from hostkit.patroni_plan import Form

CERTAIN_SECONDS = 10.0
"""How long a reason must hold before data is thrown away: a few of Patroni's loops, each of which could mend it."""
ANSWER_SECONDS = 30.0
_GOOD = range(200, 300)
_LATELY_SECONDS = 30
"""PostgreSQL tries again, and says it again, every five."""

# What PostgreSQL's receiver says (messages are not translated: the cluster's locale is C.UTF-8).
_REASON = re.compile(
    r"requested WAL segment \w+ has already been removed"
    r"|requested starting point \S+ on timeline \d+ is not in this server's history"
    r"|highest timeline \d+ of the primary is behind recovery timeline \d+"
)


def reason(ctx: Context, plan: Form, node: Mapping[str, Any]) -> str:
    """Return why this node's data cannot follow the leader, in PostgreSQL's words; empty when nothing says so.

    ``node`` is what its Patroni says of it. Reads the journal only for a standby that runs and does not stream.
    """
    idle = node.get("state") == "running" and node.get("replication_state") != "streaming"
    if not idle or node.get("role") == "primary":
        return ""
    found = _REASON.findall(_said_lately(ctx, plan.unit))
    return found[-1] if found else ""


def _said_lately(ctx: Context, unit: str) -> str:
    # By time, not by lines: each of the proxies' questions about a standby that does not stream writes three.
    argv = ["journalctl", f"--unit={unit}", f"--since=-{_LATELY_SECONDS}s", "--no-pager", "--output=cat", "--quiet"]
    try:
        return ctx.system.run(argv, timeout=_LATELY_SECONDS, check=False).stdout
    except HostError:
        return ""


def unfit(ctx: Context) -> str:
    """Return the reason for this host; empty without one, without a database here, and when it cannot be told."""
    if not ctx.path(patroni_plan.FORM_PLAN).exists():
        return ""
    try:
        plan = patroni_plan.form(ctx)
        return reason(ctx, plan, Rest(ctx, plan.cluster).node(plan.me))
    except HostError:
        return ""


def copy_anew(plan: Form, rest: Rest, why: str) -> None:
    """Have this node throw its copy away and take the leader's; the return means that it has begun.

    HostError, with nothing touched, where that could lose something.
    """
    found = look(rest, plan.cluster)
    node = rest.node(plan.me)
    obstacle = _obstacle(plan, rest, found, node)
    if obstacle:
        msg = (
            f"{plan.me.name} cannot follow its leader ({why}) and is not copied anew: {obstacle}. "
            f"'keadb reinit {plan.me.name}' does it after a look at both copies"
        )
        raise HostError(msg)
    say(f"{plan.me.name} cannot follow its leader ({why}): copying that of {found['leader']}")
    status, words = rest.act(plan.me, "/reinitialize", {"force": True}, seconds=ANSWER_SECONDS)
    if status not in _GOOD:
        msg = f"Patroni on {plan.me.name} answered /reinitialize with status {status}: {words}"
        raise HostError(msg)


def _obstacle(plan: Form, rest: Rest, found: Mapping[str, Any], node: Mapping[str, Any]) -> str:
    """Return why the copy must stay; empty when it may go."""
    if found["paused"]:
        return "the cluster is paused"
    leader = next((m for m in plan.others if m.name == found["leader"]), None)
    if leader is None:
        return "no other node leads"
    said = rest.node(leader)
    if said.get("role") != "primary" or said.get("state") != "running":
        return f"the leader {leader.name} is {said.get('role')}, {said.get('state')}: this may be the only copy"
    mine, theirs = node.get("timeline"), said.get("timeline")
    if not isinstance(mine, int) or not isinstance(theirs, int):
        return "the timelines of both copies are not known"
    if mine > theirs:
        return f"its timeline {mine} is ahead of the leader's {theirs}: it may hold what {leader.name} does not have"
    return ""
