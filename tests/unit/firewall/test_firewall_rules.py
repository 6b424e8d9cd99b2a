"""The firewall's rules, from the site file: who may come to what, where a host may go, and nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest

from components import firewall
from keadb.site import Site, load_site
from keadb.stackfile import read_stack
from tests.unit.core.samples import ROOT, STACKS, Data, ha, put, single

DB1, DB2, WITNESS = "lab-kea-db-01", "lab-kea-db-02", "lab-kea-witness"
NUMBER = {DB1: 10, DB2: 11, WITNESS: 12}
ALL = set(NUMBER)
DEFINE = re.compile(r"^define (\w+) = \{\n(.*?)^\}\n", re.MULTILINE | re.DOTALL)


def everything() -> Data:
    """Return a site that uses every key the firewall looks at."""
    data = put(ha(), "kea/servers", {"lab-sprmcr-l01": "172.30.30.2"})
    for key, value in {
        "clients": ["172.30.40.0/26", "172.30.40.7", "172.30.30.20"],
        "deploy": ["172.30.30.1", "172.30.50.0/28"],
        "dns": ["172.30.30.1", "172.30.30.3"],
        "ntp": ["172.30.30.1"],
        "packages": ["172.30.50.9:3142"],
    }.items():
        data = put(data, f"network/{key}", value)
    return data


def rules(data: Data, host: str) -> str:
    """Return one host's rules."""
    return _rules(load_site(data, source="test"), host)


def _rules(site: Site, host: str) -> str:
    return firewall.firewall_bundle(site, site.hosts[host]).files[firewall.RULES].content


def lists(text: str) -> dict[str, set[str]]:
    """Return what the rules' lists hold."""
    found = {}
    for name, body in DEFINE.findall(text):
        entries = [line.partition("#")[0].strip().removesuffix(",") for line in body.splitlines()]
        assert len(entries) == len(set(entries)), name
        found[name] = set(entries)
    return found


def chain(text: str, name: str) -> list[str]:
    """Return a chain's lines, without comments."""
    body = text.partition(f"chain {name} {{\n")[2].partition("    }\n")[0]
    return [line.strip() for line in body.splitlines() if not line.strip().startswith("#")]


def pairs(ports: dict[int, set[str]]) -> set[str]:
    """Return entries "address . port" for hosts by port."""
    return {f"172.30.30.{NUMBER[host]} . {port}" for port, hosts in ports.items() for host in hosts}


DATABASES = {DB1, DB2}


@pytest.mark.parametrize("host", [DB1, DB2, WITNESS])
def test_the_sites_hosts_reach_each_other_on_exactly_what_each_needs(host: str) -> None:
    """The table of conventions: PostgreSQL, PgBouncer, Patroni, etcd."""
    found = lists(rules(ha(), host))
    etcd = {2379: ALL, 2380: ALL}
    database = {5432: ALL, 6432: DATABASES, 8008: ALL}
    assert found["peers_in"] == pairs(etcd if host == WITNESS else {**etcd, **database})
    asked = {5432: DATABASES, 8008: DATABASES, 5433: DATABASES, **etcd}
    assert found["peers_out"] == pairs(asked if host == WITNESS else {**asked, 6432: DATABASES})
    assert found["databases"] == {"172.30.30.10", "172.30.30.11"}
    assert found["vip"] == {"172.30.30.13"}


def test_dedicated_etcd_hosts_and_database_hosts_without_etcd() -> None:
    """Roles decide, not names: who carries no etcd opens no port of it, and still asks it."""
    data = put(ha(), f"hosts/{DB2}/roles", ["database"])
    other = {**ha()["hosts"][DB2], "roles": ["etcd"], "address": "172.30.30.14", "failure_domain": "hv-d"}
    other["ssh_host_key"] = other["ssh_host_key"][:-4] + "AAAA"
    data = put(data, "hosts/lab-kea-etcd", other)
    site = load_site(data, source="test")
    on_database, on_etcd = lists(_rules(site, DB2)), lists(_rules(site, "lab-kea-etcd"))
    assert not [entry for entry in on_database["peers_in"] if entry.endswith((". 2379", ". 2380"))]
    assert {e for e in on_database["peers_out"] if e.endswith(". 2380")} == set()
    assert {e for e in on_database["peers_out"] if e.endswith(". 2379")} == {
        f"172.30.30.{n} . 2379" for n in (10, 12, 14)
    }
    assert {e.rpartition(" ")[2] for e in on_etcd["peers_in"]} == {"2379", "2380"}
    assert "172.30.30.11 . 2379" in on_etcd["peers_in"]
    assert "172.30.30.11 . 2380" not in on_etcd["peers_in"]


def test_who_else_may_come_in() -> None:
    """SSH from the deploy sources; the way from Kea's servers, clients and own hosts; PostgreSQL from clients."""
    own = {f"172.30.30.{n}" for n in NUMBER.values()}
    clients = {"172.30.40.0/26", "172.30.30.20"}  # 172.30.40.7 lies in the network
    deploy = {"172.30.30.1", "172.30.50.0/28"}
    found = lists(rules(everything(), DB1))
    assert found["deploy"] == deploy
    assert found["way"] == {"172.30.30.2", *clients, *own}
    assert found["direct"] == clients
    assert found["known"] == deploy | found["way"]
    witness = lists(rules(everything(), WITNESS))
    assert witness["deploy"] == deploy
    assert witness["known"] == deploy | own
    assert not witness.keys() & {"way", "direct"}
    assert "direct" not in lists(rules(ha(), DB1))


VRRP = "ip saddr @databases ip protocol 112 ip ttl 255 accept"
COMING = [
    "ct state established,related accept",
    "ip saddr @deploy tcp dport 22 accept",
    "ip daddr != @vip ip saddr . tcp dport @peers_in accept",
]
COMING_TO_DATABASES = [
    "ip saddr @way ip daddr @vip tcp dport { 5432, 5433 } accept",
    "ip saddr @way ip daddr != @vip tcp dport 5433 accept",
    "ip saddr @direct ip daddr != @vip tcp dport 5432 accept",
]
COMING_LAST = [
    "ip saddr @known tcp flags & (fin | syn | rst | ack) != syn accept",
    "icmp type echo-request limit rate 20/second burst 50 packets accept",
    "ip6 hoplimit 255 icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept",
]
GOING = [
    'oif "lo" accept',
    "ct state established,related accept",
    "tcp flags & (fin | syn | rst | ack) != syn accept",
    "ip daddr . tcp dport @peers_out accept",
    "ip daddr @vip tcp dport { 5432, 5433 } accept",
]
GOING_FROM_DATABASES = ["ip daddr @databases ip protocol 112 accept"]
GOING_LAST = [
    "ip daddr { 172.30.30.1, 172.30.30.3 } meta l4proto { tcp, udp } th dport 53 accept",
    "ip daddr { 172.30.30.1 } udp dport 123 accept",
    "meta skuid { root, _apt } ip daddr . tcp dport { 172.30.50.9 . 3142 } accept",
    "icmp type { echo-request, destination-unreachable } accept",
    "ip6 hoplimit 255 icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept",
]


@pytest.mark.parametrize("host", [DB1, WITNESS])
def test_every_rule_that_lets_something_through(host: str) -> None:
    """Exactly these; whatever none of them takes is dropped, in all three chains."""
    text = rules(everything(), host)
    database = host == DB1
    coming, going = chain(text, "input"), chain(text, "output")
    first = ['iif "lo" accept', *([VRRP] if database else ())]
    accepted = [*first, *COMING, *(COMING_TO_DATABASES if database else ()), *COMING_LAST]
    assert [line for line in coming if line.endswith("accept")] == accepted
    accepted = [*GOING, *(GOING_FROM_DATABASES if database else ()), *GOING_LAST]
    assert [line for line in going if line.endswith("accept")] == accepted
    for name in ("input", "forward", "output"):
        hook = f"type filter hook {name} priority filter; policy drop;"
        assert chain(text, name)[0] == hook
    assert chain(text, "forward")[1:] == []
    assert text.count("chain ") == 3
    assert " jump " not in text
    assert " goto " not in text


def test_every_vrrp_packet_is_looked_at() -> None:
    """Before conntrack lets through what belongs to a conversation: a forged one would."""
    coming = chain(rules(everything(), DB1), "input")
    at = coming.index(VRRP)
    assert coming[at + 1 : at + 3] == ["ip protocol 112 drop", "ct state established,related accept"]


def test_names_and_time_only_where_the_site_has_them_and_packages_by_root_and_apt_only() -> None:
    going = chain(rules(ha(), DB1), "output")
    assert not [line for line in going if "dport 53" in line or "dport 123" in line]
    assert "meta skuid { root, _apt } tcp dport { 80, 443 } accept" in going


def test_the_ssh_port_is_the_hosts_own() -> None:
    data = put(ha(), f"hosts/{DB1}/ssh_port", 2222)
    assert "ip saddr @deploy tcp dport 2222 accept" in chain(rules(data, DB1), "input")
    assert "ip saddr @deploy tcp dport 22 accept" in chain(rules(data, DB2), "input")


def test_no_other_table_is_touched() -> None:
    text = rules(everything(), DB1)
    assert "flush" not in text
    assert re.findall(r"^(?:delete )?table .*$", text, re.MULTILINE) == [
        "table inet keadb",
        "delete table inet keadb",
        "table inet keadb {",
    ]


def _parsed(text: str) -> None:
    nft = shutil.which("nft", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if nft is None or os.geteuid() != 0:
        pytest.skip("nft reads the rules in a network namespace of its own: needs root and the package nftables")
    argv = ["unshare", "--net", "--", nft, "-c", "-f", "-"]
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("stack", STACKS)
def test_nft_reads_the_rules_of_every_host_of_every_site(stack: str) -> None:
    source = f"Pulumi.{stack}.yaml"
    site = read_stack((ROOT / source).read_text(), stack=stack, source=source)
    for host in site.hosts:
        _parsed(_rules(site, host))


@pytest.mark.parametrize("data", [everything(), ha(), single()], ids=["everything", "ha", "single"])
def test_nft_reads_the_rules_with_and_without_each_list(data: Data) -> None:
    for host in data["hosts"]:
        _parsed(rules(data, host))


def test_three_bundles_a_host_that_follow_each_other() -> None:
    site = load_site(ha(), source="test")
    for host, (load, confirm, close) in firewall.firewall_bundles(site).items():
        assert load.packages.install == ("nftables",)
        assert {load.host, confirm.host, close.host} == {host}
        assert [step.run[1:] for bundle in (load, confirm, close) for step in bundle.steps] == [
            ("firewall", "load", "40"),
            ("firewall", "confirm"),
            ("firewall", "close"),
        ]
        assert confirm.inputs == close.inputs == {f"{host}/firewall": load.digest()}


def test_the_hosts_start_with_what_was_confirmed_before_there_is_a_network() -> None:
    site = load_site(ha(), source="test")
    *_, close = firewall.firewall_bundles(site)[DB1]
    unit = close.files[firewall.UNIT_FILE].content.splitlines()
    for line in (
        "Before=network-pre.target shutdown.target",
        f"ExecStart=/usr/sbin/nft -f {firewall.CONFIRMED}",
        "WantedBy=sysinit.target",
        "DefaultDependencies=no",
    ):
        assert line in unit
    # Reloaded, never restarted: a stop takes the table away.
    assert close.units[firewall.UNIT].reload_on == (firewall.UNIT_FILE,)
    assert close.units[firewall.UNIT].restart_on == ()


def test_both_sides_agree_on_files_and_lists() -> None:
    """The host's side has no other way to know them."""
    from hostkit import firewall as on_host
    from hostkit import nftables

    assert (on_host.RULES, on_host.CONFIRMED) == (firewall.RULES, firewall.CONFIRMED)
    assert set(nftables.WIDENED) < set(lists(rules(ha(), DB1)))
