"""The look before `up`: what the state says was given, what hosts say they have, and what follows from both."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from hostkit import applied as on_host
from hostkit.context import Context
from hostkit.system import RealSystem
from keadb.site import load_site
from ops import hosts_look
from ops.exits import CommandError
from ops.hosts_look import Given, Seen, applied, decide, seen
from tests.unit.core.samples import ha
from tests.unit.ops import test_status as ssh

if TYPE_CHECKING:
    from pathlib import Path

SITE = load_site(ha(), source="test")
ONE, TWO, WITNESS = SITE.hosts
STEPS = {
    ONE: ("bootstrap", "base", "etcd", "etcd-form", "patroni", "patroni-form", "kea-roles"),
    TWO: ("bootstrap", "base", "etcd", "etcd-form", "patroni", "patroni-form", "kea-roles"),
    WITNESS: ("bootstrap", "base", "etcd", "etcd-form", "patroni-settings", "patroni-converge", "kea-database"),
}


def urn(host: str, step: str) -> str:
    return f"urn:pulumi:lab::keadb::keadb:components:Host$command:remote:Command::{host}-{step}"


def resource(host: str, step: str, **more: Any) -> dict[str, Any]:
    inputs: dict[str, Any] = {"create": "sudo -n /usr/lib/keadb/keadb-apply apply", "stdin": bundle(host, step)}
    if step == "bootstrap":
        inputs = {"create": "sh", "stdin": "{}"}
    return {"urn": urn(host, step), "type": "command:remote:Command", "inputs": inputs, **more}


def bundle(host: str, step: str) -> str:
    return json.dumps({"bundle": step, "host": host}, indent=2)


STATE = {"deployment": {"resources": [resource(host, step) for host, steps in STEPS.items() for step in steps]}}
GIVEN = applied(STATE, SITE)
ALL_THERE = {host: Seen(bundles=given.bundles) for host, given in GIVEN.items()}


def again(made: hosts_look.Look) -> set[tuple[str, str]]:
    """Return host and step of what runs again."""
    pairs = {urn(host, step): (host, step) for host, steps in STEPS.items() for step in steps}
    return {pairs[u] for u in made.replace}


def test_hosts_that_have_everything_are_left_alone() -> None:
    assert decide(SITE, GIVEN, ALL_THERE) == hosts_look.Look()


@pytest.mark.parametrize("answer", [Seen(), Seen(bundles={})], ids=["no applier", "applier without a record"])
def test_a_wiped_database_host_gets_everything_and_its_cluster_takes_it_back(answer: Seen) -> None:
    made = decide(SITE, GIVEN, {**ALL_THERE, TWO: answer})
    assert again(made) == {
        *((TWO, step) for step in STEPS[TWO]),
        (ONE, "etcd-form"),
        (WITNESS, "etcd-form"),
        (ONE, "kea-roles"),
        (WITNESS, "patroni-converge"),
        (WITNESS, "kea-database"),
    }
    assert len(made.notes) == 1
    assert made.notes[0].startswith(f"{TWO} no longer has what was applied (")
    assert made.notes[0].endswith("): everything is sent to it again")


def test_a_wiped_witness_leaves_the_nodes_alone_but_for_etcd() -> None:
    made = decide(SITE, GIVEN, {**ALL_THERE, WITNESS: Seen()})
    assert again(made) == {*((WITNESS, step) for step in STEPS[WITNESS]), (ONE, "etcd-form"), (TWO, "etcd-form")}


def test_a_lost_bundle_is_named() -> None:
    left = {name: digest for name, digest in GIVEN[TWO].bundles.items() if name not in {"etcd", "patroni"}}
    made = decide(SITE, GIVEN, {**ALL_THERE, TWO: Seen(bundles=left)})
    assert f"{TWO} no longer has what was applied (missing: etcd, patroni)" in made.notes[0]


def test_another_version_of_a_bundle_is_sent_again_on_both_nodes_and_brought_into_force() -> None:
    """A killed run that was followed by a site file put back: nothing is lost, so nothing is refused."""
    other = {host: Seen(bundles={**GIVEN[host].bundles, "patroni": "0" * 64}) for host in (ONE, TWO)}
    made = decide(SITE, GIVEN, {**ALL_THERE, **other})
    steps = ("patroni", "patroni-form", "etcd-form", "kea-roles")
    assert again(made) == {
        *((host, step) for host in (ONE, TWO) for step in steps),
        *((WITNESS, step) for step in ("etcd-form", "patroni-converge", "kea-database")),
    }
    assert all("another version of patroni" in note for note in made.notes)


def test_a_firewall_that_was_taken_back_is_loaded_and_confirmed_again_and_nothing_else_runs() -> None:
    """It is no service's, so no cluster has to look at it."""
    steps = ("base", "firewall", "firewall-confirm", "patroni-form")
    given = {ONE: Given(urns=tuple(urn(ONE, s) for s in steps), bundles={"base": "1", "firewall": "2"})}
    answer = Seen(bundles={"base": "1", "firewall": "unfinished"})
    made = decide(SITE, given, {ONE: answer})
    assert made.replace == (urn(ONE, "firewall"), urn(ONE, "firewall-confirm"))
    (note,) = made.notes
    assert "another version of firewall" in note


def test_an_applier_that_only_tells_names_is_believed() -> None:
    answer = seen(0, json.dumps({"applied": list(GIVEN[ONE].bundles)}), "")
    assert decide(SITE, GIVEN, {**ALL_THERE, ONE: answer}) == hosts_look.Look()


def test_a_host_that_cannot_be_asked_is_said_and_left_to_up() -> None:
    made = decide(SITE, GIVEN, {**ALL_THERE, TWO: Seen(error="it is silent")})
    assert made.replace == ()
    assert made.notes == [f"{TWO} could not be asked what is applied there: it is silent"]


def test_both_database_hosts_are_refused_with_the_way_on() -> None:
    with pytest.raises(CommandError) as refused:
        decide(SITE, GIVEN, {**ALL_THERE, ONE: Seen(), TWO: Seen()})
    assert f"{ONE}: it has no applier; {TWO}: it has no applier" in str(refused.value)
    assert "keadb up --repair HOST" in str(refused.value)


def test_one_of_both_can_be_named() -> None:
    made = decide(SITE, GIVEN, {**ALL_THERE, ONE: Seen(), TWO: Seen()}, only=[TWO])
    assert (TWO, "bootstrap") in again(made)
    assert (ONE, "bootstrap") not in again(made)
    assert any(note.startswith(ONE) and "left for another run" in note for note in made.notes)


def test_a_database_host_and_the_witness_together_are_no_reason_to_refuse() -> None:
    made = decide(SITE, GIVEN, {**ALL_THERE, TWO: Seen(), WITNESS: Seen()})
    assert {(TWO, "bootstrap"), (WITNESS, "bootstrap"), (ONE, "etcd-form")} <= again(made)


def test_what_the_state_holds_besides_is_not_looked_at() -> None:
    others = [
        {"urn": "urn:pulumi:lab::keadb::pulumi:pulumi:Stack::keadb-lab", "type": "pulumi:pulumi:Stack"},
        {"urn": f"urn:pulumi:lab::keadb::keadb:components:Host::{ONE}", "type": "keadb:components:Host"},
        resource(ONE, "etcd", delete=True),
        resource("gone-host", "etcd"),
    ]
    assert applied({"deployment": {"resources": others}}, SITE) == {host: Given() for host in SITE.hosts}
    assert applied({}, SITE) == {host: Given() for host in SITE.hosts}


@pytest.mark.parametrize(
    ("code", "stdout", "stderr", "means"),
    [
        (44, "", "", Seen()),
        (1, "", "sudo: a password is required\n", Seen(error="sudo: a password is required")),
        (0, "not json", "", Seen(error="exit code 0 and no answer that can be read")),
        (0, "[]", "", Seen(error="exit code 0 and no answer that can be read")),
        (0, '{"applied": ["a"], "digests": {"a": "1"}}', "", Seen(bundles={"a": "1"})),
        (0, '{"applied": [], "digests": {}}', "", Seen(bundles={})),
    ],
)
def test_answers(code: int, stdout: str, stderr: str, means: Seen) -> None:
    assert seen(code, stdout, stderr) == means


def test_host_and_program_make_the_same_digest(tmp_path: Path) -> None:
    folder = tmp_path / on_host.FOLDER.lstrip("/")
    folder.mkdir(parents=True)
    raw = json.loads(bundle(ONE, "etcd"))
    (folder / "etcd.json").write_text(json.dumps({"format": 1, "bundle": raw, "files": {}}, indent=1, sort_keys=True))
    assert on_host.digests(Context(tmp_path, RealSystem())) == {"etcd": GIVEN[ONE].bundles["etcd"]}
    assert GIVEN[ONE].bundles["etcd"] == hashlib.sha256(json.dumps(raw, sort_keys=True).encode()).hexdigest()


def test_asking_over_ssh() -> None:
    """All at once; one that is not there does not keep the others."""

    async def answer(process: Any) -> None:
        assert process.command == hosts_look.COMMAND
        process.stdout.write('{"applied": ["base"], "digests": {"base": "1"}}')
        process.exit(0)

    async def go() -> dict[str, Seen]:
        async with ssh.server(answer) as port:
            there = ssh.host(port)
            gone = ssh.host(1).model_copy(update={"name": "gone"})
            return await hosts_look._ask_all([there, gone], ssh.DEPLOY.export_private_key().decode())

    found = asyncio.run(go())
    assert found.pop("gone").error.startswith("127.0.0.1 cannot be reached")
    assert list(found.values()) == [Seen(bundles={"base": "1"})]


def test_an_unknown_host_to_repair_is_refused() -> None:
    with pytest.raises(CommandError, match=f"given us9, allowed: {ONE}, {TWO}, {WITNESS}"):
        hosts_look.look(None, SITE, only=["us9"])  # type: ignore[arg-type]  # refused before the stack is used


def test_a_standby_that_can_follow_no_leader_is_seen_to_by_its_own_step() -> None:
    answer = seen(0, json.dumps({"applied": [], "digests": dict(GIVEN[TWO].bundles), "unfit": "no history"}), "")
    made = decide(SITE, GIVEN, {**ALL_THERE, TWO: answer})
    assert again(made) == {(TWO, "patroni-form"), (WITNESS, "patroni-converge")}
    said = "can follow its leader no more (no history): it is copied anew if that loses nothing"
    assert made.notes == [f"{TWO} {said}"]
    assert decide(SITE, GIVEN, {**ALL_THERE, TWO: answer}, only=[ONE]) == hosts_look.Look()
