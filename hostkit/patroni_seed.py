"""Puts the declared settings into etcd before the cluster's birth (verb ``patroni-seed``), and never after it.

Patroni starts from what it finds there, so that the settings stand in one place: no copy in ``bootstrap.dcs`` of each
node's file, which would be inert after the birth and yet show every change. A cluster that was born is left alone;
``patroni-converge`` changes it.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from hostkit import patroni_plan
from hostkit.patroni_dcs import Dcs

if TYPE_CHECKING:
    from hostkit.context import Context


def main(ctx: Context, argv: list[str]) -> int:  # noqa: ARG001 - the signature of every verb
    """Write Patroni's ``config`` key unless the cluster was born; print whether it was written."""
    plan = patroni_plan.settings(ctx)
    dcs = Dcs(ctx, plan.cluster)
    wanted = json.dumps(plan.config, separators=(",", ":"))
    changed = dcs.get("config") != wanted and dcs.put_before_birth("config", wanted)
    json.dump({"changed": changed}, sys.stdout)
    sys.stdout.write("\n")
    return 0
