"""Invented runs of drills, for what shows them."""

from __future__ import annotations

import dataclasses
from typing import Any

from ops.drill_record import Event, Phases, Places, Record, Served, Verdict, What

DB1, DB2, WITNESS = "lab-kea-db-01", "lab-kea-db-02", "lab-kea-witness"


def served(*gaps: tuple[float, float], heal: float | None = None, end: float = 65.0) -> Served:
    """Return what a client met that had these gaps in a run that was healed then."""
    before = [b - a for a, b in gaps if heal is None or a < heal]
    after = [b - a for a, b in gaps if heal is not None and a >= heal]
    attempts = int(20 * end)
    silent = int(sum(b - a for a, b in gaps))
    return Served(
        attempts=attempts,
        acknowledged=attempts - silent,
        failed=silent,
        gaps=gaps,
        longest_s=max([*before, *after], default=0.1),
        longest_at_fault_s=max(before, default=0.1),
        longest_at_heal_s=max(after, default=0.1) if heal is not None else 0.0,
    )


def power_off(**changes: Any) -> Record:
    """Return a run in which the leader lost its power at 10 s, and got it back at 40 s; ``changes`` are fields."""
    made = Record(
        fault="leader-power-off",
        run=1,
        seed=7,
        parameters="site",
        stack="lab",
        started="2026-11-23T14:00:00Z",
        load=1.3,
        before=Places(leader=DB1, sync_standby=DB2, vip=DB1, etcd_leader=WITNESS),
        after=Places(leader=DB2, sync_standby=DB1, vip=DB2, etcd_leader=WITNESS),
        target=DB1,
        phases=Phases(fault=10.0, heal=40.0, whole=55.2, end=65.0),
        events=(
            Event(at=10.0, host=DB1, what=What.FAULT, value="power off"),
            Event(at=10.1, host=DB1, what=What.ROLE, value="gone"),
            Event(at=11.3, host=DB2, what=What.VIP, value=None),
            Event(at=30.1, host=DB2, what=What.ROLE, value="leader"),
            Event(at=40.0, host=DB1, what=What.HEAL, value="power on"),
            Event(at=44.4, host=DB1, what=What.ROLE, value="replica"),
        ),
        write=served((10.02, 30.4), (44.6, 45.0), heal=40.0),
        read=served((10.1, 12.0), heal=40.0),
        lost=(),
        two_leaders=0,
        stopped_accepting_s=0.02,
        rejoin_s=15.2,
        vip_moves=1,
        manual_steps=0,
        target_s=27.0,
        verdict=Verdict.RIGHT,
        reasons=(),
    )
    return dataclasses.replace(made, **changes)


def switchover(**changes: Any) -> Record:
    """Return a run in which the leadership was handed over at 10 s: heals itself, two seconds without writes."""
    made = power_off(
        fault="switchover",
        target=None,
        after=Places(leader=DB2, sync_standby=DB1, vip=DB1, etcd_leader=WITNESS),
        phases=Phases(fault=10.0, heal=None, whole=19.5, end=25.0),
        events=(
            Event(at=10.0, host=None, what=What.FAULT, value="switchover"),
            Event(at=10.9, host=DB1, what=What.ROLE, value="gone"),
            Event(at=11.6, host=DB2, what=What.ROLE, value="leader"),
            Event(at=14.2, host=DB1, what=What.ROLE, value="replica"),
        ),
        write=served((10.3, 12.4), end=25.0),
        read=served(end=25.0),
        rejoin_s=9.5,
        vip_moves=0,
        target_s=3.0,
    )
    return dataclasses.replace(made, **changes)


def wrong(**changes: Any) -> Record:
    """Return a run of everything that can go wrong, with long and hostile words in it."""
    made = power_off(
        fault="leader-frozen",
        run=2,
        phases=Phases(fault=10.0, heal=10.6, whole=None, end=180.0),
        events=(
            Event(at=0.0, host=DB1, what=What.ROLE, value="leader"),
            Event(at=0.0, host=DB2, what=What.ROLE, value="replica"),
            Event(at=0.0, host=DB1, what=What.VIP, value=None),
            Event(at=0.0, host=WITNESS, what=What.ETCD_LEADER, value=None),
            Event(at=10.0, host=DB1, what=What.FAULT, value="freeze"),
            Event(at=10.2, host=None, what=What.VIP, value=None),
            Event(at=10.6, host=DB1, what=What.HEAL, value="thaw"),
            Event(at=10.7, host=None, what=What.NOTE, value="<script>alert('1')</script> & more, " + "long " * 40),
            Event(at=10.9, host=DB2, what=What.NOTE, value="promoted"),
            Event(at=11.0, host=DB2, what=What.VIP, value=None),
            Event(at=11.2, host=DB2, what=What.ROLE, value="leader"),
            Event(at=12.0, host=None, what=What.ETCD_LEADER, value=None),
            Event(at=31.0, host=DB1, what=What.ETCD_LEADER, value=None),
            Event(at=33.0, host=DB1, what=What.ROLE, value="gone"),
        ),
        write=served((10.1, 11.9), (12.1, 12.6), (12.8, 14.4), (33.0, 180.0), heal=10.6, end=180.0),
        read=served((33.0, 40.0), (41.0, 41.5), heal=10.6, end=180.0),
        lost=(17, 18),
        two_leaders=3,
        stopped_accepting_s=None,
        rejoin_s=None,
        vip_moves=2,
        verdict=Verdict.WRONG,
        reasons=(
            "2 ids lost: 17, 18",
            "3 writes acknowledged by two leaders",
            'never whole again: "replica" <missing>',
        ),
    )
    return dataclasses.replace(made, **changes)


def campaign() -> list[Record]:
    """Return the runs of a small campaign, in no particular order."""
    gaps = (20.4, 21.3, 26.1)
    runs = [
        power_off(run=n, load=n / 2, write=served((10.0, 10.0 + gap), (44.6, 45.0), heal=40.0))
        for n, gap in enumerate(gaps, 1)
    ]
    slow = power_off(
        parameters="autobase",
        write=served((10.0, 46.4), heal=40.0),
        verdict=Verdict.ABOVE_TARGET,
        reasons=("write gap 36.4 s, target 27.0 s",),
    )
    return [*runs, switchover(), wrong(), slow, switchover(run=2)]
