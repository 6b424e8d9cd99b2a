"""etcd's members under a writer: restarted in turns for a change, and taken in again without their data."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab.harness import MEASURED, Site, Writer, raise_generation, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.lab

APPLY = "/usr/lib/keadb/keadb-apply"


def _hosts(site: Site) -> list[str]:
    return [*site.database_hosts, f"{site.name}-kea-witness"]


def _etcd(site: Site, host: str) -> dict[str, Any]:
    """Return etcd as one host sees it."""
    return dict(json.loads(site.lab.exec(host, [APPLY, "status"]).stdout)["etcd"])


def _ids(site: Site) -> dict[str, str]:
    return {m["name"]: m["id"] for m in _etcd(site, site.database_hosts[0])["members"]}


def _healthy(site: Site) -> bool:
    """Say whether all three vote, are healthy, and follow the witness."""
    found = _etcd(site, site.database_hosts[0])
    return (found["problems"], found["leader"]) == ([], f"{site.name}-kea-witness")


def _started(site: Site) -> list[int]:
    """Return when each host's etcd was started, in the order of turns; all share the machine's clock."""
    show = ["systemctl", "show", "--property=ExecMainStartTimestampMonotonic", "--value", "keadb-etcd"]
    return [int(site.lab.exec(host, show).stdout) for host in _hosts(site)]


def _heartbeat(site: Site, host: str) -> str:
    return str(site.lab.exec(host, ["grep", "^heartbeat-interval", "/etc/etcd/keadb.yml"]).stdout).split()[-1]


def _settings(change: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    def edit(site: dict[str, Any]) -> None:
        site.setdefault("etcd", {}).update(change)

    return edit


@contextlib.contextmanager
def _cut_off(site: Site, host: str, peer: str) -> Iterator[None]:
    """Let nothing that this host sends reach one of its peers; everybody else does."""
    route = ["blackhole", f"{site.lab.address(peer)}/32"]
    site.lab.exec(host, ["ip", "route", "add", *route])
    try:
        yield
    finally:
        site.lab.exec(host, ["ip", "route", "del", *route])


def test_a_change_restarts_members_in_turns(settled: Site, writer: Writer) -> None:
    """Each later than the one before, the witness last; it leads again; writes go on; the next preview is empty."""
    before, ids, leader = _started(settled), _ids(settled), settled.leader()
    settled.edit(_settings({"heartbeat_ms": 300}))
    settled.keadb("up", "--stack", settled.name, "--yes")
    after = _started(settled)
    assert [_heartbeat(settled, host) for host in _hosts(settled)] == ["300"] * 3
    assert max(before) < after[0] < after[1] < after[2]
    assert _ids(settled) == ids
    assert _healthy(settled)
    due = [settled.lab.exec(host, ["ls", "-A", "/var/lib/keadb/due"]).stdout for host in _hosts(settled)]
    assert due == [""] * 3
    writer.wait_for_more(40)
    settled.keadb("preview", "--stack", settled.name, "--expect-no-changes")
    assert _started(settled) == after
    assert settled.leader() == leader
    writer.finish()
    MEASURED.append(f"etcd restarted in turns: longest write gap {writer.longest_gap():.1f} s")


def test_a_member_without_its_data_is_taken_in_again(settled: Site, writer: Writer) -> None:
    """Refused by name while one peer cannot be reached; then one `up`: a new member, the others as they were."""
    lost, peer = settled.database_hosts[1], f"{settled.name}-kea-witness"
    ids = _ids(settled)
    settled.lab.exec(lost, ["sh", "-c", "systemctl stop keadb-etcd && rm -rf /var/lib/etcd/keadb"])
    with _cut_off(settled, lost, peer):
        refused = settled.lab.exec(lost, [APPLY, "etcd-form"])
    assert refused.returncode == 3
    assert "its data is lost" in refused.stderr
    assert f"{peer} ({settled.lab.address(peer)}:2380) is unreachable" in refused.stderr
    assert settled.lab.exec(lost, ["systemctl", "is-active", "keadb-etcd"]).stdout.strip() == "inactive"
    assert _ids(settled) == ids
    settled.edit(lambda data: raise_generation(data, lost))
    settled.keadb("up", "--stack", settled.name, "--yes")
    assert _healthy(settled)
    now = _ids(settled)
    assert {host for host in ids if now[host] != ids[host]} == {lost}
    settled.keadb("preview", "--stack", settled.name, "--expect-no-changes")
    wait_for("leader and sync standby", settled.healthy, 60)
    writer.wait_for_more(40)
    writer.finish()
    MEASURED.append(f"wiped etcd member: longest write gap {writer.longest_gap():.1f} s")
