"""Writing files: compared first, atomic, owner and mode set, never through a link that others planted."""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hostkit.errors import HostError, Refused

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hostkit.context import Context

CREATED = "created"
UPDATED = "updated"
_PART = ".keadb-new"
"""Ending of the temporary file beside the target; one that a cut run left is written over by the next."""


@dataclass(frozen=True)
class Owner:
    """Numbers of a file's user and group."""

    uid: int
    gid: int

    @classmethod
    def named(cls, ctx: Context, user: str, group: str) -> Owner:
        """Look both up; HostError when one does not exist."""
        return cls(ctx.system.uid(user), ctx.system.gid(group))

    @classmethod
    def root(cls, ctx: Context) -> Owner:
        """Return root's own."""
        return cls.named(ctx, "root", "root")


def difference(ctx: Context, path: str, data: bytes, *, mode: int, owner: Owner | None) -> str | None:
    """Say what would happen to this file: ``created``, ``updated``, or None when it is as wanted.

    ``owner`` None means that the user or group does not exist yet, so the file can't be as wanted. Refused
    for a path that is a symbolic link or not a plain file, or that lies behind a link that is not root's.
    """
    target = ctx.path(path)
    _refuse_links(ctx, path)
    try:
        info = target.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return CREATED
    if not stat.S_ISREG(info.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(info.st_mode) else "not a plain file"
        msg = f"{path} is {kind}; it is not written over"
        raise Refused(msg)
    same = (
        owner is not None
        and (info.st_uid, info.st_gid) == (owner.uid, owner.gid)
        and stat.S_IMODE(info.st_mode) == mode
        and info.st_size == len(data)
        and target.read_bytes() == data
    )
    return None if same else UPDATED


def replace(ctx: Context, path: str, data: bytes, *, mode: int, owner: Owner) -> str | None:
    """Bring a file to this content, owner and mode; return ``created``, ``updated`` or None (untouched).

    Written beside the target, synced and renamed, so that a cut leaves the old or the new file, never half of
    one. Missing parents are made as root's with mode 0755. See ``difference`` for what is refused. HostError names
    the file when it cannot be written (a full disk, a read-only file system).
    """
    change = difference(ctx, path, data, mode=mode, owner=owner)
    if change is None:
        return None
    make_parents(ctx, path)
    with _named(path, "written"):
        _write(ctx.path(path), data, mode, owner)
    return change


@contextlib.contextmanager
def _named(path: str, done: str) -> Iterator[None]:
    """Turn what the disk says into an error that names the path and what could not be done."""
    try:
        yield
    except OSError as e:
        msg = f"{path} cannot be {done}: {e.strerror or type(e).__name__}; mend that and run it again"
        raise HostError(msg) from None


def _write(target: Path, data: bytes, mode: int, owner: Owner) -> None:
    part = _part(target)
    with contextlib.suppress(FileNotFoundError):
        part.unlink()
    # O_EXCL with O_NOFOLLOW: in a folder of a service's own user, nobody can slip a link in between.
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as f:
            f.write(data)
            f.flush()
            os.fchown(f.fileno(), owner.uid, owner.gid)
            os.fchmod(f.fileno(), mode)
            os.fsync(f.fileno())
        part.replace(target)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    sync_folder(target.parent)


def remove(ctx: Context, path: str) -> bool:
    """Remove a file for good; return whether it was there. HostError names it when it cannot be removed."""
    target = ctx.path(path)
    with _named(path, "removed"):
        try:
            target.unlink()
        except FileNotFoundError:
            return False
        sync_folder(target.parent)
    return True


def sweep(ctx: Context, path: str) -> None:
    """Remove what a run that was cut while it wrote this path left beside it: it may hold secrets."""
    with _named(path, "swept"), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        _part(ctx.path(path)).unlink()


def _part(target: Path) -> Path:
    return target.with_name(f".{target.name}{_PART}")


def make_parents(ctx: Context, path: str) -> None:
    """Make the missing folders above a path, root's with mode 0755; HostError names one that cannot be made."""
    owner: Owner | None = None
    for folder in reversed(ctx.path(path).relative_to(ctx.root).parents):
        full = ctx.root / folder
        if full.is_dir():
            continue
        if full.exists():
            msg = f"/{folder} is in the way: it is not a folder"
            raise HostError(msg)
        owner = owner or Owner.root(ctx)
        with _named(f"/{folder}", "made"):
            full.mkdir(mode=0o755)
            full.chmod(0o755)  # whatever the umask
            os.chown(full, owner.uid, owner.gid)
            sync_folder(full.parent)


def make_private(ctx: Context, path: str) -> None:
    """Make a folder of root's that nobody else can enter (0700)."""
    make_parents(ctx, f"{path}/x")
    folder = ctx.path(path)
    if stat.S_IMODE(folder.stat().st_mode) != 0o700:  # noqa: PLR2004 - the mode just named
        with _named(path, "closed to others"):
            folder.chmod(0o700)


def sync_folder(folder: Path) -> None:
    """Make renames and removals in this folder survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def in_the_way(ctx: Context, path: str) -> str | None:
    """Return what stands where a folder above this path must be, and is none; reads only."""
    for folder in reversed(ctx.path(path).relative_to(ctx.root).parents):
        full = ctx.root / folder
        if full.exists() and not full.is_dir():
            return f"/{folder}"
    return None


def _refuse_links(ctx: Context, path: str) -> None:
    """Refuse a path behind a link that is not root's: its owner could send root's writes elsewhere."""
    for folder in reversed(ctx.path(path).relative_to(ctx.root).parents):
        full = ctx.root / folder
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            info = full.lstat()
            if stat.S_ISLNK(info.st_mode) and info.st_uid not in {0, os.geteuid()}:
                msg = f"{path} lies behind the symbolic link /{folder} of uid {info.st_uid}, not root's"
                raise Refused(msg)
