"""The verbs that people ask for: what they refuse, what they ask Patroni for, and what they tell at the end."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from hostkit import patroni_pause, patroni_reinit, patroni_restart, patroni_switchover
from hostkit.__main__ import verb
from hostkit.context import Context
from hostkit.errors import BadInput, HostError, Refused
from tests.unit.patroni.patroni_fakes import DB1, DB2, WITNESS, World

VERBS: dict[str, tuple[Callable[[Context, list[str]], int], list[str]]] = {
    "patroni-switchover": (patroni_switchover.main, []),
    "patroni-restart": (patroni_restart.main, []),
    "patroni-reinit": (patroni_reinit.main, [DB2]),
    "patroni-pause": (patroni_pause.main, ["on"]),
}


@pytest.fixture
def ask(running: World, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Return a call of a verb on the control host that gives its answer."""

    def call(name: str, *argv: str) -> dict[str, Any]:
        capsys.readouterr()
        assert VERBS[name][0](running.ctx(WITNESS), list(argv)) == 0
        return dict(json.loads(capsys.readouterr().out))

    return call


class TestCommon:
    @pytest.mark.parametrize("name", list(VERBS))
    def test_the_applier_knows_the_verb(self, name: str) -> None:
        assert verb(name) is VERBS[name][0]

    @pytest.mark.parametrize("name", list(VERBS))
    def test_check_tells_what_would_happen_and_does_nothing(
        self, running: World, ask: Callable[..., dict[str, Any]], name: str
    ) -> None:
        answer = ask(name, "--check", *VERBS[name][1])
        assert answer["happens"]
        assert answer["leader"] == DB1
        assert running.patroni.acts == []
        assert running.patroni.patches == []

    @pytest.mark.parametrize("name", ["patroni-switchover", "patroni-restart", "patroni-reinit"])
    def test_another_leader_than_the_one_that_was_shown(self, running: World, name: str) -> None:
        main, words = VERBS[name]
        with pytest.raises(Refused, match=f"{DB1} leads by now, not {DB2}.*nothing was done"):
            main(running.ctx(WITNESS), ["--leader", DB2, *words])
        assert running.patroni.acts == []

    @pytest.mark.parametrize("name", ["patroni-switchover", "patroni-restart", "patroni-pause"])
    @pytest.mark.parametrize(
        ("fault", "reason"),
        [
            ({"sync": None}, "there is no synchronous standby"),
            ({"states": {DB1: "running", DB2: "starting"}}, f"{DB2} is sync_standby, starting"),
            ({"leader": None}, "there is no leader"),
        ],
    )
    def test_without_health_nothing_is_done(
        self, running: World, name: str, fault: dict[str, Any], reason: str
    ) -> None:
        for key, value in fault.items():
            setattr(running.patroni, key, value)
        main, words = VERBS[name]
        with pytest.raises(Refused, match=f"{reason}.*nothing was done"):
            main(running.ctx(WITNESS), words)
        assert running.patroni.acts == []
        assert running.patroni.patches == []

    @pytest.mark.parametrize("name", ["patroni-switchover", "patroni-restart", "patroni-reinit"])
    def test_not_while_paused(self, running: World, name: str) -> None:
        running.patroni.paused = True
        main, words = VERBS[name]
        with pytest.raises(Refused, match="the cluster is paused"):
            main(running.ctx(WITNESS), words)
        assert running.patroni.acts == []

    @pytest.mark.parametrize("argv", [["a", "b"], ["--force"]])
    def test_unknown_words(self, running: World, argv: list[str]) -> None:
        with pytest.raises(BadInput, match="patroni-restart: given"):
            patroni_restart.main(running.ctx(WITNESS), argv)

    def test_a_standby_far_behind_is_not_handed_over_to(self, running: World) -> None:
        running.patroni.lag = 17 << 20
        with pytest.raises(Refused, match=f"{DB2} is {17 << 20} bytes behind"):
            patroni_switchover.main(running.ctx(WITNESS), [])


class TestSwitchover:
    def test_the_sync_standby_leads(self, running: World, ask: Callable[..., dict[str, Any]]) -> None:
        answer = ask("patroni-switchover", "--leader", DB1)
        assert running.patroni.acts == [(DB1, "/switchover", {"leader": DB1, "candidate": DB2})]
        assert (answer["leader"], answer["problems"], answer["changed"]) == (DB2, [], True)

    def test_patronis_refusal_is_told(self, running: World) -> None:
        running.patroni.answers[DB1, "/switchover"] = (412, "candidate name does not match with sync_standby")
        with pytest.raises(HostError, match="status 412: candidate name does not match"):
            patroni_switchover.main(running.ctx(WITNESS), [])

    def test_a_leadership_that_did_not_move_is_told(self, running: World) -> None:
        running.patroni.answers[DB1, "/switchover"] = (200, "Successfully switched over")
        with pytest.raises(HostError, match=f"{DB1} leads, not {DB2}, although Patroni said"):
            patroni_switchover.main(running.ctx(WITNESS), [])


class TestRestart:
    def test_all_nodes_the_leader_last(self, running: World, ask: Callable[..., dict[str, Any]]) -> None:
        answer = ask("patroni-restart")
        assert running.patroni.acts == [
            (DB2, "/restart", {"role": "replica"}),
            (DB1, "/restart", {"role": "primary"}),
        ]
        assert answer["restarted"] == [DB2, DB1]

    def test_one_node_by_the_end_of_its_name(self, running: World, ask: Callable[..., dict[str, Any]]) -> None:
        assert ask("patroni-restart", "db-02")["restarted"] == [DB2]
        assert [name for name, _, _ in running.patroni.acts] == [DB2]

    def test_a_name_that_is_no_member(self, running: World) -> None:
        with pytest.raises(BadInput, match=f"given 'db-03', allowed: {DB1}, {DB2}"):
            patroni_restart.main(running.ctx(WITNESS), ["db-03"])

    def test_a_lowered_limit_that_was_due_is_in_force_everywhere_at_the_end(
        self, running: World, ask: Callable[..., dict[str, Any]]
    ) -> None:
        running.patroni.running_values = {DB1: {"max_connections": 150}, DB2: {"max_connections": 150}}
        running.patroni._flag()
        ask("patroni-restart")
        assert running.patroni.pending == {}
        assert [name for name, _, _ in running.patroni.acts] == [DB2, DB1, DB2]

    def test_the_leader_is_left_alone_when_the_standby_does_not_come_back(self, running: World) -> None:
        running.patroni.on_act = lambda *_: setattr(running.patroni, "sync", None)
        with pytest.raises(HostError, match=f"healthy again after the restart of {DB2}: .*no synchronous standby"):
            patroni_restart.main(running.ctx(WITNESS), [])
        assert [name for name, _, _ in running.patroni.acts] == [DB2]


class TestReinit:
    def test_a_standby_copies_anew(self, running: World, ask: Callable[..., dict[str, Any]]) -> None:
        fake = running.patroni
        # In etcd stands for a while what was before.
        fake.stale = {DB2: "streaming"}
        fake.on_act = lambda *_: fake.states.update({DB2: "creating replica"})
        moments = iter(range(1000))

        def copied() -> None:
            if next(moments) == 30:
                fake.states[DB2] = "streaming"

        running.systems[WITNESS].on_sleep = copied
        answer = ask("patroni-reinit", DB2)
        assert next(moments) > 30
        assert fake.acts == [(DB2, "/reinitialize", {"force": True})]
        assert answer["reinitialised"] == DB2
        assert answer["problems"] == []

    def test_a_standby_that_cannot_follow_may_be_copied_anew(
        self, running: World, ask: Callable[..., dict[str, Any]]
    ) -> None:
        fake = running.patroni
        fake.sync, fake.states[DB2] = None, "start failed"

        def copied(name: str, path: str) -> None:
            del name, path
            fake.sync, fake.states[DB2] = DB2, "creating replica"

        fake.on_act = copied
        running.systems[WITNESS].on_sleep = lambda: fake.states.update({DB2: "streaming"})
        assert ask("patroni-reinit", DB2)["problems"] == []

    def test_never_the_leader(self, running: World) -> None:
        with pytest.raises(Refused, match=f"{DB1} leads: its data is what the others are copied from"):
            patroni_reinit.main(running.ctx(WITNESS), [DB1])
        assert running.patroni.acts == []

    def test_never_without_a_leader_that_runs(self, running: World) -> None:
        running.patroni.leader = None
        with pytest.raises(Refused, match="no leader"):
            patroni_reinit.main(running.ctx(WITNESS), [DB2])
        running.patroni.leader = DB1
        running.patroni.states[DB1] = "starting"
        with pytest.raises(Refused, match="it may hold the only copy"):
            patroni_reinit.main(running.ctx(WITNESS), [DB2])
        assert running.patroni.acts == []

    def test_one_that_never_begins_is_told(self, running: World) -> None:
        with pytest.raises(HostError, match=f"{DB2} still runs as before"):
            patroni_reinit.main(running.ctx(WITNESS), [DB2])


class TestPause:
    def test_on_and_off(self, running: World, ask: Callable[..., dict[str, Any]]) -> None:
        assert ask("patroni-pause", "on")["problems"] == ["the cluster is paused"]
        assert ask("patroni-pause", "on")["changed"] is False
        assert ask("patroni-pause", "off")["problems"] == []
        assert running.patroni.patches == [{"pause": True}, {"pause": None}]

    def test_an_unhealthy_cluster_can_be_resumed(self, running: World, ask: Callable[..., dict[str, Any]]) -> None:
        running.patroni.paused, running.patroni.sync = True, None
        running.systems[WITNESS].on_sleep = lambda: setattr(running.patroni, "sync", DB2)
        assert ask("patroni-pause", "off")["problems"] == []

    def test_other_words(self, running: World) -> None:
        with pytest.raises(BadInput, match="given 'maybe', allowed: on, off"):
            patroni_pause.main(running.ctx(WITNESS), ["maybe"])
