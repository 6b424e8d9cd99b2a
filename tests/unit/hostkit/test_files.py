"""Writing files: atomic, compared first, never through somebody's link."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from hostkit import files
from hostkit.context import Context
from hostkit.errors import BadInput, HostError, Refused
from tests.unit.hostkit.fakes import Machine

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")


def write(
    machine: Machine, path: str, text: str = "new", mode: int = 0o640, owner: files.Owner | None = None
) -> str | None:
    """Write as root of the tests unless told otherwise."""
    return files.replace(machine.ctx, path, text.encode(), mode=mode, owner=owner or files.Owner.root(machine.ctx))


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_modes_do_not_depend_on_the_umask(machine: Machine, umask: int) -> None:
    """Neither the file's nor that of the folders made for it."""
    before = os.umask(umask)
    try:
        assert write(machine, "/etc/a/b/c", mode=0o664) == files.CREATED
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((machine.root / p).stat().st_mode) for p in ("etc", "etc/a", "etc/a/b", "etc/a/b/c")]
    assert modes == [0o755, 0o755, 0o755, 0o664]


def test_an_equal_file_is_not_touched(machine: Machine) -> None:
    """Not even its time."""
    write(machine, "/etc/x")
    before = machine.stamps()
    assert write(machine, "/etc/x") is None
    assert machine.stamps() == before


@pytest.mark.parametrize("was", [("old", 0o640), ("new", 0o600), ("ne", 0o640)])
def test_another_content_or_mode_is_corrected(machine: Machine, was: tuple[str, int]) -> None:
    """Each of them alone."""
    machine.put("/etc/x", *was)
    assert write(machine, "/etc/x") == files.UPDATED
    assert machine.tree()["/etc/x"] == (0o640, "new")


@AS_ROOT
def test_another_owner_is_corrected(machine: Machine) -> None:
    """The content is the same."""
    machine.put("/etc/x", "new", 0o640)
    assert write(machine, "/etc/x", owner=files.Owner(12345, 23456)) == files.UPDATED
    info = (machine.root / "etc/x").stat()
    assert (info.st_uid, info.st_gid) == (12345, 23456)


def test_a_reader_sees_the_old_or_the_new_file_and_no_rest_stays(machine: Machine) -> None:
    """Whoever has the old one open keeps it: it was renamed over, not written into."""
    machine.put("/etc/x", "old")
    with (machine.root / "etc/x").open() as f:
        write(machine, "/etc/x")
        assert f.read() == "old"
    assert [p.name for p in (machine.root / "etc").iterdir()] == ["x"]


def test_what_a_cut_run_left_beside_the_file_is_no_obstacle(machine: Machine) -> None:
    """Even when somebody made it a link."""
    victim = machine.root / "victim"
    victim.write_text("untouched")
    (machine.root / "etc").mkdir()
    (machine.root / "etc/.x.keadb-new").symlink_to(victim)
    write(machine, "/etc/x")
    assert victim.read_text() == "untouched"
    assert machine.text("/etc/x") == "new"


def test_a_full_disk_leaves_the_old_file_and_no_rest(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the file, with the system's own reason."""
    machine.put("/etc/x", "old")

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HostError, match="/etc/x cannot be written: No space left on device; mend that"):
        write(machine, "/etc/x")
    assert machine.text("/etc/x") == "old"
    assert [p.name for p in (machine.root / "etc").iterdir()] == ["x"]


def test_a_link_in_the_place_of_the_file_is_refused(machine: Machine) -> None:
    """And what it points at stays as it is."""
    machine.put("/etc/target", "old")
    (machine.root / "etc/x").symlink_to(machine.root / "etc/target")
    with pytest.raises(Refused, match="/etc/x is a symbolic link; it is not written over"):
        write(machine, "/etc/x")
    assert machine.text("/etc/target") == "old"


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_not_a_plain_file_is_refused(machine: Machine, kind: str) -> None:
    """Reading a pipe would hang for ever."""
    (machine.root / "etc").mkdir()
    (Path.mkdir if kind == "folder" else os.mkfifo)(machine.root / "etc/x")
    with pytest.raises(Refused, match="/etc/x is not a plain file"):
        write(machine, "/etc/x")


@AS_ROOT
def test_a_folder_behind_a_users_link_is_refused_and_behind_roots_link_is_not(machine: Machine) -> None:
    """A service could point root's writes at /etc; the distribution's own links (/lib) are fine."""
    (machine.root / "etc").mkdir()
    link = machine.root / "data"
    link.symlink_to(machine.root / "etc")
    write(machine, "/data/x")
    os.lchown(link, 12345, 12345)
    with pytest.raises(Refused, match="/data/x lies behind the symbolic link /data of uid 12345"):
        write(machine, "/data/x", "newer")
    assert machine.text("/etc/x") == "new"


def test_a_file_in_the_way_of_a_folder_is_an_error(machine: Machine) -> None:
    """It is not removed."""
    machine.put("/etc/a", "file")
    with pytest.raises(HostError, match="/etc/a is in the way: it is not a folder"):
        write(machine, "/etc/a/b")


@pytest.mark.parametrize(
    "path", ["etc/x", "/", "", "/etc/../root/x", "/etc//x", "//etc/x", "/etc/x/", "/etc/./x", "/etc/x\0", "/etc/\nx"]
)
def test_hostile_paths_are_bad_input(machine: Machine, path: str) -> None:
    """Nothing outside the root can be named."""
    with pytest.raises(BadInput, match="absolute, normalised"):
        Context(machine.root, machine.system).path(path)
