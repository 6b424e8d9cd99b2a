"""What lab tests use: a running site and the commands that drive it, a writer, and waits."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lab.api import Lab

ROOT = Path(__file__).parents[2]
KEADB = ROOT / "bin" / "keadb"
NAME = os.environ.get("KEADB_TEST_LAB", "test")
BARE = "db-02"
"""The host that starts with nothing installed on it, so that every run meets what packages do by themselves."""


def raise_generation(site: dict[str, Any], host: str) -> None:
    """Say in the site file's data that a host was installed anew, whatever its generation is by now."""
    entry = site["hosts"][host]
    entry["generation"] = entry.get("generation", 1) + 1


def wait_for(what: str, get: Callable[[], Any], seconds: float = 90) -> Any:
    """Return the first truthy answer of ``get``; fails after a generous time, naming what was waited for."""
    end = time.monotonic() + seconds
    while True:
        answer = get()
        if answer:
            return answer
        if time.monotonic() > end:
            pytest.fail(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(0.5)


MEASURED: list[str] = []
"""What was measured on the way, shown at the end of the run; no test depends on it."""


@dataclass
class Site:
    """A running site: its lab, and keadb's own command to drive it."""

    name: str
    lab: Lab
    first_up_seconds: float = 0.0
    first_up_output: str = ""
    command_lines: set[str] = field(default_factory=set)

    @property
    def state(self) -> Path:
        """The lab's state folder."""
        return Path(os.environ.get("KEADB_LAB_STATE", "/var/lib/keadb-lab")) / self.name

    @property
    def site_file(self) -> Path:
        """The stack file of the lab."""
        return self.state / f"Pulumi.{self.name}.yaml"

    def keadb(
        self,
        *args: str,
        check: bool = True,
        env: dict[str, str] | None = None,
        command: Path = KEADB,
        **kwargs: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Run the command as a user would."""
        done = subprocess.run(
            [command, *args], capture_output=True, text=True, check=False, env=env, timeout=600, **kwargs
        )
        if check and done.returncode:
            pytest.fail(f"keadb {' '.join(args)} exited {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done

    def status(self) -> dict[str, Any]:
        """Return what `keadb status --json` says, healthy or not."""
        done = self.keadb("status", "--stack", self.name, "--json", check=False)
        return dict(json.loads(done.stdout)) if done.stdout.strip().startswith("{") else {}

    def leader(self) -> str | None:
        """Return the leader's host name, if any answering node knows one."""
        return next((m["name"] for m in self.members() if m["role"] == "leader"), None)

    def members(self) -> list[dict[str, Any]]:
        """Return Patroni's members as the first answering database host sees them."""
        for host in self.database_hosts:
            done = self.lab.exec(host, ["patronictl", "-c", "/etc/patroni/config.yml", "list", "-f", "json"])
            if done.returncode == 0 and done.stdout.strip():
                return [
                    {"name": m["Member"], "role": m["Role"].lower().replace(" ", "_"), "state": m["State"]}
                    for m in json.loads(done.stdout)
                ]
        return []

    @property
    def database_hosts(self) -> list[str]:
        """Names of the database hosts, preferred one first."""
        return [f"{self.name}-kea-db-01", f"{self.name}-kea-db-02"]

    def healthy(self) -> bool:
        """Say whether there is one running leader and one streaming sync standby."""
        members = {m["role"]: m["state"] for m in self.members()}
        return members == {"leader": "running", "sync_standby": "streaming"}

    def require_health(self) -> None:
        """Demand what an ended ``up`` promises, at once.

        By ``keadb status``, which asks the nodes themselves: what Patroni keeps in etcd, and `healthy` reads, is up
        to a loop older.
        """
        self.keadb("status", "--stack", self.name)

    def wait_until_healthy(self) -> None:
        """Wait for a leader and a streaming sync standby."""
        wait_for("a leader and a sync standby", self.healthy, 180)

    def sql(self, host: str, statement: str, database: str = "kea") -> str:
        """Run one statement on a host as the superuser, over its unix socket; return the bare answer."""
        done = self.lab.exec(
            host, ["runuser", "-u", "postgres", "--", "psql", "-XAtq", "-d", database, "-c", statement]
        )
        if done.returncode:
            pytest.fail(f"{statement!r} on {host}: {done.stderr}")
        return str(done.stdout).strip()

    def edit(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the site file as a person with an editor would."""
        data = yaml.safe_load(self.site_file.read_text())
        change(data["config"]["keadb:site"])
        self.site_file.write_text(yaml.safe_dump(data, sort_keys=False))

    @contextlib.contextmanager
    def edited(self, change: Callable[[dict[str, Any]], None]) -> Iterator[None]:
        """Change the site file for a while, then put its bytes back."""
        before = self.site_file.read_bytes()
        self.edit(change)
        try:
            yield
        finally:
            self.site_file.write_bytes(before)

    def conninfo(self, user: str, **more: str) -> str:
        """Return a libpq conninfo for clients inside the lab's network, TLS verified against the site's CA."""
        ca = self.state / "ca.crt"
        ca.write_text(self.lab.exec(self.database_hosts[0], ["cat", "/etc/keadb/tls/ca.crt"]).stdout)
        hosts = ",".join(str(self.lab.address(h)) for h in self.database_hosts)
        settings = {
            "host": hosts,
            "port": "5432",
            "dbname": "kea",
            "user": user,
            "sslmode": "verify-full",
            "sslrootcert": str(ca),
            "target_session_attrs": "read-write",
            "connect_timeout": "5",
        } | more
        return " ".join(f"{k}={v}" for k, v in settings.items())

    def login(self, key: str) -> tuple[str, str]:
        """Return the login in use of a pair, by its key under ``logins``, and the name of its secret."""
        from keadb.logins import PAIRS
        from ops import sites
        from ops.stacks import resolve

        pair = next(pair for pair in PAIRS if pair.key == key)
        letter = pair.active(sites.load(resolve(self.name)).logins)
        return pair.login(letter), pair.secret(letter)

    def secrets(self) -> dict[str, str]:
        """Return the real values of the stack's secrets."""
        from ops.secrets import secret_values
        from ops.stacks import resolve

        return secret_values(resolve(self.name))


class CommandLines(threading.Thread):
    """Collects the command lines of every process on the machine, lab hosts included, until stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: set[str] = set()
        self._stop_asked = threading.Event()

    def run(self) -> None:
        """Sample about twenty times a second."""
        while not self._stop_asked.wait(0.05):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    self.seen.add(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))

    def stop(self) -> set[str]:
        """End the sampling and return what was seen."""
        self._stop_asked.set()
        self.join()
        return self.seen


@dataclass
class Writer:
    """A writer in the lab's network, and what it was told was written."""

    process: subprocess.Popen[bytes]
    acks: Path
    stop_file: Path

    def acknowledged(self) -> dict[int, float]:
        """Return every acknowledged id with the time of its acknowledgement; a cut line is not there yet."""
        lines = [line.split() for line in self.acks.read_text().rpartition("\n")[0].splitlines()]
        return {int(number): float(when) for number, when in (pair for pair in lines if len(pair) == 2)}

    def wait_for_more(self, count: int = 40, seconds: float = 120) -> None:
        """Wait until that many further ids are acknowledged."""
        goal = len(self.acknowledged()) + count
        wait_for(f"{count} more acknowledged writes", lambda: len(self.acknowledged()) >= goal, seconds)

    def longest_gap(self, since: float = 0.0, until: float | None = None) -> float:
        """Return the longest time in seconds without an acknowledgement, in a part of the run if wanted.

        ``since`` and ``until`` are moments of the monotonic clock; with ``until`` its own distance to the last
        acknowledgement before it counts as well.
        """
        times = sorted(when for when in self.acknowledged().values() if until is None or when <= until)
        earlier = [when for when in times if when < since][-1:]
        times = earlier + [when for when in times if when >= since] + ([] if until is None else [until])
        return max((b - a for a, b in itertools.pairwise(times)), default=0.0)

    def finish(self) -> dict[int, float]:
        """End the writer and return what it was acknowledged."""
        self.stop_file.touch()
        self.process.wait(timeout=30)
        return self.acknowledged()
