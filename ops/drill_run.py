"""One run of the drill: a whole site, clients on it, one fault, a whole site again, and what the clocks and rows say.

Whatever happens, the lab is healed at the end. Must run inside the lab's network.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from lab.errors import LabError
from ops import drill_faults, drill_measure
from ops.drill_clients import Client, client
from ops.drill_faults import Fault, Scene
from ops.drill_measure import Attempt
from ops.drill_record import Phases, Places, Record, What
from ops.drill_site import WHOLE_S, Drilled, lost_rows, macs, places, switch_over, tables, wait_until_whole
from ops.drill_watch import Watch
from ops.exits import CommandError

READY_S, QUIET_S, AFTER_S = 90.0, 8.0, 3.0
SERVED_S = 5.0
MOST_HOLD_S = 60.0
ETCD_HOME_S = 45.0
"""Within which the witness has fetched etcd's leadership back: two rounds of its timer."""
SETTLE_S = 2.0
"""A fault that heals itself needs a moment until anybody notices it."""


def run_once(drilled: Drilled, fault: Fault, *, run: int, seed: int, parameters: str) -> Record:
    """Do one run and return its record; CommandError or LabError when it could not be done as meant.

    The lab is healed in any case, also on Ctrl-C, which waits for that.
    """
    logs = drilled.folder / "logs" / f"{fault.name}-{parameters}-{run}"
    logs.mkdir(parents=True, exist_ok=True)
    try:
        return _Run(drilled, fault, logs, run, seed).record(parameters)
    finally:
        with uninterrupted():
            for found in drill_faults.heal_everything(drilled.lab):
                drilled.say(f"healed: {found}")


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait: what is done here must be done."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Run:
    """What one run knows while it goes."""

    def __init__(self, drilled: Drilled, fault: Fault, logs: Path, run: int, seed: int) -> None:
        self.drilled, self.fault, self.logs, self.run, self.seed = drilled, fault, logs, run, seed

    def record(self, parameters: str) -> Record:
        drilled, fault = self.drilled, self.fault
        before = self._whole()
        if fault.apart and before.vip == before.leader and before.leader is not None:
            drilled.say("handing over first: the address shall be elsewhere than the leader")
            switch_over(drilled, before.leader)
            before = self._whole()
        scene = self._scene(before)
        tables(drilled, scene.leader())
        started, load = datetime.now(UTC), os.getloadavg()[0]
        watch = Watch(
            lab=drilled.lab,
            databases=drilled.databases,
            hosts=drilled.hosts,
            vip=str(drilled.site.network.vip),
            macs=macs(drilled),
            began=time.monotonic(),
            log=self.logs,
        )
        scene = replace(scene, note=lambda host, text: watch.add(What.NOTE, host, text))
        target = fault.target(scene)
        with watch, client(drilled, "write", self.logs) as writer, client(drilled, "read", self.logs) as reader:
            if not _soon(lambda: writer.served_for(1) and reader.served_for(1) and watch.ready(), READY_S):
                msg = f"clients and probers were not served within {READY_S:.0f} s; see {self.logs}"
                raise CommandError(msg)
            time.sleep(QUIET_S)
            phases = self._fault(scene, watch, writer, reader, target)
            _soon(lambda: writer.served_for(SERVED_S) and reader.served_for(SERVED_S), MOST_HOLD_S)
            time.sleep(AFTER_S)
            after = places(drilled.status())
            phases = replace(phases, end=watch.now())
        write = writer.attempts(watch.began)
        read = reader.attempts(watch.began)
        return self._judged(
            watch, write, read, phases, parameters=parameters, before=before, after=after, target=target,
            started=started, load=load,
        )  # fmt: skip

    def _whole(self) -> Places:
        made, whole = wait_until_whole(self.drilled, lambda: True)
        if whole is None:
            reasons = "; ".join(made.problems)
            msg = f"the site was not whole within {WHOLE_S:.0f} s, so nothing was done to it: {reasons}"
            raise CommandError(msg)
        return self._led_from_the_witness(places(made))

    def _led_from_the_witness(self, found: Places) -> Places:
        """Wait until etcd is led from where the site keeps it, or as long as that should take; return who is where.

        Else this run's fault would meet what the last one left: the witness fetches the leadership back every 20 s.
        """
        home = self.drilled.site.witness
        end = time.monotonic() + ETCD_HOME_S
        while home is not None and found.etcd_leader != home.name and time.monotonic() < end:
            time.sleep(1)
            found = places(self.drilled.status())
        return found

    def _scene(self, before: Places) -> Scene:
        site = self.drilled.site
        return Scene(
            lab=self.drilled.lab,
            before=before,
            databases=self.drilled.databases,
            etcd=tuple(host.name for host in site.etcd_hosts),
            witness=site.control_host.name,
            run=self.run,
            seed=self.seed,
            switch_over=lambda leader: switch_over(self.drilled, leader),
        )

    def _fault(self, scene: Scene, watch: Watch, writer: Client, reader: Client, target: str | None) -> Phases:
        """Make the fault, hold it, take it back, and wait until the site is whole."""
        fault, say = self.fault, self.drilled.say
        say(f"fault on {target or 'the site'}")
        at = watch.now()
        heal: float | None = None
        watch.add(What.FAULT, target, fault.name, at)
        fault.make(scene, target or "")
        if fault.take_back is None:
            time.sleep(SETTLE_S)
        else:
            time.sleep(max(0.0, at + fault.hold_s - watch.now()))
            if fault.until_served:
                _soon(lambda: writer.served_for(SERVED_S), at + MOST_HOLD_S - watch.now())
            heal = watch.now()
            say(f"taken back after {heal - at:.1f} s")
            watch.add(What.HEAL, target, fault.name, heal)
            fault.take_back(scene, target or "")
        made, whole = wait_until_whole(
            self.drilled, lambda: watch.calm() and writer.served_for(1) and reader.served_for(1)
        )
        if whole is None:
            say(f"not whole again: {'; '.join(made.problems)}")
            return Phases(fault=at, heal=heal, whole=None, end=0.0)
        say(f"whole again {whole - watch.began - (heal or at):.1f} s later")
        return Phases(fault=at, heal=heal, whole=whole - watch.began, end=0.0)

    def _judged(
        self,
        watch: Watch,
        write: list[Attempt],
        read: list[Attempt],
        phases: Phases,
        *,
        parameters: str,
        before: Places,
        after: Places,
        target: str | None,
        started: datetime,
        load: float,
    ) -> Record:
        fault, drilled = self.fault, self.drilled
        addresses = {str(host.address): host.name for host in drilled.site.hosts.values()}
        acks = drill_measure.acks_of_writer(write, addresses) + [ack for _id, ack in watch.acks]
        ids = {
            "written": {attempt.number for attempt in write if attempt.acknowledged},
            "probed": {number for number, _ack in watch.acks},
        }
        problems: list[str] = []
        lost: list[int] = []
        try:
            lost = lost_rows(drilled, ids)
        except (CommandError, LabError, subprocess.TimeoutExpired) as error:
            problems.append(f"the rows could not be looked at: {error}")
        served = {
            name: drill_measure.served(attempts, heal=phases.heal, end=phases.end)
            for name, attempts in (("write", write), ("read", read))
        }
        leaders = drill_measure.two_leaders(acks)
        verdict, reasons = drill_measure.verdict(
            lost=len(lost),
            leaders=leaders,
            whole=phases.whole is not None,
            problems=problems,
            wrong_answers=[attempt.said for attempt in read if attempt.how == "wrong"],
            write=served["write"],
            read=served["read"],
            reads_go_on=fault.reads_go_on,
            target=fault.target_s,
            rates={
                name: drill_measure.rate(attempts, until=phases.fault)
                for name, attempts in (("write", write), ("read", read))
            },
        )
        events = sorted(watch.events, key=lambda event: event.at)
        moved = [(e.at, e.host) for e in events if e.what is What.VIP and e.at >= phases.fault]
        since = phases.fault if phases.heal is None else phases.heal
        return Record(
            fault=fault.name,
            run=self.run,
            seed=self.seed,
            parameters=parameters,
            stack=drilled.stack.name,
            started=started.isoformat(timespec="seconds").replace("+00:00", "Z"),
            load=round(load, 2),
            before=before,
            after=after,
            target=target,
            phases=phases,
            events=tuple(events),
            write=served["write"],
            read=served["read"],
            lost=tuple(lost),
            two_leaders=leaders,
            stopped_accepting_s=drill_measure.stopped_accepting(acks, before.leader, phases.fault),
            rejoin_s=None if phases.whole is None else phases.whole - since,
            vip_moves=drill_measure.moves([host for _at, host in moved], before.vip),
            manual_steps=int(phases.whole is None),
            target_s=fault.target_s,
            verdict=verdict,
            reasons=reasons,
        )


def _soon(ready: Callable[[], bool], seconds: float) -> bool:
    """Wait until it is so, at most that long; say whether it was."""
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True
