"""What runs on a site's hosts, and what happened there since a moment: starts, reloads, leadership, in order."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.lab.harness import Site

SERVICES = ("etcd", "Patroni", "PostgreSQL")
LOOK = r"""
import json, os, re, subprocess, sys, time

def said(*argv):
    return subprocess.run(argv, capture_output=True, text=True).stdout

UNITS = {"keadb-etcd.service": "etcd", "patroni.service": "Patroni"}
SINCE = float(sys.argv[1])
started = {}
for unit, service in UNITS.items():
    when = said("systemctl", "show", "-p", "ExecMainStartTimestampMonotonic", "--value", unit).strip()
    if when not in ("", "0"):
        started[service] = int(when) / 1e6
try:
    pid = open("/var/lib/postgresql/15/kea/postmaster.pid").readline().strip()
    ticks = int(open("/proc/%s/stat" % pid).read().rpartition(")")[2].split()[19])
    started["PostgreSQL"] = ticks / os.sysconf("SC_CLK_TCK")
except (OSError, ValueError, IndexError):
    pass

events = []
units = [word for unit in UNITS for word in ("-u", unit)]
since = "--since=@%d" % (time.time() - (time.monotonic() - SINCE) - 1)
said("journalctl", "--sync")
for line in said("journalctl", "-q", "-o", "json", since, *units).splitlines():
    entry = json.loads(line)
    when, text = int(entry["__MONOTONIC_TIMESTAMP"]) / 1e6, str(entry.get("MESSAGE"))
    if when < SINCE:
        continue
    unit = entry.get("UNIT")
    if unit in UNITS:
        if entry.get("MESSAGE_ID") == "39f53479d3a045ac8e11786248231fbf":
            events.append([when, "start", UNITS[unit], ""])
        elif entry.get("JOB_TYPE") == "reload" and text.startswith("Reloaded"):
            events.append([when, "reload", UNITS[unit], ""])
        continue
    if "starting PostgreSQL" in text:
        events.append([when, "start", "PostgreSQL", ""])
    elif "received SIGHUP" in text:
        events.append([when, "reload", "PostgreSQL", ""])
    elif "promoted self to leader by acquiring" in text:
        events.append([when, "leader", "Patroni", ""])
    else:
        elected = re.search(r"elected leader (\w+) at term (\d+)", text)
        if elected:
            events.append([when, "leader", "etcd", elected[2] + " " + elected[1]])
state = said("/usr/lib/keadb/keadb-apply", "status") if "status" in sys.argv else ""
print(json.dumps({"started": started, "events": events, "status": json.loads(state or "{}")}))
"""
"""Runs on a host with its own Python; reads only. The containers share the machine's monotonic clock."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """``what`` is start, reload or leader; ``when`` is a moment of the monotonic clock."""

    when: float
    host: str
    what: str
    service: str
    more: str = ""


@dataclass(frozen=True, kw_only=True)
class Look:
    """Start times by host and service, events since a moment, and the cluster as the control host sees it."""

    started: dict[str, dict[str, float]]
    events: tuple[Event, ...]
    status: dict[str, Any]

    @property
    def leader(self) -> str | None:
        """Patroni's leader."""
        return (self.status.get("patroni") or {}).get("leader")

    @property
    def etcd_leader(self) -> str | None:
        """The member of etcd that leads."""
        return (self.status.get("etcd") or {}).get("leader")

    @property
    def pending(self) -> dict[str, list[str]]:
        """What each database host waits to be restarted for; only those that wait."""
        members = (self.status.get("patroni") or {}).get("members") or []
        return {m["name"]: m["pending_restart"] for m in members if m["pending_restart"]}

    def etcd_names(self) -> dict[str, str]:
        """Return etcd's members: id to name."""
        return {m["id"]: m["name"] for m in (self.status.get("etcd") or {}).get("members") or []}


def look(site: Site, since: float) -> Look:
    """Ask every host at once; fails with what it said when one cannot be asked."""
    hosts = [host.name for host in site.lab.hosts]
    control = f"{site.name}-kea-witness"

    def one(host: str) -> dict[str, Any]:
        more = ["status"] if host == control else []
        done = site.lab.exec(host, ["python3", "-c", LOOK, str(since), *more], timeout=120)
        if done.returncode:
            msg = f"{host}: {done.stderr.strip()}"
            raise RuntimeError(msg)
        return dict(json.loads(done.stdout))

    with ThreadPoolExecutor(max_workers=len(hosts)) as pool:
        answers = dict(zip(hosts, pool.map(one, hosts), strict=True))
    events = [
        Event(when=when, host=host, what=what, service=service, more=more)
        for host, answer in answers.items()
        for when, what, service, more in answer["events"]
    ]
    return Look(
        started={host: answer["started"] for host, answer in answers.items()},
        events=tuple(sorted(events, key=lambda e: e.when)),
        status=answers[control]["status"],
    )


def starts(before: Look, after: Look) -> list[Event]:
    """Return every start of a service between two looks, in order.

    The journal names them all, also those between; a start that only the start times show is added to them.
    """
    found = [e for e in after.events if e.what == "start"]
    for host, services in after.started.items():
        for service, when in services.items():
            known = any((e.host, e.service) == (host, service) for e in found)
            if not known and abs(when - before.started.get(host, {}).get(service, 0.0)) > 0.5:
                found.append(Event(when=when, host=host, what="start", service=service))
    return sorted(found, key=lambda e: e.when)


def patroni_moves(before: Look, after: Look) -> list[str]:
    """Return the hosts to which Patroni's leadership went, in order; empty when it stayed."""
    moves, leader = [], before.leader
    for event in after.events:
        if (event.what, event.service) == ("leader", "Patroni") and event.host != leader:
            leader = event.host
            moves.append(event.host)
    if after.leader is not None and after.leader != leader:
        moves.append(after.leader)
    return moves


def etcd_moves(before: Look, after: Look) -> list[str]:
    """Return the hosts to which etcd's leadership went, in order of terms; an unknown member by its id."""
    names = before.etcd_names() | after.etcd_names()
    terms = {}
    for event in after.events:
        if (event.what, event.service) == ("leader", "etcd"):
            term, member = event.more.split()
            terms[int(term)] = names.get(member, member)
    moves, leader = [], before.etcd_leader
    for _, name in sorted(terms.items()):
        if name != leader:
            leader = name
            moves.append(name)
    if after.etcd_leader is not None and after.etcd_leader != leader:
        moves.append(after.etcd_leader)
    return moves
