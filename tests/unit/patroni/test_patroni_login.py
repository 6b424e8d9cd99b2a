"""The end of a rotation of Patroni's login at etcd: the other one goes when, and only when, nobody needs it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from components import postgres_cluster as pg
from hostkit import check_cluster, patroni_login, patroni_plan, store
from hostkit.errors import BadInput, HostError
from hostkit.patroni_client import Rest
from keadb.site import load_site
from tests.unit.core.samples import ha, put
from tests.unit.patroni.patroni_fakes import DB2, ETCD_PASSWORD, WITNESS, World

NEW = "etcd-password-of-login-b"


@pytest.fixture
def rotated(running: World) -> World:
    """A site that says login b, which etcd takes by now beside login a."""
    running.place(pg.patroni_settings_bundle(load_site(put(ha(), "logins/etcd", "b"), source="test")))
    ctx = running.ctx(WITNESS)
    store.put(ctx, {**store.secrets(ctx), "etcd_patroni_b_password": NEW})
    running.etcd.users["patroni_b"] = NEW
    return running


def close(world: World) -> str | None:
    """Do the verb's work on the control host."""
    ctx = world.ctx(WITNESS)
    plan = patroni_plan.settings(ctx)
    return patroni_login.close(ctx, plan, Rest(ctx, plan.cluster))


def test_the_login_that_is_not_in_use_is_removed_once(rotated: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert patroni_login.main(rotated.ctx(WITNESS), []) == 0
    assert json.loads(capsys.readouterr().out) == {"changed": True, "removed": "patroni_a"}
    assert set(rotated.etcd.users) == {"root", "patroni_b"}
    assert patroni_login.main(rotated.ctx(WITNESS), []) == 0
    assert json.loads(capsys.readouterr().out) == {"changed": False, "removed": None}


def test_every_node_has_begun_loops_before(rotated: World) -> None:
    """A reload is taken over at the beginning of a loop: each node's are counted before the old login goes."""
    seen: list[Any] = []
    rotated.etcd.on_delete = lambda: seen.append(rotated.patroni.loops_begun)
    began = rotated.patroni.loops_begun
    close(rotated)
    assert seen[0] >= began + 2 * 3  # two loops of two nodes, and where each was found


def test_a_node_that_does_not_answer_keeps_it(rotated: World) -> None:
    rotated.patroni.stop(DB2)
    with pytest.raises(HostError, match=f"waiting for {DB2}; patroni_a was not removed"):
        close(rotated)
    assert rotated.etcd.users["patroni_a"] == ETCD_PASSWORD


def test_a_new_login_that_etcd_does_not_take_keeps_the_old_one(rotated: World) -> None:
    rotated.etcd.users["patroni_b"] = "another-one"
    with pytest.raises(HostError, match="does not take the login patroni_b: patroni_a was not removed") as caught:
        close(rotated)
    assert NEW not in str(caught.value)
    assert rotated.etcd.users["patroni_a"] == ETCD_PASSWORD


def test_without_a_second_login_nothing_is_waited_for(world: World) -> None:
    """Before the birth of a cluster, and in every run that rotates nothing: no Patroni answers here."""
    assert close(world) is None


def test_a_login_that_was_left_open_is_drift(rotated: World) -> None:
    """A rotation that was cut and taken back leaves one; applying the bundle again removes it."""
    ctx = rotated.ctx(WITNESS)
    expected = ("patroni-login", {"kind": "login", "name": "etcd user patroni_a", "is": "may log in, is not in use"})
    assert list(check_cluster.items(ctx, ["patroni-login"])) == [expected]
    close(rotated)
    assert list(check_cluster.items(ctx, ["patroni-login"])) == []


def test_arguments_are_refused(world: World) -> None:
    with pytest.raises(BadInput, match="no arguments"):
        patroni_login.main(world.ctx(WITNESS), ["now"])


def test_it_runs_again_for_its_login_and_password_only() -> None:
    def login(site: dict[str, Any]) -> str:
        made = load_site(site, source="test")
        (bundle,) = [b for b in pg.patroni_bundles(made)[WITNESS] if b.name == "patroni-login"]
        return bundle.digest()

    assert login(ha()) == login(put(ha(), "patroni/loop_wait", 4))
    assert login(ha()) != login(put(ha(), "logins/etcd", "b"))
