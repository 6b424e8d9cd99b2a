"""What this host knows about its services, as JSON (verb ``status``): read-only, and never a crash.

Each part that cannot be found out has a single key ``error`` with the reason instead. Parts that this host has no
business with (no etcd here, no database here) are null.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from hostkit import etcd_client, etcd_plan, kea_plan, patroni_plan, software
from hostkit.context import Context
from hostkit.errors import HostError
from hostkit.patroni_client import Rest
from hostkit.psql import Psql, identifier

CERTIFICATES = "/var/lib/keadb/tls"
HOST_NAME = "/etc/keadb/host"
PROBE_SECONDS = 4
"""Limit for each question: the whole answer has to be there before whoever asks gives up after some seconds."""

_T = TypeVar("_T")
_NOT_AFTER = re.compile(r"notAfter=(\d{4}-\d{2}-\d{2}) (\d{2}:\d{2}:\d{2})Z")
_RESERVATIONS = """
SELECT json_build_object(
  'schema', (SELECT version || '.' || minor FROM public.schema_version),
  'reservations', (SELECT count(*) FROM public.hosts))
"""


def main(ctx: Context, argv: list[str]) -> int:  # noqa: ARG001 -- the verbs' common signature
    """Print the state of this host; exit code 0 whatever the state is."""
    json.dump(state(ctx), sys.stdout, indent=1, sort_keys=True)
    sys.stdout.write("\n")
    return 0


def state(ctx: Context) -> dict[str, Any]:
    """Return everything this host knows."""
    parts: dict[str, Callable[[], Any]] = {
        "host": lambda: ctx.path(HOST_NAME).read_text(encoding="utf-8").strip(),
        "etcd": lambda: _probe(ctx, "etcd"),
        "patroni": lambda: _probe(ctx, "patroni"),
        "kea": lambda: kea(ctx),
        "way": lambda: _probe(ctx, "way"),
        "certificates": lambda: certificates(ctx),
        "software": lambda: programs(ctx),
    }
    # All at once: when a neighbour is gone each of them waits for its own time limit.
    with ThreadPoolExecutor(max_workers=len(parts)) as pool:
        return dict(zip(parts, pool.map(_gathered, parts.values()), strict=True))


def _gathered(gather: Callable[[], Any]) -> Any:
    try:
        return gather()
    except HostError as e:
        return {"error": str(e)}
    except Exception as e:  # noqa: BLE001 -- a broken part is something to show, not a reason to show nothing
        return {"error": f"{type(e).__name__}: {e}"}


def _probe(ctx: Context, service: str) -> Any:
    """Return what the service's own probe says; None where this host carries none of it.

    Imported here, so that a probe that cannot even be loaded spoils its own part only.
    """
    return importlib.import_module(f"hostkit.{service}_probe").state(ctx) or None


def kea(ctx: Context) -> dict[str, Any] | None:
    """Return schema version and number of reservations as this node's PostgreSQL shows them; None elsewhere."""
    if not ctx.path(kea_plan.ROLES_PLAN).exists():
        return None
    plan = kea_plan.load(ctx, kea_plan.ROLES_PLAN)
    server = Psql(
        ctx,
        program=plan["psql"],
        database=identifier(plan["database"]),
        user=plan["superuser"],
        timeout=PROBE_SECONDS,
        environment={"PGOPTIONS": f"-c statement_timeout={PROBE_SECONDS}s"},
    )
    found: dict[str, Any] = server.json(_RESERVATIONS)
    return found


def certificates(ctx: Context) -> dict[str, Any]:
    """Return for each certificate of this host the moment it ends, ISO 8601 in UTC."""
    return {
        path.name.removesuffix(".crt"): _gathered(lambda path=path: _not_after(ctx, path))  # type: ignore[misc]  # bound now
        for path in sorted(ctx.path(CERTIFICATES).glob("*.crt"))
    }


def programs(ctx: Context) -> dict[str, dict[str, Any]]:
    """Return what ``software.state`` says of this host's programs, and ``running``: the version each says it is.

    None where a program does not say.
    """
    found = software.state(ctx)
    running: dict[str, str | None] = {}
    if software.ETCD in found:
        running[software.ETCD] = _quiet(lambda: _etcd_version(ctx))
    if software.PATRONI in found or software.POSTGRESQL in found:
        running |= _quiet(lambda: _patroni_versions(ctx)) or {}
    return {key: {**said, "running": running.get(key)} for key, said in found.items()}


def _quiet(ask: Callable[[], _T]) -> _T | None:
    """Return an answer, None without one: that a service is down is told by its own part."""
    try:
        return ask()
    except HostError:
        return None


def _etcd_version(ctx: Context) -> str | None:
    plan = etcd_plan.required(ctx)
    tls = etcd_client.tls_context(ctx, etcd_client.CLIENT_TLS)
    status = etcd_client.Etcd(plan.me, plan.client_port, tls=tls, seconds=PROBE_SECONDS).status()
    return status.get("version")


def _patroni_versions(ctx: Context) -> dict[str, str | None]:
    plan = patroni_plan.form(ctx)
    node = Rest(ctx, plan.cluster).node(plan.me)
    server = node.get("server_version")
    return {
        software.PATRONI: (node.get("patroni") or {}).get("version"),
        # 150020 is 15.20: so since PostgreSQL 10.
        software.POSTGRESQL: f"{server // 10000}.{server % 10000}" if isinstance(server, int) else None,
    }


def _not_after(ctx: Context, path: Path) -> str:
    argv = ["openssl", "x509", "-in", str(path), "-noout", "-enddate", "-dateopt", "iso_8601"]
    said = ctx.system.run(argv, timeout=PROBE_SECONDS).stdout
    found = _NOT_AFTER.search(said)
    if found is None:
        msg = f"openssl gave no date for {path.name}"
        raise HostError(msg)
    return f"{found[1]}T{found[2]}Z"
