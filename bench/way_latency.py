"""What each hop costs Kea's own lookup: run against a lab, prints a table.

usage: python -m bench.way_latency LAB [--rounds N] [--hosts N ...]   (as root, from the repository's folder)

One connection by each way, all of them open at once; a round sends one prepared lookup by each of them in turn, so
that whatever else the machine does hits all alike. The ways: the virtual address and the node's pooler; the virtual
address and PostgreSQL directly (through a pooler that is stopped for the moment in which that connection is made);
the leader's PostgreSQL over the network; and the same by loopback on the leader, all of them with TLS. Stops and
starts the leader's pooler once for each table. With ``--hosts`` the reservations are first made as many as said, one
table for each number, and those that were added are deleted in the end. Measures nothing about load: for that use
pgbench.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from bench.reservations import Reservations

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keadb.site import Site
    from lab.api import Lab

LOOKUP = """
SELECT h.host_id, h.dhcp_identifier, h.dhcp_identifier_type, h.dhcp4_subnet_id, h.dhcp6_subnet_id, h.ipv4_address,
  h.hostname, h.dhcp4_client_classes, h.dhcp6_client_classes, h.user_context, h.dhcp4_next_server,
  h.dhcp4_server_hostname, h.dhcp4_boot_file_name, h.auth_key, o.option_id, o.code, o.value, o.formatted_value,
  o.space, o.persistent, o.cancelled, o.user_context
FROM hosts AS h LEFT JOIN dhcp4_options AS o ON h.host_id = o.host_id
WHERE h.dhcp4_subnet_id = %s AND h.dhcp_identifier_type = %s AND h.dhcp_identifier = %s
ORDER BY h.host_id, o.option_id
"""
"""The statement that Kea prepares for a reservation by subnet and identifier."""
KEYS = "SELECT dhcp4_subnet_id, dhcp_identifier_type, dhcp_identifier FROM hosts ORDER BY random() LIMIT 5000"
WARM_UP = 200
DIRECT = "VIP, direct"
LOCAL = "loopback"


def measure(request: dict[str, Any]) -> dict[str, list[float]]:
    """Return seconds by way; runs inside the lab's network."""
    connections = {}
    for name, conninfo in request["ways"].items():
        if name == DIRECT:
            _ask_for("stop")
        with _network_of(request["leader"] if name == LOCAL else "self"):
            connections[name] = psycopg.connect(conninfo, autocommit=True, prepare_threshold=0)
        if name == DIRECT:
            _ask_for("start")
    keys = next(iter(connections.values())).execute(KEYS).fetchall()
    taken: dict[str, list[float]] = {name: [] for name in connections}
    order = list(connections)
    for number in range(request["rounds"] + WARM_UP):
        random.shuffle(order)
        key = random.choice(keys)  # noqa: S311 - not for cryptography
        for name in order:
            began = time.perf_counter()
            found = connections[name].execute(LOOKUP, key).fetchall()
            ended = time.perf_counter()
            if not found:
                message = f"{name}: no reservation for {key}"
                raise SystemExit(message)
            if number >= WARM_UP:
                taken[name].append(ended - began)
    return taken


@contextlib.contextmanager
def _network_of(process: str) -> Iterator[None]:
    """Be in the network of a process for a while; connections made there stay there."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/self/ns/net").open("rb") as here, Path(f"/proc/{process}/ns/net").open("rb") as there:
        libc.setns(there.fileno(), 0)
        try:
            yield
        finally:
            libc.setns(here.fileno(), 0)


def _ask_for(word: str) -> None:
    """Have the leader's pooler stopped or started by whoever started this, outside the lab's network."""
    print(word, flush=True)  # noqa: T201 - the word itself
    sys.stdin.readline()


def main(lab_name: str, rounds: int, counts: list[int]) -> None:
    """Print a table for each number of hosts; the measurement itself runs inside the lab's network."""
    from keadb.stackfile import read_stack  # noqa: PLC0415 - the half inside the network needs none of it
    from lab.api import Lab  # noqa: PLC0415

    lab = Lab(lab_name)
    site = read_stack(lab.spec.site_file.read_text(), stack=lab_name, source=str(lab.spec.site_file))
    ask = ["patronictl", "-c", "/etc/patroni/config.yml", "list", "-f", "json"]
    members = json.loads(lab.exec(site.database_hosts[0].name, ask).stdout)
    leader = next(m["Member"] for m in members if m["Role"] == "Leader")
    hosts = Reservations(lab, leader)
    before = hosts.count()
    try:
        for number in counts or [before]:
            hosts.grow_to(number)
            print(f"{hosts.count()} reservations, {rounds} rounds, load {os.getloadavg()[0]:.1f}")  # noqa: T201
            _measured(lab, site, leader, rounds)
    finally:
        hosts.shrink()


def _measured(lab: Lab, site: Site, leading: str, rounds: int) -> None:
    from keadb import clients  # noqa: PLC0415 - see main
    from ops.secrets import secret_values  # noqa: PLC0415
    from ops.stacks import resolve  # noqa: PLC0415

    leader = site.hosts[leading]
    ca = lab.spec.folder / "ca.crt"
    ca.write_text(lab.exec(leader.name, ["cat", "/etc/keadb/tls/ca.crt"]).stdout)
    network = f"user=kea_read_{site.logins.read} sslrootcert={ca}"
    direct = f"host={site.fqdn(leader)} hostaddr={leader.address} port=5432 dbname=kea sslmode=verify-full {network}"
    request = {
        "rounds": rounds,
        "leader": _process_of(leader.name),
        "ways": {
            # First: the pooler's end would cut the others.
            DIRECT: f"{clients.conninfo(site)} {network}",
            "VIP, pooler": f"{clients.conninfo(site)} {network}",
            "node, TLS": direct,
            LOCAL: direct.replace(f"hostaddr={leader.address}", "hostaddr=127.0.0.1"),
        },
    }
    environment = dict(
        os.environ, PGPASSWORD=secret_values(resolve(lab.spec.name))[f"kea_read_{site.logins.read}_password"]
    )
    with subprocess.Popen(  # noqa: S603 - this module, inside the lab's network
        lab.ns_argv([sys.executable, "-m", "bench.way_latency", "--inside", json.dumps(request)]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        if process.stdin is None or process.stdout is None:  # both are pipes: for the type checker
            raise AssertionError
        for line in process.stdout:
            if line.strip() in {"stop", "start"}:
                lab.exec(leader.name, ["systemctl", line.strip(), "pgbouncer"])
                time.sleep(3)
                process.stdin.write("\n")
                process.stdin.flush()
            else:
                _table(json.loads(line))
    if process.returncode:
        raise SystemExit(process.returncode)


def _process_of(host: str) -> str:
    """Return one of the host's processes by this machine's number of it: its proxy."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            is_proxy = (process / "comm").read_text().strip() == "haproxy"
            if is_proxy and (process / "root/etc/keadb/host").read_text().strip() == host:
                return process.name
        except OSError:
            continue
    message = f"no process of {host} is seen from here"
    raise SystemExit(message)


def _table(taken: dict[str, list[float]]) -> None:
    base = statistics.median(taken[LOCAL])
    print(f"{'way':<14}{'p50 ms':>9}{'p99 ms':>9}{'p50 ratio':>11}")  # noqa: T201 - a command's output
    for name, values in taken.items():
        p99 = statistics.quantiles(values, n=100)[98]
        p50 = statistics.median(values)
        print(f"{name:<14}{p50 * 1000:>9.3f}{p99 * 1000:>9.3f}{p50 / base:>11.1f}")  # noqa: T201


if __name__ == "__main__":
    if sys.argv[1] == "--inside":
        print(json.dumps(measure(json.loads(sys.argv[2]))))  # noqa: T201
    else:
        words = argparse.ArgumentParser(description="What each hop costs Kea's own lookup, on a lab.")
        words.add_argument("lab")
        words.add_argument("--rounds", type=int, default=3000)
        words.add_argument("--hosts", type=int, nargs="+", default=[], metavar="N")
        given = words.parse_args()
        main(given.lab, given.rounds, given.hosts)
