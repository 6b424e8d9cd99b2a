"""The command ``keadb-apply``: finds the verb, and turns every error into one clear message.

Exit codes: 0 done, 1 failed, 2 bad input, 3 refused (nothing changed), 75 locked by another run for too long.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hostkit import verbs
from hostkit.context import Context
from hostkit.errors import BadInput, HostError
from hostkit.store import redact
from hostkit.system import RealSystem

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Verb = Callable[[Context, list[str]], int]

VERBS: dict[str, Verb] = {
    "bootstrap": verbs.bootstrap,
    "secrets": verbs.secrets,
    "keys": verbs.keys,
    "certificates": verbs.certificates,
    "apply": verbs.apply,
    "prune": verbs.prune_bundles,
    "accept": verbs.accept,
    "restore": verbs.restore,
    "foresee": verbs.foresee,
    "check": verbs.check_drift,
    "run-request": verbs.run_request,
    "version": verbs.version,
}
LAZY = (
    "audit",
    "status",
    "etcd-form",
    "etcd-lead",
    "etcd-probe",
    "etcd-roll",
    "patroni-seed",
    "patroni-form",
    "patroni-converge",
    "patroni-login",
    "patroni-probe",
    "patroni-switchover",
    "patroni-restart",
    "patroni-reinit",
    "patroni-pause",
    "kea-roles",
    "kea-database",
    "leave",
    "way-probe",
    "firewall",
)
"""Verbs ``some-name`` in a module ``hostkit.some_name`` with ``main(ctx, argv) -> int``, loaded when called."""
BY_TIMER = ("etcd-lead",)
"""Verbs that run by themselves and make no files: they keep the umask of their unit, as every service does."""
_OPTIONS = "[--root DIR] [--lock-wait SECONDS]"


def verb(name: str) -> Verb:
    """Return a verb's function; BadInput for one that does not exist, HostError for one that was not shipped."""
    if name in VERBS:
        return VERBS[name]
    if name not in LAZY:
        msg = f"verb {name!r} is given, allowed: {', '.join(sorted([*VERBS, *LAZY]))}"
        raise BadInput(msg)
    module = f"hostkit.{name.replace('-', '_')}"
    try:
        found: Verb = importlib.import_module(module).main
    except ModuleNotFoundError as e:
        if e.name != module:
            raise
        msg = f"verb {name!r} is not part of the applier on this host: bootstrap it again"
        raise HostError(msg) from None
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code; never a traceback, never a secret in an error."""
    ctx = Context(Path("/"), RealSystem())
    name = ""
    try:
        ctx, name, rest = _command_line(ctx, list(sys.argv[1:] if argv is None else argv))
        if name not in BY_TIMER:
            os.umask(0o022)  # whatever the caller's: what steps make must not depend on it
        if ctx.in_place and name != "version" and os.geteuid() != 0:
            msg = "it must run as root"
            raise HostError(msg)  # noqa: TRY301 - one place words all errors
        return verb(name)(ctx, rest)
    except HostError as e:
        return _fail(ctx, name, str(e), e.exit_code)
    except KeyboardInterrupt:
        return _fail(ctx, name, "interrupted", 1)
    except Exception as e:  # noqa: BLE001 - users get a message, not a traceback
        return _fail(ctx, name, f"{type(e).__name__}: {e}", 1)


def _command_line(ctx: Context, argv: list[str]) -> tuple[Context, str, list[str]]:
    root, wait = ctx.root, ctx.lock_wait
    while argv and argv[0] in {"--root", "--lock-wait"}:
        option, *argv = argv
        if not argv:
            msg = f"{option}: its value is missing; usage: keadb-apply {_OPTIONS} VERB"
            raise BadInput(msg)
        value, *argv = argv
        if option == "--root":
            root = Path(value).resolve()
            if not root.is_dir():
                msg = f"--root: given {value!r}, allowed is a folder that exists"
                raise BadInput(msg)
        elif value.isdecimal():
            wait = float(value)
        else:
            msg = f"--lock-wait: given {value!r}, allowed is a whole number of seconds"
            raise BadInput(msg)
    if not argv:
        msg = (
            f"no verb is given; usage: keadb-apply {_OPTIONS} VERB, VERB one of {', '.join(sorted([*VERBS, *LAZY]))}"
        )
        raise BadInput(msg)
    return Context(root, ctx.system, wait), argv[0], argv[1:]


def _fail(ctx: Context, name: str, message: str, code: int) -> int:
    sys.stderr.write(f"keadb-apply{' ' if name else ''}{name}: {redact(ctx, message)}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
