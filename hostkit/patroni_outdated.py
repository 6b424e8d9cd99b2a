"""PostgreSQL that runs what was installed before: told by its own host, restarted by whoever knows the others.

Only the host itself sees that a package was upgraded under its running PostgreSQL; when it may be restarted is seen
from the control host. So ``patroni-form`` leaves a note in etcd, and ``patroni-converge`` restarts by it, as by
Patroni's own flags. A note names the start of the PostgreSQL that it is about: once that one has ended, whatever
ended it, the note is void.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hostkit import software
from hostkit.patroni_dcs import Dcs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hostkit.context import Context
    from hostkit.patroni_client import Rest
    from hostkit.patroni_plan import Cluster, Form

NOTES = "keadb-outdated/"
"""Below the cluster's prefix in etcd, one key a database host."""
STARTED = "postmaster_start_time"
"""Where Patroni says of a node when its PostgreSQL was started."""


def declare(ctx: Context, plan: Form, rest: Rest) -> tuple[str, ...]:
    """Leave a note if this node's PostgreSQL is older than what is installed; return what was installed since."""
    # In this order: started anew in between, it is not outdated.
    started = rest.node(plan.me).get(STARTED)
    since = software.newer(ctx, software.POSTGRESQL)
    if since and started:
        note = json.dumps({"started": started, "since": since})
        Dcs(ctx, plan.cluster).put(NOTES + plan.me.name, note)
    return since


class Notes:
    """The notes of all database hosts, as they were when this was made."""

    def __init__(self, ctx: Context, cluster: Cluster) -> None:
        """Read them; HostError when etcd cannot be asked."""
        self._dcs = Dcs(ctx, cluster)
        found = {m.name: self._dcs.get(NOTES + m.name) for m in cluster.members}
        self._notes: dict[str, dict[str, Any]] = {name: json.loads(text) for name, text in found.items() if text}

    def reasons(self, name: str, node: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a node, by what it says of itself, has yet to be restarted for: packages with their version."""
        note = self._notes.get(name)
        if note is None or node.get(STARTED) != note["started"]:
            return {}
        return dict.fromkeys(note["since"])

    def forget(self, names: Iterable[str]) -> None:
        """Take away the notes of nodes that were restarted."""
        for name in set(names) & self._notes.keys():
            self._dcs.remove(NOTES + name)
            del self._notes[name]
