"""The way to the database, as clients see it: through the virtual address, with a writer and a reader on it."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from keadb import clients
from keadb.stackfile import read_stack
from tests.lab.harness import MEASURED, Site, Writer, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keadb.site import Site as SiteData

pytestmark = pytest.mark.lab
LOGINS = {"write": "owner", "read": "read"}
UNITS = ("pgbouncer", "haproxy", "keepalived")
WHERE = "SELECT inet_server_addr(), current_user, pg_is_in_recovery()"


def _data(site: Site) -> SiteData:
    return read_stack(site.site_file.read_text(), stack=site.name, source="test")


def _ca(site: Site) -> str:
    ca = site.state / "way-ca.crt"
    if not ca.exists():  # later its host may be without power
        ca.write_text(site.lab.exec(site.database_hosts[0], ["cat", "/etc/keadb/tls/ca.crt"]).stdout)
    return str(ca)


def _ask(site: Site, conninfo: str, key: str, statement: str = WHERE) -> subprocess.CompletedProcess[str]:
    """Run a statement as the login in use of this pair, in the lab's network; the first row is on standard output."""
    user, secret = site.login(key)
    script = "import sys, psycopg; print(*psycopg.connect(sys.argv[1]).execute(sys.argv[2]).fetchone())"
    return subprocess.run(
        [
            *("nsenter", f"--net=/run/netns/keadb-{site.name}", sys.executable, "-c", script),
            *(f"{conninfo} user={user} sslrootcert={_ca(site)}", statement),
        ],
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ, PGPASSWORD=site.secrets()[secret]),
        timeout=30,
    )


def _ways(site: Site) -> dict[str, dict[str, Any]]:
    """Return what each running database host says of its part of the way."""
    hosts = site.status().get("way", {})
    return {host: dict(said) for host, said in hosts.items()}


def _holder(site: Site) -> str | None:
    holders = [host for host, said in _ways(site).items() if said.get("holds_vip")]
    return holders[0] if len(holders) == 1 else None


def _other(site: Site, host: str) -> str:
    return next(other for other in site.database_hosts if other != host)


@dataclass
class Clients:
    """A writer and a reader on the virtual address."""

    write: Writer
    read: Writer

    def errors(self) -> list[str]:
        """Return every attempt of either that failed."""
        return [
            line
            for client in (self.write, self.read)
            for line in client.acks.with_name("ERRORS").read_text().splitlines()
        ]

    def go_on(self, count: int = 40) -> None:
        """Wait until both were served that many times more."""
        self.write.wait_for_more(count)
        self.read.wait_for_more(count)

    def gaps_since(self, moment: float) -> str:
        """Return the longest gaps from a moment of the monotonic clock on, in words."""
        found = []
        for name, client in (("write", self.write), ("read", self.read)):
            times = [moment, *sorted(t for t in client.acknowledged().values() if t > moment)]
            gap = max((b - a for a, b in itertools.pairwise(times)), default=0.0)
            found.append(f"{name} {gap:.1f} s")
        return "longest gap " + ", ".join(found)


@pytest.fixture
def on_the_way(settled: Site, tmp_path: Path) -> Iterator[Clients]:
    """A writer and a reader that have been served; at the end no acknowledged row may be missing."""
    leader = settled.leader()
    assert leader
    settled.sql(
        leader,
        "DROP SCHEMA IF EXISTS drill CASCADE; CREATE SCHEMA drill AUTHORIZATION kea_owner; "
        "SET ROLE kea_owner; CREATE TABLE drill.written (id bigint PRIMARY KEY)",
    )
    conninfos = {"write": clients.conninfo(_data(settled)), "read": clients.read_conninfo(_data(settled))}
    running = {}
    for what, key in LOGINS.items():
        user, secret = settled.login(key)
        folder = tmp_path / what
        folder.mkdir()
        acks, stop = folder / "acks", folder / "stop"
        process = subprocess.Popen(
            [
                *("nsenter", f"--net=/run/netns/keadb-{settled.name}"),
                *(sys.executable, str(Path(__file__).with_name("way_client.py")), what),
                *(f"{conninfos[what]} user={user} sslrootcert={_ca(settled)}", str(acks), str(stop)),
            ],
            env=dict(os.environ, PGPASSWORD=settled.secrets()[secret]),
        )
        acks.touch()
        running[what] = Writer(process, acks, stop)
    made = Clients(**running)
    try:
        made.go_on()
        yield made
        acknowledged = set(made.write.finish())
        assert len(acknowledged) > 40
        for host in settled.database_hosts:
            wait_for(f"every acknowledged row on {host}", partial(_has, settled, host, acknowledged), 90)
    finally:
        for client in running.values():
            client.stop_file.touch()
            client.process.wait(timeout=30)


def _has(site: Site, host: str, ids: set[int]) -> bool:
    return ids <= {int(line) for line in site.sql(host, "SELECT id FROM drill.written").splitlines()}


def test_names_and_address_are_verified_and_lead_to_leader_and_standby(settled: Site) -> None:
    """By name and by address, TLS verified to the end: writes reach the leader, reads a standby, through poolers."""
    data = _data(settled)
    vip = data.network.vip
    verified = "dbname=kea sslmode=verify-full connect_timeout=5"
    for conninfo in (clients.conninfo(data), f"host={vip} port=5432 {verified}"):
        done = _ask(settled, conninfo, "owner")
        assert done.stdout.split() == ["127.0.0.1", "kea_owner", "False"], done.stderr
    ways = [clients.read_conninfo(data), f"host={vip} port=5433 {verified}"]
    ways += [f"host={data.standby_name} hostaddr={h.address} port=5433 {verified}" for h in data.database_hosts]
    for conninfo in ways:
        done = _ask(settled, conninfo, "read")
        assert done.stdout.split() == ["127.0.0.1", settled.login("read")[0], "True"], done.stderr
    refused = {
        f"host={vip} port=5432 dbname=kea sslmode=disable": "SSL required",
        f"host=other.example.com hostaddr={vip} port=5432 {verified}": "does not match host name",
        f"host={data.database_hosts[0].address} port=6432 {verified}": "No route to host",
    }
    for conninfo, why in refused.items():
        done = _ask(settled, conninfo, "read")
        assert done.returncode
        assert why in done.stderr


def test_no_host_holds_a_password_of_the_poolers_and_each_target_reads_its_file(settled: Site) -> None:
    """HAProxy's and keepalived's own parsers accept what was rendered; PgBouncer's directory holds no secret."""
    for host in settled.database_hosts:
        for command in (
            "haproxy -c -q -f /etc/haproxy/haproxy.cfg",
            "keepalived -t -f /etc/keepalived/keepalived.conf",
        ):
            done = settled.lab.exec(host, command.split())
            assert done.returncode == 0, f"{host}: {command}: {done.stderr}"
        texts = settled.lab.exec(host, ["sh", "-c", "cat /etc/pgbouncer/*.ini /etc/pgbouncer/*.conf"]).stdout
        assert "auth_query" in texts
        assert not [name for name, value in settled.secrets().items() if value.strip() in texts]


def test_killed_services_are_back_by_themselves(settled: Site, on_the_way: Clients) -> None:
    """SIGKILL of the leader's pooler, then of the holder's proxy and keepalived: clients are served again."""
    for unit in UNITS:
        where = settled.leader() if unit == "pgbouncer" else wait_for("a holder", partial(_holder, settled), 60)
        assert where
        moment = time.monotonic()
        settled.lab.exec(where, ["systemctl", "kill", "--signal=KILL", unit])
        on_the_way.go_on(80)
        MEASURED.append(f"way: {unit} killed: {on_the_way.gaps_since(moment)}")
        wait_for(f"{unit} to run", partial(_runs, settled, where, unit), 30)


def _runs(site: Site, host: str, unit: str) -> bool:
    return site.lab.exec(host, ["systemctl", "is-active", "--quiet", unit]).returncode == 0


def test_reloads_under_load_fail_no_transaction(settled: Site, on_the_way: Clients) -> None:
    """Each service is reloaded on both hosts while writer and reader are busy: not one attempt fails."""
    before = on_the_way.errors()
    for host in settled.database_hosts:
        for unit in UNITS:
            assert settled.lab.exec(host, ["systemctl", "reload", unit]).returncode == 0
            on_the_way.go_on(30)
    assert on_the_way.errors() == before


def test_without_its_pooler_the_leader_is_reached_directly(settled: Site, on_the_way: Clients) -> None:
    """Pooler stopped for good: the proxies say so and send writers to PostgreSQL itself."""
    leader = settled.leader()
    assert leader
    moment = time.monotonic()
    settled.lab.exec(leader, ["systemctl", "stop", "pgbouncer"])
    try:
        on_the_way.go_on(80)
        MEASURED.append(f"way: leader's pooler stopped: {on_the_way.gaps_since(moment)}")
        assert _ways(settled)[leader]["proxy"]["write"] == "direct"
        address = str(settled.lab.address(leader))
        done = _ask(settled, clients.conninfo(_data(settled)), "owner")
        assert done.stdout.split() == [address, "kea_owner", "False"], done.stderr
    finally:
        settled.lab.exec(leader, ["systemctl", "start", "pgbouncer"])
    wait_for("the pooler's way", lambda: _ways(settled)[leader]["proxy"]["write"] == "pooler", 30)


def test_switchover_under_the_address(settled: Site, on_the_way: Clients) -> None:
    """The leadership moves, the address stays where it is, and clients follow by themselves."""
    holder = wait_for("a holder", partial(_holder, settled), 60)
    moment = time.monotonic()
    settled.keadb("switchover", "--stack", settled.name, "--yes")
    on_the_way.go_on(80)
    MEASURED.append(f"way: switchover: {on_the_way.gaps_since(moment)}")
    assert _holder(settled) == holder


def test_the_holder_loses_power_and_a_lone_leader_serves_reads(settled: Site, on_the_way: Clients) -> None:
    """The address moves to the leader's host, which also serves reads while it is alone."""
    holder = wait_for("a holder", partial(_holder, settled), 60)
    if settled.leader() == holder:
        settled.keadb("switchover", "--stack", settled.name, "--yes")
        settled.wait_until_healthy()
        on_the_way.go_on()
    rest = _other(settled, holder)
    assert settled.leader() == rest
    moment = time.monotonic()
    settled.lab.power_off(holder)
    try:
        on_the_way.go_on(120)
        MEASURED.append(f"way: holder (standby) powered off: {on_the_way.gaps_since(moment)}")
        done = _ask(settled, clients.read_conninfo(_data(settled)), "read")
        assert done.stdout.split() == ["127.0.0.1", settled.login("read")[0], "False"], done.stderr
    finally:
        settled.lab.power_on(holder)
    settled.wait_until_healthy()
    # It comes back as the one that waits: nobody takes the address from a holder that serves.
    wait_for("one holder", partial(_holder, settled), 60)
    assert _holder(settled) == rest
