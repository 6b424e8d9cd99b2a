"""Hosts that leave the site file: found in the engine's state, reached as they were, stopped or only told of."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import asyncssh
import pytest

from keadb.site import load_site
from ops import hosts_look, leaving
from ops.exits import CommandError
from ops.leaving import DATABASE, ETCD, Leaver, Leaving, leavers
from tests.unit.core.samples import single
from tests.unit.ops.test_hosts_look import ONE, STATE, TWO, WITNESS, urn

if TYPE_CHECKING:
    from keadb.site import Host

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0Y8n1R4w0PpS8aJ3dQ6Xz7b0d4kqk1m1G0JmVQ2m3x"
SECRET = "4dabf18193072939515e22adb298388d"


def test_who_is_in_the_state_and_not_declared_leaves_with_what_it_carries() -> None:
    assert leavers(STATE, [ONE, TWO, WITNESS]) == ()
    assert leavers(STATE, [ONE]) == (Leaver(TWO, (DATABASE, ETCD)), Leaver(WITNESS, (ETCD,)))
    assert leavers({}, [ONE]) == ()


def test_what_people_are_told_says_whether_postgresql_is_stopped() -> None:
    two, witness = leavers(STATE, [ONE])
    assert two.note == (
        f"{TWO} is no longer in the site file; PostgreSQL is stopped there first; its data stays where it is"
    )
    assert "PostgreSQL" not in witness.note


class Hosts:
    """Answers for every host that is reached, and notes how."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[tuple[Host, str]] = []

    async def run(self, host: Host, identity: object, command: str, **more: Any) -> Any:
        assert identity == "the identity"
        assert more["seconds"] > 180, "PostgreSQL may take its time"
        self.asked.append((host, command))
        if isinstance(self.answer, Exception):
            raise self.answer
        code, said = self.answer
        return SimpleNamespace(exit_status=code, stderr=said, stdout="{}")


@pytest.fixture
def reach(monkeypatch: pytest.MonkeyPatch) -> Any:
    connection = {"host": "172.30.30.11", "port": 2222, "user": "keadb", "hostKey": HOST_KEY, "privateKey": "secret"}
    wrapped = {SECRET: "1b47061264138c4ac30d75fd1eb44270", "plaintext": json.dumps(connection)}
    resource = {"urn": urn(TWO, "bootstrap"), "inputs": {"connection": wrapped}}
    state = json.dumps({"deployment": {"resources": [resource]}})
    monkeypatch.setattr(leaving, "Engine", lambda stack: SimpleNamespace(call=lambda *words: state))  # noqa: ARG005
    monkeypatch.setattr(leaving, "secret_values", lambda stack: {"deploy_key": "pem"})  # noqa: ARG005
    monkeypatch.setattr(asyncssh, "import_private_key", lambda pem: "the identity")  # noqa: ARG005

    def made(answer: Any) -> Hosts:
        hosts = Hosts(answer)
        monkeypatch.setattr(leaving, "run_on", hosts.run)
        return hosts

    return made


STACK: Any = None
LEAVER = (Leaver(TWO, (DATABASE, ETCD)),)


def test_a_host_is_reached_as_it_was_when_it_was_declared(reach: Any) -> None:
    hosts = reach((0, ""))
    assert Leaving(STACK, LEAVER).stop(DATABASE) == []
    ((host, command),) = hosts.asked
    assert (str(host.address), host.ssh_port, host.ssh_user) == ("172.30.30.11", 2222, "keadb")
    assert host.ssh_host_key == HOST_KEY
    assert command == "sudo -n /usr/lib/keadb/keadb-apply leave database"


def test_hosts_are_known_after_the_engine_has_forgotten_them(reach: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = reach((0, ""))
    goes = Leaving(STACK, LEAVER)
    monkeypatch.delattr(leaving, "Engine")
    assert goes.stop(ETCD) == []
    assert hosts.asked[0][1].endswith("leave etcd")


def test_who_carries_nothing_of_it_is_not_asked(reach: Any) -> None:
    hosts = reach((0, ""))
    assert Leaving(STACK, [Leaver(WITNESS, ())]).stop(DATABASE) == []
    assert hosts.asked == []


def test_a_refusal_ends_everything_with_its_reason(reach: Any) -> None:
    reach((3, f"keadb-apply leave: {TWO} leads PostgreSQL and is no longer in the site file: put it back\n"))
    with pytest.raises(CommandError) as error:
        Leaving(STACK, LEAVER).stop(DATABASE)
    assert str(error.value) == f"{TWO} leads PostgreSQL and is no longer in the site file: put it back"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (OSError("no route"), f"see that {TWO} never comes back as it was"),
        (TimeoutError(), "172.30.30.11 does not answer"),
        ((2, "keadb-apply: verb 'leave' is given, allowed: apply"), f"{TWO}: database could not be stopped there"),
        ((1, ""), "it said nothing"),
    ],
)
def test_one_that_cannot_be_stopped_is_only_told_of(reach: Any, answer: Any, told: str) -> None:
    reach(answer)
    (line,) = Leaving(STACK, LEAVER).stop(DATABASE)
    assert told in line


def test_a_site_of_new_hosts_only_still_knows_who_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else one machine could be replaced by another that begins with an empty database."""
    engine = SimpleNamespace(prepare_backend=lambda: None, call=lambda *_words: json.dumps(STATE))
    monkeypatch.setattr(hosts_look, "Engine", lambda _stack: engine)
    monkeypatch.setattr(hosts_look, "secret_values", lambda _stack: {})
    data = single()
    data["hosts"] = {f"{data['name']}-kea-db-09": next(iter(data["hosts"].values()))}
    for made in (hosts_look.look, hosts_look.without_asking):
        seen = made(STACK, load_site(data, source="test"))
        assert [leaver.name for leaver in seen.leaving] == [ONE, TWO, WITNESS]
        assert seen.notes == [leaver.note for leaver in seen.leaving]
