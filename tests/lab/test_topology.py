"""A site of one machine becomes one of three, and one again, under a writer, in a small lab of its own."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from lab.api import Lab
from tests.lab.clients import writing
from tests.lab.harness import MEASURED, NAME, Site, wait_for
from tests.lab.topology import topology

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.lab.harness import Writer

pytestmark = pytest.mark.lab


@pytest.fixture
def single() -> Iterator[Site]:
    """A site of one machine, with the machines of a whole one beside it."""
    lab = Lab(f"{NAME[:11]}1")
    site = Site(lab.spec.name, lab)
    lab.down()
    try:
        lab.up(topology="single")
        site.keadb("up", "--stack", site.name, "--yes")
        yield site
    finally:
        lab.down()


def _started(site: Site, host: str) -> tuple[str, str]:
    """Return when a host's PostgreSQL and etcd were started."""
    show = ["systemctl", "show", "--property=ExecMainStartTimestampMonotonic", "--value", "keadb-etcd"]
    return site.sql(host, "SELECT pg_postmaster_start_time()"), site.lab.exec(host, show).stdout.strip()


def _up(site: Site, wanted: str) -> None:
    site.edit(topology(site.lab, wanted))
    site.keadb("up", "--stack", site.name, "--yes")
    site.keadb("status", "--stack", site.name)
    site.keadb("preview", "--stack", site.name, "--expect-no-changes")


def _members(site: Site) -> dict[str, str]:
    etcd = site.status()["etcd"]
    return {m["name"]: m["id"] for m in etcd["members"]}


def _has_all(site: Site, host: str, writer: Writer) -> bool:
    return set(writer.acknowledged()) <= {int(n) for n in site.sql(host, "SELECT id FROM drill.written").splitlines()}


def _refused_while_it_leads(site: Site, second: str) -> None:
    """Have the host that is to leave lead: refused before anything is touched, with what to do; then hand back."""
    site.keadb("switchover", "--stack", site.name, "--yes")
    with site.edited(topology(site.lab, "single")):
        done = site.keadb("up", "--stack", site.name, "--yes", check=False)
    assert done.returncode == 1
    assert f"{second} leads PostgreSQL and is no longer in the site file: put it back, hand over" in done.stderr
    assert site.leader() == second
    site.keadb("preview", "--stack", site.name, "--expect-no-changes")
    site.keadb("switchover", "--stack", site.name, "--yes")


def test_single_to_ha_and_back(single: Site, tmp_path: Path) -> None:
    """No restart of PostgreSQL or etcd on the first host, no lost row; who left is stopped and keeps its data."""
    first, second = single.database_hosts
    witness = f"{single.name}-kea-witness"
    before, member = _started(single, first), _members(single)
    with writing(single, tmp_path) as writer:
        _up(single, "ha")
        assert single.healthy()
        assert _started(single, first) == before
        assert set(_members(single)) == {first, second, witness}
        assert _members(single)[first] == member[first]
        assert single.sql(first, "SELECT application_name, sync_state FROM pg_stat_replication") == f"{second}|sync"
        wait_for("every row on the standby", partial(_has_all, single, second, writer), 60)
        grown = writer.longest_gap()
        _refused_while_it_leads(single, second)
        before = _started(single, first)
        _up(single, "single")
        writer.wait_for_more(40)
        writer.finish()
    assert _members(single) == member
    assert _started(single, first) == before
    assert _has_all(single, first, writer)
    assert single.sql(first, "SHOW synchronous_standby_names") == ""
    for host, units in ((second, ["patroni", "keadb-etcd"]), (witness, ["keadb-etcd", "keadb-etcd-lead.timer"])):
        for unit in units:
            assert single.lab.exec(host, ["systemctl", "is-active", unit]).stdout.strip() == "inactive", (host, unit)
            assert single.lab.exec(host, ["systemctl", "is-enabled", unit]).stdout.strip() == "disabled", (host, unit)
    assert single.lab.exec(second, ["test", "-e", "/var/lib/postgresql/15/kea/PG_VERSION"]).returncode == 0
    MEASURED.append(f"single to ha: longest write gap {grown:.1f} s, 0 lost")
