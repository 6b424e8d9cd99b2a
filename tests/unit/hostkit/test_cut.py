"""Changes cut at every command and every file operation, then run again: same end, and every restart happened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from hostkit import pending
from tests.unit.hostkit.scenes import CHANGES, CONFIG, Scene, first, leave, scene, second, secrets, stage
from tests.unit.hostkit.tls_samples import Authority

pytestmark = pytest.mark.thorough


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_cut_anywhere_and_run_again(
    change: Callable[[Scene], None], quick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same files, users, packages and units as without a cut; units run what is on disk; no plan is left.

    A unit is restarted a second time only when the cut fell between its restart and the note of it.
    """
    prepared = stage(quick, monkeypatch, first_applied=change is not first)
    reference = prepared("reference")
    change(reference)
    wanted = reference.state()
    moment, needless = 0, 0
    while True:
        s = prepared(str(moment))
        was_cut = s.cut_at(moment, change, monkeypatch)
        change(s)
        assert s.state() == wanted, f"cut at moment {moment}"
        assert not list(pending.left(s.machine.ctx)), f"cut at moment {moment}"
        needless += sum(u.needless for u in s.machine.system.units.values())
        if not was_cut:
            break
        moment += 1
    assert moment >= (3 if change is secrets else 15), "hardly anything was cut"
    # Per unit: the moments from the end of systemctl to the note's place on disk.
    assert needless <= 2 * 8


@pytest.mark.parametrize("other", [1, 3])
@pytest.mark.parametrize("had_one", [True, False], ids=["change", "first apply"])
def test_what_a_cut_run_left_is_nobodys_edit(
    other: int,
    had_one: bool,  # noqa: FBT001 - a parameter of the test
    quick: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a cut the site file is changed back, or on: nothing is refused, and nothing of version 2 stays."""
    prepared = stage(quick, monkeypatch, first_applied=had_one)
    reference = prepared("reference")
    reference.apply(other)
    moment = 0
    while True:
        s = prepared(str(moment))
        was_cut = s.cut_at(moment, second, monkeypatch)
        s.apply(other)
        # A half-written record stays root's own beside the record until that is written next.
        tree = {p: state for p, state in s.machine.tree().items() if not p.endswith("applied/.db.json.keadb-new")}
        assert tree == reference.machine.tree(), f"cut at moment {moment}"
        running = {n: u.running for n, u in s.machine.system.units.items() if u.active == "active"}
        expected = {n: u.running for n, u in reference.machine.system.units.items() if u.active == "active"}
        assert running == expected, f"cut at moment {moment}"
        assert not list(pending.left(s.machine.ctx))
        if not was_cut:
            break
        moment += 5


def test_a_cut_run_can_be_followed_by_the_bundles_end(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a first apply got done before its cut is found again and taken away."""
    prepared = stage(quick, monkeypatch, first_applied=False)
    moment = 0
    while True:
        s = prepared(str(moment))
        before = s.machine.tree()
        was_cut = s.cut_at(moment, first, monkeypatch)
        leave(s)
        left = {p for p in s.machine.tree() if p.startswith("/etc/")}
        assert left - set(before) == set(), f"cut at moment {moment}"
        assert not [n for n, u in s.machine.system.units.items() if u.active == "active" and n != "old.service"]
        if not was_cut:
            break
        moment += 5


def test_a_plan_that_was_left_still_restarts_when_the_bundle_no_longer_changes_the_file(quick: Path) -> None:
    """The file is as wanted, yet the service never read it."""
    s = scene(quick / "host", Authority(), ec.generate_private_key(ec.SECP256R1()))
    s.apply(1)
    s.machine.put(CONFIG, "v2 very-secret-value\n", 0o600)
    todo = pending.Pending("db", restart={"db.service"})
    todo.save(s.machine.ctx)
    s.apply(2)
    assert s.machine.system.units["db.service"].running[0] == "v2 very-secret-value\n"
    assert "systemctl restart -- db.service" in s.machine.system.calls


def test_a_plan_that_cannot_be_read_is_an_error_that_says_what_to_do(quick: Path) -> None:
    """Guessing could leave a service on an old configuration."""
    s = scene(quick / "host", Authority(), ec.generate_private_key(ec.SECP256R1()))
    s.machine.put("/var/lib/keadb/pending/db.json", "{")
    with pytest.raises(Exception, match=r"pending/db.json is not readable .*restart the bundle's units by hand"):
        s.apply(1)
