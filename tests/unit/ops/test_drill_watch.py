"""What probers tell becomes events, and an ARP table says who has the address."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, cast

from ops.drill_measure import Ack
from ops.drill_record import What
from ops.drill_watch import Watch, arp_entry

if TYPE_CHECKING:
    from pathlib import Path

    from lab.api import Lab

TABLE = """\
IP address       HW type     Flags       HW address            Mask     Device
172.30.30.11     0x1         0x2         3a:b3:bf:6b:e5:59     *        br0
172.30.30.13     0x1         0x2         6e:e6:d8:99:19:5f     *        br0
172.30.30.12     0x1         0x0         00:00:00:00:00:00     *        br0
"""


def _watch(tmp_path: Path, began: float = 0.0) -> Watch:
    return Watch(
        lab=cast("Lab", None), databases=("a", "b"), hosts=("a", "b", "c"), vip="172.30.30.13", macs={},
        began=began, log=tmp_path,
    )  # fmt: skip


def _tell(watch: Watch, host: str, kind: str, **said: Any) -> None:
    watch._take(host, json.dumps({"at": time.monotonic(), "kind": kind, **said}))


def _events(watch: Watch, what: What) -> list[tuple[str | None, str | None]]:
    return [(event.host, event.value) for event in watch.events if event.what is what]


def test_an_entry_of_the_arp_table() -> None:
    """An incomplete one is none: nobody has answered."""
    assert arp_entry(TABLE, "172.30.30.13") == "6e:e6:d8:99:19:5f"
    assert arp_entry(TABLE, "172.30.30.12") is None
    assert arp_entry(TABLE, "172.30.30.1") is None


def test_only_changes_of_a_role_are_events(tmp_path: Path) -> None:
    """The first one is the state before the fault."""
    watch = _watch(tmp_path)
    for role in ("leader", "leader", "gone", "gone", "replica"):
        _tell(watch, "a", "role", role=role, timeline=1, streaming=0)
    assert _events(watch, What.ROLE) == [("a", "leader"), ("a", "gone"), ("a", "replica")]


def test_calm_is_one_leader_with_a_sync_standby_now(tmp_path: Path) -> None:
    """What was told long ago does not count: that node may be gone."""
    watch = _watch(tmp_path)
    assert not watch.calm()
    _tell(watch, "a", "role", role="leader", timeline=1, streaming=0)
    _tell(watch, "b", "role", role="replica", timeline=1, streaming=0)
    assert not watch.calm()
    _tell(watch, "a", "role", role="leader", timeline=1, streaming=1)
    assert watch.calm()
    _tell(watch, "b", "role", role="leader", timeline=2, streaming=1)
    assert not watch.calm()
    watch._take("b", json.dumps({"at": 0.0, "kind": "role", "role": "replica", "timeline": 1, "streaming": 0}))
    assert not watch.calm()


def test_etcd_leads_whom_two_members_name(tmp_path: Path) -> None:
    """One that is alone with its opinion does not count, and without a quorum nobody leads."""
    watch = _watch(tmp_path)
    for host, number in (("a", "1"), ("b", "2"), ("c", "3")):
        _tell(watch, host, "etcd", me=number, leader="3")
    _tell(watch, "a", "etcd", me="1", leader="1")
    _tell(watch, "b", "etcd", me="2", leader="0")
    _tell(watch, "b", "etcd", me="2", leader="1")
    assert _events(watch, What.ETCD_LEADER) == [("c", None), (None, None), ("a", None)]


def test_an_acknowledgement_keeps_its_own_time(tmp_path: Path) -> None:
    """And half a line, cut off by a host's power, is nothing."""
    watch = _watch(tmp_path, began=100.0)
    watch._take("a", '{"at": 101.5, "kind": "ack", "id": 7, "timeline": 3}')
    watch._take("a", '{"at": 101.6, "kind": "ack", "id"')
    assert watch.acks == [(7, Ack(1.5, "a", 3))]
