"""One report from what hosts answered: healthy, unhealthy with every reason, or unknown."""

from __future__ import annotations

import copy
import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from keadb.site import Site
from keadb.stackfile import read_stack
from ops.exits import Exit
from ops.health import Answer, Report, report
from ops.status import show

STACK_FILE = Path(__file__).parents[3] / "Pulumi.us3.yaml"
NOW = datetime(2026, 11, 23, tzinfo=UTC)
DB_1, DB_2, WITNESS = "us3-kea-db-01", "us3-kea-db-02", "us3-kea-witness"
PATRONI = {
    "leader": DB_1,
    "problems": [],
    "members": [{"name": DB_1, "role": "leader", "state": "running", "timeline": 1, "lag": 0, "pending_restart": []}],
}
ETCD: dict[str, Any] = {"leader": WITNESS, "declared": 3, "problems": [], "members": []}
KEA = {"schema": "29.0", "reservations": 2500}
CERTIFICATES = {"client": "2027-12-01T00:00:00Z"}
WAY: dict[str, Any] = {
    "vip": "172.30.19.13",
    "holds_vip": False,
    "pooler": "answers",
    "proxy": {"write": "pooler", "read": "pooler"},
    "units": {"pgbouncer.service": "active", "haproxy.service": "active", "keepalived.service": "active"},
}


@pytest.fixture
def site() -> Site:
    return read_stack(STACK_FILE.read_text(), stack="us3", source="test")


@pytest.fixture
def documents() -> dict[str, dict[str, Any]]:
    made: dict[str, dict[str, Any]] = {
        host: {"host": host, "etcd": ETCD, "patroni": PATRONI, "kea": KEA, "certificates": CERTIFICATES, "way": WAY}
        for host in (DB_1, DB_2)
    }
    made[DB_1]["way"] = WAY | {"holds_vip": True}
    made[WITNESS] = {"host": WITNESS, "etcd": ETCD, "patroni": PATRONI, "kea": None, "certificates": CERTIFICATES}
    return {host: copy.deepcopy(document) for host, document in made.items()}  # not one object thrice


def made(site: Site, documents: dict[str, Any], *silent: str) -> Report:
    answers = [
        Answer(host=h, error="does not answer") if h in silent else Answer(host=h, document=d)
        for h, d in documents.items()
    ]
    return report("us3", site, answers, now=NOW)


def test_healthy(site: Site, documents: dict[str, Any]) -> None:
    found = made(site, documents)
    assert found.problems == []
    assert found.exit_code == Exit.OK
    assert found.kea == {**KEA, "expected_schema": "29.0", "seen_on": DB_1}
    assert found.certificates[DB_1] == {"client": 373}
    assert "host=kea-db-primary.us3.example.com hostaddr=172.30.19.13" in found.conninfo
    assert [host for host, way in found.way.items() if way["holds_vip"]] == [DB_1]
    assert found.as_dict()["healthy"] is True


def test_silent_host_is_shown_and_makes_health_unknown(site: Site, documents: dict[str, Any]) -> None:
    found = made(site, documents, DB_2)
    assert found.exit_code == Exit.UNREACHABLE
    assert found.problems == [f"{DB_2}: does not answer"]
    assert found.as_dict()["unreachable"] == {DB_2: "does not answer"}


def test_everybody_silent_is_a_report_too(site: Site, documents: dict[str, Any]) -> None:
    assert made(site, documents, DB_1, DB_2, WITNESS).exit_code == Exit.UNREACHABLE


def test_better_informed_host_is_believed_and_its_problems_are_shown(site: Site, documents: dict[str, Any]) -> None:
    documents[DB_2]["patroni"] = {"leader": None, "problems": ["there is no leader"], "members": []}
    documents[DB_1]["patroni"]["problems"] = ["there is no synchronous standby"]
    documents[WITNESS]["patroni"]["problems"] = ["there is no synchronous standby"]
    found = made(site, documents)
    assert found.problems == ["patroni: there is no synchronous standby"]
    assert found.exit_code == Exit.FAILED


def test_hosts_that_name_different_leaders_are_a_problem(site: Site, documents: dict[str, Any]) -> None:
    documents[DB_2]["patroni"]["leader"] = DB_2
    assert made(site, documents).problems == [f"patroni: hosts name different leaders: {DB_1}, {DB_2}"]


@pytest.mark.parametrize(
    ("where", "said", "problem"),
    [
        ((WITNESS, "etcd"), {"error": "no plan"}, f"{WITNESS}: etcd: no plan"),
        ((DB_2, "etcd"), None, f"{DB_2}: etcd is not set up"),
        ((DB_2, "patroni"), None, f"{DB_2}: patroni is not set up"),
        (
            (DB_2, "way"),
            None,
            f"{DB_2}: the way to the database (pooler, proxy, virtual address) is not set up",
        ),
        ((DB_2, "way"), {"error": "no plan"}, f"{DB_2}: the way to the database: no plan"),
        ((DB_1, "way"), WAY, "virtual address 172.30.19.13: nobody holds it"),
        ((DB_2, "way"), WAY | {"holds_vip": True}, f"virtual address 172.30.19.13: held by {DB_1} and {DB_2}"),
        ((DB_2, "way"), WAY | {"pooler": "does not answer"}, f"{DB_2}: the pooler does not answer"),
        (
            (DB_2, "way"),
            WAY | {"proxy": {"write": "direct", "read": "pooler"}},
            f"{DB_2}: the proxy sends writes past the poolers: none of them answers",
        ),
        (
            (DB_2, "way"),
            WAY | {"proxy": {"write": "none", "read": "pooler"}},
            f"{DB_2}: the proxy has nobody to send writes to",
        ),
        (
            (DB_2, "way"),
            WAY | {"units": {"keepalived.service": "failed"}},
            f"{DB_2}: keepalived.service is failed",
        ),
        ((DB_2, "kea"), {"error": "no table"}, f"{DB_2}: kea database: no table"),
        ((DB_2, "kea"), None, f"{DB_2}: kea database is not set up"),
        ((DB_1, "kea"), {**KEA, "schema": "22.2"}, "kea database: schema 22.2, Kea 3.0 needs 29.0"),
        ((DB_1, "certificates"), {"error": "no openssl"}, f"{DB_1}: certificates: no openssl"),
        ((DB_1, "certificates"), {"etcd": {"error": "broken"}}, f"{DB_1}: certificate etcd: broken"),
        (
            (DB_1, "certificates"),
            {"etcd": "2026-12-01T00:00:00Z"},
            f"{DB_1}: certificate etcd ends in 8 days: raise tls.epoch",
        ),
    ],
)
def test_each_part_that_is_wrong_is_a_reason(
    site: Site, documents: dict[str, Any], where: tuple[str, str], said: Any, problem: str
) -> None:
    host, part = where
    documents[host][part] = said
    found = made(site, documents)
    assert problem in found.problems
    assert found.exit_code == Exit.FAILED


def program(name: str, running: str | None, *newer: str) -> dict[str, Any]:
    return {"name": name, "running": running, "installed": {}, "newer": list(newer)}


@pytest.fixture
def versions(documents: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    for host, document in documents.items():
        document["software"] = {"etcd": program("etcd", "3.5.16")}
        if host != WITNESS:
            document["software"] |= {
                "patroni": program("Patroni", "4.0.7"),
                "postgresql": program("PostgreSQL", "15.14"),
            }
    return documents


def screen(found: Report) -> str:
    out = io.StringIO()
    show(found, Console(file=out, width=200))
    return out.getvalue()


def test_running_versions_stand_in_one_line(site: Site, versions: dict[str, Any]) -> None:
    found = made(site, versions)
    assert "Software     PostgreSQL 15.14, Patroni 4.0.7, etcd 3.5.16\n" in screen(found)
    assert found.as_dict()["software"][WITNESS]["etcd"]["running"] == "3.5.16"
    versions[DB_2]["software"]["postgresql"]["running"] = "15.15"
    versions[DB_2]["software"]["patroni"]["running"] = versions[DB_1]["software"]["patroni"]["running"] = None
    line = f"Software     PostgreSQL 15.14 ({DB_1}) and 15.15 ({DB_2}), Patroni ?, etcd 3.5.16\n"
    assert line in screen(made(site, versions))


def test_what_waits_for_a_restart_is_a_warning_and_no_illness(site: Site, versions: dict[str, Any]) -> None:
    versions[DB_1]["software"]["postgresql"]["newer"] = ["postgresql-15 15.15-1"]
    versions[WITNESS]["software"]["etcd"] = program("etcd", None, "etcd-server 3.5.17-1")
    found = made(site, versions)
    assert found.exit_code == Exit.OK
    postgresql = "postgresql-15 15.15-1; restart it: keadb restart --stack us3 --rolling"
    etcd = f"etcd-server 3.5.17-1; restart it: keadb drift --stack us3 --restore {WITNESS}:bundle:etcd-roll"
    assert found.as_dict()["warnings"] == [
        f"{DB_1}: PostgreSQL runs 15.14, installed since it started: {postgresql}",
        f"{WITNESS}: etcd runs an unknown version, installed since it started: {etcd}",
    ]
    assert "* us3-kea-db-01: PostgreSQL runs 15.14" in screen(found)


def test_a_pair_of_versions_that_does_not_work_together_is_a_warning_once(
    site: Site, versions: dict[str, Any]
) -> None:
    assert made(site, versions).warnings == []
    versions[DB_1]["software"]["etcd"]["running"] = "3.5.28"
    found = made(site, versions)
    assert found.warnings == [
        "etcd 3.5.28 (from 3.5.28 on) needs Patroni 4.1.1, not 4.0.7: it asks for authentication"
    ]
    assert found.exit_code == Exit.OK


def test_software_that_cannot_be_told_is_a_warning(site: Site, versions: dict[str, Any]) -> None:
    versions[DB_1]["software"] = {"error": "no dpkg"}
    del versions[DB_2]["software"]  # an applier from before
    found = made(site, versions)
    assert found.warnings == [f"{DB_1}: software: no dpkg"]
    assert list(found.software) == [DB_2, WITNESS]
