"""Bringing a lab up and taking it down, from whatever state it was left in."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from lab import cgroup, control, images, keys, network, process, secrets, sitefile, storage
from lab.errors import LabError
from lab.model import Made

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from lab.model import LabHost, LabSpec

_REPOSITORY = Path(__file__).resolve().parent.parent
_SUPERVISOR = "supervisor"
_SSH_DEADLINE = 60.0
_SUPERVISOR_DEADLINE = 10.0


def up(
    spec: LabSpec,
    say: Callable[[str], None],
    *,
    disk_mb: int = storage.DEFAULT_DISK_MB,
    with_secrets: bool = True,
    bare: Iterable[str] = (),
    topology: str = "ha",
    spare: bool = False,
) -> None:
    """Bring every host up and wait for its SSH; what runs already is left alone.

    After a lab whose processes were killed: cleans up what they left and starts again on the same disks. Hosts
    that were powered off on purpose are started too. ``with_secrets=False`` leaves the stack without secrets, for
    those who want hosts only. The hosts named in ``bare`` start from a bare image (see ``lab.bare``), and stay with
    it as long as they have a disk. ``topology`` is that of a site file that is written now: all machines are there in
    any case. ``spare``: a machine more than a site has. Raises LabError with the reason.
    """
    require_root()
    if disk_mb < storage.MINIMUM_DISK_MB:
        message = f"disk size {disk_mb} MiB: at least {storage.MINIMUM_DISK_MB} are needed"
        raise LabError(message)
    if (_REPOSITORY / spec.site_file.name).exists():
        message = f"lab name {spec.name!r}: a real stack has this name ({spec.site_file.name}); use another --name"
        raise LabError(message)
    _refuse_elsewhere(spec)
    bare = tuple(bare)
    _add_spare(spec, wanted=spare)
    images.ensure(spec, bare, say)  # may take minutes: not under the lock
    with _locked(spec, say):
        started = time.monotonic()
        images.record(spec, images.ensure(spec, bare, say))
        keys.ensure(spec)
        if sitefile.ensure(spec, disk_mb=disk_mb, topology=topology):
            say(f"site file written: {spec.site_file}")
        if control.supervisor(spec) is None or control.status(spec) is None:
            _clean(spec)
            with ThreadPoolExecutor() as pool:
                list(pool.map(lambda host: storage.create(spec.disk(host), disk_mb), spec.hosts))
            network.create(spec)
            _start_supervisor(spec)

        def bring(host: LabHost) -> bool:
            fresh = bool(control.ask(spec, "start", host=host.name)["started"])
            states = control.ask(spec, "status")
            if states[host.name]["state"] == "frozen":
                say(f"{host.name}: frozen; not waiting for it (keadb lab thaw {host.name})")
            elif states[host.name]["cable"] == "plugged":
                control.ask(spec, "wait-ssh", host=host.name, seconds=_SSH_DEADLINE)
            else:
                say(f"{host.name}: cut from the network; not waiting for it (keadb lab heal {host.name})")
            if fresh:
                say(f"{host.name}: {host.address} answers SSH after {time.monotonic() - started:.1f} s")
            return fresh

        with ThreadPoolExecutor() as pool:
            made = pool.submit(secrets.ensure, spec, say) if with_secrets else None
            fresh = list(pool.map(bring, spec.hosts))
            fresh.append(made is not None and made.result())
        if not any(fresh):
            say(f"lab {spec.name} is up already")


def down(spec: LabSpec, say: Callable[[str], None], *, keep_disks: bool = False) -> bool:
    """Take the lab down and leave nothing behind; False when there was nothing.

    Works after a kill, and twice. ``keep_disks`` leaves the state folder (disks, keys, site file, engine state).
    """
    require_root()
    _refuse_elsewhere(spec)
    there = spec.folder.exists() or network.exists(spec) or (cgroup.root() / spec.cgroup).exists()
    if not there:
        say(f"lab {spec.name}: nothing to take down")
        return False
    with _locked(spec, say):
        _clean(spec)
        if not keep_disks:
            _remove_folder(spec.folder)
    if not keep_disks:
        with contextlib.suppress(OSError):  # other labs live here
            spec.root.rmdir()
    say(f"lab {spec.name} is down" + ("; its disks are kept" if keep_disks else ""))
    return True


def rebuild(spec: LabSpec, host: LabHost, say: Callable[[str], None], *, same_key: bool = False) -> None:
    """Install a host anew: its power is taken, its disk is empty, and it is started again as it once came.

    As with a real machine its SSH host key is another one afterwards, and the site file is told: the new key,
    and the host's generation raised. ``same_key`` keeps the key and leaves the site file alone, which is what a
    disk that was lost without anybody saying so looks like. Doesn't wait for its SSH. Raises LabError.
    """
    require_root()
    with _locked(spec, say):
        control.ask(spec, "wipe", host=host.name)
        if not same_key:
            keys.renew(spec, host)
            generation = sitefile.rebuilt(spec, host)
            say(f"{host.name}: new SSH host key and generation {generation} written to {spec.site_file}")
        control.ask(spec, "start", host=host.name)


def readdress(spec: LabSpec, host: LabHost, address: str, say: Callable[[str], None]) -> None:
    """Give a host another address, as its owner does: its network's file is changed, and it is started again.

    The site file is told. What keadb placed there is left as it is. Raises LabError; doesn't wait for its SSH.
    """
    require_root()
    with _locked(spec, say):
        moved = spec.moved(host, address)
        control.ask(spec, "readdress", host=host.name, address=address)
        made = spec.made
        spec.remember(Made(made.spare, {**made.addresses, host.short: moved.address}))
        if sitefile.readdressed(spec, moved):
            say(f"{host.name}: address {moved.address} written to {spec.site_file}")
        control.ask(spec, "start", host=host.name)


def _add_spare(spec: LabSpec, *, wanted: bool) -> None:
    if not wanted or spec.made.spare:
        return
    if spec.folder.exists():
        message = f"lab {spec.name} was made without the spare machine; take it down first: keadb lab down"
        raise LabError(message)
    spec.folder.mkdir(mode=0o700, parents=True)
    spec.remember(Made(spare=True))


def require_root() -> None:
    """Raise LabError unless this process may make namespaces and mounts."""
    if os.geteuid() != 0:
        message = "the lab needs root (network namespaces, mounts and containers); run it with sudo"
        raise LabError(message)


def _clean(spec: LabSpec) -> None:
    """End every process of the lab and remove its namespace, groups and mounts. Files stay."""
    recorded = list(process.load(spec.record).values())
    for identity in recorded:
        process.kill(identity)
    cgroup.kill(spec.cgroup)
    left = process.wait_gone(recorded, 10)
    if left:
        message = f"lab {spec.name}: process {left[0].pid} does not die"
        raise LabError(message)
    cgroup.remove(spec.cgroup)
    network.delete(spec)
    spec.socket.unlink(missing_ok=True)
    spec.record.unlink(missing_ok=True)
    _wait_detached(spec)


def _refuse_elsewhere(spec: LabSpec) -> None:
    """Raise LabError when a living lab of this name has its state elsewhere: namespaces know no folder."""
    for pid in cgroup.members(f"{spec.cgroup}/{_SUPERVISOR}"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            words = Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").split("\0")
            root = Path(words[words.index("--state") + 1])
            if root != spec.root and (root / spec.name).is_dir():
                message = f"a lab {spec.name} runs with its state in {root}; set KEADB_LAB_STATE={root} or use --name"
                raise LabError(message)


def _wait_detached(spec: LabSpec) -> None:
    """Wait until the kernel has let go of the disks: their mounts went with the last process, a moment later."""
    deadline = time.monotonic() + 10
    prefix = f"{spec.folder}/disks/"
    while any(_backing(device).startswith(prefix) for device in Path("/sys/block").glob("loop*")):
        if time.monotonic() > deadline:
            message = f"lab {spec.name}: a loop device still holds a disk below {prefix}; see: losetup --list"
            raise LabError(message)
        time.sleep(0.02)


def _backing(device: Path) -> str:
    try:
        return (device / "loop" / "backing_file").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _start_supervisor(spec: LabSpec) -> None:
    spec.logs.mkdir(exist_ok=True)
    log = spec.logs / "supervisor.log"
    argv = [
        *("ip", "netns", "exec", spec.netns, "unshare", "--mount", "--propagation", "private"),
        *(sys.executable, "-B", "-m", "lab.supervisor"),
        *("--name", spec.name, "--state", str(spec.root)),
    ]
    with log.open("ab") as output:
        child = subprocess.Popen(  # noqa: S603 -- argument list from this file
            cgroup.inside(cgroup.create(f"{spec.cgroup}/{_SUPERVISOR}"), argv),
            cwd=_REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + _SUPERVISOR_DEADLINE
    while control.status(spec) is None:
        if child.poll() is not None or time.monotonic() > deadline:
            tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:])
            message = f"lab {spec.name}: its supervisor did not start:\n{tail}"
            raise LabError(message)
        time.sleep(0.02)


@contextlib.contextmanager
def _locked(spec: LabSpec, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the lab: one ``up`` or ``down`` at a time. The lock is the folder itself, so that no file stays."""
    while True:
        spec.root.mkdir(mode=0o755, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            spec.folder.mkdir(mode=0o700)
        try:
            descriptor = os.open(spec.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"lab {spec.name}: waiting for another command that has it")
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Someone may have removed the folder while we waited: then the lock is on nothing.
            if spec.folder.exists() and os.fstat(descriptor).st_ino == spec.folder.stat().st_ino:
                yield
                return
        finally:
            os.close(descriptor)


def _remove_folder(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)
