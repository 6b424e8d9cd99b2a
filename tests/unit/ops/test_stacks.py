"""Where stacks are found, and the one clear error when something of a stack is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.exits import CommandError, Exit
from ops.stacks import Stack, inside_namespace, known_stacks, resolve


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    folder.mkdir()
    (folder / "Pulumi.yaml").write_text("name: keadb\n")
    for stack in ("us1", "dv"):
        (folder / f"Pulumi.{stack}.yaml").write_text("config: {}\n")
    return folder


@pytest.fixture
def labs(tmp_path: Path) -> dict[str, str]:
    for name in ("lab", "us1"):
        folder = tmp_path / "labs" / name
        folder.mkdir(parents=True)
        (folder / f"Pulumi.{name}.yaml").write_text("config: {}\n")
    (tmp_path / "labs" / "half-made").mkdir()
    return {"KEADB_LAB_STATE": str(tmp_path / "labs")}


def test_real_stacks_and_labs_are_known_and_a_lab_never_hides_a_real_one(
    repository: Path, labs: dict[str, str]
) -> None:
    found = known_stacks(repository=repository, environ=labs)
    assert {name: stack.netns for name, stack in found.items()} == {"dv": None, "us1": None, "lab": "keadb-lab"}


def test_unknown_stack_lists_the_known_ones_and_is_bad_usage(repository: Path, labs: dict[str, str]) -> None:
    with pytest.raises(CommandError, match=r"unknown stack 'us9'; known: dv, us1, lab \(lab\)") as caught:
        resolve("us9", repository=repository, environ=labs)
    assert caught.value.code == Exit.USAGE


def test_backend_of_a_real_stack_comes_from_the_environment_then_from_the_project(repository: Path) -> None:
    stack = resolve("us1", repository=repository, environ={"KEADB_LAB_STATE": "/nowhere"})
    with pytest.raises(CommandError, match="PULUMI_BACKEND_URL"):
        stack.backend_url({})
    (repository / "Pulumi.yaml").write_text("name: keadb\nbackend: {url: 's3://states'}\n")
    assert stack.backend_url({}) == "s3://states"
    assert stack.backend_url({"PULUMI_BACKEND_URL": "file:///srv/states"}) == "file:///srv/states"


def test_a_labs_state_never_leaves_its_folder(tmp_path: Path) -> None:
    stack = Stack(name="lab", work_dir=tmp_path, netns="keadb-lab")
    assert stack.backend_url({"PULUMI_BACKEND_URL": "s3://states"}) == f"file://{tmp_path}/backend"


def test_passphrase_sources(repository: Path, tmp_path: Path) -> None:
    stack = Stack(name="us1", work_dir=repository)
    with pytest.raises(CommandError, match="PULUMI_CONFIG_PASSPHRASE_FILE"):
        stack.passphrase_file({})
    with pytest.raises(CommandError, match="no passphrase"):
        stack.passphrase_file({"PULUMI_CONFIG_PASSPHRASE": ""})
    assert stack.passphrase_file({"PULUMI_CONFIG_PASSPHRASE": "x"}) is None
    file = tmp_path / "passphrase"
    with pytest.raises(CommandError, match="is missing or cannot be read"):
        stack.passphrase_file({"PULUMI_CONFIG_PASSPHRASE_FILE": str(file)})
    file.write_text("x")
    assert stack.passphrase_file({"PULUMI_CONFIG_PASSPHRASE_FILE": str(file)}) == file


def test_real_stack_needs_no_namespace_and_a_lab_that_is_down_has_none(tmp_path: Path) -> None:
    assert inside_namespace(Stack(name="us1", work_dir=tmp_path))
    assert not inside_namespace(Stack(name="no", work_dir=tmp_path, netns="keadb-there-is-no-such-lab"))
