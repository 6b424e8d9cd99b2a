"""What kea-database does for each answer of kea-admin: initialise, leave alone, upgrade, refuse, wait."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hostkit import kea_database
from hostkit.context import Context
from hostkit.errors import HostError, Refused
from hostkit.kea_database import Admin
from hostkit.psql import Psql
from hostkit.system import Completed

PLAN = {"schema": "22.2", "kea": "2.6", "accept_upgrade": False, "timeout": 3}
ANNOUNCED = "Using the value of KEA_ADMIN_DB_PASSWORD for the password\n"


@dataclass
class FakeSystem:
    """Answers kea-admin's commands from queues; the last answer of a queue stays. Time passes only in sleep."""

    answers: Mapping[str, list[tuple[int, str, str]]]
    relations: Sequence[str] = ()
    calls: list[str] = field(default_factory=list)
    now: float = 0.0

    def run(self, argv: Sequence[str], **_options: Any) -> Completed:
        if argv[0] == "psql":
            return Completed(0, json.dumps(list(self.relations)), "")
        if argv[1] == "--version":
            return Completed(0, "2.6.3\n", "")
        self.calls.append(argv[1])
        queue = self.answers[argv[1]]
        return Completed(*(queue.pop(0) if len(queue) > 1 else queue[0]))

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def monotonic(self) -> float:
        return self.now

    def uid(self, name: str) -> int:
        raise NotImplementedError(name)

    def gid(self, name: str) -> int:
        raise NotImplementedError(name)


def version(number: str) -> tuple[int, str, str]:
    return (0, f"{ANNOUNCED}{number}\n", "")


NONE = (3, f"{ANNOUNCED}Failed to get schema version, pgsql status 3\n", 'ERROR:  relation "schema_version" ...')
NO_LEADER = (2, "Failed to get schema version, pgsql status 2\n", "connection to server failed: session is read-only")
CUT = (3, "Failed to get schema version, pgsql status 3\n", "server closed the connection unexpectedly")
DONE = (0, "done\n", "")
FAILED = (1, "Database initialization failed, status code: 3?\n", "")


def converge(system: FakeSystem, **plan: Any) -> list[str]:
    ctx = Context(Path("/nowhere"), system)
    admin = Admin(ctx, "kea-admin", "db-01,db-02", "5432", "kea", "kea_owner_a", {})
    return kea_database.converge_schema(admin, Psql(ctx), {**PLAN, **plan})


@pytest.mark.parametrize(
    ("answers", "plan", "calls"),
    [
        pytest.param({"db-version": [version("22.2")]}, {}, ["db-version"], id="as expected: nothing is run"),
        pytest.param(
            {"db-version": [NONE, version("22.2")], "db-init": [DONE]},
            {},
            ["db-version", "db-init", "db-version"],
            id="empty: initialised, version asked again",
        ),
        pytest.param(
            {"db-version": [NONE, version("22.2")], "db-init": [(2, "Expected empty database", "")]},
            {},
            ["db-version", "db-init", "db-version"],
            id="another run was faster",
        ),
        pytest.param(
            {"db-version": [NONE, NONE, version("22.2")], "db-init": [FAILED, DONE]},
            {},
            ["db-version", "db-init", "db-version", "db-init", "db-version"],
            id="cut in the middle: db-init is one transaction, so again",
        ),
        pytest.param(
            {"db-version": [NO_LEADER, CUT, version("22.2")]},
            {},
            ["db-version"] * 3,
            id="no leader yet, then a cut connection: waited, not initialised",
        ),
        pytest.param(
            {"db-version": [version("13.0"), version("22.2")], "db-upgrade": [DONE]},
            {"accept_upgrade": True},
            ["db-version", "db-upgrade", "db-version"],
            id="lower and accepted: upgraded",
        ),
        pytest.param(
            {"db-version": [version("13.0"), version("17.0"), version("22.2")], "db-upgrade": [FAILED, DONE]},
            {"accept_upgrade": True},
            ["db-version", "db-upgrade", "db-version", "db-upgrade", "db-version"],
            id="an upgrade that stopped between two scripts goes on",
        ),
    ],
)
def test_what_is_run(answers: dict[str, list[tuple[int, str, str]]], plan: dict[str, Any], calls: list[str]) -> None:
    system = FakeSystem(answers)
    converge(system, **plan)
    assert system.calls == calls


@pytest.mark.parametrize(
    ("answers", "relations", "message"),
    [
        pytest.param([version("13.0")], [], r"13\.0.*needs 22\.2.*accept\.schema_upgrade", id="lower"),
        pytest.param([version("29.0")], [], r"29\.0, newer than 22\.2", id="higher"),
        pytest.param([version("100.0")], [], r"100\.0, newer", id="numbers, not text, are compared"),
        pytest.param([NONE], ["public.bmc"], r"public\.bmc", id="foreign table"),
        pytest.param([NONE], ["public.schema_version"], "cannot read it", id="no right to read the version"),
    ],
)
def test_what_is_refused(answers: list[tuple[int, str, str]], relations: list[str], message: str) -> None:
    system = FakeSystem({"db-version": answers}, relations)
    with pytest.raises(Refused, match=message):
        converge(system)
    assert system.calls == ["db-version"]


def test_kea_admin_of_another_version_never_writes() -> None:
    system = FakeSystem({"db-version": [NONE]})
    with pytest.raises(Refused, match=r"kea-admin on this host is 2\.6\.3, kea\.version of the site is 3\.0"):
        converge(system, kea="3.0", schema="29.0")


def test_without_a_leader_the_wait_ends_with_the_reason() -> None:
    system = FakeSystem({"db-version": [NO_LEADER]})
    with pytest.raises(HostError, match="within 3 s: connection to server failed: session is read-only"):
        converge(system)
    assert system.now == 3


def test_a_schema_that_does_not_come_is_an_error_with_the_tools_words() -> None:
    system = FakeSystem({"db-version": [NONE], "db-init": [FAILED]})
    with pytest.raises(HostError, match=r"schema is none after 3 attempts, expected 22\.2: Database initialization"):
        converge(system)


def test_the_tool_gets_all_hosts_and_no_password_in_its_arguments() -> None:
    seen: list[Sequence[str]] = []

    class Recording(FakeSystem):
        def run(self, argv: Sequence[str], **options: Any) -> Completed:
            seen.append(argv)
            return super().run(argv, **options)

    converge(Recording({"db-version": [version("22.2")]}))
    assert seen == [
        ["kea-admin", "db-version", "pgsql", "-h", "db-01,db-02", "-P", "5432", "-u", "kea_owner_a", "-n", "kea"]
    ]
