"""The firewall, as every kind of machine in the network sees it; and that it never cuts off whoever runs keadb."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lab.model import GATEWAY, KEA_SERVER, SUBNET, VIP
from tests.lab.harness import MEASURED, Site, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.lab
STRANGER = str(SUBNET[99])
NOBODYS = str(SUBNET[77])
SCAN = Path(__file__).with_name("scan.py").read_text()
UNIT = "keadb-firewall"
RULES = "/etc/keadb/firewall.nft"
EVERY = "1-65535"
DECLARED = {22, 2379, 2380, 5432, 5433, 6432, 8008}
LIST = ["nft", "--stateless", "list", "table", "inet", "keadb"]
Found = dict[str, set[int]]


def _witness(site: Site) -> str:
    return f"{site.name}-kea-witness"


def _hosts(site: Site) -> list[str]:
    return [*site.database_hosts, _witness(site)]


def _sh(site: Site, host: str, script: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = site.lab.exec(host, ["sh", "-ec", script])
    if check and done.returncode:
        pytest.fail(f"{host}: {script!r}: {done.stderr}")
    return done


def _table(site: Site, host: str) -> str:
    return site.lab.exec(host, LIST).stdout


def _openings(done: subprocess.CompletedProcess[str]) -> Found:
    assert done.returncode == 0, done.stderr
    return {address: {int(port) for port in found} for address, found in json.loads(done.stdout).items()}


def _words(targets: dict[str, str], seconds: float) -> list[str]:
    return [str(seconds), *(word for pair in targets.items() for word in pair)]


def _scan_as(site: Site, address: str | None, targets: dict[str, str], seconds: float = 1.0) -> Found:
    """Scan from a machine of its own with this address, or from the bridge."""
    argv = [sys.executable, "-", *_words(targets, seconds)]
    return _openings(site.lab.ns(argv, address=address, stdin=SCAN, timeout=600))


def _scan_from(site: Site, host: str, targets: dict[str, str], seconds: float = 1.5) -> Found:
    """Scan from a host of the site."""
    argv = ["python3", "-", *_words(targets, seconds)]
    return _openings(site.lab.exec(host, argv, stdin=SCAN, timeout=300))


def _sample(site: Site) -> str:
    """Return every declared port, every port that any host listens on, and some others."""
    listening = set()
    for host in _hosts(site):
        lines = _sh(site, host, "ss -Hltn").stdout.splitlines()
        listening |= {int(line.split()[3].rpartition(":")[2]) for line in lines}
    some = range(7, 65536, 653)
    return ",".join(str(port) for port in sorted(DECLARED | listening | set(some)))


@contextlib.contextmanager
def _without_its_own_rules(site: Site, host: str) -> Iterator[None]:
    """Open a host for a while, so that what it meets are the others' rules."""
    _sh(site, host, f"systemctl stop {UNIT}")
    assert site.lab.exec(host, LIST).returncode
    try:
        yield
    finally:
        _sh(site, host, f"systemctl start {UNIT}")


def test_strangers_reach_nothing_and_keas_server_the_proxies_only(settled: Site) -> None:
    """Every port of a database host, the witness and the virtual address; of the other host a sample."""
    first, second = (str(settled.lab.address(h)) for h in settled.database_hosts)
    witness, vip = str(settled.lab.address(_witness(settled))), str(VIP)
    targets = {first: EVERY, witness: EVERY, vip: EVERY, second: _sample(settled)}
    began = time.monotonic()
    assert _scan_as(settled, STRANGER, targets) == {first: set(), witness: set(), vip: set(), second: set()}
    assert _scan_as(settled, str(KEA_SERVER), targets) == {
        first: {5433},
        second: {5433},
        witness: set(),
        vip: {5432, 5433},
    }
    MEASURED.append(f"firewall: two scans of 196,705 ports each: {time.monotonic() - began:.0f} s")


def test_whoever_runs_keadb_gets_ssh_and_a_named_client_the_database(settled: Site) -> None:
    """In the lab both stand on the bridge."""
    sample = _sample(settled)
    addresses = {host: str(settled.lab.address(host)) for host in _hosts(settled)}
    found = _scan_as(settled, None, dict.fromkeys([*addresses.values(), str(VIP)], sample))
    first, second = settled.database_hosts
    assert found == {
        addresses[first]: {22, 5432, 5433},
        addresses[second]: {22, 5432, 5433},
        addresses[_witness(settled)]: {22},
        str(VIP): {22, 5432, 5433},
    }


def test_the_sites_hosts_reach_each_other_on_what_they_need(settled: Site) -> None:
    """By the rules of both sides; and by those of the other side alone, with the scanner's own taken away."""
    sample = _sample(settled)
    addresses = {host: str(settled.lab.address(host)) for host in _hosts(settled)}
    etcd = {2379, 2380}
    for host in _hosts(settled):
        witness = host == _witness(settled)
        expected: dict[str, set[int]] = {}
        for other in addresses.keys() - {host}:
            database = other in settled.database_hosts
            expected[addresses[other]] = etcd | ({5432, 5433, 8008} if database else set())
            expected[addresses[other]] |= {6432} if database and not witness else set()
        targets = dict.fromkeys(expected, sample)
        assert _scan_from(settled, host, targets) == expected, host
        with _without_its_own_rules(settled, host):
            assert _scan_from(settled, host, targets) == expected, host
        # Through the holder's rules, or on itself.
        assert _scan_from(settled, host, {str(VIP): "5432,5433"}) == {str(VIP): {5432, 5433}}, host
    settled.wait_until_healthy()


SEND = """
import socket, sys
for ttl in (255, 64):
    s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 112)
    s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
    s.sendto(b"drill%d" % ttl, (sys.argv[1], 0))
"""
LISTEN = """
import json, socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 112)
print("listening", flush=True)
seen, end = set(), time.monotonic() + 6
while (left := end - time.monotonic()) > 0:
    s.settimeout(left)
    try:
        packet, (address, _) = s.recvfrom(200)
    except TimeoutError:
        break
    if packet[20:].startswith(b"drill"):
        seen.add((address, packet[20:].decode()))
print(json.dumps(sorted(seen)))
"""


def test_vrrp_is_heard_from_the_other_database_host_on_the_same_wire_only(settled: Site) -> None:
    first, second = settled.database_hosts
    target = str(settled.lab.address(first))
    listener = subprocess.Popen(
        settled.lab.exec_argv(first, ["python3", "-c", LISTEN]), stdout=subprocess.PIPE, text=True
    )
    assert listener.stdout
    assert listener.stdout.readline() == "listening\n"
    for address in (STRANGER, str(KEA_SERVER), None):
        assert settled.lab.ns([sys.executable, "-c", SEND, target], address=address).returncode == 0
    with _without_its_own_rules(settled, _witness(settled)):
        settled.lab.exec(_witness(settled), ["python3", "-c", SEND, target])
    assert settled.lab.exec(second, ["python3", "-c", SEND, target]).returncode == 0
    heard, _ = listener.communicate(timeout=30)
    assert json.loads(heard) == [[str(settled.lab.address(second)), "drill255"]]


def test_a_host_gets_nowhere_else(settled: Site) -> None:
    """To a machine that listens: no service of a host reaches it, root gets packages from it."""
    serve = "import socket, sys, time; s = [socket.create_server(('', p)) for p in (80, 443, 5432, 4444)]"
    argv = settled.lab.ns_argv(
        [sys.executable, "-c", f"{serve}; print('serving', flush=True); time.sleep(600)"], address=STRANGER
    )
    server = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        assert server.stdout.readline() == "serving\n"
        host = settled.database_hosts[0]
        argv = ["python3", "-", *_words({STRANGER: "80,443,5432,4444"}, 8)]
        as_postgres = ["runuser", "-u", "postgres", "--", *argv]
        assert _openings(settled.lab.exec(host, as_postgres, stdin=SCAN)) == {STRANGER: set()}
        assert _openings(settled.lab.exec(host, argv, stdin=SCAN)) == {STRANGER: {80, 443}}
    finally:
        server.terminate()
        server.wait(timeout=10)


def test_rules_that_cut_off_ssh_are_taken_back_and_the_error_says_so(settled: Site) -> None:
    """Nobody does anything: the hosts open again by themselves, and the run ends with the reason."""
    before = {host: _table(settled, host) for host in _hosts(settled)}

    def elsewhere(data: dict[str, Any]) -> None:
        data["network"]["deploy"] = [NOBODYS]

    began = time.monotonic()
    with settled.edited(elsewhere):
        done = settled.keadb("up", "--stack", settled.name, "--yes", check=False)
    MEASURED.append(f"firewall: a run that would cut off SSH failed after {time.monotonic() - began:.0f} s")
    assert done.returncode == 1
    for host in _hosts(settled):
        assert f"{host}: firewall-confirm" in done.stderr
    assert "were taken back, and those of before are in force" in done.stderr
    assert "network.deploy in the site file must name" in done.stderr
    for host in _hosts(settled):
        wait_for(f"the rules of before on {host}", partial(_is, settled, host, before[host]), 60)
    settled.require_health()
    again = settled.keadb("up", "--stack", settled.name, "--yes")
    assert "another version of firewall" in again.stdout + again.stderr
    settled.keadb("preview", "--stack", settled.name, "--expect-no-changes")
    settled.keadb("drift", "--stack", settled.name)
    assert {host: _table(settled, host) for host in _hosts(settled)} == before


def _is(site: Site, host: str, table: str) -> bool:
    return _table(site, host) == table


@contextlib.contextmanager
def _rules_by_hand(site: Site, host: str, change: Callable[[str], str]) -> Iterator[None]:
    """Have other rules in a host's file, as a run that was killed between loading and confirming left them."""
    text = site.lab.exec(host, ["cat", RULES]).stdout
    changed = change(text)
    assert changed != text
    write = ["sh", "-c", f"cat >{RULES}"]
    assert site.lab.exec(host, write, stdin=changed).returncode == 0
    try:
        yield
    finally:
        assert site.lab.exec(host, write, stdin=text).returncode == 0


def _say(site: Site, host: str, *words: str) -> subprocess.CompletedProcess[str]:
    return site.lab.exec(host, ["/usr/lib/keadb/keadb-apply", "firewall", *words])


def test_a_killed_run_leaves_no_unconfirmed_rules_and_broken_ones_change_nothing(settled: Site) -> None:
    host = _witness(settled)
    before = _table(settled, host)
    with _rules_by_hand(settled, host, lambda text: text.replace(f" {GATEWAY},", f" {NOBODYS},")):
        assert _say(settled, host, "load", "20").returncode == 0
        assert NOBODYS in _table(settled, host)
        wait_for("the timer", partial(_is, settled, host, before), 60)
        assert "were taken back" in _say(settled, host, "confirm").stderr
        assert _say(settled, host, "load", "60").returncode == 0
        settled.lab.power_off(host)  # nothing of it comes back with the machine
        settled.lab.power_on(host)
        assert _table(settled, host) == before
    with _rules_by_hand(settled, host, lambda text: text + "add rule inet keadb nowhere accept\n"):
        done = _say(settled, host, "load", "60")
        assert done.returncode == 1
        assert "nft does not take the rules, nothing was changed" in done.stderr
        assert _table(settled, host) == before
    assert _say(settled, host, "close").stdout == '{"changed": false}\n'
    settled.wait_until_healthy()
    wait_for("all of it healthy", lambda: not settled.status().get("problems"))
    settled.keadb("drift", "--stack", settled.name)


def test_a_restarted_host_is_closed_before_it_has_a_network(settled: Site) -> None:
    host = next(h for h in settled.database_hosts if h != settled.leader())
    before = _table(settled, host)
    settled.lab.power_off(host)
    settled.lab.power_on(host)
    assert _table(settled, host) == before
    show = ["systemctl", "show", "--property=ActiveEnterTimestampMonotonic", "--value"]
    units = [f"{UNIT}.service", "systemd-networkd.service", "ssh.service"]
    moments = [int(settled.lab.exec(host, [*show, unit]).stdout) for unit in units]
    assert 0 < moments[0] < min(moments[1:])
    settled.wait_until_healthy()


SESSION = """
import sys, time, psycopg
from pathlib import Path
link = psycopg.connect(sys.argv[1], autocommit=True)
print("connected", flush=True)
slowest = 0.0
while not Path(sys.argv[2]).exists():
    began = time.monotonic()
    link.execute("SELECT 1").fetchone()
    slowest = max(slowest, time.monotonic() - began)
    time.sleep(0.05)
print(f"{slowest:.2f}")
"""


def test_sessions_go_on_when_rules_are_loaded_and_when_there_were_none(settled: Site, tmp_path: Path) -> None:
    """Reloaded; and taken away and put in place again: the kernel forgets every connection with the last rule."""
    leader = settled.leader()
    assert leader
    stop = tmp_path / "stop"
    login, secret = settled.login("owner")
    argv = [f"--net=/run/netns/keadb-{settled.name}", sys.executable, "-c", SESSION, settled.conninfo(login)]
    environment = dict(os.environ, PGPASSWORD=settled.secrets()[secret])
    client = subprocess.Popen(["nsenter", *argv, str(stop)], stdout=subprocess.PIPE, text=True, env=environment)
    assert client.stdout
    assert client.stdout.readline() == "connected\n"
    for verb in ("reload", "stop", "start", "reload"):
        _sh(settled, leader, f"systemctl {verb} {UNIT}")
        time.sleep(1)
    stop.touch()
    slowest, _ = client.communicate(timeout=60)
    assert client.returncode == 0
    MEASURED.append(f"firewall: slowest answer of a session while rules came and went: {float(slowest):.2f} s")
    sent = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
    assert settled.sql(leader, sent) == "1"


def test_a_rule_added_by_hand_is_found_and_taken_away_on_request(settled: Site) -> None:
    host = _witness(settled)
    _sh(settled, host, "nft add rule inet keadb input tcp dport 9999 accept")
    done = settled.keadb("drift", "--stack", settled.name, check=False)
    assert done.returncode == 2
    assert f"{host}:table inet keadb" in done.stdout
    assert "+ tcp dport 9999 accept" in " ".join(done.stdout.split())
    settled.keadb("drift", "--stack", settled.name, "--restore", f"{host}:bundle:firewall-close")
    settled.keadb("drift", "--stack", settled.name)


def test_a_server_comes_and_goes(settled: Site) -> None:
    """Kea's second server: in with the site file, out with it; nobody else notices."""
    place = {str(VIP): "5432,5433"}
    assert _scan_as(settled, NOBODYS, place) == {str(VIP): set()}

    def more(data: dict[str, Any]) -> None:
        data["kea"]["servers"] = {**data["kea"]["servers"], "second-kea": NOBODYS}

    with settled.edited(more):
        settled.keadb("up", "--stack", settled.name, "--yes")
        assert _scan_as(settled, NOBODYS, place) == {str(VIP): {5432, 5433}}
    settled.keadb("up", "--stack", settled.name, "--yes")
    assert _scan_as(settled, NOBODYS, place) == {str(VIP): set()}
    settled.keadb("preview", "--stack", settled.name, "--expect-no-changes")
