"""Facts about this host for ``keadb audit`` (verb ``audit``): how it is, not whether that is right. Reads only.

stdin is a JSON object with ``deploy_user``. Each part that cannot be found out has a single key ``error`` with the
reason instead; parts that this host has no business with are null. No part holds a secret, a verifier or a hash: of a
password only its kind is told, of a file its mode and owner.
"""

from __future__ import annotations

import importlib
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from hostkit.errors import BadInput, HostError

if TYPE_CHECKING:
    from hostkit.context import Context

FORMAT = 1
HOST_NAME = "/etc/keadb/host"
PARTS = {
    "files": "audit_host",
    "accounts": "audit_host",
    "ssh": "audit_host",
    "upkeep": "audit_host",
    "clock": "audit_host",
    "units": "audit_units",
    "sockets": "audit_units",
    "database": "audit_database",
    "packages": "audit_services",
    "patroni": "audit_services",
    "etcd": "audit_services",
    "pooler": "audit_services",
    "proxy": "audit_services",
    "address": "audit_services",
    "firewall": "audit_network",
}
"""Every part, and the module whose function of this name gives it."""


def main(ctx: Context, argv: list[str]) -> int:
    """Print the facts; exit code 0 whatever they are."""
    if argv:
        msg = f"audit: given arguments {argv}, allowed are none; its input is JSON on stdin"
        raise BadInput(msg)
    json.dump(facts(ctx, deploy_user(sys.stdin.read())), sys.stdout, indent=1, sort_keys=True)
    sys.stdout.write("\n")
    return 0


def deploy_user(text: str) -> str:
    """Return the deploy user's name from the request; BadInput for any other."""
    try:
        given = json.loads(text)
        user = given["deploy_user"]
    except (ValueError, KeyError, TypeError):
        msg = "audit: stdin is not a JSON object with deploy_user"
        raise BadInput(msg) from None
    if set(given) != {"deploy_user"} or not isinstance(user, str) or not user.isprintable() or not user:
        msg = f"audit: given keys {sorted(given)}, allowed: deploy_user (a name)"
        raise BadInput(msg)
    return user


def facts(ctx: Context, user: str) -> dict[str, Any]:
    """Return everything, all parts at once: most of them wait for some other program."""

    def part(name: str) -> Any:
        try:
            module = importlib.import_module(f"hostkit.{PARTS[name]}")
            return getattr(module, name)(ctx, user)
        except HostError as e:
            return {"error": str(e)}
        except Exception as e:  # noqa: BLE001 -- what cannot be seen is a finding, not a reason to see nothing
            return {"error": f"{type(e).__name__}: {e}"}

    with ThreadPoolExecutor(max_workers=4) as pool:
        found = dict(zip(PARTS, pool.map(part, PARTS), strict=True))
    host = ctx.path(HOST_NAME).read_text(encoding="utf-8").strip() if ctx.path(HOST_NAME).exists() else ""
    return {"format": FORMAT, "host": host, **found}
