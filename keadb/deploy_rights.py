"""What the deploy user may run as root on a host: the applier, word by word as ``keadb`` calls it.

A bundle can place any file, so this user is as good as root for whoever holds the deploy key. What the list ends is
everything else: other programs, the applier's other options (``--root`` above all), and verbs that only run on the
host itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from keadb.site import Host, Site

EVERYWHERE = (
    *("bootstrap", "secrets", "keys", "certificates", "apply", "prune"),
    *("accept", "restore", "foresee", "check", "version", "status", "audit"),
    *("leave database", "leave etcd"),
)
"""The applier's words on every host; what they work on comes on stdin."""
DAY_2_OPTIONS = "--lock-wait 30"
"""Before the words of day-2 work: nobody waits for minutes at a prompt."""


def applier_words(site: Site, host: Host) -> tuple[str, ...]:
    """Return everything that may stand behind the applier's name on one host; empty words are its usage.

    Day-2 work is done on the control host, and names database hosts: each of them is spelled out.
    """
    # Without words it only says how it is used. A checkout of before this list asks whether it may run it like that.
    words = ["", *EVERYWHERE]
    if host.name == site.control_host.name:
        words += [f"{DAY_2_OPTIONS} {verb}" for verb in _day_2(site)]
    return tuple(words)


def _day_2(site: Site) -> Iterable[str]:
    names = [host.name for host in site.database_hosts]
    for verb in (
        "patroni-switchover",
        "patroni-restart",
        *(f"patroni-restart {name}" for name in names),
        *(f"patroni-reinit {name}" for name in names),
    ):
        yield f"{verb} --check"
        yield from (f"{verb} --leader {leader}" for leader in names)
    for verb in ("patroni-pause on", "patroni-pause off"):
        yield f"{verb} --check"
        yield verb
