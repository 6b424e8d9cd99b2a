"""A replica changes nothing: it waits until replication brought the roles, or says what is missing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hostkit import kea_roles, scram
from hostkit.context import Context
from hostkit.errors import CommandFailed, HostError
from hostkit.psql import Psql
from hostkit.system import Completed

PLAN: dict[str, Any] = {
    "database": "kea",
    "owner": "kea_owner",
    "roles": ["kea_owner"],
    "connect": [],
    "logins": {"kea_owner_a": {"role": "kea_owner", "secret": "s", "set_role": True}},
    "timeout": 5,
}
GROUP = [False, False, False, False, False, False, True]


def state(*, replica: bool, there: bool) -> dict[str, Any]:
    roles = {
        "kea_owner": {"attributes": GROUP, "password": None, "settings": [], "member_of": []},
        "kea_owner_a": {
            "attributes": [True, *GROUP[1:]],
            "password": scram.verifier("a-password"),
            "settings": ["role=kea_owner"],
            "member_of": ["kea_owner"],
        },
    }
    return {
        "in_recovery": replica,
        "roles": roles if there else {},
        "database": {"owner": "kea_owner", "grants": None} if there else None,
    }


class FakeServer:
    """Answers the questions about roles from a queue (the last stays); remembers statements that change."""

    def __init__(self, states: list[dict[str, Any] | None]) -> None:
        self.states = states
        self.changes: list[str] = []
        self.now = 0.0

    def run(self, argv: Sequence[str], *, input: str | None = None, **_options: Any) -> Completed:  # noqa: A002, ARG002 -- as in System
        asked = input or ""
        if "pg_is_in_recovery" in asked:
            found = self.states.pop(0) if len(self.states) > 1 else self.states[0]
            if found is None:
                msg = "psql ended with exit code 2: the database system is starting up"
                raise CommandFailed(msg, 2)
            return Completed(0, json.dumps(found), "")
        if "pg_namespace" in asked:
            return Completed(0, json.dumps({"owner": "kea_owner", "grants": None}), "")
        self.changes.append(asked)
        return Completed(0, "", "")

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def monotonic(self) -> float:
        return self.now

    def uid(self, name: str) -> int:
        raise NotImplementedError(name)

    def gid(self, name: str) -> int:
        raise NotImplementedError(name)


def converge(server: FakeServer) -> dict[str, Any]:
    return kea_roles.converge(Psql(Context(Path("/nowhere"), server)), PLAN, {"kea_owner_a": "a-password"})


def test_replica_waits_for_the_leaders_work() -> None:
    server = FakeServer(
        [None, state(replica=True, there=False), state(replica=True, there=False), state(replica=True, there=True)]
    )
    assert converge(server) == {"changed": False, "leader": False, "actions": []}
    assert server.changes == []
    assert server.now == 3


def test_replica_in_vain_says_what_is_missing() -> None:
    server = FakeServer([state(replica=True, there=False)])
    with pytest.raises(
        HostError, match="after 5 s: this replica does not have yet: create role kea_owner, create lo"
    ):
        converge(server)
    assert server.changes == []


def test_replica_that_is_promoted_meanwhile_does_the_work() -> None:
    server = FakeServer(
        [state(replica=True, there=False), state(replica=False, there=False), state(replica=False, there=True)]
    )
    assert converge(server)["leader"] is True
    assert any("CREATE DATABASE kea" in change for change in server.changes)


def test_server_that_never_answers_is_reported_in_its_own_words() -> None:
    with pytest.raises(HostError, match="the database system is starting up"):
        converge(FakeServer([None]))


def test_name_that_would_need_quoting_never_reaches_sql() -> None:
    plan = {**PLAN, "roles": ['kea"; DROP TABLE hosts; --']}
    server = FakeServer([state(replica=False, there=True)])
    with pytest.raises(HostError, match="SQL name"):
        kea_roles.converge(Psql(Context(Path("/nowhere"), server)), plan, {"kea_owner_a": "a-password"})
    assert server.changes == []
