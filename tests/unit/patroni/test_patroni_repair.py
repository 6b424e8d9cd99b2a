"""A standby that can follow no leader: copied anew only where nothing can be lost."""

from __future__ import annotations

import json

import pytest

from hostkit import patroni_form, patroni_repair, verbs
from hostkit.errors import HostError
from tests.unit.patroni.patroni_fakes import DB1, DB2, World

FORKED = "requested starting point 0/7000000 on timeline 1 is not in this server's history"
REMOVED = "requested WAL segment 000000010000000000000003 has already been removed"
AHEAD = "highest timeline 1 of the primary is behind recovery timeline 2"
REINIT = (DB2, "/reinitialize", {"force": True})


@pytest.fixture
def unfit(world: World) -> World:
    """Let both run, the second one without a stream and with PostgreSQL's reason in its journal."""
    world.patroni.start(DB1)
    world.patroni.start(DB2)
    world.patroni.states[DB2] = "running"
    world.patroni.sync = None
    world.systems[DB2].active = "active"
    world.systems[DB2].journal = f"INFO: x\nFATAL:  could not start WAL streaming: ERROR:  {FORKED}\nINFO: y\n"

    def copied(name: str, path: str) -> None:
        assert (name, path) == REINIT[:2]
        world.patroni.states[DB2] = "streaming"

    world.patroni.on_act = copied
    return world


def form(world: World) -> None:
    patroni_form.main(world.ctx(DB2), [])


def test_the_reason_is_found_among_hundreds_of_other_lines(unfit: World) -> None:
    """The proxies ask about such a standby all the time, and PostgreSQL writes lines about that."""
    unfit.systems[DB2].journal += "LOG:  received replication command: IDENTIFY_SYSTEM\n" * 900
    form(unfit)
    assert unfit.patroni.acts == [REINIT]


@pytest.mark.parametrize("why", [FORKED, REMOVED])
def test_a_standby_whose_history_the_leader_has_is_copied_anew(
    unfit: World, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    unfit.patroni.timelines[DB1] = 2
    unfit.systems[DB2].journal = f"ERROR:  {why}\n"
    form(unfit)
    assert unfit.patroni.acts == [REINIT]
    said = capsys.readouterr()
    assert json.loads(said.out)["changed"] is True
    assert f"cannot follow its leader ({why}): copying that of {DB1}" in said.err


def test_one_that_only_needs_a_moment_is_left_alone(unfit: World) -> None:
    moments = iter(range(100))

    def streams_soon() -> None:
        if next(moments) == 0:
            unfit.patroni.states[DB2] = "streaming"

    unfit.systems[DB2].on_sleep = streams_soon
    form(unfit)
    assert unfit.patroni.acts == []


def test_silence_is_no_reason(unfit: World) -> None:
    unfit.systems[DB2].journal = "INFO: no action\n"
    with pytest.raises(HostError, match="no progress for 120 s"):
        form(unfit)
    assert unfit.patroni.acts == []


def test_a_history_ahead_of_the_leaders_is_never_thrown_away(unfit: World) -> None:
    unfit.systems[DB2].journal = f"FATAL:  {AHEAD}\n"
    unfit.patroni.timelines[DB2] = 2
    with pytest.raises(HostError, match=f"its timeline 2 is ahead of the leader's 1.*'keadb reinit {DB2}'"):
        form(unfit)
    assert unfit.patroni.acts == []


def test_the_last_copy_is_never_thrown_away(unfit: World) -> None:
    unfit.patroni.leader = None
    with pytest.raises(HostError, match="no other node leads"):
        form(unfit)
    assert unfit.patroni.acts == []


def test_a_leader_that_does_not_run_is_none(unfit: World) -> None:
    unfit.patroni.states[DB1] = "starting"
    with pytest.raises(HostError, match=f"the leader {DB1} is primary, starting: this may be the only copy"):
        form(unfit)
    assert unfit.patroni.acts == []


def test_a_paused_cluster_is_held_by_somebody(unfit: World) -> None:
    unfit.patroni.paused = True
    with pytest.raises(HostError, match="the cluster is paused"):
        form(unfit)
    assert unfit.patroni.acts == []


def test_a_refusal_of_patroni_is_told(unfit: World) -> None:
    unfit.patroni.on_act = lambda _name, _path: None
    unfit.patroni.answers[DB2, "/reinitialize"] = (503, "Cluster has no leader, can not reinitialize")
    with pytest.raises(HostError, match="answered /reinitialize with status 503: Cluster has no leader"):
        form(unfit)


def test_the_version_tells_the_reason(unfit: World, capsys: pytest.CaptureFixture[str]) -> None:
    verbs.version(unfit.ctx(DB2), [])
    assert json.loads(capsys.readouterr().out)["unfit"] == FORKED
    for host in (DB1, DB2):
        unfit.patroni.states[DB2] = "streaming"
        verbs.version(unfit.ctx(host), [])
        assert json.loads(capsys.readouterr().out)["unfit"] == ""


def test_a_patroni_that_does_not_answer_gives_no_reason(unfit: World) -> None:
    unfit.patroni.stop(DB2)
    assert patroni_repair.unfit(unfit.ctx(DB2)) == ""
