"""A machine with everything that a bundle can ask for, changes of all kinds, and ways to break them at a moment."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from hostkit import applier, bundle, edits, prune, store, tls
from hostkit.system import Completed
from keadb.bundle import Bundle, File, Packages, Start, Step, TlsUse, Unit
from tests.unit.hostkit.fakes import HOST, Cut, FakeSystem, FakeUnit, Machine, ticking_files
from tests.unit.hostkit.tls_samples import Authority, pem

MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of a random name is made in it
"""Hundreds of machines are made; a disk under them would prove nothing and take half of the time."""


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where there is some."""
    if not os.access(MEMORY, os.W_OK) or shutil.disk_usage(MEMORY).free < 128 << 20:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="keadb-", dir=MEMORY) as name:
        yield Path(name)


UNIT = "/etc/systemd/system/db.service"
CONFIG, HOT, CERT = "/etc/db/config", "/etc/db/hot", "/etc/db/tls.crt"
OLD, OLD_UNIT = "/etc/db/old", "/etc/systemd/system/gone.service"


@cache
def parsed(version: int) -> bundle.Bundle:
    """The database bundle as the applier reads it."""
    return bundle.parse(database(version).to_json())


def database(version: int) -> Bundle:
    """A service in which everything changes between two versions; the first has more than the later ones."""
    old = version == 1
    leaving = {OLD: File(content="old\n"), OLD_UNIT: File(content="[Service]\n")} if old else {}
    return Bundle(
        name="db",
        host=HOST,
        packages=Packages(install=("db", f"plugin-{version}"), hold=("db",), mask=("db.service", "old.service")),
        files={
            CONFIG: File(content=f"v{version} @secret:password@\n", owner="db", group="db", mode="0600"),
            HOT: File(content=f"v{version}\n"),
            UNIT: File(content=f"[Service] # v{version}\n"),
            "/etc/sysusers.d/db.conf": File(content=f"u db -\nu db{version} -\n"),
            "/etc/tmpfiles.d/db.conf": File(content=f"d /var/lib/db{version}\n"),
            "/etc/db/unchanged": File(content="v1\n"),
            **leaving,
        },
        tls={"db": TlsUse(key="/etc/db/tls.key", cert=CERT, ca="/etc/db/ca.crt", owner="db", group="db")},
        units={
            "db.service": Unit(restart_on=(CONFIG, UNIT), reload_on=(CERT,)),
            "hot.service": Unit(reload_on=(HOT, OLD) if old else (HOT,)),
            "member.service": Unit(start=Start.CLUSTER, restart_on=(CONFIG,), reload_on=(CERT,)),
            **({"gone.service": Unit(restart_on=(OLD_UNIT,))} if old else {}),
        },
        steps=(Step(name="note", run=("note", str(version)), check=("noted", str(version))),),
    )


@dataclass
class Scene:
    """A machine with what it needs for the database bundle, and a way to cut its power at a moment."""

    machine: Machine
    authority: Authority
    key: ec.EllipticCurvePrivateKey
    notes: set[str] = field(default_factory=set)

    def apply(self, version: int) -> None:
        """Apply a version of the bundle."""
        applier.apply(self.machine.ctx, parsed(version))

    def certify(self, serial: int) -> None:
        """Send a certificate."""
        material = tls.Material(self.authority.ca, {"db": self.authority.sign_key(self.key, serial)})
        applier.certify(self.machine.ctx, material)

    def cut_at(self, moment: int, change: Callable[[Scene], None], monkeypatch: pytest.MonkeyPatch) -> bool:
        """Run a change and cut it at that moment; return whether the cut came before its end."""
        passed = 0

        def tick() -> None:
            nonlocal passed
            passed += 1
            if passed > moment:
                raise Cut

        self.machine.system.tick = tick
        try:
            with ticking_files(monkeypatch, tick):
                change(self)
        except Cut:
            return True
        finally:
            self.machine.system.tick = lambda: None
        return False

    def state(self) -> object:
        """Everything that a change is about."""
        system = self.machine.system
        units = {n: (u.active, u.file, u.running, u.defined) for n, u in system.units.items()}
        masks = sorted(str(p.relative_to(self.machine.root)) for p in self.machine.root.rglob("*") if p.is_symlink())
        return self.machine.tree(), units, masks, system.packages, system.held, system.users, self.notes


def scene(root: Path, authority: Authority, key: ec.EllipticCurvePrivateKey) -> Scene:
    """A machine before its first apply."""
    root.mkdir()
    machine = Machine(root, FakeSystem(root))
    made = Scene(machine, authority, key)

    def note(argv: Sequence[str]) -> Completed:
        made.notes.add(argv[1])
        return Completed(0, "", "")

    machine.system.commands.update(note=note, noted=lambda argv: Completed(0 if argv[1] in made.notes else 1, "", ""))
    machine.system.units.update(
        {
            "db.service": FakeUnit(reads=(CONFIG, UNIT, CERT), definition=UNIT),
            "hot.service": FakeUnit(reads=(HOT, OLD)),
            "gone.service": FakeUnit(reads=(OLD_UNIT,), definition=OLD_UNIT),
            "member.service": FakeUnit(active="active", reads=(CERT,)),
            "old.service": FakeUnit(active="active", file="enabled"),
        }
    )
    machine.secrets(password="very-secret-value")
    machine.put(f"{tls.FOLDER}/db.key", pem(key), 0o600)
    machine.put("/etc/db/unchanged", "the distribution's\n", 0o640)
    made.certify(10)
    return made


def first(s: Scene) -> None:
    """The first apply on this host."""
    s.apply(1)


def second(s: Scene) -> None:
    """A change of everything."""
    s.apply(2)


def renewal(s: Scene) -> None:
    """New certificates for an applied bundle."""
    s.certify(11)


def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, first_applied: bool = True) -> Callable[[str], Scene]:
    """A maker of machines that are all alike."""
    monkeypatch.setattr(os, "fsync", lambda _fd: None)  # hundreds of machines: power cuts are not what is tested
    authority, key = Authority(), ec.generate_private_key(ec.SECP256R1())
    monkeypatch.setattr(Authority, "ca", authority.ca)  # signatures differ from call to call
    signed = {serial: authority.sign_key(key, serial) for serial in (10, 11)}
    monkeypatch.setattr(Authority, "sign_key", lambda _self, _key, serial: signed[serial])

    def prepared(name: str) -> Scene:
        made = scene(tmp_path / name, authority, key)
        if first_applied:
            made.apply(1)
        return made

    return prepared


def leave(s: Scene) -> None:
    """The site no longer has the bundle; its member has left the cluster."""
    s.machine.system.units["member.service"].active = "inactive"
    prune.others(s.machine.ctx, HOST, ["base"])


def overwrite(s: Scene) -> None:
    """A change over an edit that was accepted."""
    if (s.machine.root / CONFIG[1:]).read_text().startswith("v1"):
        s.machine.put(CONFIG, "by hand\n", 0o600)
    if s.machine.text(CONFIG) == "by hand\n":
        edits.accept(s.machine.ctx, [CONFIG])
    s.apply(2)


def secrets(s: Scene) -> None:
    """Other secrets than before, one of them no more."""
    store.put(s.machine.ctx, {"password": "very-secret-value", "other": "another-secret-value"})


def put_back(s: Scene) -> None:
    """A file and a unit that somebody changed are put back."""
    if s.machine.text(HOT) == "v1\n" and not s.machine.system.calls.count("by hand"):
        s.machine.put(HOT, "by hand\n")
        s.machine.system.units["hot.service"].running = ("by hand\n",)
        s.machine.system.units["db.service"].active = "inactive"
        s.machine.system.calls.append("by hand")
    edits.restore(s.machine.ctx, [HOT, "db.service"])


CHANGES = {
    "first apply": first,
    "change": second,
    "new certificates": renewal,
    "bundle removed": leave,
    "accepted edit": overwrite,
    "secrets": secrets,
    "put back": put_back,
}
