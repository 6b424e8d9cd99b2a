"""Drift as ``check`` tells it, and the store of secrets."""

from __future__ import annotations

import os
from typing import Any

import pytest

from hostkit import applier, bundle, check, files, pending, store
from hostkit.errors import HostError
from hostkit.placing import Placement
from hostkit.system import Completed
from keadb.bundle import Bundle, File, Packages, Start, Step, Unit
from tests.unit.hostkit.fakes import HOST, FakeUnit, Machine


@pytest.fixture
def applied(machine: Machine) -> Machine:
    """A host with one applied bundle."""
    machine.system.units["a.service"] = FakeUnit()
    machine.system.units["member.service"] = FakeUnit()
    what = Bundle(
        name="a",
        host=HOST,
        packages=Packages(install=("pkg", "pinned=1.0"), hold=("pinned",), mask=("other.service",)),
        files={"/etc/a": File(content="x", owner="etcd", group="etcd")},
        units={"a.service": Unit(), "member.service": Unit(start=Start.CLUSTER)},
        steps=(Step(name="guarded", run=("true",), check=("guard",)),),
    )
    machine.system.commands["guard"] = lambda _: Completed(0, "", "")
    applier.apply(machine.ctx, bundle.parse(what.to_json()))
    return machine


def test_an_untouched_host_is_in_sync(applied: Machine) -> None:
    """A unit of a cluster need not run."""
    before = applied.stamps()
    assert check.drift(applied.ctx) == {"bundles": ["a"], "in_sync": True, "drift": [], "unfinished": []}
    assert applied.stamps() == before


def told(machine: Machine) -> list[tuple[str, str, str]]:
    """What check says, short."""
    return [(d["kind"], d["name"], d["is"]) for d in check.drift(machine.ctx)["drift"]]


def test_every_kind_of_drift_is_told(applied: Machine) -> None:
    """One item each; a unit of a cluster counts once it has run."""
    target = applied.root / "etc/a"
    target.write_text("y")
    target.chmod(0o600)
    applied.system.users["etcd"] = os.geteuid() + 1
    applied.system.units["a.service"].active = "failed"
    applied.system.units["member.service"].file = "disabled"
    applied.system.packages.update(pinned="2.0")
    del applied.system.packages["pkg"]
    applied.system.held.clear()
    (applied.root / "etc/systemd/system/other.service").unlink()
    applied.system.commands["guard"] = lambda _: Completed(1, "", "")
    found = told(applied)
    assert found[0][:2] == ("file", "/etc/a")
    assert [part.split(" instead")[0].split()[0] for part in found[0][2].split(", ")] == [
        "changed", "mode", "owner", "group",
    ]  # fmt: skip
    assert found[1:] == [
        ("unit", "a.service", "failed (dead)"),
        ("unit", "member.service", "disabled"),
        ("package", "pkg", "missing"),
        ("package", "pinned", "version 2.0 instead of 1.0"),
        ("package", "pinned", "not held"),
        ("mask", "other.service", "not masked"),
        ("step", "guarded", "what it brought about does not hold any more"),
    ]
    assert check.drift(applied.ctx)["in_sync"] is False


def test_a_unit_of_a_cluster_that_ran_and_was_stopped_is_told(applied: Machine) -> None:
    """Before its first start it only waits for its cluster-level step."""
    unit = applied.system.units["member.service"]
    assert told(applied) == []
    unit.ran, unit.active = True, "active"
    assert told(applied) == []
    unit.active = "inactive"
    assert told(applied) == [("unit", "member.service", "inactive (dead)")]


def test_what_stands_in_a_files_place_is_told(applied: Machine) -> None:
    """Removed, or a link."""
    target = applied.root / "etc/a"
    target.unlink()
    assert told(applied) == [("file", "/etc/a", "missing")]
    target.symlink_to("/etc/passwd")
    assert told(applied) == [("file", "/etc/a", "not a plain file")]


def test_a_run_that_did_not_end_is_told_and_what_it_wrote_is_no_drift(applied: Machine) -> None:
    """Its plan is still there, and says what it was about to write."""
    written = Placement("/etc/a", b"new", 0o644, "etcd", "etcd")
    left = pending.Pending("a", about={"/etc/a": [written.record()]})
    left.save(applied.ctx)
    (applied.root / "etc/a").write_text("new")
    found = check.drift(applied.ctx)
    assert (found["in_sync"], found["unfinished"], found["drift"]) == (False, ["a"], [])


def test_a_record_that_cannot_be_read_is_an_error_that_names_it(applied: Machine) -> None:
    """And says what to do."""
    applied.put("/var/lib/keadb/applied/a.json", "{")
    with pytest.raises(HostError, match=r"applied/a.json: .*; remove it and run 'keadb up'"):
        check.drift(applied.ctx)


def test_a_store_that_others_can_read_is_not_used(machine: Machine) -> None:
    """Its secrets are no longer secret."""
    machine.put(store.SECRETS, "{}", 0o644)
    with pytest.raises(HostError, match="has mode 0644: others could have read it"):
        store.secret(machine.ctx, "a")


def test_a_damaged_store_is_an_error_without_its_content(machine: Machine) -> None:
    """The JSON error would quote it."""
    machine.put(store.SECRETS, '{"a": "hush-hush', 0o600)
    with pytest.raises(HostError, match="not readable as JSON") as e:
        store.secret(machine.ctx, "a")
    assert "hush" not in str(e.value)


def test_what_is_changed_by_logging_in_is_kept_until_it_was(machine: Machine) -> None:
    """Root's password at etcd: every value that may still be in force, the latest first; of others none."""
    for number in (1, 2, 3, 3):
        store.put(machine.ctx, {"etcd_root_password": f"root-{number}", "other": f"value-{number}"})
    assert store.previous(machine.ctx, "etcd_root_password") == ("root-2", "root-1")
    assert store.previous(machine.ctx, "other") == ()
    assert (machine.root / store.PREVIOUS[1:]).stat().st_mode & 0o777 == 0o600
    assert store.redact(machine.ctx, "root-1 root-2 root-3 value-2") == "*** *** *** value-2"
    store.forget_previous(machine.ctx, "etcd_root_password")
    assert store.previous(machine.ctx, "etcd_root_password") == ()
    assert not (machine.root / store.PREVIOUS[1:]).exists()


def test_a_store_cut_before_the_new_values_still_finds_the_old_one(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(machine.ctx, {"etcd_root_password": "root-1"})
    real = files.replace

    def cut(ctx: Any, path: str, *more: Any, **named: Any) -> None:
        if path == store.SECRETS:
            raise KeyboardInterrupt
        real(ctx, path, *more, **named)

    with monkeypatch.context() as patched:
        patched.setattr(store, "replace", cut)
        with pytest.raises(KeyboardInterrupt):
            store.put(machine.ctx, {"etcd_root_password": "root-2"})
    assert store.secret(machine.ctx, "etcd_root_password") == "root-1"
    store.put(machine.ctx, {"etcd_root_password": "root-2"})
    assert store.previous(machine.ctx, "etcd_root_password") == ("root-1",)


def test_a_host_that_loses_a_secret_forgets_its_earlier_values(machine: Machine) -> None:
    for secrets in ({"etcd_root_password": "root-1"}, {"etcd_root_password": "root-2"}, {"other": "value"}):
        store.put(machine.ctx, secrets)
    assert not (machine.root / store.PREVIOUS[1:]).exists()


def test_redaction_finds_values_line_by_line_and_the_longest_first(machine: Machine) -> None:
    """A key printed without its first line; a secret that begins like another."""
    machine.secrets(a="abcd", b="abcdefgh", key="-----BEGIN-----\nline-one\nline-two\n", empty="x")
    text = store.redact(machine.ctx, "abcdefgh abcd line-two x")
    assert text == "*** *** *** x"
