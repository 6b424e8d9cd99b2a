"""Changes cut at every command and every file operation, then run again: same end, and every restart happened."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from hostkit import applier, bundle, edits, pending, prune, tls
from hostkit.system import Completed
from keadb.bundle import Bundle, File, Packages, Step, TlsUse, Unit
from tests.unit.hostkit.fakes import HOST, Cut, FakeSystem, FakeUnit, Machine, ticking_files
from tests.unit.hostkit.tls_samples import Authority, pem

UNIT = "/etc/systemd/system/db.service"
CONFIG, HOT, CERT = "/etc/db/config", "/etc/db/hot", "/etc/db/tls.crt"
OLD, OLD_UNIT = "/etc/db/old", "/etc/systemd/system/gone.service"


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
        applier.apply(self.machine.ctx, bundle.parse(database(version).to_json()))

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
    """The site no longer has the bundle."""
    prune.others(s.machine.ctx, HOST, ["base"])


def overwrite(s: Scene) -> None:
    """A change over an edit that was accepted."""
    if (s.machine.root / CONFIG[1:]).read_text().startswith("v1"):
        s.machine.put(CONFIG, "by hand\n", 0o600)
    if s.machine.text(CONFIG) == "by hand\n":
        edits.accept(s.machine.ctx, [CONFIG])
    s.apply(2)


CHANGES = {
    "first apply": first,
    "change": second,
    "new certificates": renewal,
    "bundle removed": leave,
    "accepted edit": overwrite,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_cut_anywhere_and_run_again(
    change: Callable[[Scene], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same files, users, packages and units as without a cut; units run what is on disk; no plan is left.

    A unit is restarted a second time only when the cut fell between its restart and the note of it.
    """
    prepared = stage(tmp_path, monkeypatch, first_applied=change is not first)
    reference = prepared("reference")
    change(reference)
    wanted = reference.state()
    moment, needless = 0, 0
    while True:
        s = prepared(str(moment))
        was_cut = s.cut_at(moment, change, monkeypatch)
        change(s)
        assert s.state() == wanted, f"cut at moment {moment}"
        assert not list(pending.left(s.machine.ctx)), f"cut at moment {moment}"
        needless += sum(u.needless for u in s.machine.system.units.values())
        if not was_cut:
            break
        moment += 1
    assert moment >= 20, "hardly anything was cut"
    # Per unit: the moments from the end of systemctl to the note's place on disk.
    assert needless <= 2 * 8


@pytest.mark.parametrize("other", [1, 3])
@pytest.mark.parametrize("had_one", [True, False], ids=["change", "first apply"])
def test_what_a_cut_run_left_is_nobodys_edit(
    other: int,
    had_one: bool,  # noqa: FBT001 - a parameter of the test
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a cut the site file is changed back, or on: nothing is refused, and nothing of version 2 stays."""
    prepared = stage(tmp_path, monkeypatch, first_applied=had_one)
    reference = prepared("reference")
    reference.apply(other)
    moment = 0
    while True:
        s = prepared(str(moment))
        was_cut = s.cut_at(moment, second, monkeypatch)
        s.apply(other)
        # A half-written record stays root's own beside the record until that is written next.
        tree = {p: state for p, state in s.machine.tree().items() if not p.endswith("applied/.db.json.keadb-new")}
        assert tree == reference.machine.tree(), f"cut at moment {moment}"
        running = {n: u.running for n, u in s.machine.system.units.items() if u.active == "active"}
        expected = {n: u.running for n, u in reference.machine.system.units.items() if u.active == "active"}
        assert running == expected, f"cut at moment {moment}"
        assert not list(pending.left(s.machine.ctx))
        if not was_cut:
            break
        moment += 5


def test_a_cut_run_can_be_followed_by_the_bundles_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a first apply got done before its cut is found again and taken away."""
    prepared = stage(tmp_path, monkeypatch, first_applied=False)
    moment = 0
    while True:
        s = prepared(str(moment))
        before = s.machine.tree()
        was_cut = s.cut_at(moment, first, monkeypatch)
        leave(s)
        left = {p for p in s.machine.tree() if p.startswith("/etc/")}
        assert left - set(before) == set(), f"cut at moment {moment}"
        assert not [n for n, u in s.machine.system.units.items() if u.active == "active" and n != "old.service"]
        if not was_cut:
            break
        moment += 5


def test_a_plan_that_was_left_still_restarts_when_the_bundle_no_longer_changes_the_file(tmp_path: Path) -> None:
    """The file is as wanted, yet the service never read it."""
    s = scene(tmp_path / "host", Authority(), ec.generate_private_key(ec.SECP256R1()))
    s.apply(1)
    s.machine.put(CONFIG, "v2 very-secret-value\n", 0o600)
    todo = pending.Pending("db", restart={"db.service"})
    todo.save(s.machine.ctx)
    s.apply(2)
    assert s.machine.system.units["db.service"].running[0] == "v2 very-secret-value\n"
    assert "systemctl restart -- db.service" in s.machine.system.calls


def test_a_plan_that_cannot_be_read_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    """Guessing could leave a service on an old configuration."""
    s = scene(tmp_path / "host", Authority(), ec.generate_private_key(ec.SECP256R1()))
    s.machine.put("/var/lib/keadb/pending/db.json", "{")
    with pytest.raises(Exception, match=r"pending/db.json is not readable .*restart the bundle's units by hand"):
        s.apply(1)
