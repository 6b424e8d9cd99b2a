"""The campaign of changes: its list fits this checkout, its measuring tells right from wrong."""

from __future__ import annotations

import copy
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from components.catalog import bundles
from keadb.site import load_site
from tests.campaign.change_list import CHANGES, Change, Expect, Ground
from tests.campaign.change_table import BEGIN, END, put_into, table
from tests.campaign.checkout import edited_copy
from tests.campaign.measuring import Leg, undeclared
from tests.campaign.watching import Event, Look, etcd_moves, patroni_moves, starts
from tests.lab.harness import ROOT, Writer
from tests.unit.core import samples

if TYPE_CHECKING:
    from tests.lab.harness import Site

BY_NAME = {change.name: change for change in CHANGES}


class _Site:
    name = "lab"


def _ground() -> Ground:
    return Ground(site=cast("Site", _Site()), leader="lab-kea-db-01", standby="lab-kea-db-02")


def _data() -> dict[str, Any]:
    data = samples.ha()
    data["network"]["clients"] = ["172.30.30.1"]
    return data


def test_at_least_twenty_changes_with_names_of_their_own() -> None:
    assert len(CHANGES) >= 20
    assert len(BY_NAME) == len(CHANGES)
    for change in CHANGES:
        does = [change.edit or change.fault, change.files, change.command]
        assert sum(map(bool, does)) == 1, change.name


@pytest.mark.parametrize("change", [c for c in CHANGES if c.edit], ids=lambda c: c.name)
def test_an_edit_of_the_site_file_is_valid_and_changes_what_hosts_get(change: Change) -> None:
    before, after = _data(), _data()
    assert change.edit
    change.edit(after, _ground())
    assert after != before
    if "generation" in str(after):
        return  # a trigger, in no bundle
    was, now = (bundles(load_site(copy.deepcopy(d), source="test")) for d in (before, after))
    if change.name != "certificates":  # signed for a host, in no bundle
        assert was != now


@pytest.mark.parametrize("change", [c for c in CHANGES if c.files], ids=lambda c: c.name)
def test_an_edit_of_the_checkout_finds_its_place(change: Change) -> None:
    for path, edit in change.files.items():
        text = (ROOT / path).read_text()
        edited = edit(text)
        assert edited != text
        if path.endswith(".py"):
            compile(edited, path, "exec")


def test_a_copy_of_the_checkout_runs_its_own_code_from_any_folder() -> None:
    """What is in the current folder is another checkout: it must not be taken."""
    with edited_copy({"ops/__main__.py": lambda _text: "print(__file__)\n"}) as command:
        for folder in (ROOT, command.parents[1]):
            done = subprocess.run([command], cwd=folder, capture_output=True, text=True, check=True)
            assert Path(done.stdout.strip()) == command.parents[1] / "ops" / "__main__.py"
    assert not command.exists()


def _look(leader: str = "a", etcd: str = "w", events: tuple[Event, ...] = (), **started: dict[str, float]) -> Look:
    members = [{"id": f"id-{name}", "name": name} for name in ("a", "b", "w")]
    return Look(
        started=dict(started),
        events=events,
        status={"patroni": {"leader": leader, "members": []}, "etcd": {"leader": etcd, "members": members}},
    )


def test_starts_are_in_order_those_between_included() -> None:
    seen = (
        Event(when=11, host="b", what="start", service="PostgreSQL"),
        Event(when=12, host="a", what="start", service="PostgreSQL"),
        Event(when=12.5, host="a", what="reload", service="PostgreSQL"),
        Event(when=13, host="b", what="start", service="PostgreSQL"),
    )
    before = _look(a={"PostgreSQL": 1}, b={"PostgreSQL": 1, "etcd": 1})
    after = _look(a={"PostgreSQL": 12}, b={"PostgreSQL": 13, "etcd": 11.5}, events=seen)
    found = [(e.host, e.service) for e in starts(before, after)]
    assert found == [("b", "PostgreSQL"), ("b", "etcd"), ("a", "PostgreSQL"), ("b", "PostgreSQL")]
    assert starts(before, before) == []


def test_leaderships_that_came_back_are_seen() -> None:
    def elected(term: int, member: str) -> Event:
        return Event(when=term, host="b", what="leader", service="etcd", more=f"{term} id-{member}")

    seen = (elected(3, "w"), elected(4, "b"), elected(5, "w"), elected(4, "b"))
    assert etcd_moves(_look(), _look(events=seen)) == ["b", "w"]
    assert etcd_moves(_look(), _look(events=seen[:1])) == []
    promoted = (Event(when=2, host="b", what="leader", service="Patroni"),)
    assert patroni_moves(_look(), _look(leader="b", events=promoted)) == ["b"]
    assert patroni_moves(_look(), _look(leader="b")) == ["b"]
    assert patroni_moves(_look(), _look(events=promoted)) == ["b", "a"]
    assert patroni_moves(_look(), _look()) == []


@pytest.mark.parametrize(
    ("expect", "leg", "wrong"),
    [
        (Expect(), Leg(), []),
        (Expect(), Leg(restarts=["etcd db-01"]), ["started ['etcd db-01'], declared is nothing"]),
        (
            Expect(restarts=("PostgreSQL standby", "PostgreSQL leader")),
            Leg(restarts=["PostgreSQL leader", "PostgreSQL standby"]),
            [
                (
                    "started ['PostgreSQL leader', 'PostgreSQL standby'], "
                    "declared is ['PostgreSQL standby', 'PostgreSQL leader']"
                )
            ],
        ),
        (
            Expect(restarts=("PostgreSQL standby",)),
            Leg(),
            ["started nothing, declared is ['PostgreSQL standby']"],
        ),
        (Expect(restarts=None, only=frozenset({"etcd db-02"})), Leg(restarts=["etcd db-02"] * 2), []),
        (
            Expect(restarts=None, only=frozenset({"etcd db-02"})),
            Leg(restarts=["etcd db-01"]),
            ["started ['etcd db-01'], declared is [\"some of ['etcd db-02']\"]"],
        ),
        (
            Expect(),
            Leg(leader_moves=["db-02"]),
            ["Patroni's leadership went to ['db-02'], declared is that it stays"],
        ),
        (Expect(etcd_leader=True), Leg(), ["etcd's leadership stayed, declared is that it moves"]),
        (Expect(leader=None), Leg(leader_moves=["db-02"]), []),
    ],
)
def test_what_was_not_declared_is_wrong(expect: Expect, leg: Leg, wrong: list[str]) -> None:
    assert undeclared(expect, leg) == wrong


def test_a_gap_at_either_end_of_a_part_counts(tmp_path: Path) -> None:
    acks = tmp_path / "acks"
    acks.write_text("1 10.0\n2 10.5\n3 14.0\n4 14.1\n5 14.2\n9 20.0\n6 1")
    client = Writer(cast("subprocess.Popen[bytes]", None), acks, tmp_path / "stop")
    assert client.longest_gap() == pytest.approx(5.8)
    assert client.longest_gap(11.0, 14.2) == pytest.approx(3.5)
    assert client.longest_gap(14.05, 15.2) == pytest.approx(1.0)


def test_the_table_shows_order_moves_and_what_is_wrong() -> None:
    leg = {
        "steps": ["db-01 etcd (stdin)", "db-02 etcd (stdin)"],
        "files": {"db-01:/etc/etcd/keadb.yml": "+1 -1", "db-02:/etc/etcd/keadb.yml": "+1 -1"},
        "restarts": ["PostgreSQL standby", "PostgreSQL leader", "etcd db-01"],
        "leader_moves": [],
        "etcd_moves": ["db-02", "witness"],
        "write_gap": 1.13,
        "read_gap": 0.1,
        "up": 9.94,
    }
    rows = table([{"what": "a change", "there": leg, "back": leg, "wrong": ["something"]}]).splitlines()
    assert rows[2] == (
        "| a change **WRONG** | 2 steps; `keadb.yml` +1 -1 on 2 hosts | PostgreSQL: standby, leader; etcd: db-01 "
        "| etcd's, to db-02, witness | 1.1 s | none | 9.9 s |"
    )
    assert len(rows) == 4


def test_the_table_goes_between_its_marks_in_the_document() -> None:
    text = (ROOT / "docs" / "changes.md").read_text()
    once = put_into(text, "| a |\n")
    assert put_into(once, "| a |\n") == once
    assert (once[: text.index(BEGIN)], once[once.index(END) :]) == (
        text[: text.index(BEGIN)],
        text[text.index(END) :],
    )
    with pytest.raises(ValueError, match="no line"):
        put_into("# Nothing", "| a |\n")


def test_the_command_lists_and_refuses_without_touching_anything(tmp_path: Path) -> None:
    run = [str(ROOT / ".venv/bin/python"), "-m", "tests.campaign.changes", "--stack", "nothing"]
    done = subprocess.run(
        [*run, "--list"], cwd=ROOT, capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert [line.split()[0] for line in done.stdout.splitlines()] == [c.name for c in CHANGES]
    results = tmp_path / "results"
    results.write_text('{"name": "limit", "wrong": [], "what"')  # cut by a kill
    shown = subprocess.run(
        [*run, "--table", "--state", str(results)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "0 of" in shown.stdout
