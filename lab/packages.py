"""What the machine itself needs for a lab, by apt: ``python -m lab.packages``.

Looks for files, so that a machine that has everything is done in an instant. Installs nothing on a machine that
isn't Debian-like, and nothing that a lab host needs (that is ``lab.image``).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from lab.errors import LabError

NEEDED: Mapping[str, tuple[str, ...]] = {
    "debian-archive-keyring": ("/usr/share/keyrings/debian-archive-keyring.gpg",),
    "e2fsprogs": ("mkfs.ext4",),
    "iproute2": ("ip",),
    "mmdebstrap": ("mmdebstrap",),
    "mount": ("mount", "umount", "losetup"),
    "nftables": ("nft",),
    "postgresql-client": ("psql",),
    "systemd-container": ("systemd-nspawn",),
    "util-linux": ("unshare", "nsenter"),
}
"""Package to the commands (or files) that show that it is there."""

_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


def there(name: str) -> bool:
    """Say whether a command is on the path (root's, whoever asks) or a file exists."""
    if name.startswith("/"):
        return Path(name).exists()
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{_SBIN}") is not None


def missing(has: Callable[[str], bool] = there) -> list[str]:
    """Return the packages that are needed and not there, in order of their names."""
    return [package for package, names in sorted(NEEDED.items()) if not all(has(name) for name in names)]


def ensure(say: Callable[[str], None], *, has: Callable[[str], bool] = there) -> list[str]:
    """Install what is missing and return it.

    Raises LabError when it cannot: not root, no apt, or apt failed (its last lines are in the message).
    """
    packages = missing(has)
    if not packages:
        return []
    if not has("apt-get"):
        message = f"the lab needs {', '.join(packages)}, and this machine has no apt-get to install them with"
        raise LabError(message)
    if os.geteuid() != 0:
        message = (
            f"the lab needs more packages; as root: apt-get install --no-install-recommends {' '.join(packages)}"
        )
        raise LabError(message)
    say(f"installing with apt: {', '.join(packages)}")
    _apt("update")
    _apt("install", "--yes", "--no-install-recommends", *packages)
    still = missing(has)
    if still:
        message = f"apt installed {', '.join(still)}, but their commands are still not found"
        raise LabError(message)
    return packages


def _apt(*arguments: str) -> None:
    argv = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=120", *arguments]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(argv, check=False, capture_output=True, text=True, env=environment)  # noqa: S603 -- package names from this file
    if done.returncode != 0:
        tail = "\n  ".join((done.stdout + done.stderr).strip().splitlines()[-10:])
        message = f"{' '.join(argv)} failed (exit {done.returncode}):\n  {tail}"
        raise LabError(message)


def main() -> int:
    """Install what is missing; say so when nothing is."""
    try:
        installed = ensure(lambda line: print(line, flush=True))  # noqa: T201 -- a command's output
    except LabError as error:
        print(f"Error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    if not installed:
        print("packages for the lab: all there")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
