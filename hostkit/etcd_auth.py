"""etcd's users and rights: ``root``, and Patroni's login in use, which reaches the cluster's own prefix only.

Every step looks first and changes only what differs, so it can be cut and run again. Other users and roles are
left alone: Patroni's other login is removed by ``patroni-login``, once no node uses it. Passwords come from the
host's store; what is wrong in etcd is put right with root's password. A root password that was rotated is changed by
logging in with the one before; one that etcd does not accept at all is an error, since nothing here could change it.
"""

from __future__ import annotations

import base64
from enum import Enum
from typing import TYPE_CHECKING, Any

from hostkit import store
from hostkit.errors import HostError
from hostkit.etcd_client import CLIENT_TLS, AuthenticationOff, Etcd, EtcdError, tls_context

if TYPE_CHECKING:
    from hostkit.context import Context
    from hostkit.etcd_plan import Plan

ROOT_SECRET = "etcd_root_password"  # noqa: S105 - the name of the secret, not the secret
ROOT = "root"
"""User and role that etcd's authentication demands."""


def ensure(ctx: Context, plan: Plan) -> list[str]:
    """Bring users, roles and authentication to what is declared; return what was changed, in words."""
    root_password = store.secret(ctx, ROOT_SECRET, wanted_by="etcd-form")
    patroni_password = store.secret(ctx, plan.patroni_secret, wanted_by="etcd-form")
    etcd = Etcd(plan.me, plan.client_port, tls=tls_context(ctx, CLIENT_TLS))
    changed = []
    how = log_in(ctx, etcd, wanted_by="etcd-form")
    enabled = how is not Login.OFF
    if how is Login.PREVIOUS:
        etcd.call("/v3/auth/user/changepw", {"name": ROOT, "password": root_password})
        log_in(ctx, etcd, wanted_by="etcd-form")  # with its password a user loses its tokens
        changed.append("password of user root rotated")
    if not enabled:
        # Without authentication no password can be tried, so each is set anew.
        changed += _user(etcd, ROOT, ROOT, root_password, matches=False)
    changed += _role(etcd, plan)
    matches = enabled and accepts(ctx, etcd, plan.patroni_user, patroni_password)
    changed += _user(etcd, plan.patroni_user, plan.patroni_role, patroni_password, matches=matches)
    if not enabled:
        etcd.call("/v3/auth/enable")
        changed.append("authentication enabled")
    store.forget_previous(ctx, ROOT_SECRET)
    return changed


class Login(Enum):
    """How root came in."""

    OFF = "authentication is off"
    STORED = "with the stored password"
    PREVIOUS = "with the password before it"


def log_in(ctx: Context, etcd: Etcd, *, wanted_by: str) -> Login:
    """Log in as root, with the stored password or one that it replaced; return how (OFF: everything is allowed).

    HostError that says what to do when etcd accepts none of them, or none is stored.
    """
    stored = store.secret(ctx, ROOT_SECRET, wanted_by=wanted_by)
    try:
        if etcd.log_in(ROOT, stored):
            return Login.STORED
        accepted = any(etcd.log_in(ROOT, password) for password in store.previous(ctx, ROOT_SECRET))
    except AuthenticationOff:
        return Login.OFF
    if not accepted:
        msg = (
            f"etcd on {etcd.member.name} does not accept the password of its user root that this host was given "
            "(secret etcd_root_password): it was changed on one side only. Set the site's secret to the password "
            "that etcd has, or run `etcdctl user passwd root` with the old one, then run this again"
        )
        raise HostError(msg)
    return Login.PREVIOUS


def accepts(ctx: Context, etcd: Etcd, user: str, password: str) -> bool:
    """Say whether a member takes this login; what ``etcd`` is logged in as stays as it is."""
    return Etcd(etcd.member, etcd.port, tls=tls_context(ctx, CLIENT_TLS)).log_in(user, password)


def remove(etcd: Etcd, user: str) -> None:
    """Remove a user; its tokens are void at once. One that does not exist is fine."""
    if found(etcd, user) is not None:
        etcd.call("/v3/auth/user/delete", {"name": user})


def found(etcd: Etcd, user: str) -> dict[str, Any] | None:
    """Return a user's roles, None when there is no such user."""
    return _found(etcd, "/v3/auth/user/get", {"name": user})


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
    user = found(etcd, name)
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
    name = plan.patroni_role
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
