"""Which stacks exist, and where each keeps its site file, state and passphrase.

A real stack is a ``Pulumi.<stack>.yaml`` in the repository's root. A lab stack lives in a state folder of its own
and is reached only inside the lab's network namespace. Nothing here reads a site file's content or runs anything
but the re-execution inside that namespace.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from ops.exits import CommandError, Exit

REPOSITORY = Path(__file__).resolve().parent.parent
STACK_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
NETNS_DIR = Path("/run/netns")


@dataclass(frozen=True, kw_only=True)
class Stack:
    """One stack: its name and the places that belong to it.

    ``work_dir`` holds ``Pulumi.yaml`` and ``site_file``. ``netns`` is the network namespace in which the hosts of
    a lab stack can be reached, None for a real one.
    """

    name: str
    work_dir: Path
    netns: str | None = None

    @property
    def is_lab(self) -> bool:
        """True for a lab stack."""
        return self.netns is not None

    @property
    def site_file(self) -> Path:
        """The stack file: the site's data and its encrypted secrets."""
        return self.work_dir / f"Pulumi.{self.name}.yaml"

    def backend_url(self, environ: Mapping[str, str] = os.environ) -> str:
        """Return where the state lives; raise CommandError when nothing says so.

        The environment wins over ``Pulumi.yaml`` for a real stack; a lab's state never leaves its folder.
        """
        if self.is_lab:
            return f"file://{self.work_dir / 'backend'}"
        if url := environ.get("PULUMI_BACKEND_URL"):
            return url
        project = yaml.safe_load((self.work_dir / "Pulumi.yaml").read_text(encoding="utf-8")) or {}
        backend = project.get("backend") or {}
        if url := backend.get("url"):
            return str(url)
        msg = (
            f"stack {self.name}: nothing says where its state lives. Set PULUMI_BACKEND_URL "
            "(for example file:///srv/keadb-state or s3://bucket) or backend.url in Pulumi.yaml"
        )
        raise CommandError(msg)

    def passphrase_file(self, environ: Mapping[str, str] = os.environ) -> Path | None:
        """Return the file that holds the passphrase, or None when PULUMI_CONFIG_PASSPHRASE holds it.

        The value is never read here. Raises CommandError when no source is set, or the file cannot be read.
        """
        if self.is_lab:
            return self._readable(self.work_dir / "passphrase")
        # An empty passphrase counts as none: it would encrypt nothing that deserves the name.
        if environ.get("PULUMI_CONFIG_PASSPHRASE"):
            return None
        if path := environ.get("PULUMI_CONFIG_PASSPHRASE_FILE"):
            return self._readable(Path(path))
        msg = (
            f"stack {self.name}: no passphrase for its secrets. Set PULUMI_CONFIG_PASSPHRASE_FILE to a file "
            "that only you can read, or PULUMI_CONFIG_PASSPHRASE"
        )
        raise CommandError(msg)

    def _readable(self, path: Path) -> Path:
        if not os.access(path, os.R_OK):
            msg = f"stack {self.name}: the passphrase file {path} is missing or cannot be read"
            raise CommandError(msg)
        return path.absolute()


def lab_state_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder that holds one folder for each lab."""
    return Path(environ.get("KEADB_LAB_STATE") or "/var/lib/keadb-lab")


def known_stacks(*, repository: Path = REPOSITORY, environ: Mapping[str, str] = os.environ) -> dict[str, Stack]:
    """Return every stack by name: the real ones first, then labs. A lab never hides a real stack."""
    found: dict[str, Stack] = {}
    for path in sorted(repository.glob("Pulumi.*.yaml")):
        name = path.name.removeprefix("Pulumi.").removesuffix(".yaml")
        if STACK_NAME.fullmatch(name):
            found[name] = Stack(name=name, work_dir=repository)
    try:
        labs = sorted(p for p in lab_state_dir(environ).iterdir() if p.is_dir())
    except OSError:  # no lab was ever made here, or it is someone else's
        labs = []
    for folder in labs:
        if (folder / f"Pulumi.{folder.name}.yaml").is_file() and folder.name not in found:
            found[folder.name] = Stack(name=folder.name, work_dir=folder, netns=f"keadb-{folder.name}")
    return found


def resolve(name: str, *, repository: Path = REPOSITORY, environ: Mapping[str, str] = os.environ) -> Stack:
    """Return the stack of this name; raise CommandError that lists the known ones."""
    stacks = known_stacks(repository=repository, environ=environ)
    if name in stacks:
        return stacks[name]
    listed = ", ".join(f"{s.name} (lab)" if s.is_lab else s.name for s in stacks.values()) or "none"
    msg = f"unknown stack {name!r}; known: {listed}. A lab appears here once 'keadb lab up' has made it"
    raise CommandError(msg, Exit.USAGE)


def inside_namespace(stack: Stack) -> bool:
    """Return True when this process can reach the stack's hosts: a real stack, or already in the lab's network."""
    if stack.netns is None:
        return True
    try:
        wanted = (NETNS_DIR / stack.netns).stat()
        mine = Path("/proc/self/ns/net").stat()
    except OSError:
        return False
    return (wanted.st_dev, wanted.st_ino) == (mine.st_dev, mine.st_ino)


def enter_namespace(stack: Stack) -> None:
    """Re-execute this command inside the lab's network namespace; return at once when it is there already.

    Comparing the namespaces themselves makes it happen once, whatever the environment says. Raises CommandError
    when the lab's network is not up, or when it is left out because this user may not enter it.
    """
    if inside_namespace(stack):
        return
    handle = NETNS_DIR / str(stack.netns)
    if not handle.exists():
        msg = f"lab {stack.name} is not running: its network {stack.netns} does not exist; run 'make up'"
        raise CommandError(msg)
    if os.geteuid() != 0:
        msg = f"lab {stack.name}: entering its network needs root"
        raise CommandError(msg)
    sys.stdout.flush()
    sys.stderr.flush()
    argv = ["nsenter", f"--net={handle}", "--", sys.executable, "-m", "ops", *sys.argv[1:]]
    # The module path, not the checkout's current folder, decides what is imported after the jump.
    environ = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    }
    os.execvpe("nsenter", argv, environ)  # noqa: S606, S607 -- no shell; nsenter is util-linux, found on PATH
