"""keadb's one nftables table: what it holds, what rules would make of it, and putting rules in place.

Rules are compared as nft itself lists them: those in force, and those of a text after it was loaded in a network
namespace of its own, where it touches nothing. Other tables are never read or changed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hostkit.errors import CommandFailed, HostError

if TYPE_CHECKING:
    from hostkit.context import Context

TABLE = ("table", "inet", "keadb")
WIDENED = ("peers_in", "peers_out", "databases", "vip")
"""Lists of the rules that may hold, besides what is declared, what was declared before."""
BEFORE = "# of before"
_LIMIT = 20
_LISTED = ("nft", "--stateless", "list", *TABLE)
_DEFINE = re.compile(r"^define (\w+) = \{\n(.*?)^\}\n", re.MULTILINE | re.DOTALL)
_ELEMENTS = re.compile(r"elements = \{([^}]*)\}")


def live(ctx: Context) -> str | None:
    """Return the table as it is in force, None when there is none."""
    done = ctx.system.run(_LISTED, timeout=_LIMIT, check=False)
    return _in_order(done.stdout) if done.returncode == 0 else None


def listed(ctx: Context, rules: str) -> str:
    """Return what ``live`` says when these rules are in force; HostError for rules that nft does not take."""
    script = f"nft -f - && exec {' '.join(_LISTED)}"
    try:
        done = ctx.system.run(["unshare", "--net", "--", "sh", "-c", script], timeout=_LIMIT, input=rules)
    except CommandFailed as e:
        msg = f"nft does not take the rules, nothing was changed: {e}"
        raise HostError(msg) from None
    return _in_order(done.stdout)


def _in_order(listing: str) -> str:
    """Put elements of sets into an order: the kernel has none for those that are not intervals."""

    def ordered(found: re.Match[str]) -> str:
        return f"elements = {{ {', '.join(sorted(part.strip() for part in found[1].split(',')))} }}"

    return _ELEMENTS.sub(ordered, listing)


def in_force(ctx: Context, rules: str) -> bool:
    """Say whether these rules, and nothing else, are in the table; False as well for rules that nft does not take."""
    now = live(ctx)
    try:
        return now is not None and now == listed(ctx, rules)
    except HostError:
        return False


def load(ctx: Context, rules: str) -> None:
    """Put rules in place of those in force, all or none of them; HostError with nft's words when it refuses."""
    ctx.system.run(["nft", "-f", "-"], timeout=_LIMIT, input=rules)


def remove(ctx: Context) -> None:
    """Take the table away."""
    ctx.system.run(["nft", "-f", "-"], timeout=_LIMIT, input="table inet keadb\ndelete table inet keadb\n")


def again(listing: str) -> str:
    """Return a listing as rules that bring it back."""
    return f"table inet keadb\ndelete table inet keadb\n{listing}"


def widened(declared: str, before: str | None) -> str:
    """Return the declared rules with what the lists of ``WIDENED`` had in the rules of before and lack now."""
    former = {} if before is None else {name: _entries(body) for name, body in _DEFINE.findall(before)}

    def wide(found: re.Match[str]) -> str:
        name, body = found.groups()
        missing = sorted(set(former.get(name, ())) - set(_entries(body))) if name in WIDENED else []
        more = "".join(f"    {entry}, {BEFORE}\n" for entry in missing)
        return f"define {name} = {{\n{body}{more}}}\n"

    return _DEFINE.sub(wide, declared)


def _entries(body: str) -> list[str]:
    lines = (line.partition("#")[0].strip().rstrip(",") for line in body.splitlines())
    return [line for line in lines if line]


def openings(rules: str) -> list[str]:
    """Return the entries that ``widened`` added, for people."""
    return [line.strip().partition(",")[0] for line in rules.splitlines() if line.endswith(BEFORE)]
