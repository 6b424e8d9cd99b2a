"""Pooler, proxy and virtual address: what is rendered, in the words of the programs that read it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from components import pooler, proxy, virtual_address
from components.base_system import base_bundle
from keadb import clients
from keadb.bundle import Bundle
from keadb.site import Site, load_site
from lab import image
from tests.unit.core.samples import ha, put, single

DB1, DB2 = "lab-kea-db-01", "lab-kea-db-02"
NOT_RELOADED = ("listen_addr", "listen_port", "unix_socket_dir", "unix_socket_mode")
"""What PgBouncer 1.24 names as not changeable (SHOW CONFIG) of what we set."""


def site_of(data: dict[str, Any]) -> Site:
    """Return a sample's site."""
    return load_site(data, source="test")


def bundles(data: dict[str, Any], host: str = DB1) -> dict[str, Bundle]:
    """Return the three bundles of one host by name."""
    site = site_of(data)
    made = (pooler.pooler_bundle, proxy.proxy_bundle, virtual_address.virtual_address_bundle)
    return {bundle.name: bundle for bundle in (make(site, site.hosts[host]) for make in made)}


def text(data: dict[str, Any], name: str, path: str, host: str = DB1) -> str:
    """Return one rendered file."""
    return bundles(data, host)[name].files[path].content


def target(program: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program that reads a configuration, with ``folder`` as /mnt, out of the lab's image, else skip."""
    root = image.path()
    if os.geteuid() != 0 or not root.is_dir():
        pytest.skip(f"{program} is run out of the lab's image: needs root and an image (keadb lab up)")
    # keepalived wants an interface that is there; a bridge is one that every machine can make.
    script = 'ip link add site0 type bridge; mount --bind "$1" "$2/mnt"; root=$2; shift 2; exec chroot "$root" "$@"'
    return subprocess.run(
        [
            *("unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", script, "sh"),
            *(str(folder), str(root), program, *arguments),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("data", [ha(), single()], ids=["ha", "single"])
def test_haproxy_reads_its_file(data: dict[str, Any], tmp_path: Path) -> None:
    shutil.copy("/etc/ssl/certs/ca-certificates.crt", tmp_path / "ca.crt")
    (tmp_path / "haproxy.cfg").write_text(
        text(data, "proxy", proxy.CONFIG).replace(proxy.CA_FILE, "/mnt/ca.crt").replace(proxy.STATE_FILE, "/dev/null")
    )
    done = target("haproxy", tmp_path, "-c", "-f", "/mnt/haproxy.cfg")
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr


@pytest.mark.parametrize("data", [ha(), single()], ids=["ha", "single"])
def test_keepalived_reads_its_file(data: dict[str, Any], tmp_path: Path) -> None:
    files = bundles(data)["virtual-address"].files
    tmp_path.chmod(0o755)
    (tmp_path / "check").write_text(files[virtual_address.CHECK].content)
    (tmp_path / "check").chmod(0o755)
    (tmp_path / "interface").write_text("$INTERFACE=site0\n")
    config = files[virtual_address.CONFIG].content
    for there, here in (
        (virtual_address.INTERFACE_FILE, "/mnt/interface"),
        (virtual_address.CHECK, "/mnt/check"),
        (f"{virtual_address.SCRIPT_USER} {virtual_address.SCRIPT_USER}", "nobody nogroup"),
    ):
        assert there in config
        config = config.replace(there, here)
    (tmp_path / "keepalived.conf").write_text(config)
    done = target("keepalived", tmp_path, "-t", "-f", "/mnt/keepalived.conf")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("bundle", "path"),
    [("virtual-address", virtual_address.CHECK), ("virtual-address", virtual_address.FIND_INTERFACE)],
)
@pytest.mark.parametrize("data", [ha(), single()], ids=["ha", "single"])
def test_scripts_are_clean_shell(data: dict[str, Any], bundle: str, path: str, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(text(data, bundle, path))
    shellcheck = Path(sys.executable).parent / "shellcheck"
    done = subprocess.run([str(shellcheck), str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


class TestPooler:
    def test_what_cannot_be_reloaded_stands_in_the_file_that_restarts(self) -> None:
        bundle = bundles(ha())["pooler"]
        unit = bundle.units[pooler.UNIT]
        for key in NOT_RELOADED:
            assert f"{key} = " in bundle.files[pooler.READ_AT_START].content
            assert f"{key} = " not in bundle.files[pooler.CONFIG].content
        assert pooler.READ_AT_START in unit.restart_on
        assert {pooler.CONFIG, pooler.RULES, *pooler.TLS.values()} == set(unit.reload_on)

    def test_the_included_file_has_no_section_of_its_own(self) -> None:
        """Entering a section twice puts back the defaults of everything read before: it would listen nowhere."""
        lines = text(ha(), "pooler", pooler.READ_AT_START).splitlines()
        assert not [line for line in lines if line.startswith("[")]
        config = text(ha(), "pooler", pooler.CONFIG)
        assert config.index("[pgbouncer]") < config.index("%include")

    def test_every_hop_is_tls_and_verified_and_there_is_no_password(self) -> None:
        bundle = bundles(ha())["pooler"]
        config = bundle.files[pooler.CONFIG].content.splitlines()
        for line in ("client_tls_sslmode = require", "server_tls_sslmode = verify-full", "auth_type = hba"):
            assert line in config
        assert bundle.secrets == ()
        assert "auth_file" not in bundle.files[pooler.CONFIG].content

    def test_only_the_proxies_come_in(self) -> None:
        data = put(put(ha(), "network/clients", ["172.30.30.1"]), "kea/servers", {"lab-kea": "172.30.30.2"})
        rules = [line for line in text(data, "pooler", pooler.RULES).splitlines() if not line.startswith("#")]
        assert rules == [f"hostssl kea all 172.30.30.{n}/32 scram-sha-256" for n in (10, 11)]

    @pytest.mark.parametrize(("connections", "size"), [(100, 20), (35, 10), (25, 5)])
    def test_two_logins_leave_room_for_others(self, connections: int, size: int) -> None:
        data = put(ha(), "postgresql/max_connections", connections)
        assert pooler.pool_size(site_of(data)) == size
        assert f"max_db_connections = {2 * size}" in text(data, "pooler", pooler.CONFIG)
        assert pooler.pool_size(site_of(put(data, "pooler/pool_size", 4))) == 4


class TestProxy:
    def test_who_may_come_in(self) -> None:
        data = put(put(ha(), "network/clients", ["172.30.40.0/26"]), "kea/servers", {"lab-kea": "172.30.30.2"})
        expected = ["172.30.30.2/32", "172.30.40.0/26", *(f"172.30.30.{n}/32" for n in (13, 10, 11, 12))]
        assert clients.sources(site_of(data)) == expected
        config = text(data, "proxy", proxy.CONFIG)
        assert config.count(f"reject unless {{ src {' '.join(expected)} }}") == 2

    def test_it_listens_where_it_should_and_its_socket_is_not_on_the_network(self) -> None:
        lines = [line.strip() for line in text(ha(), "proxy", proxy.CONFIG, DB2).splitlines()]
        binds = [line.removeprefix("bind ") for line in lines if line.startswith("bind ")]
        assert binds == ["172.30.30.13:5432", "172.30.30.13:5433", "172.30.30.11:5433", "127.0.0.1:8405"]
        (socket,) = [line for line in lines if line.startswith("stats ")]
        assert socket.startswith(f"stats socket {proxy.SOCKET} mode 600 ")

    def test_every_checked_server_is_verified_by_its_name(self) -> None:
        lines = [line.strip() for line in text(ha(), "proxy", proxy.CONFIG).splitlines()]
        servers = [line.split() for line in lines if line.startswith("server ")]
        assert len(servers) == 10
        for server in servers:
            name, rest = server[1], server[3:]
            assert rest in (["check", "verifyhost", f"{name}.example.com"], ["track", f"write_direct/{name}"])
        (default,) = [line for line in lines if line.startswith("default-server ")]
        assert "verify required" in default
        assert "on-marked-down shutdown-sessions" in default

    def test_the_measured_checks_are_the_defaults_and_others_can_be_said(self) -> None:
        timings = {"interval_ms": 3000, "fast_ms": 1000, "down_ms": 2000, "timeout_ms": 15000, "fall": 4, "rise": 5}
        for data, answer, looks in (
            (ha(), "700ms", "inter 500ms fastinter 250ms downinter 250ms fall 3 rise 1 "),
            (
                put(ha(), "proxy/check", timings),
                "15000ms",
                "inter 3000ms fastinter 1000ms downinter 2000ms fall 4 rise 5 ",
            ),
        ):
            config = text(data, "proxy", proxy.CONFIG)
            assert f"    timeout check {answer}\n" in config
            assert f"    default-server {looks}on-marked-down" in config

    def test_a_change_reloads_and_nothing_else(self) -> None:
        unit = bundles(ha())["proxy"].units[proxy.UNIT]
        assert unit.reload_on == (proxy.CONFIG,)
        assert proxy.CONFIG not in unit.restart_on

    def test_the_virtual_address_may_be_bound_where_it_is_not(self) -> None:
        site = site_of(ha())
        kernel = {
            name: base_bundle(site, host).files["/etc/sysctl.d/60-keadb.conf"].content
            for name, host in site.hosts.items()
        }
        having = [name for name, settings in kernel.items() if "net.ipv4.ip_nonlocal_bind = 1" in settings]
        assert having == [DB1, DB2]


class TestVirtualAddress:
    def test_priorities_differ_and_peers_are_each_others(self) -> None:
        for host, priority, own, peer in ((DB1, 110, 10, 11), (DB2, 100, 11, 10)):
            config = text(ha(), "virtual-address", virtual_address.CONFIG, host)
            assert f"    priority {priority}\n" in config
            assert f"unicast_src_ip 172.30.30.{own}\n" in config
            assert f"        172.30.30.{peer} min_ttl 255 max_ttl 255\n" in config
            assert "nopreempt" in config
            assert "weight" not in config.replace("No weight", "")

    @pytest.mark.parametrize(
        ("advert", "seconds", "silence"), [(None, "0.4", "1.2"), (1000, "1", "3"), (2010, "2.01", "6.03")]
    )
    def test_the_advert_is_told_in_seconds(self, advert: int | None, seconds: str, silence: str) -> None:
        data = ha() if advert is None else put(ha(), "virtual_address/advert_ms", advert)
        config = text(data, "virtual-address", virtual_address.CONFIG)
        assert f"    advert_int {seconds}\n" in config
        assert f"silent for {silence} s and" in config

    def test_alone_it_has_no_peer_and_holds_the_address_whatever_the_proxy_says(self) -> None:
        assert "unicast" not in text(single(), "virtual-address", virtual_address.CONFIG)
        check = text(single(), "virtual-address", virtual_address.CHECK)
        assert check.rstrip().endswith("exit 0")

    @pytest.mark.parametrize(("vip", "number"), [("172.30.30.13", 13), ("172.30.31.0", 255)])
    def test_vrrps_number_is_one_that_vrrp_has(self, vip: str, number: int) -> None:
        data = put(put(ha(), "network/subnet", "172.30.30.0/23"), "network/vip", vip)
        assert virtual_address.router_id(site_of(data)) == number


class TestClients:
    def test_clients_go_by_the_service_names_and_steps_to_the_nodes(self) -> None:
        site = site_of(ha())
        common = "dbname=kea sslmode=verify-full connect_timeout=2"
        assert (
            clients.conninfo(site) == f"host=kea-db-primary.lab.example.com hostaddr=172.30.30.13 port=5432 {common}"
        )
        standby = "kea-db-standby.lab.example.com"
        assert clients.read_conninfo(site) == (
            f"host={standby},{standby},{standby} hostaddr=172.30.30.13,172.30.30.10,172.30.30.11 port=5433 {common}"
        )
        assert clients.direct_conninfo(site) == (
            f"host={DB1}.example.com,{DB2}.example.com hostaddr=172.30.30.10,172.30.30.11 port=5432 {common} "
            "target_session_attrs=read-write"
        )
