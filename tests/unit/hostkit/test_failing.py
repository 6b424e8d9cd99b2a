"""Every write and every command fails once: one clear error, and the next run ends as if nothing had happened."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from hostkit import pending
from hostkit.errors import HostError
from tests.unit.hostkit.scenes import CHANGES, Scene, first, stage

SECRETS = ("very-secret-value", "another-secret-value", "PRIVATE KEY")
DISKS = {"full disk": errno.ENOSPC, "read-only file system": errno.EROFS}

pytestmark = pytest.mark.thorough


@contextmanager
def failing_disk(monkeypatch: pytest.MonkeyPatch, code: int, moment: int) -> Iterator[list[str]]:
    """From that write on no write succeeds; collects what was asked of the disk then."""
    passed = 0
    asked: list[str] = []

    def fail(path: object) -> None:
        nonlocal passed
        passed += 1
        if passed > moment:
            asked.append(str(path))
            raise OSError(code, os.strerror(code), str(path))

    def before(real: Callable[..., object]) -> Callable[..., object]:
        def wrapped(path: object, *args: object, **kwargs: object) -> object:
            fail(path)
            return real(path, *args, **kwargs)

        return wrapped

    really_open = os.open

    def opened(path: str, flags: int, *args: int, **kwargs: int) -> int:
        if flags & os.O_CREAT:
            fail(path)
        return really_open(path, flags, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", opened)
        for name in ("mkdir",) if code == errno.ENOSPC else ("mkdir", "replace", "unlink"):
            patch.setattr(Path, name, before(getattr(Path, name)))
        yield asked


def told(change: Callable[[Scene], None], s: Scene) -> str:
    """Run the change; return its error, empty when it went through. Anything but a HostError fails the test."""
    try:
        change(s)
    except HostError as e:
        return str(e)
    return ""


@pytest.mark.parametrize("disk", DISKS)
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_disk_that_takes_no_more(
    change: Callable[[Scene], None], disk: str, quick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From every single write on: the error says what is wrong with which path, and has no secret."""
    prepared = stage(quick, monkeypatch, first_applied=change is not first)
    reference = prepared("reference")
    change(reference)
    wanted = reference.state()
    moment = 0
    while True:
        s = prepared(str(moment))
        with failing_disk(monkeypatch, DISKS[disk], moment) as asked:
            said = told(change, s)
        assert bool(said) == bool(asked), f"from write {moment} on: {said}"
        change(s)
        assert s.state() == wanted, f"from write {moment} on"
        assert not list(pending.left(s.machine.ctx))
        if not asked:
            break
        assert os.strerror(DISKS[disk]) in said
        assert "Error" not in said, "a Python exception is nothing for people"
        assert "; mend that and run it again" in said
        assert any(part in said for part in ("/etc/", "/var/lib/keadb/")), said
        assert not [secret for secret in SECRETS if secret in said]
        moment += 1
    assert moment >= 1


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_command_that_fails(change: Callable[[Scene], None], quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each one once: the error names it, unless it was only a question."""
    prepared = stage(quick, monkeypatch, first_applied=change is not first)
    reference = prepared("reference")
    change(reference)
    wanted = reference.state()
    number = 0
    while True:
        s = prepared(str(number))
        failed: list[str] = []
        passed = 0

        def fails(argv: Sequence[str], failed: list[str] = failed, number: int = number) -> bool:
            nonlocal passed
            passed += 1
            if passed == number + 1:
                failed.append(argv[0])
            return passed == number + 1

        s.machine.system.fails = fails
        said = told(change, s)
        s.machine.system.fails = lambda _: False
        assert not said or (failed[0] in said and "it failed" in said), said
        change(s)
        assert s.state() == wanted, f"command {number} failed: {failed}"
        assert not list(pending.left(s.machine.ctx))
        if not failed:
            break
        number += 1
