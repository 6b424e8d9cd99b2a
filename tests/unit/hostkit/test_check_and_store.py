"""Drift as ``check`` tells it, and the store of secrets."""

from __future__ import annotations

import os

import pytest

from hostkit import applier, bundle, check, store
from hostkit.errors import HostError
from keadb.bundle import Bundle, File, Packages, Start, Unit
from tests.unit.hostkit.fakes import HOST, FakeUnit, Machine


@pytest.fixture
def applied(machine: Machine) -> Machine:
    """A host with one applied bundle."""
    machine.system.units["a.service"] = FakeUnit()
    machine.system.units["staged.service"] = FakeUnit()
    what = Bundle(
        name="a",
        host=HOST,
        packages=Packages(install=("pkg",)),
        files={"/etc/a": File(content="x", owner="etcd", group="etcd")},
        units={"a.service": Unit(), "staged.service": Unit(start=Start.STAGED)},
    )
    applier.apply(machine.ctx, bundle.parse(what.to_json()))
    return machine


def test_an_untouched_host_is_in_sync(applied: Machine) -> None:
    """A staged unit need not run."""
    before = applied.stamps()
    assert check.drift(applied.ctx) == {"bundles": ["a"], "in_sync": True, "drift": [], "unfinished": []}
    assert applied.stamps() == before


def test_every_kind_of_drift_is_told(applied: Machine) -> None:
    """One line each."""
    ctx = applied.ctx
    target = applied.root / "etc/a"
    target.write_text("y")
    applied.system.users["etcd"] = os.geteuid() + 1
    applied.system.units["a.service"].active = "failed"
    applied.system.units["staged.service"].file = "disabled"
    applied.system.packages.clear()
    told = [(d.get("path") or d.get("unit") or d["package"], d["is"]) for d in check.drift(ctx)["drift"]]
    assert told[0] == ("/etc/a", "changed")
    assert [t[1].split()[0] for t in told[1:3]] == ["owner", "group"]
    assert told[3:] == [("a.service", "failed (dead)"), ("staged.service", "disabled"), ("pkg", "missing")]
    target.unlink()
    assert ("/etc/a", "missing") in [(d.get("path"), d["is"]) for d in check.drift(ctx)["drift"]]
    target.symlink_to("/etc/passwd")
    assert ("/etc/a", "not a plain file") in [(d.get("path"), d["is"]) for d in check.drift(ctx)["drift"]]


def test_a_run_that_did_not_end_is_told(applied: Machine) -> None:
    """Its plan is still there."""
    applied.put("/var/lib/keadb/pending/b.json", "{}")
    found = check.drift(applied.ctx)
    assert (found["in_sync"], found["unfinished"]) == (False, ["b"])


def test_a_record_that_cannot_be_read_is_an_error_that_names_it(applied: Machine) -> None:
    """And says what to do."""
    applied.put("/var/lib/keadb/applied/a.json", "{")
    with pytest.raises(HostError, match=r"applied/a.json: .*; apply that bundle again"):
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


def test_redaction_finds_values_line_by_line_and_the_longest_first(machine: Machine) -> None:
    """A key printed without its first line; a secret that begins like another."""
    machine.secrets(a="abcd", b="abcdefgh", key="-----BEGIN-----\nline-one\nline-two\n", empty="x")
    text = store.redact(machine.ctx, "abcdefgh abcd line-two x")
    assert text == "*** *** *** x"
