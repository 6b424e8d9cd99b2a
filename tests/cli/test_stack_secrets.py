"""Secrets through the real Pulumi CLI, where one was set up; where not, what can be said without it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from keadb.secrets import SECRETS, fingerprint, problem, ssh_public_key
from ops import rotation, secrets, sites
from ops.exits import CommandError
from ops.pulumi_cli import Engine
from ops.stacks import Stack
from toolchain import cli

ROOT = Path(__file__).parents[2]

needs_cli = pytest.mark.skipif(cli.look() is None, reason="no Pulumi CLI was set up (make setup builds one)")


@pytest.fixture
def deploy_key() -> str:
    return (
        ed25519.Ed25519PrivateKey.generate()
        .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
        .decode()
    )


@pytest.fixture
def stack(tmp_path: Path, deploy_key: str) -> Stack:
    folder = tmp_path / "made"
    (folder / "ssh").mkdir(parents=True)
    (folder / "ssh/deploy_key").write_text(deploy_key)
    (folder / "Pulumi.yaml").write_text("name: keadb\nruntime: python\n")
    (folder / "Pulumi.made.yaml").write_text((ROOT / "Pulumi.us3.yaml").read_text().replace("us3", "made"))
    (folder / "passphrase").write_text("a passphrase of the test\n")
    return Stack(name="made", work_dir=folder, netns="keadb-made")


@needs_cli
def test_secrets_are_made_once_kept_and_come_back_whole(stack: Stack, deploy_key: str) -> None:
    before = stack.site_file.read_text()
    made = secrets.init_secrets(stack)
    assert made.new == tuple(spec.name for spec in SECRETS)
    values = secrets.secret_values(stack)
    assert {spec.name: problem(spec, values[spec.name]) for spec in SECRETS} == {spec.name: None for spec in SECRETS}
    assert values["deploy_key"] == deploy_key
    assert made.deploy_public_key == ssh_public_key(deploy_key)
    text = stack.site_file.read_text()
    # The file is people's: what they wrote stays as they wrote it, comments and order included.
    assert text.startswith(before.rstrip("\n"))
    assert not [name for name, value in values.items() if any(line in text for line in value.split("\n") if line)]
    again = secrets.init_secrets(stack)
    assert again.new == ()
    assert stack.site_file.read_text() == text


@needs_cli
def test_a_cut_run_is_completed_by_the_next(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    call = Engine.call

    def cut(self: Engine, *arguments: str, stdin: str | None = None) -> str:
        if arguments[-1:] == ("keadb:secret_etcd_root_password",):
            raise KeyboardInterrupt
        return call(self, *arguments, stdin=stdin)

    monkeypatch.setattr(Engine, "call", cut)
    with pytest.raises(KeyboardInterrupt):
        secrets.init_secrets(stack)
    monkeypatch.setattr(Engine, "call", call)
    made = secrets.init_secrets(stack)
    assert made.kept == ("deploy_key", "ca_key", "fingerprint_key")
    assert made.new[0] == "etcd_root_password"


@needs_cli
def test_no_value_stands_in_an_argument_or_the_environment_of_the_cli(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen"
    wrapper = tmp_path / "pulumi"
    real = Engine(stack).path
    wrapper.write_text(f'#!/bin/sh\n{{ echo "$@"; env; }} >> "{seen}"\nexec "{real}" "$@"\n')
    wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
    start = Engine.__init__

    def wrapped(self: Engine, of: Stack) -> None:
        start(self, of)
        self.path = wrapper

    monkeypatch.setattr(Engine, "__init__", wrapped)
    secrets.init_secrets(stack)
    values = secrets.secret_values(stack)
    text = seen.read_text()
    assert "config set --secret" in text
    assert not [name for name, value in values.items() if any(line in text for line in value.split("\n") if line)]


@needs_cli
def test_wrong_passphrase_is_one_clear_error(stack: Stack) -> None:
    secrets.init_secrets(stack)
    (stack.work_dir / "passphrase").write_text("another\n")
    with pytest.raises(CommandError, match="incorrect passphrase"):
        secrets.secret_values(stack)


def test_missing_secrets_are_named_without_the_cli(stack: Stack) -> None:
    with pytest.raises(CommandError, match=r"secret_deploy_key, keadb:secret_ca_key.*init --stack made"):
        secrets.secret_values(stack)


@needs_cli
def test_lab_without_its_deploy_key_is_told_to_come_up_first(stack: Stack) -> None:
    os.unlink(stack.work_dir / "ssh/deploy_key")  # noqa: PTH108 -- as short as it gets
    with pytest.raises(CommandError, match="keadb lab up"):
        secrets.init_secrets(stack)


@needs_cli
def test_a_rotation_stores_one_new_value_and_switches_the_site(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real CLI: the rest of the file stays as people wrote it, and no value stands in it."""
    secrets.init_secrets(stack)
    with pytest.raises(CommandError, match="no 'keadb up' has come to its end yet with kea_read_a"):
        rotation.plan_rotation(stack, "kea_read")
    before, old = stack.site_file.read_text(), secrets.secret_values(stack)
    name = "kea_read_a_password"
    in_force = {"kea-database": {name: fingerprint(old["fingerprint_key"], name, old[name])}}
    monkeypatch.setattr(rotation, "sent_fingerprints", lambda _exported: in_force)
    for what in ("kea_read", "patroni_rest_password"):
        rotation.carry_out(stack, rotation.plan_rotation(stack, what))
    new, text = secrets.secret_values(stack), stack.site_file.read_text()
    assert {n for n in new if new[n] != old[n]} == {"kea_read_b_password", "patroni_rest_password"}
    assert sites.load(stack).logins.keep == ("kea_read_a",)
    gone = [line for line in before.splitlines() if line not in text.splitlines()]
    assert all("secure:" in line or "logins" in line for line in gone)
    assert not [n for n, value in new.items() if any(line in text for line in value.split("\n") if line)]
