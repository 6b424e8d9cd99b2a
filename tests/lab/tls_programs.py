"""The programs that are TLS clients in a site, each with what was rendered for it, pointed at another server.

Only addresses and ports differ from what runs: which certificate is shown, which CA is trusted and whose name is
wanted comes from the host's own files. Each gives a shell command, and the user that it runs as.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from components import pooler, proxy, virtual_address
from components.etcd_cluster import CONFIG as ETCD_CONFIG
from components.postgres_cluster import CONFIG as PATRONI_CONFIG
from tests.lab.tls_lab import FOLDER, read, write

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lab.harness import Site

TARGET = "127.0.0.1"


@dataclass(frozen=True)
class Program:
    """A client: how to run it against a port of a host's loopback, and what its server speaks."""

    command: Callable[[Site, str, int], str]
    protocol: str
    user: str = "postgres"
    checks_name: bool = True


def client(site: Site, _host: str, port: int) -> str:
    """Return libpq as clients are told to use it, by the service's name."""
    name = f"kea-db-primary.{site.name}.example.com"
    return (
        f"PGPASSWORD=none psql -c 'SELECT 1' 'host={name} hostaddr={TARGET} port={port} user=kea_read_a dbname=kea "
        "sslmode=verify-full sslrootcert=/etc/keadb/tls/ca.crt connect_timeout=5'"
    )


def walreceiver(site: Site, _host: str, port: int) -> str:
    """Return a replication connection with the standby's own primary_conninfo."""
    standby = next(m["name"] for m in site.members() if m["role"] == "sync_standby")
    conninfo = site.sql(standby, "SHOW primary_conninfo", "postgres")
    assert "sslmode=verify-full" in conninfo
    return f"psql -c IDENTIFY_SYSTEM '{_redirected(conninfo, port)} replication=1'"


def rewind(site: Site, host: str, port: int) -> str:
    """Return pg_rewind with the login that Patroni gives it; it asks the other server before it looks at its own."""
    login = yaml.safe_load(read(site, host, PATRONI_CONFIG))["postgresql"]["authentication"]["rewind"]
    settings = {"user" if key == "username" else key: value for key, value in login.items()}
    conninfo = " ".join(f"{key}={value}" for key, value in settings.items())
    source = f"host={TARGET} port={port} dbname=postgres {conninfo}"
    folder = write(site, host, "rewind", "").removesuffix("/rewind") + f"/data-{port}"
    return f"mkdir -m 0700 {folder}; /usr/lib/postgresql/15/bin/pg_rewind -n -D {folder} --source-server='{source}'"


def _redirected(conninfo: str, port: int) -> str:
    return re.sub(r"port=\S+", f"port={port}", re.sub(r"host=\S+", f"host={TARGET}", conninfo))


def pgbouncer(site: Site, host: str, port: int) -> str:
    """Return the pooler beside the running one, with a client that makes it ask PostgreSQL for a verifier."""
    start = f"{FOLDER}/read-at-start.ini"
    rules = write(site, host, "rules.conf", f"hostssl kea all {TARGET}/32 scram-sha-256\n")
    text = read(site, host, pooler.CONFIG).replace("port=5432", f"port={port}")
    config = write(
        site, host, "pgbouncer.ini", text.replace(pooler.READ_AT_START, start).replace(pooler.RULES, rules)
    )
    write(site, host, "read-at-start.ini", f"listen_addr = {TARGET}\nlisten_port = 26432\nunix_socket_dir =\n")
    asks = (
        f"PGPASSWORD=none psql 'host={TARGET} port=26432 user=kea_read_a dbname=kea sslmode=verify-full "
        "sslrootcert=/etc/keadb/tls/ca.crt'"
    )
    return f"pgbouncer {config} & sleep 0.5; {asks}; wait"


def haproxy(site: Site, host: str, port: int) -> str:
    """Return the proxy beside the running one; its checks ask for Patroni at the fake's port."""
    text = re.sub(r"connect port 8008 ssl", f"connect port {port} ssl", read(site, host, proxy.CONFIG))
    text = re.sub(r"(?m)^( +server \S+) [^:]+:", rf"\1 {TARGET}:", text)
    text = re.sub(r"(?m)^ +source .*$", "", text).replace(f"/run/{proxy.RUNTIME}", FOLDER)
    ports = iter(range(25001, 25100))
    text = re.sub(r"(?m)^( +bind) .*$", lambda match: f"{match[1]} {TARGET}:{next(ports)}", text)
    return f"haproxy -db -f {write(site, host, 'haproxy.cfg', text)}"


def check(site: Site, host: str, port: int) -> str:
    """Return the question of the virtual address's check to Patroni on the peer, as its own user asks it."""
    text = read(site, host, virtual_address.CHECK).replace(":8008", f":{port}")
    (peer,) = re.findall(r"if leads \S+ (\S+);", text)
    asks = text[: text.index("\nask_proxy\n")] + f"\nleads {TARGET} {peer}\n"
    return f"bash {write(site, host, 'check', asks)}"


def patroni_etcd(site: Site, host: str, port: int) -> str:
    """Return Patroni's own client of etcd, with its whole configuration but the members' addresses."""
    data = yaml.safe_load(read(site, host, PATRONI_CONFIG))
    data["etcd3"]["hosts"] = [f"{TARGET}:{port}"]
    # The password stays where it is: a fake that is believed would be told it.
    data["etcd3"]["password"] = "none"
    return f"patronictl -c {write(site, host, 'patroni-etcd.yml', yaml.safe_dump(data))} list"


def patroni_rest(site: Site, host: str, port: int) -> str:
    """Return the daemon's own client of its peers' REST API."""
    return _rest(site, host, port, insecure=True)


def patronictl_rest(site: Site, host: str, port: int) -> str:
    """Return patronictl's client of the REST API."""
    return _rest(site, host, port, insecure=None)


def _rest(site: Site, host: str, port: int, *, insecure: bool | None) -> str:
    data = yaml.safe_load(read(site, host, PATRONI_CONFIG))
    data["restapi"]["authentication"] = {"username": "none", "password": "none"}
    config = write(site, host, "patroni-rest.yml", yaml.safe_dump(data))
    script = (
        "import yaml; from patroni.request import PatroniRequest; "
        f"PatroniRequest(yaml.safe_load(open('{config}')), {insecure})"
        f".request('GET', 'https://{TARGET}:{port}/patroni', retries=False)"
    )
    return f'python3 -c "{script}"'


def steps(_site: Site, _host: str, port: int) -> str:
    """Return the client of keadb's own steps, of etcd and of the REST API alike, out of the applier on the host."""
    script = (
        "import sys; sys.path.insert(0, '/usr/lib/keadb/keadb-apply'); from pathlib import Path; "
        "from hostkit import etcd_client as c; from hostkit.context import Context; "
        "from hostkit.system import RealSystem; tls = c.tls_context(Context(Path('/'), RealSystem()), c.CLIENT_TLS); "
        f"c.fetch(c.Member('fake', '{TARGET}'), {port}, '/version', tls=tls)"
    )
    return f'python3 -c "{script}"'


def etcd_peer(site: Site, host: str, port: int) -> str:
    """Return a member that is born with a second one, the fake, and asks it for version and members."""
    data = yaml.safe_load(read(site, host, ETCD_CONFIG))
    data |= {
        "name": "beside",
        "data-dir": f"{FOLDER}/etcd-{port}",
        "listen-client-urls": f"https://{TARGET}:22379",
        "advertise-client-urls": f"https://{TARGET}:22379",
        "listen-peer-urls": f"https://{TARGET}:22380",
        "initial-advertise-peer-urls": f"https://{TARGET}:22380",
        "initial-cluster": f"beside=https://{TARGET}:22380,fake=https://{TARGET}:{port}",
    }
    return f"etcd --config-file={write(site, host, 'etcd.yml', json.dumps(data))}"


PROGRAMS = {
    "client (psql)": Program(client, "postgres"),
    "walreceiver": Program(walreceiver, "postgres"),
    "pg_rewind": Program(rewind, "postgres"),
    "PgBouncer to PostgreSQL": Program(pgbouncer, "postgres", "pgbouncer"),
    "HAProxy's check": Program(haproxy, "http", proxy.USER),
    "keepalived's check": Program(check, "http", virtual_address.USER),
    "Patroni to etcd": Program(patroni_etcd, "http"),
    "Patroni to a peer": Program(patroni_rest, "http", checks_name=False),
    "patronictl to Patroni": Program(patronictl_rest, "http"),
    "keadb's steps": Program(steps, "http", "root"),
    "etcd to a peer": Program(etcd_peer, "http", "etcd"),
}
