"""Hosts under temporary roots, and a fake systemd."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hostkit.context import Context
from hostkit.system import Completed
from tests.unit.etcd.etcd_authority import Authority

ADDRESSES = {"site-db-01": "127.0.30.10", "site-db-02": "127.0.30.11", "site-witness": "127.0.30.12"}
UNIT = "keadb-etcd.service"
DATA = "/var/lib/etcd/keadb"
BIRTH = "/var/lib/keadb/etcd-birth.env"
CONFIG, REJOIN_CONFIG, REJOIN = "/etc/etcd/keadb.yml", "/etc/etcd/keadb-rejoin.yml", "/var/lib/keadb/etcd-rejoin.env"


def free_port() -> int:
    """Return a port that nobody uses now on any of the addresses, nor will as the near end of a connection."""
    while True:
        port = secrets.SystemRandom().randrange(12000, 32000)
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            for address in ("127.0.0.1", *ADDRESSES.values()):
                held.enter_context(socket.socket()).bind((address, port))
            return port


@dataclass
class FakeSystem:
    """Answers for systemd; ``on_start`` and ``on_restart`` are called when the unit is started or restarted."""

    on_start: Callable[[], None] = lambda: None
    on_restart: Callable[[], None] = lambda: None
    active: str = "inactive"
    commands: list[list[str]] = field(default_factory=list)

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        input: str | None = None,  # noqa: A002 - the real one's name
        check: bool = True,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> Completed:
        """Record a command and answer it."""
        del timeout, input, check, env, user, progress
        self.commands.append(list(argv))
        if argv[:2] == ["systemctl", "is-active"]:
            return Completed(0 if self.active == "active" else 3, self.active + "\n", "")
        if argv[:2] == ["systemctl", "start"]:
            self.active = "active"
            self.on_start()
        if argv[:2] == ["systemctl", "restart"]:
            self.on_restart()
        if argv[0] == "journalctl":
            return Completed(0, "the unit's last line\n", "")
        return Completed(0, "", "")

    @property
    def started(self) -> bool:
        """Whether the unit was ever started."""
        return ["systemctl", "start", "--no-block", UNIT] in self.commands

    def uid(self, name: str) -> int:
        """Everybody is whoever runs the tests."""
        del name
        return os.getuid()

    def gid(self, name: str) -> int:
        """Everybody is whoever runs the tests."""
        del name
        return os.getgid()

    def sleep(self, seconds: float) -> None:
        """Wait, less long than asked."""
        time.sleep(min(seconds, 0.02))

    def monotonic(self) -> float:
        """Return the real clock."""
        return time.monotonic()


@dataclass
class HostRoot:
    """A host under a temporary root."""

    name: str
    root: Path
    system: FakeSystem
    plan: dict[str, Any]

    @property
    def ctx(self) -> Context:
        """Return the context that verbs get."""
        return Context(self.root, self.system)

    def write(self, path: str, content: bytes | str, mode: int = 0o600) -> Path:
        """Write a file under the root."""
        target = self.root / path.removeprefix("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        target.chmod(mode)
        return target

    def exists(self, path: str) -> bool:
        """Say whether a file is there."""
        return (self.root / path.removeprefix("/")).exists()

    def set_plan(self, **changes: Any) -> None:
        """Change the plan on disk."""
        self.plan.update(changes)
        self.write("/etc/keadb/cluster/etcd.json", json.dumps(self.plan))

    def give_data(self) -> None:
        """Make the data directory that of a member that ran."""
        self.write(f"{DATA}/member/wal/0000000000000000-0000000000000000.wal", "")


def make_hosts(
    folder: Path, authority: Authority, names: Sequence[str] = tuple(ADDRESSES), *, limit: float = 5.0
) -> dict[str, HostRoot]:
    """Return hosts that share a plan; the last one has the witness's duties."""
    client_port, peer_port = free_port(), free_port()
    hosts = {}
    for name in names:
        host = HostRoot(name, folder / name, FakeSystem(), {})
        etcd_cert, etcd_key = authority.issue(name, ADDRESSES[name], "127.0.0.1")
        client_cert, client_key = authority.issue(f"client-{name}")
        host.write("/etc/etcd/tls/server.crt", etcd_cert)
        host.write("/etc/etcd/tls/server.key", etcd_key)
        host.write("/etc/etcd/tls/ca.crt", authority.certificate)
        host.write("/etc/keadb/tls/ca.crt", authority.certificate)
        host.write("/var/lib/keadb/tls/client.crt", client_cert)
        host.write("/var/lib/keadb/tls/client.key", client_key)
        secrets = {"etcd_root_password": "root-secret-0123456789", "etcd_patroni_a_password": "patroni-secret-012345"}
        host.write("/var/lib/keadb/secrets.json", json.dumps(secrets))
        host.write(CONFIG, f"name: {name}\ninitial-cluster-state: new\ninitial-cluster: all=of-them\nheartbeat: 1\n")
        last = name == names[-1]
        host.set_plan(
            format=1,
            cluster="site",
            host=name,
            unit=UNIT,
            data_dir=DATA,
            birth_file=BIRTH,
            config=CONFIG,
            rejoin_config=REJOIN_CONFIG,
            rejoin_file=REJOIN,
            members=[{"name": n, "address": ADDRESSES[n]} for n in names],
            client_port=client_port,
            peer_port=peer_port,
            tls={"cert": "/etc/etcd/tls/server.crt", "key": "/etc/etcd/tls/server.key", "ca": "/etc/etcd/tls/ca.crt"},
            sets_up_auth=last,
            leads=last,
            patroni_role="patroni",
            patroni_user="patroni_a",
            patroni_secret="etcd_patroni_a_password",
            patroni_prefix="/service/site/",
            birth_seconds=limit,
            health_seconds=limit,
        )
        hosts[name] = host
    return hosts
