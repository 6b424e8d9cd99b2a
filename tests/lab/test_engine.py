"""The engine's own leftovers: a lost state, killed runs, and hosts that no longer have what was applied."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from lab.api import Lab
from tests.campaign.killing import Moment, killed_up
from tests.campaign.kills import recovered
from tests.campaign.survey import survey, wrong_with
from tests.lab.harness import NAME, Site

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.lab


def _up(site: Site, *more: str) -> dict[str, Any]:
    return dict(json.loads(site.keadb("up", "--stack", site.name, "--yes", "--json", *more).stdout))


def test_a_lost_state_changes_and_restarts_nothing(settled: Site) -> None:
    """The engine makes everything anew; on the hosts not one file and not one service is touched."""
    before = survey(settled.lab)
    assert wrong_with(before, settled.name) == []
    shutil.rmtree(settled.state / "backend")
    answer = _up(settled)
    assert set(answer["counts"]) == {"create"}
    assert answer["warnings"] == []
    said = {f"{c['host']} {c['step']}": c["summary"]["changed"] for c in answer["changes"] if c["step"] != "keys"}
    assert len(said) > 20
    assert {step: changed for step, changed in said.items() if changed} == {}
    after = survey(settled.lab)
    assert after.running == before.running
    assert after.identity == before.identity
    assert _up(settled, "--expect-no-changes")["changes"] == []


def test_a_change_that_was_killed_is_completed_by_the_next_run(settled: Site) -> None:
    """Every process of the run is killed while the settings are being brought into force."""
    before = survey(settled.lab)
    with settled.edited(lambda data: data.setdefault("patroni", {}).update(maximum_lag_on_failover_mb=77)):
        killed = killed_up(settled.lab, Moment(inside="settings", seconds=0.1))
        assert killed.reached
        said, _, wrong = recovered(settled, killed, before=before)
        assert wrong == []
        assert any("took over the lock that process" in warning for warning in said)
        assert any("interrupted in an earlier run" in warning for warning in said)
        leader = settled.leader()
        assert leader
        shown = settled.lab.exec(leader, ["patronictl", "-c", "/etc/patroni/config.yml", "show-config"]).stdout
        assert f"maximum_lag_on_failover: {77 << 20}" in shown
    _up(settled)


def test_a_rolling_restart_that_was_killed_is_completed_by_the_next_run(settled: Site) -> None:
    """Killed while nodes restart in turns: both run with the new limit after the next run, the others untouched."""
    before = survey(settled.lab)
    limit = int(settled.sql(settled.database_hosts[0], "SHOW max_connections"))
    with settled.edited(lambda data: data.setdefault("postgresql", {}).update(max_connections=limit + 10)):
        killed = killed_up(settled.lab, Moment(inside="settings", seconds=3))
        assert killed.reached
        _, _, wrong = recovered(settled, killed, before=before)
        assert wrong == []
        assert {settled.sql(host, "SHOW max_connections") for host in settled.database_hosts} == {str(limit + 10)}
    _up(settled)


def test_a_host_that_lost_its_record_gets_everything_again(settled: Site) -> None:
    """Said in words, before and by 'up'; nothing is restarted, for nothing but the record was lost."""
    host, other = settled.database_hosts[1], settled.database_hosts[0]
    record = "/var/lib/keadb/applied/postgresql-prepare.json"
    before = survey(settled.lab)
    assert settled.lab.exec(host, ["rm", record]).returncode == 0
    note = f"{host} no longer has what was applied (missing: postgresql-prepare): everything is sent to it again"
    seen = json.loads(settled.keadb("preview", "--stack", settled.name, "--check-hosts", "--json").stdout)
    assert seen["warnings"] == [note]
    assert (host, "bootstrap", "replace") in {(c["host"], c["step"], c["operation"]) for c in seen["changes"]}
    # Both at once are refused before anything is sent.
    assert settled.lab.exec(other, ["mv", record, "/root/kept.json"]).returncode == 0
    refused = settled.keadb("up", "--stack", settled.name, "--yes", check=False)
    assert settled.lab.exec(other, ["mv", "/root/kept.json", record]).returncode == 0
    assert refused.returncode == 1
    assert "both database hosts no longer have what was applied" in refused.stderr
    assert settled.lab.exec(host, ["test", "!", "-e", record]).returncode == 0
    assert _up(settled)["warnings"] == [note]
    after = survey(settled.lab)
    for running in (before.running, after.running):
        running[host]["files"].pop(record)
    assert after.running == before.running
    answer = _up(settled, "--expect-no-changes")
    assert (answer["changes"], answer["warnings"]) == ([], [])


@pytest.fixture
def newborn() -> Iterator[Site]:
    """A lab of its own that was never brought up."""
    lab = Lab(f"{NAME}k")
    lab.down()
    try:
        lab.up()
        yield Site(lab.spec.name, lab)
    finally:
        lab.down()


def test_a_first_formation_that_was_killed_is_completed_by_the_next_run(newborn: Site) -> None:
    """Killed while etcd forms: one cluster, one set of members, and one more run changes nothing."""
    killed = killed_up(newborn.lab, Moment(inside="etcd forming", seconds=0.2))
    assert killed.reached
    _, _, wrong = recovered(newborn, killed, before=None)
    assert wrong == []
