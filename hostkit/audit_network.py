"""Facts of the firewall for ``keadb audit``: what is in force, and what the next boot loads."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from hostkit import firewall as rules
from hostkit import nftables, units

if TYPE_CHECKING:
    from hostkit.context import Context

_UNIT = "keadb-firewall.service"
_POLICY = re.compile(r"type filter hook (\w+) [^\n]*policy (\w+);")


def firewall(ctx: Context, user: str) -> dict[str, Any]:  # noqa: ARG001 -- the parts' common signature
    """Return each hook's policy, every difference from the declared rules, and whether they are loaded at boot."""
    return {
        "policies": dict(_POLICY.findall(nftables.live(ctx) or "")),
        "differs": [f"{found['name']}: {found['is']}" for found in rules.drift(ctx)],
        "unconfirmed": rules.unconfirmed(ctx),
        "at_boot": units.states(ctx, [_UNIT])[_UNIT].file,
    }
