"""What the hosts' answers mean together: one view of the site, and every reason why it is not healthy. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from keadb.clients import conninfo
from keadb.site import Site
from keadb.versions import KEA_SCHEMA, etcd_patroni_mismatch
from ops import way
from ops.exits import Exit

RESTARTED_BY = {
    "etcd": "keadb drift --stack {stack} --restore {host}:bundle:etcd-roll",
    "patroni": "keadb drift --stack {stack} --restore {host}:bundle:patroni-form",
    "postgresql": "keadb restart --stack {stack} --rolling",
}
"""What restarts a program in its turn, when nothing of the site file has changed."""
CERTIFICATE_DAYS = 30
"""Fewer days left than this and the site is not healthy; renewal is due long before (60 days)."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one host said: its status document, or why there is none."""

    host: str
    document: Mapping[str, Any] | None = None
    error: str = ""


@dataclass(kw_only=True)
class Report:
    """One site at one moment; ``problems`` empty and ``unreachable`` empty means healthy.

    ``warnings`` are for a person to plan for: nothing of it keeps the site from being healthy now.
    """

    stack: str
    conninfo: str
    unreachable: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    patroni: Mapping[str, Any] = field(default_factory=dict)
    etcd: Mapping[str, Any] = field(default_factory=dict)
    kea: dict[str, Any] = field(default_factory=dict)
    way: dict[str, Any] = field(default_factory=dict)
    """Pooler, proxy and virtual address by database host."""
    certificates: dict[str, dict[str, int]] = field(default_factory=dict)
    """Days left by host and certificate name."""
    software: dict[str, dict[str, Mapping[str, Any]]] = field(default_factory=dict)
    """By host and program: its ``name``, the ``running`` version, what is ``installed``, what is ``newer``."""

    @property
    def exit_code(self) -> Exit:
        """Unknown comes before unhealthy: what a silent host would say may be worse."""
        if self.unreachable:
            return Exit.UNREACHABLE
        return Exit.FAILED if self.problems else Exit.OK

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for ``--json``."""
        return {
            "stack": self.stack,
            "healthy": self.exit_code is Exit.OK,
            "problems": self.problems,
            "warnings": self.warnings,
            "unreachable": self.unreachable,
            "patroni": dict(self.patroni),
            "etcd": dict(self.etcd),
            "kea": self.kea,
            "way": self.way,
            "certificates": self.certificates,
            "software": self.software,
            "conninfo": self.conninfo,
        }


def report(stack: str, site: Site, answers: Iterable[Answer], *, now: datetime) -> Report:
    """Put the hosts' answers together; ``now`` (with time zone) decides how many days certificates have left."""
    made = Report(stack=stack, conninfo=conninfo(site))
    documents: dict[str, Mapping[str, Any]] = {}
    for answer in answers:
        if answer.document is None:
            made.unreachable[answer.host] = answer.error
        else:
            documents[answer.host] = answer.document
    made.problems += [f"{host}: {error}" for host, error in made.unreachable.items()]
    made.etcd = _shared_view(made, documents, "etcd", {h.name for h in site.etcd_hosts})
    made.patroni = _shared_view(made, documents, "patroni", {h.name for h in site.database_hosts})
    _kea(made, documents, site)
    made.way, problems = way.view(documents, site)
    made.problems += problems
    _certificates(made, documents, now)
    _software(made, documents)
    return made


def _shared_view(
    made: Report, documents: Mapping[str, Mapping[str, Any]], part: str, concerned: set[str]
) -> Mapping[str, Any]:
    """Return the cluster as the best informed host sees it; what all hosts say is wrong becomes problems.

    A host that is cut off has an honest but poorer view: one that sees a leader is preferred.
    """
    views: list[Mapping[str, Any]] = []
    for host, document in documents.items():
        said = document.get(part)
        if isinstance(said, Mapping) and "error" in said:
            made.problems.append(f"{host}: {part}: {said['error']}")
        elif said:
            views.append(said)
        elif host in concerned:
            made.problems.append(f"{host}: {part} is not set up")
    if not views:
        return {}
    best = min(views, key=lambda view: (view.get("leader") is None, len(view.get("problems", ()))))
    made.problems += [f"{part}: {problem}" for problem in best.get("problems", ())]
    leaders = sorted({str(view["leader"]) for view in views if view.get("leader")})
    if len(leaders) > 1:
        made.problems.append(f"{part}: hosts name different leaders: {', '.join(leaders)}")
    return best


def _kea(made: Report, documents: Mapping[str, Mapping[str, Any]], site: Site) -> None:
    """Take Kea's schema and reservations from the leader, else from any database host that answered."""
    said = {
        host.name: documents[host.name].get("kea") or {} for host in site.database_hosts if host.name in documents
    }
    for host, kea in said.items():
        if "error" in kea:
            made.problems.append(f"{host}: kea database: {kea['error']}")
        elif not kea:
            made.problems.append(f"{host}: kea database is not set up")
    usable = {host: kea for host, kea in said.items() if kea and "error" not in kea}
    leader = made.patroni.get("leader")
    source = leader if leader in usable else next(iter(usable), None)
    if source is None:
        return
    expected = KEA_SCHEMA[site.kea.version]
    made.kea = {**usable[source], "expected_schema": expected, "seen_on": source}
    if made.kea.get("schema") != expected:
        made.problems.append(
            f"kea database: schema {made.kea.get('schema')}, Kea {site.kea.version} needs {expected}"
        )


def _certificates(made: Report, documents: Mapping[str, Mapping[str, Any]], now: datetime) -> None:
    for host, document in documents.items():
        said = document.get("certificates") or {}
        if "error" in said:
            made.problems.append(f"{host}: certificates: {said['error']}")
            continue
        made.certificates[host] = {}
        for name, end in said.items():
            if not isinstance(end, str):
                made.problems.append(f"{host}: certificate {name}: {end.get('error', 'unknown')}")
                continue
            days = (datetime.fromisoformat(end) - now).days
            made.certificates[host][name] = days
            if days < CERTIFICATE_DAYS:
                made.problems.append(f"{host}: certificate {name} ends in {days} days: raise tls.epoch")


def _software(made: Report, documents: Mapping[str, Mapping[str, Any]]) -> None:
    """Take over which versions run, and warn of what waits for a restart or does not work together."""
    for host, document in documents.items():
        said = document.get("software") or {}  # an applier from before has none
        if "error" in said:
            made.warnings.append(f"{host}: software: {said['error']}")
            continue
        made.software[host] = dict(said)
        made.warnings += [
            f"{host}: {of['name']} runs {of['running'] or 'an unknown version'}, installed since it started: "
            f"{', '.join(of['newer'])}; restart it: {RESTARTED_BY[program].format(stack=made.stack, host=host)}"
            for program, of in said.items()
            if of["newer"]
        ]
    pairs = [(etcd, patroni) for etcd in running(made, "etcd") for patroni in running(made, "patroni")]
    made.warnings += [why for pair in pairs if (why := etcd_patroni_mismatch(*pair))]


def running(made: Report, program: str) -> dict[str, list[str]]:
    """Return which versions of a program run, and on which hosts each."""
    found: dict[str, list[str]] = {}
    for host, programs in made.software.items():
        if version := programs.get(program, {}).get("running"):
            found.setdefault(version, []).append(host)
    return found
