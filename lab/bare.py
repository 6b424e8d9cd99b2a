"""The root file system of a bare host: a machine as its owner hands it over, with nothing of a site on it.

It has systemd, SSH, sudo and needrestart (which Ubuntu's servers have), and neither Python nor openssl. What a site
installs comes from a repository in ``/srv/keadb-repo``: the packages that the archive of the build had, put there
while the image was built. The site's own code runs the same ``apt-get update`` and ``install`` as on a real machine,
and dpkg runs the same maintainer scripts; only the transport differs (``file:`` instead of http, no signature).
"""

from __future__ import annotations

import hashlib
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from lab import image
from toolchain.paths import cache_dir

if TYPE_CHECKING:
    from collections.abc import Callable

BARE = ("systemd", "systemd-sysv", "dbus", "openssh-server", "sudo", "iproute2", "needrestart")
"""What is installed; the rest of a full image's packages only lies in the repository."""

REPOSITORY = "/srv/keadb-repo"
SOURCE = f"deb [trusted=yes] file:{REPOSITORY} ./"
SETUP = Path(__file__).with_name("bare-setup.sh")


def offered() -> list[str]:
    """Return the packages that the repository offers, without what they depend on."""
    return [name for name in (*image.BASE, *image.SERVICES) if name not in BARE]


def recipe() -> dict[str, object]:
    """Return everything that decides what the image holds."""
    setup = SETUP.read_text(encoding="utf-8")
    return image.recipe() | {"packages": BARE, "offered": offered(), "source": SOURCE, "bare": setup}


def path() -> Path:
    """Return where the bare image of today's recipe lives (or would live)."""
    digest = hashlib.sha256(json.dumps(recipe(), sort_keys=True).encode()).hexdigest()[:16]
    return cache_dir() / f"bare-{digest}"


def ensure(say: Callable[[str], None]) -> Path:
    """Return the bare image's folder, building it first when it isn't in the cache; as ``lab.image.ensure``."""
    what = f"root file system of a bare host ({len(BARE)} packages, {len(offered())} more in its repository)"
    return image.made(path(), what, command, say)


def command(target: Path, sources: list[str], options: list[str]) -> list[str]:
    """Return the build as an argument list: pure, so that a test reads it."""
    download = f'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get --yes -qq --download-only install {" ".join(offered())}'
    return image.build(
        target,
        sources,
        options,
        packages=BARE,
        before=(download, f'chroot "$1" /bin/sh -s -- {REPOSITORY} <{shlex.quote(str(SETUP))}'),
        after=(f'echo {shlex.quote(SOURCE)} >"$1/etc/apt/sources.list.d/keadb-lab.list"',),
    )
