"""The plans of the two steps that make Kea's database: read from the files that their bundles placed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from hostkit.context import Context
from hostkit.errors import BadInput

ROLES_PLAN = "/etc/keadb/cluster/kea-roles.json"
DATABASE_PLAN = "/etc/keadb/cluster/kea-database.json"
FORMAT = 1


@dataclass(frozen=True)
class Login:
    """A login of a pair. ``secret`` names its password in the host's store, None while the login is closed."""

    name: str
    role: str
    secret: str | None
    set_role: bool


def load(ctx: Context, path: str) -> dict[str, Any]:
    """Return a plan as data; BadInput when it is missing or of another format."""
    try:
        plan = json.loads(ctx.path(path).read_text(encoding="utf-8"))
    except OSError as e:
        msg = f"plan {path} cannot be read ({e.strerror}); its bundle places it"
        raise BadInput(msg) from None
    except ValueError:
        msg = f"plan {path} is not JSON"
        raise BadInput(msg) from None
    if not isinstance(plan, dict) or plan.get("format") != FORMAT:
        given = plan.get("format") if isinstance(plan, dict) else type(plan).__name__
        msg = f"plan {path} has format {given!r}, allowed is {FORMAT}: applier and bundle are of different versions"
        raise BadInput(msg)
    return plan


def logins(plan: dict[str, Any]) -> tuple[Login, ...]:
    """Return the plan's logins, open and closed ones, by name."""
    return tuple(
        Login(name=name, role=given["role"], secret=given["secret"], set_role=given["set_role"])
        for name, given in sorted(plan["logins"].items())
    )
