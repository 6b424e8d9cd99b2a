"""Parameter sets: what they say, how a lab gets one, and that what was before always comes back."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from keadb.site import load_site
from keadb.stackfile import SITE_KEY
from ops import drill_parameters, sites
from ops.drill_parameters import KEYS, NOTE_FILE, SETS, bring, in_force, put_back
from ops.exits import CommandError, Exit
from ops.stacks import Stack
from tests.unit.core.samples import ha, put

TEXT = """# the lab of somebody
config:
  keadb:site: %s
  keadb:secret_deploy_key:
    secure: v1:abc=
encryptionsalt: v1:salt
"""


class Lab:
    """A lab's folder, and what its hosts were last brought to."""

    def __init__(self, folder: Path, data: dict[str, Any] | None = None) -> None:
        self.stack = Stack(name="lab", work_dir=folder, netns="keadb-lab")
        self.stack.site_file.write_text(TEXT % json.dumps(data or ha()))
        self.stack.site_file.chmod(0o640)
        self.applied: list[dict[str, int]] = []
        self.breaks: BaseException | None = None

    @property
    def text(self) -> str:
        return self.stack.site_file.read_text()

    @property
    def noted(self) -> bool:
        return (self.stack.work_dir / NOTE_FILE).exists()

    def values(self) -> dict[str, int]:
        """Return the keys of the sets as the site file, read and validated as a whole, has them."""
        return drill_parameters._values_of(sites.load(self.stack))

    def up(self, stack: Stack) -> None:
        """Stand in for `keadb up`: takes the site file as it is now."""
        assert stack == self.stack
        if self.breaks:
            raise self.breaks
        self.applied.append(self.values())

    def edit(self, path: str, value: Any) -> None:
        """Change the site file as a person would."""
        data = yaml.safe_load(self.text)
        data["config"][SITE_KEY] = put(data["config"][SITE_KEY], path, value)
        self.stack.site_file.write_text(yaml.safe_dump(data))


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """A lab whose site file leaves the keys of the sets to their defaults."""
    return Lab(tmp_path)


@pytest.mark.parametrize("name", SETS)
def test_every_set_is_one_that_a_site_may_have(name: str) -> None:
    data = ha()
    for key, value in SETS[name].values.items():
        data = put(data, key.replace(".", "/"), value)
    assert drill_parameters._values_of(load_site(data, source="test")) == SETS[name].values
    assert tuple(SETS[name].values) == KEYS


def test_ours_is_what_a_site_has_that_says_nothing() -> None:
    assert SETS["keadb"].values == drill_parameters._values_of(load_site(ha(), source="test"))
    assert SETS["keadb"].values["patroni.ttl"] == 20


def test_theirs_are_as_they_publish_them() -> None:
    timings = ("patroni.ttl", "patroni.loop_wait", "patroni.retry_timeout", "patroni.primary_start_timeout")
    checks = ("interval_ms", "fast_ms", "fall", "rise")
    found = {
        name: ([made.values[key] for key in timings], [made.values[f"proxy.check.{key}"] for key in checks])
        for name, made in SETS.items()
    }
    assert found["autobase"] == ([30, 10, 10, 300], [3000, 1000, 3, 4])
    assert found["pigsty"] == ([30, 5, 10, 25], [2000, 1000, 3, 3])


def test_a_set_is_in_force_while_it_is_entered_and_the_file_has_its_bytes_back_afterwards(lab: Lab) -> None:
    before, mode = lab.text, lab.stack.site_file.stat().st_mode
    with in_force(lab.stack, "autobase", up=lab.up):
        assert lab.values() == SETS["autobase"].values
        assert lab.applied == [SETS["autobase"].values]
        assert "v1:abc=" in lab.text
        assert (lab.stack.work_dir / NOTE_FILE).stat().st_mode & 0o777 == 0o600
    assert lab.text == before
    assert lab.stack.site_file.stat().st_mode == mode
    assert lab.applied[-1] == SETS["keadb"].values
    assert not lab.noted
    assert sorted(path.name for path in lab.stack.work_dir.iterdir()) == ["Pulumi.lab.yaml"]


def test_an_error_or_an_interruption_meanwhile_puts_back_too(lab: Lab) -> None:
    before = lab.text
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), in_force(lab.stack, "pigsty", up=lab.up):
            raise error
        assert lab.text == before
        assert lab.applied[-1] == SETS["keadb"].values


def test_a_drill_that_was_killed_is_put_right_by_the_next(lab: Lab) -> None:
    before = lab.text
    bring(lab.stack, "autobase", up=lab.up)
    assert put_back(lab.stack, up=lab.up)
    assert (lab.text, lab.applied[-1]) == (before, SETS["keadb"].values)
    assert not put_back(lab.stack, up=lab.up), "there is nothing left"
    assert len(lab.applied) == 2


@pytest.mark.parametrize("moment", ["before the file was written", "while up ran", "while up put it back"])
def test_killed_at_any_moment_nothing_is_lost(lab: Lab, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    before = lab.text
    lab.breaks = KeyboardInterrupt()
    with monkeypatch.context() as patched:
        if moment == "before the file was written":
            patched.setattr(drill_parameters, "_replace", _cut_before(lab.stack.site_file))
        with pytest.raises(KeyboardInterrupt):
            bring(lab.stack, "autobase", up=lab.up)
    assert (lab.noted, lab.text == before) == (True, moment == "before the file was written")
    if moment == "while up put it back":
        with pytest.raises(KeyboardInterrupt):
            put_back(lab.stack, up=lab.up)
        assert lab.noted, "what is not in force again is not forgotten"
    lab.breaks = None
    put_back(lab.stack, up=lab.up)
    assert lab.text == before
    assert not lab.noted
    assert not lab.applied or lab.applied[-1] == SETS["keadb"].values


def _cut_before(path: Path) -> Any:
    whole = drill_parameters._replace

    def replace(at: Path, text: str) -> None:
        if at == path:
            raise KeyboardInterrupt
        whole(at, text)

    return replace


def test_an_up_that_was_cut_is_run_again_for_the_same_set(lab: Lab) -> None:
    lab.breaks = CommandError("no")
    with pytest.raises(CommandError):
        bring(lab.stack, "autobase", up=lab.up)
    lab.breaks = None
    assert bring(lab.stack, "autobase", up=lab.up)
    assert lab.applied == [SETS["autobase"].values]
    assert not bring(lab.stack, "autobase", up=lab.up), "now it is in force"


def test_from_one_set_to_the_other_what_was_first_is_what_comes_back(tmp_path: Path) -> None:
    lab = Lab(tmp_path, put(put(ha(), "patroni/loop_wait", 4), "proxy/read_lag_mb", 65))
    before = lab.text
    bring(lab.stack, "autobase", up=lab.up)
    bring(lab.stack, "pigsty", up=lab.up)
    assert lab.applied[-1] == SETS["pigsty"].values
    bring(lab.stack, "site", up=lab.up)
    assert lab.text == before
    assert lab.applied[-1]["patroni.loop_wait"] == 4


def test_what_is_in_force_already_needs_no_up(lab: Lab) -> None:
    before = lab.text
    with in_force(lab.stack, "keadb", up=lab.up):
        assert not lab.noted
    with in_force(lab.stack, "site", up=lab.up):
        pass
    assert (lab.applied, lab.text) == ([], before)


def test_a_file_that_was_edited_meanwhile_keeps_the_edit(tmp_path: Path) -> None:
    """A host was rebuilt, or somebody changed a key: only the keys of the sets go back."""
    lab = Lab(tmp_path, put(put(ha(), "patroni/ttl", 40), "proxy/read_lag_mb", 65))
    with in_force(lab.stack, "autobase", up=lab.up):
        lab.edit("hosts/lab-kea-db-01/generation", 2)
        lab.edit("proxy/read_lag_mb", 66)
    site = yaml.safe_load(lab.text)["config"][SITE_KEY]
    assert site["hosts"]["lab-kea-db-01"]["generation"] == 2
    assert site["patroni"] == {"ttl": 40}
    assert site["proxy"] == {"read_lag_mb": 66}
    assert "virtual_address" not in site
    assert lab.applied[-1] == {**SETS["keadb"].values, "patroni.ttl": 40}


def test_a_real_site_is_never_touched(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    real = Stack(name="lab", work_dir=tmp_path)
    before = lab.text
    with pytest.raises(CommandError, match="is no lab") as error:
        bring(real, "autobase", up=lab.up)
    assert error.value.code == Exit.USAGE
    assert lab.text == before


def test_an_unknown_set_is_refused_with_those_there_are(lab: Lab) -> None:
    with pytest.raises(CommandError, match="given 'autobass', allowed: site, keadb, autobase, pigsty") as error:
        bring(lab.stack, "autobass", up=lab.up)
    assert error.value.code == Exit.USAGE
    with pytest.raises(CommandError, match="keadb is given twice"):
        drill_parameters.check_names(("keadb", "site", "keadb"))


def test_a_note_that_cannot_be_read_is_said_and_kept(lab: Lab) -> None:
    note = lab.stack.work_dir / NOTE_FILE
    for text, why in (("{", "cannot be read"), ('{"format": 2}', "given 2, allowed: 1"), ("[]", "given null")):
        note.write_text(text)
        with pytest.raises(CommandError, match=why):
            put_back(lab.stack, up=lab.up)
        assert note.read_text() == text


def test_an_up_that_is_still_at_work_is_waited_for(lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Left by a drill that was killed: what it began ends first, and then comes what is wanted now."""
    command, ended = tmp_path / "bin" / "keadb", tmp_path / "ended"
    command.parent.mkdir()
    command.write_text(
        f"#!/bin/sh\nif ! test -e {ended}; then\n"
        "echo 'error: the stack is currently locked by 1 lock(s). Either wait' >&2; exit 1; fi\n"
    )
    command.chmod(0o755)
    waits: list[float] = []

    def wait(seconds: float) -> None:
        if seconds >= 1:  # the standard library's own waits for a process are shorter
            waits.append(seconds)
            ended.touch()

    monkeypatch.setattr(drill_parameters, "REPOSITORY", tmp_path)
    monkeypatch.setattr(time, "sleep", wait)
    assert bring(lab.stack, "pigsty")
    assert waits == [drill_parameters.RETRY_SECONDS]


def test_what_up_says_is_told_when_it_fails(lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    command = tmp_path / "bin" / "keadb"
    command.parent.mkdir()
    command.write_text('#!/bin/sh\necho "$@" >&2\nexit 1\n')
    command.chmod(0o755)
    monkeypatch.setattr(drill_parameters, "REPOSITORY", tmp_path)
    with pytest.raises(CommandError, match="keadb up --stack lab failed:\nup --stack lab --yes"):
        bring(lab.stack, "pigsty")
