"""Second versions of packages that run in the lab: the same files, a higher version, a repository on each host."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lab import bare, images
from tests.lab.harness import BARE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lab.api import Lab

FOLDER = "/srv/keadb-newer"
SOURCE = "/etc/apt/sources.list.d/keadb-newer.list"


def _run(*argv: str | Path) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def _repacked(package: Path, folder: Path, suffix: str) -> str:
    """Pack a package anew under a version that ends in ``suffix``; return that version."""
    files = folder / "files"
    _run("dpkg-deb", "--raw-extract", package, files)
    control = files / "DEBIAN/control"
    lines = control.read_text().splitlines()
    version = next(line for line in lines if line.startswith("Version: ")) + suffix
    control.write_text("\n".join(version if line.startswith("Version: ") else line for line in lines) + "\n")
    _run("dpkg-deb", "--root-owner-group", "-Znone", "--build", files, folder)
    _run("rm", "-r", files)
    return version.removeprefix("Version: ")


def _index(folder: Path) -> None:
    """Write the list by which apt knows a folder of packages."""
    entries = [
        f"{_run('dpkg-deb', '--field', package)}Filename: ./{package.name}\n"
        f"Size: {package.stat().st_size}\nSHA256: {_run('sha256sum', package).split()[0]}\n"
        for package in sorted(folder.glob("*.deb"))
    ]
    (folder / "Packages").write_text("\n".join(entries))


@contextmanager
def newer(lab: Lab, folder: Path, names: Sequence[str], suffix: str = "+keadb1") -> Iterator[dict[str, str]]:
    """Offer a newer version of each package to apt on every host of the site for a while; give their versions.

    What was installed from it stays installed.
    """
    offered = images.read(lab.spec)[lab.spec.host(BARE).name].folder / bare.REPOSITORY.removeprefix("/")
    folder.mkdir(parents=True)
    versions = {name: _repacked(next(offered.glob(f"{name}_*.deb")), folder, suffix) for name in names}
    _index(folder)
    hosts = [host.name for host in lab.hosts if "-kea-" in host.name]
    try:
        for host in hosts:
            packed = subprocess.Popen(["tar", "-C", folder, "-c", "."], stdout=subprocess.PIPE)
            unpack = f"mkdir -p {FOLDER} && tar -C {FOLDER} -x && echo 'deb [trusted=yes] file:{FOLDER} ./' >{SOURCE}"
            subprocess.run(lab.exec_argv(host, ["sh", "-c", unpack]), stdin=packed.stdout, check=True)
            assert packed.wait() == 0
        yield versions
    finally:
        for host in hosts:
            lab.exec(host, ["sh", "-c", f"rm -rf {SOURCE} {FOLDER}; apt-get -qq update"])
