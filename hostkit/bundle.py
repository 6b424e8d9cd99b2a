"""Reading a bundle's JSON (written by ``keadb.bundle``): everything wrong with it is told in one error."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from hostkit.context import normalised
from hostkit.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FORMAT = 1
NOW = "now"
CLUSTER = "cluster"

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}\Z")
_UNIT = re.compile(r"[A-Za-z0-9@:_.\\-]+\.(service|socket|timer|target|mount|path|slice)\Z")
_ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,31}\Z")
_MODE = re.compile(r"[0-7]{3,4}\Z")
_SECRET = re.compile(r"[a-z][a-z0-9_]*\Z")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(=[A-Za-z0-9.+:~-]+)?\Z")
_OWN = (
    "/var/lib/keadb/applied/",
    "/var/lib/keadb/pending/",
    "/var/lib/keadb/due/",
    "/var/lib/keadb/tls/",
    "/run/keadb/",
)
_OWN_FILES = ("/var/lib/keadb/secrets.json", "/var/lib/keadb/accepted.json", "/usr/lib/keadb/keadb-apply")


@dataclass(frozen=True)
class File:
    """A file to place; ``mode`` is a number, ``content`` still names secrets as ``@secret:NAME@``."""

    content: str
    owner: str
    group: str
    mode: int


@dataclass(frozen=True)
class Packages:
    """Packages to install (``name`` or ``name=version``) and to hold, units to mask before that."""

    install: tuple[str, ...]
    hold: tuple[str, ...]
    mask: tuple[str, ...]


@dataclass(frozen=True)
class Unit:
    """A unit, who starts it (``now`` or ``cluster``), and which placed paths restart or reload it."""

    start: str
    restart_on: tuple[str, ...]
    reload_on: tuple[str, ...]


@dataclass(frozen=True)
class TlsUse:
    """Where a certificate of this host, its key and the CA go, and whose they are."""

    key: str
    cert: str
    ca: str
    owner: str
    group: str


@dataclass(frozen=True)
class Step:
    """A command, skipped when ``check`` exits 0; ``timeout`` in seconds."""

    name: str
    run: tuple[str, ...]
    check: tuple[str, ...] | None
    timeout: int


@dataclass(frozen=True)
class Probe:
    """A command that must exit 0 within ``timeout`` seconds; tried every second."""

    name: str
    run: tuple[str, ...]
    timeout: int


@dataclass(frozen=True)
class Bundle:
    """One service on one host. ``raw`` is the JSON as given, kept as the record of what was applied."""

    name: str
    host: str
    packages: Packages
    files: Mapping[str, File]
    tls: Mapping[str, TlsUse]
    units: Mapping[str, Unit]
    steps: tuple[Step, ...]
    probes: tuple[Probe, ...]
    secrets: tuple[str, ...]
    raw: Mapping[str, Any]

    @property
    def time_limit(self) -> int:
        """Return the seconds that its steps and probes may take together."""
        return sum(2 * s.timeout for s in self.steps) + sum(p.timeout for p in self.probes)


_T = TypeVar("_T", Step, Probe)


class _Problems(list[str]):
    """Collects what is wrong; every reader returns something harmless after it noted a problem."""

    def note(self, where: str, given: object, allowed: str) -> None:
        shown = json.dumps(given, ensure_ascii=False, default=str)
        self.append(f"{where}: given {shown if len(shown) <= 80 else shown[:77] + '...'}, allowed: {allowed}")  # noqa: PLR2004 - a line's width

    def table(self, given: object, where: str, keys: frozenset[str] | None = None) -> dict[str, Any]:
        """Read an object; with ``keys``, exactly these must be there."""
        if not isinstance(given, dict):
            self.note(where, given, "an object")
            return {}
        if keys is not None:
            for key in sorted(given.keys() - keys):
                self.append(f"{where}.{key}: unknown key, allowed: {', '.join(sorted(keys))}")
            for key in sorted(keys - given.keys()):
                self.append(f"{where}.{key}: missing")
        return given

    def text(self, given: object, where: str, pattern: re.Pattern[str], allowed: str) -> str:
        if isinstance(given, str) and pattern.match(given):
            return given
        self.note(where, given, allowed)
        return ""

    def path(self, given: object, where: str) -> str:
        if not isinstance(given, str) or not normalised(given):
            self.note(where, given, "an absolute, normalised, printable path")
        elif given.startswith(_OWN) or given in _OWN_FILES:
            self.note(where, given, "a path that is not the applier's own")
        else:
            return given
        return "/invalid"

    def texts(self, given: object, where: str, pattern: re.Pattern[str], allowed: str) -> tuple[str, ...]:
        if not isinstance(given, list):
            self.note(where, given, "a list")
            return ()
        return tuple(self.text(item, f"{where}[{i}]", pattern, allowed) for i, item in enumerate(given))

    def argv(self, given: object, where: str) -> tuple[str, ...]:
        good = isinstance(given, list) and given and all(isinstance(a, str) and "\0" not in a for a in given)
        if not good or not isinstance(given, list) or not given[0]:
            self.note(where, given, "a list of strings, the first one a command")
            return ("false",)
        return tuple(given)

    def seconds(self, given: object, where: str) -> int:
        if isinstance(given, int) and not isinstance(given, bool) and given > 0:
            return given
        self.note(where, given, "a whole number of seconds above 0")
        return 1


def parse(text: str) -> Bundle:
    """Read and validate a bundle; BadInput lists every problem with its place, the given and the allowed."""
    try:
        given = json.loads(text)
    except ValueError as e:
        msg = f"bundle: given is not JSON ({e})"
        raise BadInput(msg) from None
    problems = _Problems()
    if isinstance(given, dict) and given.get("format") != FORMAT:
        msg = f"bundle: format {given.get('format')!r} is given, allowed is {FORMAT}: bootstrap first"
        raise BadInput(msg)
    bundle = _bundle(problems, given)
    if problems:
        name = bundle.name or "(no name)"
        raise BadInput(f"bundle {name}: {len(problems)} problem(s):\n  " + "\n  ".join(problems))
    return bundle


_KEYS = frozenset(
    ["format", "bundle", "host", "packages", "files", "tls", "units", "steps", "probes", "secrets", "inputs"]
)


def _bundle(p: _Problems, given: object) -> Bundle:
    top = p.table(given, "bundle", _KEYS)
    packages = p.table(top.get("packages", {}), "packages", frozenset(["install", "hold", "mask"]))
    inputs = p.table(top.get("inputs", {}), "inputs")
    for key, value in inputs.items():
        if not isinstance(value, str):
            p.note(f"inputs.{key}", value, "a string")
    secrets = p.table(top.get("secrets", {}), "secrets")
    for key, value in secrets.items():
        p.text(key, f"secrets.{key}", _SECRET, "a name of lower-case letters, digits and _")
        if value is not None and not isinstance(value, str):
            p.note(f"secrets.{key}", value, "a fingerprint or null")
    files = {path: _file(p, path, f) for path, f in p.table(top.get("files", {}), "files").items()}
    tls = {name: _tls(p, name, use) for name, use in p.table(top.get("tls", {}), "tls").items()}
    placed = _placed(p, files, tls)
    return Bundle(
        name=p.text(top.get("bundle"), "bundle.bundle", NAME, "lower-case letters, digits and -"),
        host=p.text(top.get("host"), "bundle.host", NAME, "a host name"),
        packages=Packages(
            install=p.texts(packages.get("install", []), "packages.install", _PACKAGE, "NAME or NAME=VERSION"),
            hold=p.texts(packages.get("hold", []), "packages.hold", _PACKAGE, "a package name"),
            mask=p.texts(packages.get("mask", []), "packages.mask", _UNIT, "a unit name with its ending"),
        ),
        files=files,
        tls=tls,
        units={n: _unit(p, n, u, placed) for n, u in p.table(top.get("units", {}), "units").items()},
        steps=_named(p, top.get("steps", []), "steps", _step),
        probes=_named(p, top.get("probes", []), "probes", _probe),
        secrets=tuple(sorted(secrets)),
        raw=top,
    )


def _file(p: _Problems, path: str, given: object) -> File:
    where = f"files.{path}"
    p.path(path, where)
    f = p.table(given, where, frozenset(["content", "owner", "group", "mode"]))
    content = f.get("content", "")
    if not isinstance(content, str):
        p.note(f"{where}.content", content, "a string")
        content = ""
    mode = p.text(f.get("mode", "0644"), f"{where}.mode", _MODE, 'an octal string such as "0640"')
    return File(content, *_accounts(p, f, where), int(mode or "0", 8))


def _accounts(p: _Problems, given: dict[str, Any], where: str) -> tuple[str, str]:
    owner = p.text(given.get("owner", "root"), f"{where}.owner", _ACCOUNT, "a user name")
    return owner, p.text(given.get("group", "root"), f"{where}.group", _ACCOUNT, "a group name")


def _tls(p: _Problems, name: str, given: object) -> TlsUse:
    where = f"tls.{name}"
    p.text(name, where, NAME, "a certificate name of lower-case letters, digits and -")
    use = p.table(given, where, frozenset(["key", "cert", "ca", "owner", "group"]))
    key, cert, ca = (p.path(use.get(k, "/invalid"), f"{where}.{k}") for k in ("key", "cert", "ca"))
    return TlsUse(key, cert, ca, *_accounts(p, use, where))


def _placed(p: _Problems, files: Mapping[str, File], tls: Mapping[str, TlsUse]) -> set[str]:
    """Return every path that the bundle places; note those placed twice (a shared CA file is fine)."""
    seen = set(files)
    for name, use in tls.items():
        for path in (use.key, use.cert):
            if path in seen and path != "/invalid":
                p.append(f"tls.{name}: {path} is placed twice by this bundle")
            seen.add(path)
    authorities = {use.ca for use in tls.values()}
    everything = seen | authorities
    p.extend(
        f"files.{path}: it would lie below {parent}, which is a file of this bundle too"
        for path in sorted(everything)
        for parent in sorted(everything)
        if path.startswith(f"{parent}/")
    )
    p.extend(f"tls: {path} is placed twice by this bundle" for path in sorted(authorities & seen - {"/invalid"}))
    return seen | authorities


def _unit(p: _Problems, name: str, given: object, placed: set[str]) -> Unit:
    where = f"units.{name}"
    p.text(name, where, _UNIT, "a unit name with its ending, such as etcd.service")
    u = p.table(given, where, frozenset(["start", "restart_on", "reload_on"]))
    start = p.text(u.get("start", NOW), f"{where}.start", re.compile("(now|cluster)\\Z"), '"now" or "cluster"')
    watched = []
    for key in ("restart_on", "reload_on"):
        paths = p.texts(u.get(key, []), f"{where}.{key}", re.compile("/"), "a path")
        p.extend(f"{where}.{key}: {x} is not placed by this bundle" for x in paths if x and x not in placed)
        watched.append(paths)
    return Unit(start, *watched)


def _named(p: _Problems, given: object, where: str, read: Callable[[_Problems, object, str], _T]) -> tuple[_T, ...]:
    if not isinstance(given, list):
        p.note(where, given, "a list")
        return ()
    found = tuple(read(p, item, f"{where}[{i}]") for i, item in enumerate(given))
    names = [item.name for item in found]
    p.extend(f"{where}: two are named {name!r}" for name in sorted({n for n in names if n and names.count(n) > 1}))
    return found


def _step(p: _Problems, given: object, where: str) -> Step:
    s = p.table(given, where, frozenset(["name", "run", "check", "timeout"]))
    check = s.get("check")
    return Step(
        name=p.text(s.get("name"), f"{where}.name", re.compile(r"[ -~]+\Z"), "a name in printable ASCII"),
        run=p.argv(s.get("run"), f"{where}.run"),
        check=None if check is None else p.argv(check, f"{where}.check"),
        timeout=p.seconds(s.get("timeout"), f"{where}.timeout"),
    )


def _probe(p: _Problems, given: object, where: str) -> Probe:
    s = p.table(given, where, frozenset(["name", "run", "timeout"]))
    return Probe(
        name=p.text(s.get("name"), f"{where}.name", re.compile(r"[ -~]+\Z"), "a name in printable ASCII"),
        run=p.argv(s.get("run"), f"{where}.run"),
        timeout=p.seconds(s.get("timeout"), f"{where}.timeout"),
    )
