"""etcd's users and rights: set once, put right when they differ, left alone when they are as declared."""

from __future__ import annotations

import base64
import json

import pytest

from hostkit import etcd_auth, etcd_form, etcd_lead, etcd_plan, store
from hostkit.errors import HostError
from hostkit.etcd_client import Etcd
from tests.unit.etcd.etcd_fake_cluster import FakeCluster
from tests.unit.etcd.etcd_fakes import ADDRESSES, HostRoot

DB1, DB2, WITNESS = ADDRESSES
ROOT = {"password": "root-secret-0123456789", "roles": ["root"]}
PATRONI = {"password": "patroni-secret-012345", "roles": ["patroni"]}


@pytest.fixture
def witness(hosts: dict[str, HostRoot], running: FakeCluster) -> HostRoot:
    """Return the host that sets up users, with etcd running everywhere."""
    assert running.quorum
    return hosts[WITNESS]


def ensure(host: HostRoot) -> list[str]:
    """Run the step."""
    return etcd_auth.ensure(host.ctx, etcd_plan.required(host.ctx))


def b64(text: str) -> str:
    """Encode as the gateway does."""
    return base64.b64encode(text.encode()).decode()


def test_users_and_rights_are_set_and_authentication_is_on(witness: HostRoot, running: FakeCluster) -> None:
    assert "authentication enabled" in ensure(witness)
    assert running.auth
    assert running.users == {"root": ROOT, "patroni_a": PATRONI}
    assert running.roles == {
        "patroni": [{"permType": "READWRITE", "key": b64("/service/site/"), "range_end": b64("/service/site0")}]
    }


def test_a_second_run_changes_nothing(witness: HostRoot) -> None:
    ensure(witness)
    assert ensure(witness) == []


@pytest.mark.parametrize("calls", range(1, 8))
def test_a_run_cut_after_any_call_is_completed_by_the_next(
    witness: HostRoot, running: FakeCluster, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Etcd.call
    left = [calls]

    def call(self: Etcd, path: str, body: dict[str, object] | None = None) -> dict[str, object]:
        if left[0] == 0:
            raise KeyboardInterrupt
        if "add" in path or "grant" in path or "enable" in path:
            left[0] -= 1
        return original(self, path, body)

    with monkeypatch.context() as patched:
        patched.setattr(Etcd, "call", call)
        try:
            ensure(witness)
        except KeyboardInterrupt:
            pass
        else:
            assert calls == 7, "there are only so many changes"
    ensure(witness)
    assert running.auth
    assert running.users == {"root": ROOT, "patroni_a": PATRONI}
    assert len(running.roles["patroni"]) == 1


def test_a_password_that_differs_is_set_anew(witness: HostRoot, running: FakeCluster) -> None:
    ensure(witness)
    running.users["patroni_a"]["password"] = "of yesterday"
    assert ensure(witness) == ["password of user patroni_a set"]
    assert running.users["patroni_a"] == PATRONI


def test_before_authentication_is_on_a_left_over_password_does_not_survive(
    witness: HostRoot, running: FakeCluster
) -> None:
    running.users = {"root": {"password": "of a cut run", "roles": []}}
    ensure(witness)
    assert running.users["root"] == ROOT


def test_roots_password_that_etcd_does_not_accept_is_an_error_without_the_password(
    witness: HostRoot, running: FakeCluster
) -> None:
    ensure(witness)
    running.users["root"]["password"] = "of yesterday"
    with pytest.raises(HostError, match="secret etcd_root_password") as caught:
        ensure(witness)
    assert "root-secret" not in str(caught.value)


def put_secrets(host: HostRoot, **values: str) -> None:
    """Send the host its secrets anew, as the program does."""
    store.put(host.ctx, store.secrets(host.ctx) | values)


def test_roots_rotated_password_is_set_by_logging_in_with_the_one_before(
    witness: HostRoot, running: FakeCluster
) -> None:
    ensure(witness)
    put_secrets(witness, etcd_root_password="new-root-secret-012345")
    assert store.previous(witness.ctx, "etcd_root_password") == (ROOT["password"],)
    assert ensure(witness) == ["password of user root rotated"]
    assert running.users["root"] == {"password": "new-root-secret-012345", "roles": ["root"]}
    assert store.previous(witness.ctx, "etcd_root_password") == ()
    assert ensure(witness) == []


def test_root_rotated_twice_before_anything_ran_still_comes_in(witness: HostRoot, running: FakeCluster) -> None:
    ensure(witness)
    for password in ("never-in-force-01234567", "new-root-secret-012345"):
        put_secrets(witness, etcd_root_password=password)
    assert ensure(witness) == ["password of user root rotated"]
    assert running.users["root"]["password"] == "new-root-secret-012345"


@pytest.mark.parametrize("cut_at", ["/v3/auth/user/changepw", "forget"])
def test_a_rotation_of_root_cut_anywhere_is_completed_by_the_next_run(
    witness: HostRoot, running: FakeCluster, cut_at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure(witness)
    put_secrets(witness, etcd_root_password="new-root-secret-012345")
    original = Etcd.call

    def call(self: Etcd, path: str, body: dict[str, object] | None = None) -> dict[str, object]:
        answer = original(self, path, body)
        if path == cut_at:
            raise KeyboardInterrupt
        return answer

    def forget(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Etcd, "call", call)
        patched.setattr(store, "forget_previous", forget)
        with pytest.raises(KeyboardInterrupt):
            ensure(witness)
    assert ensure(witness) == []
    assert running.users["root"]["password"] == "new-root-secret-012345"
    assert store.previous(witness.ctx, "etcd_root_password") == ()


def test_leadership_moves_also_before_roots_new_password_is_in_force(witness: HostRoot, running: FakeCluster) -> None:
    ensure(witness)
    put_secrets(witness, etcd_root_password="new-root-secret-012345")
    etcd_lead.take(witness.ctx, etcd_plan.required(witness.ctx))
    assert running.leader == WITNESS


def test_the_other_login_of_the_pair_is_opened_beside_the_one_in_use(witness: HostRoot, running: FakeCluster) -> None:
    ensure(witness)
    put_secrets(witness, etcd_patroni_b_password="patroni-b-secret-01234")
    witness.set_plan(patroni_user="patroni_b", patroni_secret="etcd_patroni_b_password")
    assert ensure(witness) == ["user patroni_b added", "role patroni granted to user patroni_b"]
    assert running.users["patroni_a"] == PATRONI
    assert running.users["patroni_b"] == {"password": "patroni-b-secret-01234", "roles": ["patroni"]}


def test_wider_and_narrower_rights_are_put_right(witness: HostRoot, running: FakeCluster) -> None:
    ensure(witness)
    wanted = list(running.roles["patroni"])
    # The gateway leaves READ out, since it is 0.
    running.roles["patroni"] = [{"key": wanted[0]["key"], "range_end": wanted[0]["range_end"]}]
    running.roles["patroni"].append({"permType": "READWRITE", "key": b64("/"), "range_end": b64("0")})
    ensure(witness)
    assert running.roles["patroni"] == wanted


def test_another_role_of_patronis_user_is_revoked(witness: HostRoot, running: FakeCluster) -> None:
    ensure(witness)
    running.users["patroni_a"]["roles"].append("root")
    assert ensure(witness) == ["role root revoked from user patroni_a"]


def test_other_users_are_left_alone(witness: HostRoot, running: FakeCluster) -> None:
    running.users["somebody"] = {"password": "x", "roles": []}
    ensure(witness)
    assert "somebody" in running.users


def test_a_missing_secret_is_named_before_anything_is_changed(witness: HostRoot, running: FakeCluster) -> None:
    witness.write("/var/lib/keadb/secrets.json", json.dumps({"etcd_root_password": "x" * 20}))
    with pytest.raises(HostError, match="etcd_patroni_a_password"):
        ensure(witness)
    assert not running.users


def test_only_the_declared_host_sets_users_up(hosts: dict[str, HostRoot], running: FakeCluster) -> None:
    assert etcd_form.main(hosts[DB1].ctx, []) == 0
    assert not running.users
    assert etcd_form.main(hosts[WITNESS].ctx, []) == 0
    assert running.auth


def test_no_password_stands_in_a_command(hosts: dict[str, HostRoot], running: FakeCluster) -> None:
    for host in hosts.values():
        etcd_form.main(host.ctx, [])
    assert running.auth
    words = [word for host in hosts.values() for argv in host.system.commands for word in argv]
    assert words
    assert not any("secret" in word for word in words)


@pytest.mark.parametrize(("prefix", "end"), [("/service/site/", "/service/site0"), ("a", "b")])
def test_the_end_of_a_prefix(prefix: str, end: str) -> None:
    assert etcd_auth.prefix_end(prefix) == end
