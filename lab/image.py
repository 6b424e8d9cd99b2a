"""The root file system that every lab host shares read-only: Debian 13 with what a site needs installed.

Built by mmdebstrap from the machine's own apt sources, kept in the cache folder under a name that holds the
recipe's digest: a changed recipe is another image, an unchanged one is never built twice. Holds no identity, no
secret and no configuration of a site.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from lab import apt
from lab.errors import LabError
from toolchain.locks import exclusive
from toolchain.paths import cache_dir

SUITES = ("trixie", "bookworm")
"""The hosts' release, then the one that still has PostgreSQL 15."""

BASE = (
    *("systemd", "systemd-sysv", "dbus", "openssh-server", "sudo", "python3", "openssl", "ca-certificates"),
    *("iproute2", "iputils-ping", "nftables", "procps", "less", "curl", "chrony", "tzdata"),
)
"""What a machine has before a site is put on it (and its time service)."""

SERVICES = (
    *("etcd-server", "etcd-client"),
    # python3-etcd: Patroni's etcd3 code imports it although it then speaks HTTP by itself.
    *("patroni", "python3-etcd", "python3-psycopg2", "python3-yaml"),
    *("postgresql-15", "postgresql-client-15"),
    *("pgbouncer", "haproxy", "keepalived"),
    "kea-admin",
)
"""What a site runs; packages of services that join later are added here."""

QUIET_UNITS = (
    *("etcd.service", "patroni.service", "postgresql.service", "postgresql@.service"),
    *("pgbouncer.service", "haproxy.service", "keepalived.service"),
    *("chrony.service", "nftables.service", "kea-dhcp4-server.service", "kea-ctrl-agent.service"),
)
"""Units that packages enable and that only a site's configuration may start."""

SETUP = Path(__file__).with_name("image-setup.sh")

Build = Callable[[Path, list[str], list[str]], list[str]]
"""Target folder, apt source lines and apt options to a build's argument list."""

_EXCLUDED = ("/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*", "/usr/share/doc/*")


def recipe() -> dict[str, object]:
    """Return everything that decides what the image holds."""
    return {
        "suites": SUITES,
        "packages": (*BASE, *SERVICES),
        "quiet": QUIET_UNITS,
        "setup": SETUP.read_text(encoding="utf-8"),
        "excluded": _EXCLUDED,
        "machine": platform.machine(),
    }


def digest() -> str:
    """Return the recipe's digest, 16 hex digits."""
    return hashlib.sha256(json.dumps(recipe(), sort_keys=True).encode()).hexdigest()[:16]


def path() -> Path:
    """Return where the image of today's recipe lives (or would live)."""
    return cache_dir() / f"image-{digest()}"


def ensure(say: Callable[[str], None]) -> Path:
    """Return the image's folder, building it first when it isn't in the cache; about a minute, two at most.

    Two builders at once: the second waits and takes the first one's result. Raises LabError with the build's
    last lines when it fails; nothing half-built stays under the final name.
    """
    what = f"hosts' root file system ({len(BASE) + len(SERVICES)} packages and what they need)"
    return made(path(), what, command, say)


def made(final: Path, what: str, build_command: Build, say: Callable[[str], None]) -> Path:
    """Return the image's folder ``final``, made by the build's command first when it isn't there; see ``ensure``."""
    if final.is_dir():
        return final
    with exclusive(cache_dir() / "image.lock", waiting=lambda: say("waiting for another build of the image")):
        if final.is_dir():
            return final
        _sweep()
        temporary = cache_dir() / f".image-building-{os.getpid()}"
        try:
            _run(temporary, what, build_command, say)
            temporary.rename(final)
        finally:
            _remove(temporary)
    return final


def command(target: Path, sources: list[str], options: list[str]) -> list[str]:
    """Return the build as an argument list: pure, so that a test reads it."""
    return build(target, sources, options, packages=(*BASE, *SERVICES))


def build(
    target: Path,
    sources: list[str],
    options: list[str],
    *,
    packages: tuple[str, ...],
    before: tuple[str, ...] = (),
    after: tuple[str, ...] = (),
) -> list[str]:
    """Return a build of these packages; ``before`` and ``after`` are shell commands around the common setup.

    In them ``$1`` is the fresh root file system.
    """
    units = " ".join(map(shlex.quote, QUIET_UNITS))
    # A mount namespace of its own: a killed build leaves no /proc or /sys mounted in the cache.
    return [
        *("unshare", "--mount", "--propagation", "private", "mmdebstrap"),
        *("--mode=root", "--variant=minbase", "--format=directory"),
        f"--include={','.join(packages)}",
        *(f"--aptopt={option}" for option in options),
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in _EXCLUDED),
        *(f"--customize-hook={hook}" for hook in before),
        f'--customize-hook=chroot "$1" /bin/sh -s -- {units} <{shlex.quote(str(SETUP))}',
        *(f"--customize-hook={hook}" for hook in after),
        SUITES[0],
        str(target),
        *sources,
    ]


def _run(target: Path, what: str, build_command: Build, say: Callable[[str], None]) -> None:
    if not apt.KEYRING.is_file():
        message = f"{apt.KEYRING} is missing: install the package debian-archive-keyring"
        raise LabError(message)
    say(f"building the {what}")
    argv = build_command(target, apt.machine_archive().lines(SUITES), apt.machine_options())
    started = time.monotonic()
    tail: deque[str] = deque(maxlen=25)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8", "TMPDIR": "/tmp"}  # noqa: S108 -- mmdebstrap wants a path that exists in the chroot as well
    with subprocess.Popen(  # noqa: S603 -- argument list from this file
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, errors="replace"
    ) as process:
        for line in process.stdout or ():
            text = line.strip()
            tail.append(text)
            if text.startswith("I: ") and "success" not in text:
                # A hook's whole text follows, which nobody wants to read here.
                step = "setting up" if "--customize-hook" in text else text.removeprefix("I: ")
                say(f"  {time.monotonic() - started:4.0f} s  {step}")
    if process.returncode != 0:
        message = f"the image could not be built (mmdebstrap exit {process.returncode}):\n  " + "\n  ".join(tail)
        if any("NO_PUBKEY" in line for line in tail):
            message += f"\n{apt.KEYRING} lacks the key of {SUITES[0]}: update the package debian-archive-keyring"
        raise LabError(message)
    say(f"root file system built in {time.monotonic() - started:.0f} s")


def _sweep() -> None:
    """Remove what killed builds left behind; only called under the lock, so no build is running."""
    for leftover in cache_dir().glob(".image-building-*"):
        _remove(leftover)


def _remove(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


def main() -> None:
    """Build the image if it isn't there and print its folder."""
    print(ensure(lambda line: print(line, flush=True)))  # noqa: T201 -- a command's output


if __name__ == "__main__":
    main()
