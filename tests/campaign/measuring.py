"""One change on a running site under a writer and a reader: what was shown before, what happened, what is wrong.

Used by the campaign (``tests.campaign.changes``) and by the lab tests. State is asked of the hosts; gaps are from the
clients' own clocks.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.campaign.checkout import edited_copy
from tests.campaign.watching import Event, Look, etcd_moves, look, patroni_moves, starts
from tests.lab.clients import lost
from tests.lab.harness import KEADB, Site, Writer, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.campaign.change_list import Change, Expect

from tests.campaign.change_list import Ground

SLOWEST = 20.0
"""Attempts a second that the clients must make while nothing is wrong; fewer is said, and is no fault of the site."""


@dataclass(frozen=True, kw_only=True)
class Clients:
    """The clients that run all the time."""

    writer: Writer
    reader: Writer


@dataclass(kw_only=True)
class Leg:
    """One run and what it did. Seconds are wall-clock time; ``up`` is the command's own."""

    steps: list[str] = field(default_factory=list)
    """What the preview would run: host, step and changed keys."""
    files: dict[str, str] = field(default_factory=dict)
    """Lines that differ in each file that hosts get, as "host:path" to "+1 -1" (``keadb render``)."""
    touched: list[str] = field(default_factory=list)
    """What the run said it changed on hosts: files, units, packages, steps."""
    up: float = 0.0
    restarts: list[str] = field(default_factory=list)
    reloads: list[str] = field(default_factory=list)
    leader_moves: list[str] = field(default_factory=list)
    etcd_moves: list[str] = field(default_factory=list)
    write_gap: float = 0.0
    read_gap: float = 0.0
    writes: int = 0
    """Acknowledged while it ran."""
    attempts_per_second: tuple[float, float] = (0.0, 0.0)
    """Of the writer and of the reader."""
    lost: dict[str, int] = field(default_factory=dict)
    """Acknowledged rows that a node does not have, by node."""
    wrong: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class Result:
    """One row of the table: the change, and the way back if there is one."""

    name: str
    what: str
    began: str = ""
    there: Leg = field(default_factory=Leg)
    back: Leg | None = None

    @property
    def wrong(self) -> list[str]:
        """Everything that was not as it must be."""
        return self.there.wrong + [f"back: {w}" for w in (self.back.wrong if self.back else [])]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self) | {"wrong": self.wrong}


def measure(site: Site, change: Change, clients: Clients) -> Result:
    """Make the change on a healthy site, then undo it if it says how; note everything that is wrong."""
    result = Result(name=change.name, what=change.what, began=time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()))
    before = site.site_file.read_bytes()
    ground = _ground(site)
    with contextlib.ExitStack() as stack:
        if change.around is not None:
            stack.callback(change.around, ground, False)
            change.around(ground, True)
        command = stack.enter_context(edited_copy(change.files)) if change.files else KEADB
        result.there = _there(ground, change, clients, command)
        if change.back is not None and not result.there.wrong:
            site.site_file.write_bytes(before)
            result.back = _Leg(_ground(site), clients, change.back, KEADB).run()
            result.back.files = {name: _other_way(lines) for name, lines in result.there.files.items()}
            for name, value in change.shows.items():
                if all(site.sql(host, f"SHOW {name}") == value for host in site.database_hosts):
                    result.back.wrong.append(f"{name} is still {value!r}")
    return result


def _there(ground: Ground, change: Change, clients: Clients, command: Path) -> Leg:
    leg = _Leg(ground, clients, change.expect, command)
    if change.command:
        return leg.run(*change.command)
    was = _rendered(ground.site, KEADB)
    if change.fault is not None:
        change.fault(ground)
    if change.edit is not None:
        ground.site.edit(lambda data: change.edit and change.edit(data, ground))
    leg.found.files = _difference(was, _rendered(ground.site, command))
    leg.preview()
    done = leg.run()
    for name, value in change.shows.items():
        for host in ground.site.database_hosts:
            if (shown := ground.site.sql(host, f"SHOW {name}")) != value:
                done.wrong.append(f"{host} shows {name} = {shown!r} instead of {value!r}")
    return done


def undeclared(expect: Expect, found: Leg) -> list[str]:
    """Return what was started, and which leaderships moved or stayed, against what the change declares."""
    wrong = []
    if expect.restarts is None:
        as_declared, declared = set(found.restarts) <= expect.only, [f"some of {sorted(expect.only)}"]
    else:
        as_declared, declared = tuple(found.restarts) == expect.restarts, [*expect.restarts]
    if not as_declared:
        wrong.append(f"started {found.restarts or 'nothing'}, declared is {declared or 'nothing'}")
    for whose, moves, moved in (
        ("Patroni", expect.leader, found.leader_moves),
        ("etcd", expect.etcd_leader, found.etcd_moves),
    ):
        if moves is not None and moves != bool(moved):
            went = f"went to {moved}" if moved else "stayed"
            wrong.append(f"{whose}'s leadership {went}, declared is that it {'moves' if moves else 'stays'}")
    return wrong


class _Leg:
    """One run under the clients, from the moment this object is made."""

    def __init__(self, ground: Ground, clients: Clients, expect: Expect, command: Path) -> None:
        self.site, self.ground, self.clients = ground.site, ground, clients
        self.expect, self.command = expect, command
        self.found = Leg()
        self._previewed: set[str] | None = None
        self.began = time.monotonic()
        self.before: Look = look(self.site, self.began)

    def keadb(self, *args: str) -> dict[str, Any]:
        """Run keadb with ``--json`` and return its answer; what it exits with beside 0 is wrong."""
        done = self.site.keadb(
            *args, "--stack", self.site.name, "--json",
            check=False, command=self.command, cwd=self.command.parents[1],
        )  # fmt: skip
        try:
            answer = dict(json.loads(done.stdout))
        except ValueError:
            answer = {}
        if done.returncode:
            said = [done.stderr.strip(), *(str(failure) for failure in answer.get("failures", []))]
            self.found.wrong.append(
                f"keadb {' '.join(args)} exited {done.returncode}: {' '.join(filter(None, said))}"
            )
        return answer

    def preview(self) -> None:
        """Note what ``up`` would run; the hosts are not touched by it."""
        changes = self.keadb("preview").get("changes", [])
        self.found.steps = [f"{_step(self.site, c)} ({', '.join(c['keys'])})" for c in changes]
        self._previewed = {_step(self.site, c) for c in changes}

    def run(self, *command: str) -> Leg:
        """Run ``up`` (or the command), then look at everything."""
        before = time.monotonic()
        answer = self.keadb(*(command or ("up",)), "--yes")
        self.found.up = round(answer.get("seconds", time.monotonic() - before), 1)
        if not command:
            self._compare(answer.get("changes", []))
        self.clients.writer.wait_for_more()
        self.clients.reader.wait_for_more()
        after, until = look(self.site, self.began), time.monotonic()
        self._happened(after)
        self._clients(until)
        if after.pending:
            self.found.wrong.append(f"restarts are pending: {after.pending}")
        again = self.keadb("preview", "--expect-no-changes").get("changes", [])
        if again:
            self.found.wrong.append(f"the next preview shows {[_step(self.site, c) for c in again]}")
        status = self.site.keadb("status", "--stack", self.site.name, check=False)
        if status.returncode:
            self.found.wrong.append(f"keadb status exited {status.returncode}: {status.stdout}{status.stderr}")
        return self.found

    def _compare(self, changes: list[dict[str, Any]]) -> None:
        did = [_step(self.site, c) for c in changes]
        if self._previewed is None:
            self.found.steps = [f"{_step(self.site, c)} ({', '.join(c['keys'])})" for c in changes]
        elif self._previewed != set(did):
            self.found.wrong.append(f"the preview showed {sorted(self._previewed)}, up ran {sorted(did)}")
        for change in changes:
            said = change["summary"] or {}
            what = [f"{path} {how}" for path, how in said.get("files", {}).items()]
            what += [f"{unit} {how}" for unit, how in said.get("units", {}).items()]
            what += [f"package {p}" for p in said.get("packages", [])]
            what += [f"step {s}" for s, how in said.get("steps", {}).items() if how == "ran"]
            self.found.touched += [f"{_step(self.site, change)}: {w}" for w in what]

    def _happened(self, after: Look) -> None:
        """Note starts, reloads and leaderships, and compare them with what may be."""
        found = self.found
        started = starts(self.before, after)
        found.restarts = [self._named(e) for e in started]
        found.reloads = [self._named(e) for e in after.events if e.what == "reload"]
        found.leader_moves = [self._short(h) for h in patroni_moves(self.before, after)]
        found.etcd_moves = [self._short(h) for h in etcd_moves(self.before, after)]
        found.wrong += undeclared(self.expect, found)

    def _clients(self, until: float) -> None:
        """Note the longest gaps and every acknowledged row that a node does not have."""
        found, seconds = self.found, until - self.began
        writes = {n: when for n, when in self.clients.writer.acknowledged().items() if when >= self.began}
        found.writes = len(writes)
        found.write_gap = round(self.clients.writer.longest_gap(self.began, until), 2)
        found.read_gap = round(self.clients.reader.longest_gap(self.began, until), 2)
        found.attempts_per_second = (
            _rate(self.clients.writer, self.began, seconds),
            _rate(self.clients.reader, self.began, seconds),
        )
        found.lost = {host: len(ids) for host, ids in lost(self.site, set(writes)).items()}
        if found.lost:
            found.wrong.append(f"acknowledged rows are lost: {found.lost}")

    def _short(self, host: str) -> str:
        return host.removeprefix(f"{self.site.name}-kea-")

    def _named(self, event: Event) -> str:
        if event.service == "etcd":
            return f"etcd {self._short(event.host)}"
        return f"{event.service} {'leader' if event.host == self.ground.leader else 'standby'}"


def _rate(client: Writer, began: float, seconds: float) -> float:
    numbers = [n for n, when in client.acknowledged().items() if when >= began]
    return round((max(numbers) - min(numbers)) / seconds, 1) if numbers and seconds else 0.0


def _ground(site: Site) -> Ground:
    # By the product's own word: without synchronous_mode a plain replica is as declared.
    wait_for("a healthy site", lambda: not site.keadb("status", "--stack", site.name, check=False).returncode, 180)
    leader = site.leader()
    assert leader
    return Ground(site=site, leader=leader, standby=next(h for h in site.database_hosts if h != leader))


def _step(site: Site, change: dict[str, Any]) -> str:
    host = (change["host"] or "").removeprefix(f"{site.name}-kea-")
    return f"{host} {change['step']}".strip()


def _rendered(site: Site, command: Path) -> dict[str, list[str]]:
    """Return every file that hosts get, with its lines, as ``keadb render`` writes it."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "tree"
        site.keadb("render", "--stack", site.name, "--out", str(out), command=command, cwd=command.parents[1])
        return {
            f"{host.name.removeprefix(f'{site.name}-kea-')}:{path.relative_to(host / 'files').as_posix()}": lines
            for host in out.iterdir()
            if host.is_dir()
            for path, lines in _texts(host / "files")
        }


def _other_way(lines: str) -> str:
    """Return "+1 -2" for "+2 -1": what was added there goes again."""
    added, removed = lines.split()
    return f"+{removed[1:]} -{added[1:]}"


def _texts(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path, path.read_text(encoding="utf-8").splitlines()


def _difference(was: dict[str, list[str]], now: dict[str, list[str]]) -> dict[str, str]:
    changed = {}
    for name in sorted({*was, *now}):
        before, after = was.get(name, []), now.get(name, [])
        if before != after or (name in was) != (name in now):
            lines = [line[0] for line in difflib.ndiff(before, after)]
            changed[name.replace(":", ":/", 1)] = f"+{lines.count('+')} -{lines.count('-')}"
    return changed
