"""The verb ``patroni-login``: remove Patroni's login at etcd that is no longer in use, on the control host.

The last step of a rotation. Every node's configuration names the other login by now and was reloaded, but a Patroni
keeps its token until etcd calls it void, which removing the user does: Patroni then logs in anew, at once, with what
it last read (4.0.7). So nothing is removed before etcd takes the login in use and every node's Patroni has begun
loops since this step began, the first of which took the reload over. Cut anywhere, the next run does the rest.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from hostkit import etcd_auth, patroni_plan, store
from hostkit.errors import BadInput, HostError
from hostkit.etcd_client import CLIENT_TLS, Etcd, EtcdError, tls_context
from hostkit.patroni_client import Rest
from hostkit.patroni_wait import Loops, say, until

if TYPE_CHECKING:
    from hostkit.context import Context
    from hostkit.patroni_plan import Cluster, Settings


def main(ctx: Context, argv: list[str]) -> int:
    """Run the verb; stdout gets one JSON object."""
    if argv:
        msg = f"patroni-login takes no arguments, given {argv}"
        raise BadInput(msg)
    plan = patroni_plan.settings(ctx)
    removed = close(ctx, plan, Rest(ctx, plan.cluster))
    json.dump({"changed": removed is not None, "removed": removed}, sys.stdout)
    sys.stdout.write("\n")
    return 0


def close(ctx: Context, plan: Settings, rest: Rest) -> str | None:
    """Remove the login that is not in use; return its name, None when there is none.

    HostError, and nothing removed, when etcd does not take the login in use or a node's Patroni does not go on.
    """
    login = plan.cluster.etcd_login
    etcd = _as_root(ctx, plan.cluster)
    if etcd_auth.found(etcd, login.spare) is None:
        return None
    password = store.secret(ctx, login.secret, wanted_by="patroni-login")
    if not etcd_auth.accepts(ctx, etcd, login.user, password):
        msg = f"etcd on {etcd.member.name} does not take the login {login.user}: {login.spare} was not removed"
        raise HostError(msg)
    seen = Loops(rest)
    until(ctx, plan, f"every node uses {login.user}", seen.missing, then=f"; {login.spare} was not removed")
    say(f"{login.user} is in use: removing {login.spare}")
    etcd_auth.remove(etcd, login.spare)
    seen = Loops(rest)
    until(ctx, plan, f"every node reads etcd without {login.spare}", seen.missing)
    return login.spare


def left_open(ctx: Context, cluster: Cluster) -> str | None:
    """Return the login that is not in use if etcd has it, None otherwise; changes nothing."""
    spare = cluster.etcd_login.spare
    return None if etcd_auth.found(_as_root(ctx, cluster), spare) is None else spare


def _as_root(ctx: Context, cluster: Cluster) -> Etcd:
    """Return the first member that answers, logged in as root."""
    tls = tls_context(ctx, CLIENT_TLS)
    problems = []
    for member in cluster.etcd:
        etcd = Etcd(member, cluster.etcd_port, tls=tls)
        try:
            etcd_auth.log_in(ctx, etcd, wanted_by="patroni-login")
        except EtcdError as e:
            problems.append(str(e))
            continue
        return etcd
    msg = f"no etcd member can be used: {'; '.join(problems)}"
    raise HostError(msg)
