"""Every fault that the drill knows: on which host, how it is made, how it is taken back, what is asked of the site.

Only through the levers of a lab and commands as root inside its hosts: nothing here can touch a real site.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from lab.api import Lab
from lab.errors import LabError
from ops.drill_record import Places

SWITCHOVER_S, PROCESS_S, POSTGRES_S, NODE_S = 3.0, 3.0, 6.0, 27.0
"""Targets for the write gap: planned, a process of the way killed, PostgreSQL killed, a node or its link lost."""
DATA = "/var/lib/postgresql/15/kea"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Where a fault happens."""

    lab: Lab
    before: Places
    databases: tuple[str, ...]
    """Names of the database hosts."""
    etcd: tuple[str, ...]
    """Names of the hosts with a member of etcd."""
    witness: str
    run: int
    seed: int
    switch_over: Callable[[str], None]
    """Hands over from the leader of this name, as ``keadb switchover`` does."""
    note: Callable[[str | None, str], None] = field(default=lambda _host, _text: None)
    """Takes what was chosen into the record: host and words."""

    def standby(self) -> str:
        """Return the database host that does not lead."""
        return next(host for host in self.databases if host != self.before.leader)

    def leader(self) -> str:
        """Return the leader; the drill begins nothing without one."""
        assert self.before.leader is not None  # noqa: S101 -- for the type checker
        return self.before.leader


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One kind of fault."""

    name: str
    about: str
    target: Callable[[Scene], str | None]
    """The host on which it is put, None for one that is not about one host."""
    make: Callable[[Scene, str], None]
    take_back: Callable[[Scene, str], None] | None = None
    """None: it heals itself."""
    target_s: float | None = None
    reads_go_on: bool = False
    """Whether a run is wrong when readers stand still for longer than an address needs to move."""
    hold_s: float = 10.0
    """Seconds from the fault to the heal at least: long enough that the site takes note."""
    apart: bool = False
    """Whether the address must be elsewhere than the leader: the run begins with a hand-over where it is not."""
    until_served: bool = True
    """Whether to hold further until writers have been served for 5 s; else the hold ends after ``hold_s``."""


def run_on(scene: Scene, host: str, *argv: str) -> str:
    """Run a command as root inside the host; LabError when it fails."""
    done = scene.lab.exec(host, list(argv), timeout=60)
    if done.returncode != 0:
        message = f"{host}: {' '.join(argv)}: exit {done.returncode}: {done.stderr.strip()}"
        raise LabError(message)
    return done.stdout.strip()


def _killed(unit: str, whom: str = "all") -> Callable[[Scene, str], None]:
    def kill(scene: Scene, host: str) -> None:
        run_on(scene, host, "systemctl", "kill", "--signal=KILL", f"--kill-whom={whom}", unit)

    return kill


def _postgres_killed(scene: Scene, host: str) -> None:
    pid = run_on(scene, host, "head", "-1", f"{DATA}/postmaster.pid")
    run_on(scene, host, "kill", "-KILL", pid)


def _one_way(scene: Scene, host: str) -> None:
    # Both directions in turn, so that a campaign of two runs has had both.
    packets = ("sent", "received")[(scene.run - 1) % 2]
    scene.note(host, f"loses what it has {packets}")
    scene.lab.cut(host, packets)


_WAL_GROWS = """
for _ in $(seq 100); do
    runuser -u postgres -- psql -XAtq -d kea -v ON_ERROR_STOP=1 \\
        -c "SELECT pg_logical_emit_message(true, 'drill', 'more')" -c "SELECT pg_switch_wal()" || break
done >/dev/null 2>&1
"""


def _disk_full(scene: Scene, host: str) -> None:
    scene.lab.fill_disk(host)
    # PostgreSQL keeps WAL files in stock: for a while only tables cannot grow, and it lives. In every second run the
    # stock is used up, as a busy database would: then it cannot go on at all.
    if scene.run % 2 == 0:
        scene.note(host, "WAL has no room either")
        scene.lab.exec(host, ["timeout", "20", "sh", "-c", _WAL_GROWS])


def _signal(name: str) -> Callable[[Scene, str], None]:
    def send(scene: Scene, host: str) -> None:
        run_on(scene, host, "systemctl", "kill", f"--signal={name}", "--kill-whom=main", "patroni")

    return send


def _two_members(scene: Scene) -> list[str]:
    # Asked twice, it must answer the same.
    return sorted(random.Random(f"{scene.seed}/{scene.run}").sample(scene.etcd, 2))  # noqa: S311 -- no secret


def _quorum_lost(scene: Scene, _host: str) -> None:
    for host in _two_members(scene):
        scene.note(host, "etcd stopped")
        run_on(scene, host, "systemctl", "stop", "keadb-etcd")


def _quorum_back(scene: Scene, _host: str) -> None:
    for host in _two_members(scene):
        # It says that it has started once there is a quorum, which the second one makes.
        run_on(scene, host, "systemctl", "start", "--no-block", "keadb-etcd")


def _leader(scene: Scene) -> str | None:
    return scene.before.leader


def _standby(scene: Scene) -> str | None:
    return scene.standby()


def _vip(scene: Scene) -> str | None:
    return scene.before.vip


def _witness(scene: Scene) -> str | None:
    return scene.witness


def _etcd_leader(scene: Scene) -> str | None:
    return scene.before.etcd_leader


def _off(scene: Scene, host: str) -> None:
    scene.lab.power_off(host)


def _on(scene: Scene, host: str) -> None:
    scene.lab.power_on(host, wait=0)


def _heal(scene: Scene, host: str) -> None:
    scene.lab.heal(host)


def _power(
    name: str,
    about: str,
    target: Callable[[Scene], str | None],
    *,
    reads_go_on: bool = False,
    apart: bool = False,
) -> Fault:
    return Fault(
        name=name,
        about=about,
        target=target,
        make=_off,
        take_back=_on,
        target_s=NODE_S,
        reads_go_on=reads_go_on,
        apart=apart,
    )


def _kill(
    name: str,
    about: str,
    target: Callable[[Scene], str | None],
    unit: str,
    *,
    seconds: float | None,
    whom: str = "all",
) -> Fault:
    return Fault(
        name=name,
        about=about,
        target=target,
        make=_killed(unit, whom),
        target_s=seconds,
        hold_s=5.0,
        reads_go_on=True,
    )


_ALL = (
    Fault(
        name="switchover",
        about="the leadership is handed over to the sync standby, as 'keadb switchover' does",
        target=_leader,
        make=lambda scene, host: scene.switch_over(host),
        target_s=SWITCHOVER_S,
        reads_go_on=True,
        hold_s=5.0,
    ),
    Fault(
        name="postgres-killed",
        about="SIGKILL of the leader's postmaster",
        target=_leader,
        make=_postgres_killed,
        target_s=POSTGRES_S,
        reads_go_on=True,
        hold_s=5.0,
    ),
    _kill("patroni-killed", "SIGKILL of the leader's Patroni", _leader, "patroni", seconds=None, whom="main"),
    _kill("pgbouncer-killed", "SIGKILL of the leader's PgBouncer", _leader, "pgbouncer", seconds=PROCESS_S),
    _kill("haproxy-killed", "SIGKILL of HAProxy where the address is", _vip, "haproxy", seconds=PROCESS_S),
    _kill("keepalived-killed", "SIGKILL of keepalived where the address is", _vip, "keepalived", seconds=PROCESS_S),
    _kill("etcd-killed", "SIGKILL of etcd's leader", _etcd_leader, "keadb-etcd", seconds=None),
    _power("leader-power-off", "the leader's host loses its power", _leader),
    _power("standby-power-off", "the standby's host loses its power", _standby),
    _power("vip-power-off", "the host that has the address, and does not lead, loses its power", _vip, apart=True),
    _power("witness-power-off", "the witness loses its power", _witness, reads_go_on=True),
    Fault(
        name="leader-link-cut",
        about="the leader's network cable is pulled",
        target=_leader,
        make=lambda scene, host: scene.lab.cut(host),
        take_back=_heal,
        target_s=NODE_S,
    ),
    Fault(
        name="leader-silent-cut",
        about="all packets of the leader are lost, its link stays up",
        target=_leader,
        make=lambda scene, host: scene.lab.cut(host, "all"),
        take_back=_heal,
        target_s=NODE_S,
    ),
    Fault(
        name="leader-one-way-loss",
        about="what the leader sends is lost (odd runs), or what is sent to it (even runs)",
        target=_leader,
        make=_one_way,
        take_back=_heal,
        target_s=NODE_S,
    ),
    Fault(
        name="leader-frozen",
        about="every process of the leader's host stands still",
        target=_leader,
        make=lambda scene, host: _done(scene.lab.freeze(host)),
        take_back=lambda scene, host: _done(scene.lab.thaw(host)),
        target_s=NODE_S,
    ),
    Fault(
        name="patroni-stopped",
        about="the leader's Patroni hangs (SIGSTOP), PostgreSQL goes on",
        target=_leader,
        make=_signal("STOP"),
        take_back=_signal("CONT"),
        reads_go_on=True,
        hold_s=35.0,
    ),
    Fault(
        name="etcd-quorum-lost",
        about="two members of etcd are stopped for 40 s, then started again",
        target=lambda _scene: None,
        make=_quorum_lost,
        take_back=_quorum_back,
        reads_go_on=True,
        hold_s=40.0,
        until_served=False,
    ),
    Fault(
        name="disk-full",
        about="the leader's disk is full for 40 s, then freed; in even runs the stock of WAL files is used up too",
        target=_leader,
        make=_disk_full,
        take_back=lambda scene, host: scene.lab.free_disk(host),
        reads_go_on=True,
        hold_s=40.0,
        until_served=False,
    ),
)
FAULTS: Mapping[str, Fault] = {fault.name: fault for fault in _ALL}
"""By name, in the order in which they are listed."""


def _done(_changed: bool) -> None:  # noqa: FBT001 -- swallows a lever's answer
    return None


_MEND = """
for unit in patroni keadb-etcd; do
    systemctl cat --quiet "$unit" >/dev/null 2>&1 || continue
    systemctl kill --signal=CONT --kill-whom=main "$unit" 2>/dev/null
    systemctl is-enabled --quiet "$unit" && systemctl start --no-block "$unit"
done
exit 0
"""


def heal_everything(lab: Lab) -> list[str]:
    """Take back whatever a drill may have left; return what was found. Doing nothing is fine, at any time."""
    found = []
    for name, state in (lab.status() or {}).items():
        if state["cable"] != "plugged":
            found.append(f"{name}: network {state['cable']}")
            lab.heal(name)
        if state["state"] == "frozen":
            found.append(f"{name}: frozen")
            lab.thaw(name)
        if state["state"] == "off":
            found.append(f"{name}: powered off")
            lab.power_on(name, wait=0)
        else:
            lab.free_disk(name)
            lab.exec(name, ["sh", "-c", _MEND])
    return found
