"""What happens at a site during a drill, seen from every host and from the clients' network. Changes nothing.

One prober a host (``ops.drill_prober``), started again when its host comes back; and who answers for the virtual
address, as the clients' own network has it in its ARP table: the address moves for clients when that entry changes.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from lab.api import Lab
from lab.errors import LabError
from ops.drill_measure import Ack
from ops.drill_record import Event, What

PROBER = Path(__file__).with_name("drill_prober.py")
ARP = Path("/proc/net/arp")
ARP_EVERY = 0.05
AGAIN = 0.3
"""Seconds until a prober that ended is started again."""
FRESH = 3.0
"""Seconds for which what a prober told counts."""


@dataclass
class Seen:
    """What one host's prober told last."""

    role: str = "gone"
    timeline: int | None = None
    streaming: int = 0
    at: float = 0.0
    """On the monotonic clock."""


@dataclass
class Watch:
    """Collects while it is entered; ``began`` is the run's start on the monotonic clock."""

    lab: Lab
    databases: tuple[str, ...]
    hosts: tuple[str, ...]
    vip: str
    macs: Mapping[str, str]
    """Host by hardware address."""
    began: float
    log: Path
    """Folder for what the probers told, a file a host."""
    events: list[Event] = field(default_factory=list)
    acks: list[tuple[int, Ack]] = field(default_factory=list)
    """Id and acknowledgement of every write that a prober was told of."""

    def __post_init__(self) -> None:
        self._seen = {host: Seen() for host in self.databases}
        self._members: dict[str, str] = {}
        self._etcd: dict[str, str] = {}
        self._etcd_leader: str | None = None
        self._etcd_known = False
        self._holder: str | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=self._address, daemon=True)]
        self._threads += [threading.Thread(target=self._probe, args=(host,), daemon=True) for host in self.hosts]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        with self._lock:
            for process in self._processes.values():
                _end(process)
        for thread in self._threads:
            thread.join(timeout=5)

    def now(self) -> float:
        """Return the seconds since the run's start."""
        return time.monotonic() - self.began

    def add(self, what: What, host: str | None, value: str | None, at: float | None = None) -> None:
        """Note an event."""
        with self._lock:
            self.events.append(Event(at=self.now() if at is None else at, host=host, what=what, value=value))

    def ready(self) -> bool:
        """Say whether every database host's prober has told something, and a leader's a write."""
        return all(seen.at for seen in self._seen.values()) and bool(self.acks)

    def calm(self) -> bool:
        """Say whether there is one leader with a streaming sync standby, by what the nodes say themselves now."""
        now = time.monotonic()
        roles = Counter(seen.role for seen in self._seen.values() if now - seen.at < FRESH)
        leads = [seen for seen in self._seen.values() if seen.role == "leader"]
        return roles == {"leader": 1, "replica": len(self.databases) - 1} and leads[0].streaming > 0

    def _probe(self, host: str) -> None:
        words = ["python3", "-uc", PROBER.read_text(encoding="utf-8"), host, str(int(host in self.databases))]
        with (self.log / f"prober-{host}.log").open("a", encoding="utf-8") as log:
            while not self._stop.is_set():
                try:
                    argv = self.lab.exec_argv(host, words)
                except (LabError, KeyError):
                    self._stop.wait(AGAIN)
                    continue
                with subprocess.Popen(  # noqa: S603 -- our own prober, by the lab's lever
                    argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True,
                    start_new_session=True,
                ) as process:  # fmt: skip
                    with self._lock:
                        self._processes[host] = process
                    if self._stop.is_set():
                        _end(process)
                    for line in process.stdout or ():
                        log.write(line)
                        self._take(host, line)
                ended = time.monotonic()
                if self._stop.wait(AGAIN):
                    return
                if host in self.databases:
                    self._role(host, ended, Seen(at=ended))
                self._etcd_says(host, "", "", ended)

    def _take(self, host: str, line: str) -> None:
        try:
            said: dict[str, Any] = json.loads(line)
        except ValueError:
            return  # cut off by the host's power
        at = said["at"]
        if said["kind"] == "ack":
            with self._lock:
                self.acks.append((said["id"], Ack(at - self.began, host, said["timeline"])))
        elif said["kind"] == "role":
            self._role(host, at, Seen(said["role"], said["timeline"], said["streaming"], at))
        elif said["kind"] == "etcd":
            self._etcd_says(host, said["me"], said["leader"], at)

    def _role(self, host: str, at: float, seen: Seen) -> None:
        before, self._seen[host] = self._seen[host], seen
        if before.role != seen.role or not before.at:
            self.add(What.ROLE, host, seen.role, at - self.began)

    def _etcd_says(self, host: str, me: str, leader: str, at: float) -> None:
        """Take one member's view; the leader is the one that most members name, and at least two."""
        if me:
            self._members[me] = host
        self._etcd[host] = leader
        named = Counter(leader for leader in self._etcd.values() if leader not in {"", "0"}).most_common(1)
        name = self._members.get(named[0][0]) if named and named[0][1] > 1 else None
        if name == self._etcd_leader and self._etcd_known:
            return
        if name is None and not self._etcd_known:
            return  # not all probers have told yet
        self._etcd_leader, self._etcd_known = name, True
        self.add(What.ETCD_LEADER, name, None, at - self.began)

    def _address(self) -> None:
        while not self._stop.wait(ARP_EVERY):
            holder = self.macs.get(arp_entry(ARP.read_text(encoding="ascii"), self.vip) or "")
            if holder is not None and holder != self._holder:
                self._holder = holder
                self.add(What.VIP, holder, None)


def _end(process: subprocess.Popen[str]) -> None:
    """Kill a prober: what enters the host, and what it started inside."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def arp_entry(table: str, address: str) -> str | None:
    """Return the hardware address that the kernel's ARP table has for an address, None without a complete entry."""
    for line in table.splitlines()[1:]:
        fields = line.split()
        if fields[0] == address and fields[2] != "0x0":
            return fields[3]
    return None
