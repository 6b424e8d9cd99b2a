"""Exact versions of packages: upgraded, stepped back, held again, and refused when nobody has them."""

from __future__ import annotations

import dataclasses

import pytest

from hostkit import applier, bundle
from hostkit.errors import HostError
from keadb.bundle import Bundle, File, Packages, Start, Unit
from tests.unit.hostkit.fakes import HOST, FakeUnit, Machine

NAME = "db.service"
CONFIG = "/etc/db/config"


def database(version: str = "") -> Bundle:
    """A member of a cluster with a pinned package."""
    return Bundle(
        name="db",
        host=HOST,
        packages=Packages(install=(f"db={version}" if version else "db",), hold=("db",), mask=(NAME,)),
        files={CONFIG: File(content="v1\n")},
        units={NAME: Unit(start=Start.CLUSTER, restart_on=(CONFIG,))},
    )


def apply(machine: Machine, what: Bundle) -> applier.Summary:
    """Apply it."""
    return applier.apply(machine.ctx, bundle.parse(what.to_json()))


@pytest.fixture
def running(machine: Machine) -> Machine:
    """A machine whose member runs, with a package of version 1.0; its sources have three."""
    machine.system.offered["db"] = ["2.0", "1.0", "0.9"]
    unit = machine.system.units[NAME] = FakeUnit(reads=(CONFIG,))
    apply(machine, database())
    unit.active = "active"
    machine.system.calls.clear()
    return machine


@pytest.mark.parametrize("version", ["2.0", "0.9"])
def test_a_pinned_version_is_installed_and_held_again(running: Machine, version: str) -> None:
    """Newer or older: the site file says it, apt is told to obey."""
    running.system.held.clear()  # as apt may leave it
    assert apply(running, database(version)).packages == [f"db={version}", "db (held)"]
    assert running.system.packages == {"db": version}
    assert running.system.held == {"db"}
    install = next(call for call in running.system.calls if " install " in call)
    for option in ("--allow-change-held-packages", "--allow-downgrades", "--no-remove"):
        assert option in install


def test_a_member_that_runs_is_neither_masked_nor_touched(running: Machine) -> None:
    """Masked, it could not come back after a crash; the first installation masks it."""
    apply(running, database("2.0"))
    assert [call for call in running.system.calls if call.startswith("systemctl")] == []
    assert running.system.units[NAME].active == "active"


def test_a_version_that_nobody_has_is_one_clear_error(running: Machine) -> None:
    """What is wanted, what there is, what is installed; apt is not even asked to install."""
    wanted = "db: wanted is version 3.1, the package sources have 2.0, 1.0, 0.9 (installed: 1.0)"
    with pytest.raises(HostError) as caught:
        apply(running, database("3.1"))
    assert str(caught.value) == f"bundle db: installing db=3.1: nothing was installed: {wanted}"
    assert not any(" install " in call for call in running.system.calls)
    assert running.system.packages == {"db": "1.0"}


def test_every_version_that_is_missing_is_named(machine: Machine) -> None:
    """A package that is not known at all has none."""
    what = dataclasses.replace(database(), packages=Packages(install=("db=1", "pinned=9", "other")), units={})
    with pytest.raises(HostError, match=r"db: .* have none \(installed: none\); pinned: .* have 2.0, 1.0 \("):
        apply(machine, what)


def test_what_is_installed_already_needs_no_package_source(running: Machine) -> None:
    """It may have gone from there: nothing is asked for."""
    running.system.offered.clear()
    assert apply(running, database("1.0")).packages == []
    assert not any(call.startswith("apt") for call in running.system.calls)
