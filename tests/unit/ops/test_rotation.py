"""Rotating secrets: what is stored, what the site file says afterwards, and what is refused with which reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from keadb.logins import PAIRS, PAIRS_BY_NAME
from keadb.secrets import SECRETS, fingerprint, generate
from keadb.site import Site
from ops import rotation, sites
from ops.cli import cli
from ops.exits import CommandError, Exit
from ops.stacks import Stack

ROOT = Path(__file__).resolve().parents[3]


class FakeEngine:
    """The stack's secrets and state; what is given on stdin is stored, and is in force after ``up``."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.values = {spec.name: generate(spec) for spec in SECRETS}
        self.sent: dict[str, dict[str, str]] = {}
        self.calls: list[tuple[str, ...]] = []
        self.cut = False

    def call(self, *arguments: str, stdin: str | None = None) -> str:
        """Answer the two calls there are."""
        self.calls.append(arguments)
        if arguments == ("stack", "export"):
            commands = [{"inputs": {"stdin": json.dumps({"bundle": b, "secrets": s})}} for b, s in self.sent.items()]
            others: list[Any] = [{}, {"inputs": {"stdin": {"secret": 1}}}, {"inputs": {"stdin": "text"}}]
            return json.dumps({"deployment": {"resources": [*others, *commands]}})
        assert arguments[:4] == ("config", "set", "--secret", "--raw")
        assert stdin
        self.values[arguments[4].removeprefix("keadb:secret_")] = stdin
        if self.cut:
            raise KeyboardInterrupt
        return ""

    def up(self) -> None:
        """Bring what the site file says into force."""
        logins = sites.load(self.stack).logins
        key = self.values["fingerprint_key"]
        for step, pairs in (("kea-database", PAIRS[:2]), ("patroni-login", PAIRS[2:])):
            names = [pair.secret(pair.active(logins)) for pair in pairs]
            self.sent[step] = {name: fingerprint(key, name, self.values[name]) for name in names}


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """A stack whose last ``up`` came to its end."""
    stack = Stack(name="us3", work_dir=tmp_path)
    text = (ROOT / "Pulumi.us3.yaml").read_text()
    secrets = "".join(f"  {spec.config_key}:\n    secure: v1:abc=\n" for spec in SECRETS)
    stack.site_file.write_text(text + secrets)
    stack.site_file.chmod(0o640)
    made = FakeEngine(stack)
    monkeypatch.setattr(rotation, "Engine", lambda _stack: made)
    monkeypatch.setattr(rotation, "secret_values", lambda _stack: dict(made.values))
    monkeypatch.setattr("ops.stacks.resolve", lambda _name: stack)
    made.up()
    return made


def rotate(engine: FakeEngine, name: str) -> rotation.Plan:
    """Do it."""
    plan = rotation.plan_rotation(engine.stack, name)
    rotation.carry_out(engine.stack, plan)
    return plan


def retire(engine: FakeEngine, name: str) -> rotation.Plan:
    """Do it."""
    plan = rotation.plan_retirement(engine.stack, name)
    rotation.carry_out(engine.stack, plan)
    return plan


def site(engine: FakeEngine) -> Site:
    """Return the site as its file says by now."""
    return sites.load(engine.stack)


def test_every_secret_is_rotated_or_refused_with_a_reason() -> None:
    """A new secret must not be forgotten here."""
    of_pairs = {pair.secret(letter) for pair in PAIRS for letter in ("a", "b")}
    single = {name for name in rotation.ROTATED if name not in PAIRS_BY_NAME}
    assert single | of_pairs | set(rotation._NOT_ROTATED) == {spec.name for spec in SECRETS}


@pytest.mark.parametrize(
    ("name", "key", "old"), [("kea_read", "read", "kea_read_a"), ("kea_owner", "owner", "kea_owner_a")]
)
def test_a_login_of_clients_is_switched_and_the_old_one_kept(
    engine: FakeEngine, name: str, key: str, old: str
) -> None:
    before = dict(engine.values)
    plan = rotate(engine, name)
    assert {n for n, value in engine.values.items() if before[n] != value} == {f"{name}_b_password"}
    assert (getattr(site(engine).logins, key), site(engine).logins.keep) == ("b", (old,))
    assert plan.then[-1].startswith(f"keadb secrets retire {name} --stack us3")


def test_patronis_login_is_switched_and_nothing_is_kept(engine: FakeEngine) -> None:
    rotate(engine, "etcd_patroni")
    assert (site(engine).logins.etcd, site(engine).logins.keep) == ("b", ())


@pytest.mark.parametrize("name", ["etcd_root_password", "patroni_rest_password", "fingerprint_key"])
def test_a_single_secret_leaves_the_site_alone(engine: FakeEngine, name: str) -> None:
    before, text = dict(engine.values), engine.stack.site_file.read_text()
    rotate(engine, name)
    assert {n for n, value in engine.values.items() if before[n] != value} == {name}
    assert engine.stack.site_file.read_text() == text


def test_the_rest_of_the_file_and_its_mode_stay(engine: FakeEngine) -> None:
    before = engine.stack.site_file.read_text()
    rotate(engine, "kea_read")
    after = engine.stack.site_file.read_text()
    lines = set(after.splitlines()) - set(before.splitlines())
    assert len(after.splitlines()) - len(before.splitlines()) <= 1
    assert all("kea_read_a" in line or "read: b" in line for line in lines)
    assert engine.stack.site_file.stat().st_mode & 0o777 == 0o640
    assert list(engine.stack.work_dir.iterdir()) == [engine.stack.site_file]


def test_a_second_rotation_before_the_up_is_refused(engine: FakeEngine) -> None:
    """Both logins of the pair would be new: nobody could log in any more."""
    rotate(engine, "etcd_patroni")
    before = dict(engine.values)
    with pytest.raises(CommandError, match=r"no 'keadb up' has come to its end yet with patroni_b.*run 'keadb up"):
        rotation.plan_rotation(engine.stack, "etcd_patroni")
    assert engine.values == before
    engine.up()
    rotate(engine, "etcd_patroni")
    assert site(engine).logins.etcd == "a"


def test_a_second_rotation_before_the_retirement_is_refused(engine: FakeEngine) -> None:
    rotate(engine, "kea_read")
    engine.up()
    with pytest.raises(CommandError, match=r"kea_read_a is still open for clients .* 'keadb secrets retire kea_read"):
        rotation.plan_rotation(engine.stack, "kea_read")
    retire(engine, "kea_read")
    rotate(engine, "kea_read")
    assert (site(engine).logins.read, site(engine).logins.keep) == ("a", ("kea_read_b",))


def test_a_login_is_not_retired_before_its_successor_is_open(engine: FakeEngine) -> None:
    rotate(engine, "kea_read")
    with pytest.raises(CommandError, match="no 'keadb up' has come to its end yet with kea_read_b"):
        rotation.plan_retirement(engine.stack, "kea_read")
    assert site(engine).logins.keep == ("kea_read_a",)


def test_a_retirement_leaves_other_kept_logins_and_does_nothing_twice(engine: FakeEngine) -> None:
    rotate(engine, "kea_read")
    rotate(engine, "kea_owner")
    engine.up()
    assert retire(engine, "kea_owner").changes
    assert site(engine).logins.keep == ("kea_read_a",)
    assert not retire(engine, "kea_owner").changes
    retire(engine, "kea_read")
    assert site(engine).logins.keep == ()


def test_cut_between_storing_and_switching_it_ends_right_when_run_again(engine: FakeEngine) -> None:
    engine.cut = True
    text = engine.stack.site_file.read_text()
    with pytest.raises(KeyboardInterrupt):
        rotate(engine, "kea_read")
    assert engine.stack.site_file.read_text() == text
    engine.cut = False
    rotate(engine, "kea_read")
    assert (site(engine).logins.read, site(engine).logins.keep) == ("b", ("kea_read_a",))


def test_a_file_that_cannot_be_edited_is_refused_before_anything_is_stored(engine: FakeEngine) -> None:
    data = yaml.safe_load(engine.stack.site_file.read_text())
    engine.stack.site_file.write_text(json.dumps(data))  # JSON is YAML on one line
    before = dict(engine.values)
    with pytest.raises(CommandError, match=r"set it by hand: read: b, keep: \[kea_read_a\]"):
        rotate(engine, "kea_read")
    assert engine.values == before


@pytest.mark.parametrize("name", ["deploy_key", "ca_key"])
def test_keys_that_others_hold_on_to_are_refused_with_the_way(engine: FakeEngine, name: str) -> None:
    with pytest.raises(CommandError, match=f"{name} is not rotated by this command: ") as caught:
        rotation.plan_rotation(engine.stack, name)
    assert caught.value.code == Exit.FAILED
    assert engine.calls == []


@pytest.mark.parametrize("command", ["rotate", "retire"])
def test_an_unknown_name_is_one_error_with_the_allowed_ones(engine: FakeEngine, command: str) -> None:
    done = CliRunner().invoke(cli, ["secrets", command, "kea_read_a", "--stack", "us3", "--yes"])
    assert isinstance(done.exception, CommandError)
    assert done.exception.code == Exit.USAGE
    assert "NAME: given is 'kea_read_a', allowed: " in str(done.exception)
    assert "kea_read" in str(done.exception).partition("allowed: ")[2]
    assert engine.calls == []


def test_without_a_terminal_it_asks_for_yes(engine: FakeEngine) -> None:
    done = CliRunner().invoke(cli, ["secrets", "rotate", "kea_read", "--stack", "us3"])
    assert isinstance(done.exception, CommandError)
    assert "give --yes" in str(done.exception)
    assert engine.calls == []


def test_what_is_shown_holds_names_and_no_value(engine: FakeEngine) -> None:
    words = ["secrets", "rotate", "kea_read", "--stack", "us3", "--yes"]
    done = CliRunner().invoke(cli, [*words, "--json"])
    answer = json.loads(done.stdout)
    assert (answer["secret"], answer["logins"]) == ("kea_read_b_password", {"read": "b", "keep": ["kea_read_a"]})
    plain = CliRunner().invoke(cli, ["secrets", "rotate", "kea_owner", "--stack", "us3", "--yes"])
    assert "1. keadb up --stack us3" in plain.output
    assert "kea_owner_a stays open" in plain.output
    assert not [name for name, value in engine.values.items() if value in done.output + plain.output]
