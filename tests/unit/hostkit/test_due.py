"""Changes of a unit that a cluster-level step restarts: written at once, its restart recorded until seen done."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hostkit import applier, bundle, check, due
from hostkit.errors import HostError
from keadb.bundle import Bundle, File, Start, TlsUse, Unit
from tests.unit.hostkit.fakes import HOST, Cut, FakeSystem, FakeUnit, Machine, ticking_files
from tests.unit.hostkit.test_tls import CA, CERT, KEY, certify
from tests.unit.hostkit.tls_samples import Authority

NAME = "db.service"
CONFIG, UNIT, OTHER = "/etc/db/config", "/etc/systemd/system/db.service", "/etc/db/other"


def database(version: int = 1, other: int = 1) -> Bundle:
    """A member of a cluster."""
    return Bundle(
        name="db",
        host=HOST,
        files={
            CONFIG: File(content=f"v{version}\n"),
            UNIT: File(content=f"[Service] # v{version}\n"),
            OTHER: File(content=f"{other}\n"),
        },
        units={NAME: Unit(start=Start.CLUSTER, restart_on=(CONFIG, UNIT))},
    )


def apply(machine: Machine, what: Bundle) -> applier.Summary:
    """Apply it."""
    return applier.apply(machine.ctx, bundle.parse(what.to_json()))


@pytest.fixture
def running(machine: Machine) -> Machine:
    """A machine whose member runs the first version."""
    unit = machine.system.units[NAME] = FakeUnit(reads=(CONFIG, UNIT), definition=UNIT)
    apply(machine, database())
    unit.active = "active"
    return machine


def test_the_first_apply_only_enables(machine: Machine) -> None:
    """Nothing runs, so nothing is due."""
    machine.system.units[NAME] = FakeUnit(reads=(CONFIG, UNIT), definition=UNIT)
    assert apply(machine, database()).units == {NAME: "enabled"}
    assert machine.system.units[NAME].active == "inactive"
    assert due.due(machine.ctx, NAME) == ()


def test_a_change_is_written_and_recorded_and_the_unit_left_alone(running: Machine) -> None:
    """The manager learns of the new unit file, so that whoever restarts it starts the new one."""
    running.system.calls.clear()
    apply(running, database(2))
    assert running.text(CONFIG) == "v2\n"
    assert due.due(running.ctx, NAME) == (CONFIG, UNIT)
    assert running.system.units[NAME].running == ()
    acted = [c for c in running.system.calls if c.startswith("systemctl") and " show " not in c]
    assert acted == ["systemctl daemon-reload"]


def test_what_is_due_is_told_as_a_difference_until_it_was_done(running: Machine) -> None:
    """The file is as declared, and yet not in force."""
    assert check.drift(running.ctx)["in_sync"]
    apply(running, database(2))
    told = check.drift(running.ctx)
    assert [(item["name"], item["is"]) for item in told["drift"]] == [
        (NAME, f"its restart is due: it still runs with the former {CONFIG}, {UNIT}")
    ]
    assert not told["in_sync"]
    due.clear(running.ctx, NAME)
    assert check.drift(running.ctx)["in_sync"]


def test_what_it_does_not_read_makes_nothing_due(running: Machine) -> None:
    """A file that it watches not."""
    apply(running, database(other=2))
    assert due.due(running.ctx, NAME) == ()


def test_later_changes_add_to_what_is_due_and_only_the_step_clears_it(running: Machine) -> None:
    """Also when the change was taken back: the unit may have been restarted in between by nobody."""
    due.add(running.ctx, NAME, ["/etc/db/earlier"])
    apply(running, database(2))
    apply(running, database(1))
    assert due.due(running.ctx, NAME) == (CONFIG, "/etc/db/earlier", UNIT)
    due.clear(running.ctx, NAME)
    assert due.due(running.ctx, NAME) == ()
    apply(running, database(1))
    assert due.due(running.ctx, NAME) == ()


@pytest.mark.parametrize(("active", "recorded"), [("inactive", False), ("failed", False), ("activating", True)])
def test_only_a_unit_that_may_have_read_old_files_is_due(machine: Machine, active: str, *, recorded: bool) -> None:
    """A crash loop may start between the look and the write."""
    unit = machine.system.units[NAME] = FakeUnit(reads=(CONFIG, UNIT), definition=UNIT)
    apply(machine, database())
    unit.active = active
    apply(machine, database(2))
    assert bool(due.due(machine.ctx, NAME)) is recorded


def test_a_new_certificate_that_is_read_once_is_due(machine: Machine) -> None:
    """Stored and placed, not refused."""
    authority = Authority()
    certify(machine, authority, 2)
    machine.system.units[NAME] = FakeUnit()
    use = TlsUse(key=KEY, cert=CERT, ca=CA, owner="root", group="root")
    apply(
        machine,
        Bundle(name="db", host=HOST, tls={"db": use}, units={NAME: Unit(start=Start.CLUSTER, restart_on=(CERT,))}),
    )
    machine.system.units[NAME].active = "active"
    old = machine.text(CERT)
    certify(machine, authority, 3)
    assert machine.text(CERT) != old
    assert due.due(machine.ctx, NAME) == (CERT,)


def test_cut_anywhere_a_changed_file_is_never_without_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every moment: old file, or the restart is due; and the next run ends the same."""
    monkeypatch.setattr(os, "fsync", lambda _fd: None)
    moment = 0
    while True:
        root = tmp_path / str(moment)
        root.mkdir()
        machine = Machine(root, FakeSystem(root))
        unit = machine.system.units[NAME] = FakeUnit(reads=(CONFIG, UNIT), definition=UNIT)
        apply(machine, database())
        unit.active = "active"
        passed = 0

        def tick() -> None:
            nonlocal passed
            passed += 1
            if passed > moment:  # noqa: B023 - used up within this turn
                raise Cut

        machine.system.tick = tick
        was_cut = False
        try:
            with ticking_files(monkeypatch, tick):
                apply(machine, database(2))
        except Cut:
            was_cut = True
        machine.system.tick = lambda: None
        assert machine.text(CONFIG) == "v1\n" or due.due(machine.ctx, NAME), f"cut at moment {moment}"
        apply(machine, database(2))
        assert (machine.text(CONFIG), due.due(machine.ctx, NAME)) == ("v2\n", (CONFIG, UNIT))
        if not was_cut:
            break
        moment += 1
    assert moment > 10, "hardly anything was cut"


def test_a_record_that_cannot_be_read_is_an_error_that_says_what_to_do(machine: Machine) -> None:
    """Neither restarted nor forgotten by a guess."""
    machine.put(f"{due.FOLDER}/{NAME}.json", json.dumps({"unit": NAME}))
    with pytest.raises(HostError, match=r"due/db.service.json is not readable.*restart db.service by hand"):
        due.due(machine.ctx, NAME)
