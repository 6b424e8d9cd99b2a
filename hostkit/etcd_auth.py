"""etcd's users and rights: ``root``, and one for Patroni that reaches the cluster's own prefix only.

Every step looks first and changes only what differs, so it can be cut and run again. Other users and roles are
left alone. Passwords come from the host's store; what is wrong in etcd is put right with root's password, and a
root password that etcd does not accept is an error, since nothing here could change it.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from hostkit import store
from hostkit.errors import HostError
from hostkit.etcd_client import CLIENT_TLS, AuthenticationOff, Etcd, EtcdError, tls_context

if TYPE_CHECKING:
    from hostkit.context import Context
    from hostkit.etcd_plan import Plan

ROOT = "root"
"""User and role that etcd's authentication demands."""


def ensure(ctx: Context, plan: Plan) -> list[str]:
    """Bring users, roles and authentication to what is declared; return what was changed, in words."""
    root_password = store.secret(ctx, "etcd_root_password", wanted_by="etcd-form")
    patroni_password = store.secret(ctx, "etcd_patroni_password", wanted_by="etcd-form")
    etcd = Etcd(plan.me, plan.client_port, tls=tls_context(ctx, CLIENT_TLS))
    enabled = log_in(etcd, root_password)
    changed: list[str] = []
    if not enabled:
        # Without authentication no password can be tried, so each is set anew.
        changed += _user(etcd, ROOT, ROOT, root_password, matches=False)
    changed += _role(etcd, plan)
    matches = enabled and _accepts(plan, etcd, ctx, patroni_password)
    changed += _user(etcd, plan.patroni_user, plan.patroni_user, patroni_password, matches=matches)
    if not enabled:
        etcd.call("/v3/auth/enable")
        changed.append("authentication enabled")
    return changed


def log_in(etcd: Etcd, root_password: str) -> bool:
    """Log in as root; return whether authentication is on (without it, everything is allowed).

    HostError that says what to do when etcd does not accept the stored password.
    """
    try:
        accepted = etcd.log_in(ROOT, root_password)
    except AuthenticationOff:
        return False
    if not accepted:
        msg = (
            f"etcd on {etcd.member.name} does not accept the password of its user root that this host was given "
            "(secret etcd_root_password): it was changed on one side only. Set the site's secret to the password "
            "that etcd has, or run `etcdctl user passwd root` with the old one, then run this again"
        )
        raise HostError(msg)
    return True


def _accepts(plan: Plan, etcd: Etcd, ctx: Context, password: str) -> bool:
    # A connection of its own: the one of root must keep its token.
    trial = Etcd(etcd.member, plan.client_port, tls=tls_context(ctx, CLIENT_TLS))
    return trial.log_in(plan.patroni_user, password)


def _found(etcd: Etcd, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
    """Call; None when etcd says that there is no such user or role."""
    try:
        return etcd.call(path, body)
    except EtcdError as e:
        if e.message.endswith("name not found"):
            return None
        raise


def _user(etcd: Etcd, name: str, role: str, password: str, *, matches: bool) -> list[str]:
    """Have a user with this password and exactly this role."""
    changed = []
    user = _found(etcd, "/v3/auth/user/get", {"name": name})
    if user is None:
        etcd.call("/v3/auth/user/add", {"name": name, "password": password})
        changed.append(f"user {name} added")
    elif not matches:
        etcd.call("/v3/auth/user/changepw", {"name": name, "password": password})
        changed.append(f"password of user {name} set")
    roles = set((user or {}).get("roles", ()))
    if role not in roles:
        etcd.call("/v3/auth/user/grant", {"user": name, "role": role})
        changed.append(f"role {role} granted to user {name}")
    for extra in sorted(roles - {role}):
        etcd.call("/v3/auth/user/revoke", {"name": name, "role": extra})
        changed.append(f"role {extra} revoked from user {name}")
    return changed


def _role(etcd: Etcd, plan: Plan) -> list[str]:
    """Have Patroni's role with readwrite on its prefix and nothing else."""
    name = plan.patroni_user
    wanted = ("READWRITE", _b64(plan.patroni_prefix), _b64(prefix_end(plan.patroni_prefix)))
    changed = []
    role = _found(etcd, "/v3/auth/role/get", {"role": name})
    if role is None:
        etcd.call("/v3/auth/role/add", {"name": name})
        changed.append(f"role {name} added")
    # The gateway leaves out a permission type of 0, which is READ.
    has = {
        (p.get("permType", "READ"), p.get("key", ""), p.get("range_end", "")) for p in (role or {}).get("perm", ())
    }
    for _, key, range_end in sorted(has - {wanted}):
        etcd.call("/v3/auth/role/revoke", {"role": name, "key": key, "range_end": range_end})
        changed.append(f"another right of role {name} revoked")
    if wanted not in has:
        perm = {"permType": wanted[0], "key": wanted[1], "range_end": wanted[2]}
        etcd.call("/v3/auth/role/grant", {"name": name, "perm": perm})
        changed.append(f"role {name} may read and write {plan.patroni_prefix}")
    return changed


def prefix_end(prefix: str) -> str:
    """Return the first key after all keys with this prefix (ASCII, not empty)."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
