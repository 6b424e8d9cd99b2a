"""The way to the database in ``status``: who holds the virtual address, and what poolers and proxies say. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keadb.site import Site

_NOBODY = "none"


def view(documents: Mapping[str, Mapping[str, Any]], site: Site) -> tuple[dict[str, Any], list[str]]:
    """Return each answering database host's part of the way, and every reason why the way is not whole."""
    found: dict[str, Any] = {}
    problems: list[str] = []
    hosts = [host.name for host in site.database_hosts if host.name in documents]
    for host in hosts:
        said = documents[host].get("way")
        if not said:
            problems.append(f"{host}: the way to the database (pooler, proxy, virtual address) is not set up")
        elif "error" in said:
            problems.append(f"{host}: the way to the database: {said['error']}")
        else:
            found[host] = said
            problems += [f"{host}: {reason}" for reason in _reasons(said)]
    holders = [host for host, said in found.items() if said["holds_vip"]]
    if len(holders) > 1:
        problems.append(f"virtual address {site.network.vip}: held by {' and '.join(holders)}")
    # A host that did not answer may hold it.
    elif found and not holders and len(found) == len(site.database_hosts):
        problems.append(f"virtual address {site.network.vip}: nobody holds it")
    return found, problems


def _reasons(said: Mapping[str, Any]) -> list[str]:
    reasons = [f"{unit} is {state}" for unit, state in said["units"].items() if state != "active"]
    if said["pooler"] != "answers":
        reasons.append(f"the pooler {said['pooler']}")
    for which, whom in said["proxy"].items():
        if whom == _NOBODY:
            reasons.append(f"the proxy has nobody to send {which}s to")
        elif whom == "direct":
            reasons.append(f"the proxy sends {which}s past the poolers: none of them answers")
        elif whom != "pooler":
            reasons.append(whom)
    return list(dict.fromkeys(reasons))


def lines(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return two lines for people: the holder, what each host's pooler and proxy say; none if nobody answered."""
    if not found:
        return []
    holders = [host for host, said in found.items() if said["holds_vip"]]
    vip = next(iter(found.values()))["vip"]
    hosts = "; ".join(
        f"{host} pooler {said['pooler']}, proxy: writes {said['proxy']['write']}, reads {said['proxy']['read']}"
        for host, said in found.items()
    )
    return [f"Address      {vip} held by {' and '.join(holders) or 'nobody seen'}", f"Way          {hosts}"]
