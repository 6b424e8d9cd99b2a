"""The stack's secrets: made once, stored encrypted in the stack file by the engine's own CLI, read into memory.

A value goes to the CLI on stdin and comes back on stdout. It never stands in an argument, in the environment, in a
file of ours or in a message.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from keadb.secrets import SECRETS, SECRETS_BY_NAME, SecretSpec, generate, problem, ssh_public_key
from keadb.stackfile import SECRET_PREFIX
from ops import sites
from ops.exits import CommandError
from ops.pulumi_cli import Engine
from ops.stacks import Stack, resolve

DEPLOY_KEY = "deploy_key"
LAB_DEPLOY_KEY = "ssh/deploy_key"


@dataclass(frozen=True, kw_only=True)
class Made:
    """What ``secrets init`` did: names only, and the key that hosts must let in."""

    new: tuple[str, ...]
    kept: tuple[str, ...]
    deploy_public_key: str


def init_secrets(stack: Stack | str) -> Made:
    """Make the secrets that the stack does not have yet; nothing that is there is changed.

    Each is stored before the next is made, so a run that was cut is completed by the next. Creates the stack in
    its backend when needed. Raises CommandError; also when a stored value is not usable.
    """
    stack = resolve(stack) if isinstance(stack, str) else stack
    sites.load(stack)
    engine = Engine(stack)
    engine.ensure_stack()
    have = _stored(engine)
    unusable = [said for name, value in have.items() if (said := problem(SECRETS_BY_NAME[name], value))]
    if unusable:
        raise CommandError("\n".join(unusable))
    new = [spec for spec in SECRETS if spec.name not in have]
    for spec in new:
        have[spec.name] = _new_value(stack, spec)
        # Raw: keys end in a newline that belongs to them.
        engine.call("config", "set", "--secret", "--raw", spec.config_key, stdin=have[spec.name])
    # What counts is what a later run will read, not what was meant to be written.
    again = _stored(engine) if new else have
    differing = [name for name, value in have.items() if again.get(name) != value]
    if differing:
        msg = f"stack {stack.name}: {', '.join(differing)} did not come back as stored; is the file edited meanwhile?"
        raise CommandError(msg)
    return Made(
        new=tuple(spec.name for spec in new),
        kept=tuple(spec.name for spec in SECRETS if spec not in new),
        deploy_public_key=ssh_public_key(have[DEPLOY_KEY]),
    )


def secret_values(stack: Stack | str) -> dict[str, str]:
    """Return the values of all secrets by name, in memory only; CommandError names the missing ones."""
    stack = resolve(stack) if isinstance(stack, str) else stack
    sites.require_secrets(stack)
    return _stored(Engine(stack))


def _new_value(stack: Stack, spec: SecretSpec) -> str:
    """Return a new value; a lab's hosts know their deploy key already, so that one is taken over."""
    if not stack.is_lab or spec.name != DEPLOY_KEY:
        return generate(spec)
    path = stack.work_dir / LAB_DEPLOY_KEY
    try:
        value = path.read_text(encoding="utf-8")
    except OSError as error:
        msg = f"lab {stack.name}: its deploy key {path} cannot be read: {error.strerror}; run 'keadb lab up' first"
        raise CommandError(msg) from error
    if problem(spec, value):
        msg = f"lab {stack.name}: {path} is not an Ed25519 private key in OpenSSH format"
        raise CommandError(msg)
    return value


def _stored(engine: Engine) -> dict[str, str]:
    """Return the stack's stored secrets by name; other configuration is left out."""
    config = json.loads(engine.call("config", "--show-secrets", "--json"))
    return {
        key.removeprefix(SECRET_PREFIX): entry["value"]
        for key, entry in config.items()
        if key.startswith(SECRET_PREFIX) and key.removeprefix(SECRET_PREFIX) in SECRETS_BY_NAME
    }
