"""What a service needs on one host, as plain data: contract 1 of the design.

A bundle names packages, files, units, guarded steps and probes. It holds no secret (files name them as
``@secret:NAME@``), no engine output, no clock and no path of whoever runs the program, so its JSON is the
reviewable difference of a change. The applier (``hostkit``) brings it into force.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

FORMAT = 1
"""Version of the JSON that the applier reads; raised when an old applier would misread a new bundle."""

APPLIER = "/usr/lib/keadb/keadb-apply"
"""Where the applier stands on every host, and what every step of ours calls."""

SECRET_PLACEHOLDER = re.compile(r"@secret:([a-z][a-z0-9_]*)@")
"""Where the applier puts a secret while it writes a file."""

PROGRAMS = "/etc/keadb/programs"
"""Where bundles say which programs of a cluster run on a host (``hostkit.software``), one file each."""


def applier_command(*words: str) -> str:
    """Return the command line by which the deploy user runs the applier; sudo's rule on the host allows no other."""
    return " ".join(("sudo", "-n", APPLIER, *words))


class Start(StrEnum):
    """Who brings a unit into force."""

    NOW = "now"
    """The applier: enabled and started here; restarted when a file of ``restart_on`` changed."""
    CLUSTER = "cluster"
    """A cluster-level step, which also restarts it: enabled here, never started or restarted by this bundle.

    When the unit runs already and a file of ``restart_on`` changes, the applier records the restart as due
    (``hostkit.due``), writes the file and leaves the unit alone; the step restarts it when its turn has come.
    """


@dataclass(frozen=True, kw_only=True)
class File:
    """A file with its owner and mode (an octal string such as ``"0640"``); parents are made as root 0755."""

    content: str
    owner: str = "root"
    group: str = "root"
    mode: str = "0644"


@dataclass(frozen=True, kw_only=True)
class Packages:
    """Packages to install, to hold at their version, and units to mask *before* anything is installed."""

    install: tuple[str, ...] = ()
    hold: tuple[str, ...] = ()
    mask: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A systemd unit, and which paths of this bundle (files or TLS paths) restart or reload it."""

    start: Start = Start.NOW
    restart_on: tuple[str, ...] = ()
    reload_on: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TlsUse:
    """Where the host's certificate of this name (see ``keadb.pki``) and its key are placed, and for whom.

    The key is written with mode 0600 for ``owner``, the certificate and ``ca`` with 0644.
    """

    key: str
    cert: str
    ca: str
    owner: str
    group: str


@dataclass(frozen=True, kw_only=True)
class Step:
    """A guarded command: skipped when ``check`` exits 0. ``timeout`` is in seconds. Never carries a secret."""

    name: str
    run: tuple[str, ...]
    check: tuple[str, ...] | None = None
    timeout: int = 60


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A command that must exit 0 in the end; tried every second for at most ``timeout`` seconds."""

    name: str
    run: tuple[str, ...]
    timeout: int = 30


def plain_json(data: object) -> str:
    """Return the one form in which data is sent and placed: indented, keys sorted, with a final newline."""
    return json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def program_file(
    key: str,
    *,
    shown: str,
    packages: Sequence[str],
    unit: str | None = None,
    pid_file: str | None = None,
    interpreted: bool = False,
) -> dict[str, File]:
    """Return the file by which a host knows a running program from the one that is installed.

    Its process is the unit's, or the one whose number stands first in ``pid_file``. ``packages`` are those that it is
    made of; ``interpreted`` says that its text is loaded at the start, so that its executable tells nothing.
    """
    data = {"packages": list(packages), "interpreted": interpreted, "pid_file": pid_file, "name": shown, "unit": unit}
    return {f"{PROGRAMS}/{key}.json": File(content=plain_json({"format": 1, **data}))}


def _empty() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """Everything that one service needs on one host.

    ``inputs`` holds digests of other bundles that this one brings into force (cluster-level steps);
    ``uses_secrets`` names secrets that a step reads from the host's store, besides those in the files.
    """

    name: str
    host: str
    packages: Packages = field(default_factory=Packages)
    files: Mapping[str, File] = field(default_factory=_empty)
    tls: Mapping[str, TlsUse] = field(default_factory=_empty)
    units: Mapping[str, Unit] = field(default_factory=_empty)
    steps: tuple[Step, ...] = ()
    probes: tuple[Probe, ...] = ()
    uses_secrets: tuple[str, ...] = ()
    inputs: Mapping[str, str] = field(default_factory=_empty)

    def __post_init__(self) -> None:
        placed = {p for use in self.tls.values() for p in (use.key, use.cert, use.ca)} | set(self.files)
        for unit_name, unit in self.units.items():
            unknown = sorted({*unit.restart_on, *unit.reload_on} - placed)
            if unknown:
                msg = f"bundle {self.name} on {self.host}: {unit_name} watches {unknown}, which it does not place"
                raise ValueError(msg)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Names of all secrets that this bundle uses, sorted."""
        named = {m for f in self.files.values() for m in SECRET_PLACEHOLDER.findall(f.content)}
        return tuple(sorted(named | set(self.uses_secrets)))

    def as_dict(self, fingerprints: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return the plain data that the applier reads.

        ``fingerprints`` maps each used secret to its keyed fingerprint; without it (rendering) they are null.
        """
        given = fingerprints or {}
        return {
            "format": FORMAT,
            "bundle": self.name,
            "host": self.host,
            "packages": {k: list(v) for k, v in asdict(self.packages).items()},
            "files": {path: asdict(f) for path, f in self.files.items()},
            "tls": {name: asdict(use) for name, use in self.tls.items()},
            "units": {
                name: {
                    "start": u.start.value,
                    "restart_on": list(u.restart_on),
                    "reload_on": list(u.reload_on),
                }
                for name, u in self.units.items()
            },
            "steps": [
                {
                    "name": s.name,
                    "run": list(s.run),
                    "check": None if s.check is None else list(s.check),
                    "timeout": s.timeout,
                }
                for s in self.steps
            ],
            "probes": [{"name": p.name, "run": list(p.run), "timeout": p.timeout} for p in self.probes],
            "secrets": {name: given.get(name) for name in self.secrets},
            "inputs": dict(self.inputs),
        }

    def to_json(self, fingerprints: Mapping[str, str] | None = None) -> str:
        """Return the indented, key-sorted JSON with a final newline."""
        return plain_json(self.as_dict(fingerprints))

    def digest(self) -> str:
        """Return the SHA-256 of the bundle without fingerprints, for the ``inputs`` of a cluster-level step."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()
