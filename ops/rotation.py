"""Rotating the secrets of a running site: a new value in the stack file, the way over in the site's own terms.

Nothing here reaches a host. A login of a pair is rotated by giving the spare one a new password and switching to it
in the site file; the next ``up`` does the rest. Values go to the engine's CLI on stdin, as in ``ops.secrets``.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keadb.logins import PAIRS, PAIRS_BY_NAME, Pair
from keadb.secrets import SECRETS_BY_NAME, fingerprint, generate
from keadb.stackedit import EditError, with_logins
from ops import sites
from ops.exits import CommandError, Exit
from ops.pulumi_cli import Engine
from ops.secrets import secret_values
from ops.stacks import Stack

ROTATED = (*PAIRS_BY_NAME, "etcd_root_password", "patroni_rest_password", "fingerprint_key")
"""What ``keadb secrets rotate`` takes."""
RETIRED = tuple(pair.name for pair in PAIRS if pair.clients)
"""What ``keadb secrets retire`` takes."""
_LAST_STEP = {"kea_owner": "kea-database", "kea_read": "kea-database", "etcd_patroni": "patroni-login"}
"""The bundle that a rotation of a pair ends with."""
_NOT_ROTATED = {
    "deploy_key": (
        "keadb reaches every host with it, so every host must let a new one in first. Add the new public key to the "
        "deploy user's authorized_keys on every host, store the private key with 'pulumi config set --secret --raw "
        "keadb:secret_deploy_key --stack {stack} < FILE', run 'keadb up', then take the old key off the hosts"
    ),
    "ca_key": (
        "services and clients trust one CA at a time, so a new one cuts every connection until all of them have it. "
        "Certificates are renewed with tls.epoch, the CA's own certificate with tls.ca_epoch; a key that became "
        "known needs a planned outage, for which there is no procedure yet"
    ),
}
_SINGLE_HAPPENS = {
    "etcd_root_password": "etcd's administrator gets it from the control host, which logs in with the one before",
    "patroni_rest_password": "both database nodes reload Patroni; nothing is restarted",
    "fingerprint_key": "every bundle that uses a secret is sent again, with new fingerprints; nothing is restarted",
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a rotation or retirement will do. ``secret`` gets a new value (None: nothing does).

    ``use`` and ``keep`` are what the site file will say (``keep`` None: it is left alone); ``happens`` and ``then``
    are sentences for people.
    """

    name: str
    secret: str | None = None
    use: tuple[str, str] | None = None
    keep: tuple[str, ...] | None = None
    happens: tuple[str, ...] = ()
    then: tuple[str, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether there is anything to do."""
        return self.secret is not None or self.keep is not None

    def as_dict(self) -> dict[str, Any]:
        """Return it for ``--json``; names only."""
        return {
            "name": self.name,
            "changed": self.changes,
            "secret": self.secret,
            "logins": None if self.keep is None else {**dict([self.use] if self.use else []), "keep": [*self.keep]},
            "happens": [*self.happens],
            "next": [*self.then],
        }


def plan_rotation(stack: Stack, name: str) -> Plan:
    """Return what rotating ``name`` will do; CommandError when it cannot be done now, or never by this command."""
    if name in _NOT_ROTATED:
        msg = f"{name} is not rotated by this command: {_NOT_ROTATED[name].format(stack=stack.name)}"
        raise CommandError(msg)
    _require_known(name, ROTATED)
    site = sites.load(stack)
    up = f"keadb up --stack {stack.name}"
    if name not in PAIRS_BY_NAME:
        sites.require_secrets(stack)
        stored = f"a new {name} is stored in {stack.site_file.name}, encrypted"
        return Plan(name=name, secret=name, happens=(stored, f"the next up: {_SINGLE_HAPPENS[name]}"), then=(up,))
    pair = PAIRS_BY_NAME[name]
    now, new = pair.active(site.logins), pair.spare(site.logins)
    old, to = pair.login(now), pair.login(new)
    if to in site.logins.keep:
        msg = (
            f"the last rotation of {name} is not over: {to} is still open for clients that have not moved to {old}. "
            f"When they have: 'keadb secrets retire {name} --stack {stack.name}' and 'keadb up', then rotate again"
        )
        raise CommandError(msg)
    _require_in_force(stack, pair, now)
    keep = (*site.logins.keep, old) if pair.clients else site.logins.keep
    stays = f"; {old} stays open (logins.keep)" if pair.clients else ""
    happens = (
        f"{to}, which nobody can log in with now, gets a new password: stored in {stack.site_file.name}, encrypted",
        f"the site file says logins.{pair.key}: {new} instead of {now}{stays}",
        f"the next up opens {to}"
        + ("" if pair.clients else f", has Patroni reload, and removes {old} when every node uses {to}"),
    )
    then: tuple[str, ...] = (up,)
    if pair.clients:
        then = (
            up,
            f"have every client that logs in as {old} use {to}, with the secret {pair.secret(new)}",
            f"keadb secrets retire {name} --stack {stack.name}, and {up}: {old} is closed",
        )
    return Plan(name=name, secret=pair.secret(new), use=(pair.key, new), keep=keep, happens=happens, then=then)


def plan_retirement(stack: Stack, name: str) -> Plan:
    """Return what retiring the kept login of ``name`` will do; CommandError when its successor is not open yet."""
    _require_known(name, RETIRED)
    pair = PAIRS_BY_NAME[name]
    site = sites.load(stack)
    old, now = pair.login(pair.spare(site.logins)), pair.active(site.logins)
    if old not in site.logins.keep:
        return Plan(name=name, happens=(f"nothing: {old} is not kept open, {pair.login(now)} is in use",))
    _require_in_force(stack, pair, now)
    return Plan(
        name=name,
        keep=tuple(login for login in site.logins.keep if login != old),
        happens=(
            f"the site file no longer keeps {old} open",
            "the next up closes it: nobody can log in with it any more; connections that are open stay open",
        ),
        then=(f"keadb up --stack {stack.name}",),
    )


def carry_out(stack: Stack, plan: Plan) -> None:
    """Store the new value, then switch the site file. Cut in between, the same command does both again.

    The order makes that safe: until the site file names it, the new password belongs to a login that nobody can use.
    """
    _edited(stack, plan)  # refused before anything is stored, if it must be
    if plan.secret is not None:
        spec = SECRETS_BY_NAME[plan.secret]
        value = generate(spec)
        # Raw: as every secret is stored.
        Engine(stack).call("config", "set", "--secret", "--raw", spec.config_key, stdin=value)
        if secret_values(stack).get(plan.secret) != value:
            msg = f"stack {stack.name}: {plan.secret} did not come back as stored; is the file edited meanwhile?"
            raise CommandError(msg)
    # Read again: the engine has just written the same file.
    _write(stack, _edited(stack, plan))


def _require_known(name: str, allowed: tuple[str, ...]) -> None:
    if name not in allowed:
        msg = f"NAME: given is {name!r}, allowed: {', '.join(allowed)}"
        raise CommandError(msg, Exit.USAGE)


def _require_in_force(stack: Stack, pair: Pair, letter: str) -> None:
    """Refuse unless the last ``up`` came to its end with the login in use: it may be the only one that is open."""
    secret, step = pair.secret(letter), _LAST_STEP[pair.name]
    values = secret_values(stack)
    wanted = fingerprint(values["fingerprint_key"], secret, values[secret])
    sent = sent_fingerprints(json.loads(Engine(stack).call("stack", "export")))
    if sent.get(step, {}).get(secret) != wanted:
        msg = (
            f"stack {stack.name}: no 'keadb up' has come to its end yet with {pair.login(letter)}, the login in use "
            f"of {pair.name}: run 'keadb up --stack {stack.name}' first"
        )
        raise CommandError(msg)


def sent_fingerprints(exported: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return, from the engine's exported state, the fingerprints of the secrets of each bundle, by bundle name."""
    found: dict[str, dict[str, str]] = {}
    for resource in (exported.get("deployment") or {}).get("resources") or ():
        stdin = (resource.get("inputs") or {}).get("stdin")
        if not isinstance(stdin, str):  # what is secret is no text there
            continue
        try:
            request = json.loads(stdin)
        except ValueError:
            continue
        if isinstance(request, dict) and "bundle" in request:
            found.setdefault(str(request["bundle"]), {}).update(request.get("secrets") or {})
    return found


def _edited(stack: Stack, plan: Plan) -> str:
    text = _text(stack.site_file)
    if plan.keep is None:
        return text
    try:
        return with_logins(text, source=stack.site_file.name, use=plan.use, keep=plan.keep)
    except EditError as error:
        raise CommandError(str(error)) from error


def _text(path: Path) -> str:
    """Return a file's text with the line ends that it has."""
    with path.open(encoding="utf-8", newline="") as file:
        return file.read()


def _write(stack: Stack, text: str) -> None:
    """Replace the stack file in one step, with the mode that it had."""
    target = stack.site_file.resolve()
    if _text(target) == text:
        return
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), target.stat().st_mode & 0o777)
            os.fsync(file.fileno())
        os.replace(name, target)  # noqa: PTH105 -- the pair of mkstemp
    except BaseException:
        os.unlink(name)  # noqa: PTH108 -- as above
        raise
