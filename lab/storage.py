"""A host's disk: a file system of limited size, in a sparse file.

It holds the writable layer over the shared image, and by themselves the folders in which PostgreSQL and etcd keep
data (neither belongs on an overlay). Mounts are made in the supervisor's private mount namespace only: when its
last process is gone, so are mounts and loop devices. A power-off loses no written page, because the page cache
is the machine's.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from lab.model import LabHost, LabSpec
from lab.run import run

DATA_FOLDERS = ("var/lib/postgresql", "var/lib/etcd")
DEFAULT_DISK_MB = 4096
MINIMUM_DISK_MB = 256

_FULL, _FILLER = "/keadb-lab-full", "keadb-lab-full"
FILL = f"""
fallocate --length $(($(df --output=avail --block-size=1 / | tail -n 1) - 4194304)) {_FULL}
systemd-run --quiet --collect --unit={_FILLER} sh -c '
while :; do dd if=/dev/zero bs=4k >>{_FULL}-to-the-brim 2>/dev/null; sleep 0.2; done' || exit 1
for _ in $(seq 50); do [ "$(df --output=avail / | tail -n 1)" -gt 256 ] || exit 0; sleep 0.2; done
exit 1
"""
"""Shell, on the host: takes its whole disk, and keeps taking what is freed, until `FREE`."""
FREE = f"systemctl stop {_FILLER} 2>/dev/null; rm -f {_FULL} {_FULL}-to-the-brim"
"""Shell, on the host: gives all of that back; nothing to give back is fine."""


def create(path: Path, megabytes: int) -> None:
    """Make the disk unless it is there; one that was cut off half way is not there."""
    if path.exists():
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    with temporary.open("wb") as handle:
        handle.truncate(megabytes * 1024 * 1024)
    run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", str(temporary))
    temporary.rename(path)


def renew(path: Path) -> None:
    """Replace the disk by an empty one of the same size; what was on it is gone. It must not be mounted."""
    megabytes = path.stat().st_size // (1024 * 1024)
    path.unlink()
    create(path, megabytes)


def unmount(spec: LabSpec, host: LabHost) -> None:
    """Undo ``mount``, in the same mount namespace; the loop device goes with it. The host must be off."""
    base = spec.mounts(host)
    run("umount", "--recursive", str(base / "root"))
    run("umount", str(base / "disk"))


def mount(spec: LabSpec, host: LabHost, image: Path) -> Path:
    """Mount the host's disk and root file system in this mount namespace; return the root's folder.

    Must run in the supervisor's private mount namespace.
    """
    disk, base = spec.disk(host), spec.mounts(host)
    volume, merged = base / "disk", base / "root"
    volume.mkdir(parents=True, exist_ok=True)
    merged.mkdir(parents=True, exist_ok=True)
    run("mount", "-t", "ext4", "-o", "loop,noatime", str(disk), str(volume))
    for name in ("upper", "work", "data"):
        (volume / name).mkdir(exist_ok=True)
    layers = f"lowerdir={image},upperdir={volume}/upper,workdir={volume}/work"
    run("mount", "-t", "overlay", "-o", layers, "overlay", str(merged))
    for folder in DATA_FOLDERS:
        source = volume / "data" / folder.replace("/", "-")
        original = image / folder
        if not source.exists():
            source.mkdir()
            if original.exists():
                shutil.copystat(original, source)
                shutil.chown(source, original.stat().st_uid, original.stat().st_gid)
        # A bare host's packages find the folder there, as on a machine whose data disk its owner mounted.
        (merged / folder).mkdir(parents=True, exist_ok=True)
        run("mount", "--bind", str(source), str(merged / folder))
    return merged
