"""The verb ``firewall WHAT``: rules that come into force for good only when somebody still gets in.

``load SECONDS``  puts the declared rules in force, with a timer that takes them back
``confirm``       makes what was loaded the rules that the host starts with; who calls it came in by SSH
``close``         takes away what ``load`` left open of before, for hosts that have left by now
``take-back``     is what the timer runs: unless confirmed, the rules of before are back

A host that restarts in between starts with those that were confirmed. Nothing here touches another table, and open
connections go on: they are in no table.
"""

from __future__ import annotations

import json
import sys
from difflib import unified_diff
from typing import TYPE_CHECKING, Any

from hostkit import files, lock, nftables
from hostkit.errors import BadInput, HostError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hostkit.context import Context

RULES = "/etc/keadb/firewall.nft"
CONFIRMED = "/var/lib/keadb/firewall.nft"
LOADED = "/run/keadb/firewall/loaded.nft"
"""Rules that wait for their confirmation."""
BEFORE = "/run/keadb/firewall/before.nft"
"""The table as it was before them, empty when there was none."""
LOCK = "/run/keadb/firewall/lock"
"""Not the host's own lock: rules are taken back while a bundle is applied."""
TIMER = "keadb-firewall-take-back"
_APPLIER = "/usr/lib/keadb/keadb-apply"
_LONGEST = 600
_LIMIT = 30


def main(ctx: Context, argv: list[str]) -> int:
    """Run one of them and print what changed."""
    known = {"confirm": confirm, "close": close, "take-back": take_back}
    if len(argv) == 2 and argv[0] == "load" and argv[1].isdecimal() and 0 < int(argv[1]) <= _LONGEST:  # noqa: PLR2004 - a word and its number
        with lock.held(ctx, "firewall load", LOCK):
            answer = load(ctx, int(argv[1]))
    elif len(argv) == 1 and argv[0] in known:
        with lock.held(ctx, f"firewall {argv[0]}", LOCK):
            answer = known[argv[0]](ctx)
    else:
        msg = f"firewall: given {argv}, allowed is 'load SECONDS' (1 to {_LONGEST}) or one of {', '.join(known)}"
        raise BadInput(msg)
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


def load(ctx: Context, seconds: int) -> dict[str, Any]:
    """Put the declared rules in force; unless ``confirm`` comes in time they are taken back.

    Openings for hosts and addresses that were declared before stay (see ``close``). Rules that were confirmed once
    need no second confirmation. HostError, with the rules of before untouched, when nft does not take these.
    """
    declared, confirmed = _required(ctx, RULES), _text(ctx, CONFIRMED)
    wanted = nftables.widened(declared, confirmed)
    listing = nftables.listed(ctx, wanted)
    before = nftables.live(ctx)
    if wanted == confirmed:
        if before != listing:
            nftables.load(ctx, wanted)
        _forget(ctx)
        return {"changed": before != listing}
    _stop_timer(ctx)
    if _text(ctx, LOADED) is None:
        # Else an earlier load still waits for its confirmation: what was before that one is what comes back.
        _write(ctx, BEFORE, "" if before is None else nftables.again(before))
    _write(ctx, LOADED, wanted)
    _start_timer(ctx, seconds)
    nftables.load(ctx, wanted)
    return {"changed": True, "seconds": seconds, "open until the end of the run": nftables.openings(wanted)}


def confirm(ctx: Context) -> dict[str, Any]:
    """Make the loaded rules those that the host starts with; HostError when they were taken back meanwhile."""
    loaded, confirmed = _text(ctx, LOADED), _text(ctx, CONFIRMED)
    if loaded is None:
        if confirmed is not None and nftables.widened(_required(ctx, RULES), confirmed) == confirmed:
            return {"changed": False}
        msg = (
            "the firewall's new rules were taken back, and those of before are in force: nobody came in by SSH in "
            "time to confirm them. Either they cut off whoever runs keadb: network.deploy in the site file must name "
            "that machine. Or the run, or the host, was interrupted. Then run 'keadb up' again"
        )
        raise HostError(msg)
    if not nftables.in_force(ctx, loaded):
        msg = "the firewall's rules in force are not those that were loaded; they are taken back. Run 'keadb up' anew"
        raise HostError(msg)
    _write(ctx, CONFIRMED, loaded)
    _forget(ctx)
    return {"changed": True}


def close(ctx: Context) -> dict[str, Any]:
    """Put exactly the declared rules in force: what is taken away was only there for hosts that have left."""
    declared, confirmed = _required(ctx, RULES), _required(ctx, CONFIRMED)
    if _text(ctx, LOADED) is not None or nftables.widened(declared, confirmed) != confirmed:
        msg = f"the firewall's rules ({RULES}) were never confirmed; run 'keadb up' again"
        raise HostError(msg)
    if confirmed == declared and nftables.in_force(ctx, declared):
        return {"changed": False}
    nftables.load(ctx, declared)
    _write(ctx, CONFIRMED, declared)
    return {"changed": True, "closed": nftables.openings(confirmed)}


def take_back(ctx: Context) -> dict[str, Any]:
    """Put the rules of before back in force unless the loaded ones were confirmed."""
    loaded = _text(ctx, LOADED)
    if loaded is None or loaded == _text(ctx, CONFIRMED):
        return {"changed": False}
    before = _text(ctx, BEFORE)
    try:
        if before:
            nftables.load(ctx, before)
        else:
            nftables.remove(ctx)
    except HostError:
        nftables.remove(ctx)  # an open host can be mended from afar, one that is cut off cannot
        raise
    finally:
        _remove(ctx)
    sys.stderr.write("the firewall's rules were not confirmed: those of before are in force again\n")
    return {"changed": True}


def unconfirmed(ctx: Context) -> bool:
    """Say whether the declared rules were loaded and never confirmed; reads only."""
    declared, confirmed = _text(ctx, RULES), _text(ctx, CONFIRMED)
    return declared is not None and (confirmed is None or nftables.widened(declared, confirmed) != confirmed)


def drift(ctx: Context) -> Iterator[dict[str, Any]]:
    """Yield what differs between the table in force and the declared rules, with its lines, once they were closed."""
    declared = _required(ctx, RULES)
    name = " ".join(nftables.TABLE)
    now, wanted = nftables.live(ctx), nftables.listed(ctx, declared)
    if now is None:
        yield {"kind": "rules", "name": name, "is": "not in force: the host is open"}
    elif now != wanted:
        diff = list(unified_diff(wanted.splitlines(), now.splitlines(), "declared", "in force", n=2, lineterm=""))
        yield {"kind": "rules", "name": name, "is": "changed", "diff": diff}
    if _text(ctx, CONFIRMED) != declared:
        yield {"kind": "rules", "name": CONFIRMED, "is": "other rules than those declared: the host starts with them"}


def _text(ctx: Context, path: str) -> str | None:
    try:
        return ctx.path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def _required(ctx: Context, path: str) -> str:
    found = _text(ctx, path)
    if found is None:
        msg = f"{path} is missing: run 'keadb up'"
        raise HostError(msg)
    return found


def _write(ctx: Context, path: str, text: str) -> None:
    files.replace(ctx, path, text.encode(), mode=0o600, owner=files.Owner.root(ctx))


def _forget(ctx: Context) -> None:
    """End the waiting for a confirmation."""
    _remove(ctx)
    _stop_timer(ctx)


def _remove(ctx: Context) -> None:
    for path in (LOADED, BEFORE):
        ctx.path(path).unlink(missing_ok=True)


def _start_timer(ctx: Context, seconds: int) -> None:
    timer = ("--timer-property=AccuracySec=200ms", f"--on-active={seconds}s", "--collect", "--quiet")
    argv = ["systemd-run", f"--unit={TIMER}", *timer, "--", _APPLIER, "firewall", "take-back"]
    ctx.system.run(argv, timeout=_LIMIT)


def _stop_timer(ctx: Context) -> None:
    # One that runs already waits for our lock, and then finds nothing to take back.
    ctx.system.run(["systemctl", "stop", f"{TIMER}.timer"], timeout=_LIMIT, check=False)
