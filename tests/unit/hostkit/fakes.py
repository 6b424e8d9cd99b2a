"""A pretended machine under the applier: systemd, dpkg and users in memory, files real under a temporary root."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hostkit.context import Context
from hostkit.errors import HostError
from hostkit.system import Completed, RealSystem, failed

HOST = "lab-kea-db-01"
_READS = {"show", "dpkg-query", "--audit", "journalctl", "madison"}


class Cut(BaseException):
    """The power goes: nothing may catch it."""


needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root: what the applier itself writes belongs to root"
)


@dataclass
class FakeUnit:
    """A unit: what its files said when it was started or reloaded last, and whether it can start."""

    reads: tuple[str, ...] = ()
    definition: str = ""
    active: str = "inactive"
    file: str = "disabled"
    starts: bool = True
    dies: bool = False
    kind: str = "simple"
    sub: str = "auto-restart"
    """While it is activating."""
    ran: bool = False
    running: tuple[str, ...] = ()
    defined: str = ""
    needless: int = 0


@dataclass
class FakeSystem:
    """See ``hostkit.system.System``; ``calls`` holds every command that is not a mere read."""

    root: Path
    units: dict[str, FakeUnit] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    offered: dict[str, list[str]] = field(default_factory=lambda: {"pinned": ["2.0", "1.0"]})
    """Versions of packages that the package sources have; only a version that is asked for is looked up."""
    held: set[str] = field(default_factory=set)
    users: dict[str, int] = field(default_factory=dict)
    journal: str = ""
    audit: str = ""
    commands: dict[str, Callable[[Sequence[str]], Completed]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    clock: float = 0.0
    tick: Callable[[], None] = lambda: None
    fails: Callable[[Sequence[str]], bool] = lambda _: False
    """Says whether a command ends with exit code 1 instead of doing anything."""

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        input: str | None = None,  # noqa: A002 - as in System
        check: bool = True,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> Completed:
        """See ``System.run``; commands that are not pretended really run."""
        assert timeout > 0
        self.tick()
        if not _READS.intersection(argv[:2]):
            self.calls.append(" ".join(argv))
        if self.fails(argv):
            done = Completed(1, "", "it failed")
            if check:
                raise failed(argv, done)
            return done
        known = {
            "systemctl": self._systemctl,
            "dpkg-query": self._dpkg_query,
            "dpkg": lambda a: Completed(0, self.audit if "--audit" in a else "", ""),
            "apt-get": self._apt,
            "apt-cache": self._madison,
            "apt-mark": self._hold,
            "systemd-sysusers": self._sysusers,
            "systemd-tmpfiles": lambda _: Completed(0, "", ""),
            "journalctl": lambda _: Completed(0, self.journal, ""),
            **self.commands,
        }
        if argv[0] in known:
            done = known[argv[0]](argv)
            if check and done.returncode:
                raise failed(argv, done)
        else:
            done = RealSystem().run(
                argv, timeout=timeout, input=input, check=check, env=env, user=user, progress=progress
            )
        self.tick()
        return done

    def uid(self, name: str) -> int:
        """Root is whoever runs the tests."""
        if name == "root":
            return os.geteuid()
        if name not in self.users:
            msg = f"there is no user {name!r} on this host"
            raise HostError(msg)
        return self.users[name]

    def gid(self, name: str) -> int:
        """Every user has a group of its own."""
        return os.getegid() if name == "root" else self.uid(name)

    def sleep(self, seconds: float) -> None:
        """Move the clock."""
        self.clock += seconds

    def monotonic(self) -> float:
        """Every look takes a little."""
        self.clock += 0.001
        return self.clock

    def _text(self, path: str) -> str:
        file = self.root / path.lstrip("/")
        return file.read_text() if path and file.exists() else ""

    def _masked(self, name: str) -> str:
        for folder, word in (("etc", "masked"), ("run", "masked-runtime")):
            if (self.root / folder / "systemd/system" / name).is_symlink():
                return word
        return ""

    def _systemctl(self, argv: Sequence[str]) -> Completed:
        verb = argv[1]
        names = [a for a in argv[2:] if not a.startswith("-")]
        if verb == "show":
            return Completed(0, "\n".join(self._show(n) for n in names), "")
        if verb == "daemon-reload":
            for unit in self.units.values():
                unit.defined = self._text(unit.definition)
        elif verb in {"mask", "unmask"}:
            folder = self.root / ("run" if "--runtime" in argv else "etc") / "systemd/system"
            os.makedirs(folder, exist_ok=True)  # noqa: PTH103 - systemd's, not the applier's, which tests make fail
            for name in names:
                if verb == "mask":
                    (folder / name).symlink_to("/dev/null")
                else:
                    os.unlink(folder / name)  # noqa: PTH108 - as above
        else:
            for name in names:
                done = self._act(verb, name)
                if done.returncode:
                    return done
        return Completed(0, "", "")

    def _show(self, name: str) -> str:
        unit = self.units.get(name)
        masked = self._masked(name)
        if unit is None or (unit.definition and not unit.defined):
            return f"Id={name}\nLoadState={'masked' if masked else 'not-found'}\nActiveState=inactive\n"
        sub = {"active": "running", "activating": unit.sub}.get(unit.active, "dead")
        return (
            f"Id={name}\nLoadState={'masked' if masked else 'loaded'}\nActiveState={unit.active}\nSubState={sub}\n"
            f"UnitFileState={masked or unit.file}\nType={unit.kind}\nResult=success\n"
            f"ExecMainStartTimestampMonotonic={int(unit.ran)}\n"
        )

    def _act(self, verb: str, name: str) -> Completed:
        unit = self.units[name]
        if verb == "enable":
            unit.file = "enabled"
        elif verb == "disable":
            unit.file = "disabled"
        elif verb in {"stop", "reset-failed"}:
            unit.active = "inactive"
        elif verb in {"start", "restart", "reload"}:
            if self._masked(name) or not unit.starts:
                unit.active = "failed"
                return Completed(1, "", f"Job for {name} failed.")
            now = tuple(self._text(path) for path in unit.reads)
            if verb != "start" and unit.running == now and unit.active == "active":
                unit.needless += 1
            unit.running, unit.ran = now, True
            unit.active = "failed" if unit.dies else "inactive" if unit.kind == "oneshot" else "active"
        return Completed(0, "", "")

    def _dpkg_query(self, argv: Sequence[str]) -> Completed:
        names = argv[argv.index("--") + 1 :]
        rows = [
            f"{n}\t{'hold' if n in self.held else 'install'}\tinstalled\t{self.packages[n]}\n"
            for n in names
            if n in self.packages
        ]
        return Completed(0 if len(rows) == len(names) else 1, "".join(rows), "")

    def _apt(self, argv: Sequence[str]) -> Completed:
        if "install" in argv:
            for name in argv[argv.index("install") + 1 :]:
                package, _, version = name.partition("=")
                self.packages[package] = version or "1.0"
        return Completed(0, "", "")

    def _madison(self, argv: Sequence[str]) -> Completed:
        lines = [f" {n} | {v} | file:/srv Packages\n" for n in argv[2:] for v in self.offered.get(n, ())]
        return Completed(0, "".join(lines), "")

    def _hold(self, argv: Sequence[str]) -> Completed:
        self.held.update(argv[2:])
        return Completed(0, "", "")

    def _sysusers(self, argv: Sequence[str]) -> Completed:
        for path in argv[1:]:
            for line in self._text(path).splitlines():
                self.users[line.split()[1]] = os.geteuid()
        return Completed(0, "", "")


@dataclass
class Machine:
    """A fake system with its root, and short ways to look at it."""

    root: Path
    system: FakeSystem

    @property
    def ctx(self) -> Context:
        """What the code under test works with."""
        return Context(self.root, self.system)

    def text(self, path: str) -> str:
        """What a file of the machine says."""
        return (self.root / path.lstrip("/")).read_text()

    def put(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file by hand."""
        target = self.root / path.lstrip("/")
        os.makedirs(target.parent, exist_ok=True)  # noqa: PTH103 - not the applier's, which tests make fail
        target.write_text(text)
        target.chmod(mode)

    def secrets(self, **values: str) -> None:
        """Fill the store."""
        self.put("/var/lib/keadb/secrets.json", json.dumps(values), 0o600)

    def tree(self) -> dict[str, tuple[int, str]]:
        """Every file's mode and content, the lock and what is below /run left out."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            name = "/" + str(path.relative_to(self.root))
            if path.is_file() and not path.is_symlink() and not name.startswith("/run/"):
                found[name] = (path.stat().st_mode & 0o7777, path.read_text())
        return found

    def stamps(self) -> dict[str, int]:
        """When each file was changed last, in nanoseconds; inodes changed by chmod or chown count too."""
        return {str(p): p.lstat().st_ctime_ns for p in self.root.rglob("*") if p.is_file() and p.name != "lock"}


@contextmanager
def ticking_files(monkeypatch: pytest.MonkeyPatch, tick: Callable[[], None]) -> Iterator[None]:
    """Call ``tick`` before and after every rename, removal and new folder."""
    with monkeypatch.context() as patch:
        for name in ("replace", "unlink", "mkdir"):
            patch.setattr(Path, name, _ticking(getattr(Path, name), tick))
        yield


def _ticking(real: Callable[..., object], tick: Callable[[], None]) -> Callable[..., object]:
    def wrapped(*args: object, **kwargs: object) -> object:
        tick()
        result = real(*args, **kwargs)
        tick()
        return result

    return wrapped
