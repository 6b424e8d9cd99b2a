"""A throw-away PostgreSQL with TLS and scram, and a stand-in for kea-admin with its exit codes."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hostkit.system import Completed, RealSystem

PG_BIN = next(
    (
        d
        for d in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
        if (d / "initdb").exists() and (d / "psql").exists()
    ),
    None,
)

KEA_ADMIN = """#!/bin/sh
# Exit codes and last lines of kea-admin 2.6: 3 without a schema, 2 for a database that is not empty, 1 for the rest.
[ "$1" = "--version" ] && { echo "${FAKE_KEA:-2.6.3}"; exit 0; }
command=$1; shift 2
while [ $# -gt 0 ]; do
    case $1 in -h) PGHOST=$2 ;; -P) PGPORT=$2 ;; -u) PGUSER=$2 ;; -n) PGDATABASE=$2 ;; *) exit 9 ;; esac
    shift 2
done
export PGHOST PGPORT PGUSER PGDATABASE PGPASSWORD="$KEA_ADMIN_DB_PASSWORD"
echo "reading the password from KEA_ADMIN_DB_PASSWORD"
sql() { PSQL -X -A -t -q -v ON_ERROR_STOP=1 "$@"; }
version() { echo "SELECT version || '.' || minor FROM schema_version" | sql; }
case $command in
db-version) version || { rc=$?; echo "Failed to get schema version, pgsql status $rc"; exit $rc; } ;;
db-init)
    found=$(sql -c '\\d') || exit 1
    [ -z "$found" ] || { echo "Expected empty database"; exit 2; }
    sql -1 -f "SCHEMA" || exit 1 ;;
db-upgrade) sql -c "UPDATE schema_version SET version = 22, minor = 2" || exit 1 ;;
*) exit 9 ;;
esac
"""
SCHEMA = """
CREATE TABLE schema_version (version int PRIMARY KEY, minor int);
INSERT INTO schema_version VALUES (22, 2);
CREATE TABLE hosts (host_id serial PRIMARY KEY, dhcp4_subnet_id bigint);
CREATE TABLE dhcp4_options (option_id serial PRIMARY KEY);
CREATE TABLE dhcp6_options (option_id serial PRIMARY KEY);
CREATE TABLE ipv6_reservations (reservation_id serial PRIMARY KEY);
CREATE TABLE lease4 (address bigint PRIMARY KEY);
"""


@dataclass(frozen=True)
class Server:
    """A running server: its socket folder, port, the CA that signed its certificate, and who the superuser is."""

    sockets: Path
    port: int
    ca: Path
    superuser: str
    log: Path


class LocalSystem(RealSystem):
    """The real system, pointed at the test's server where a host would use the default socket."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.seen: list[tuple[Sequence[str], str]] = []

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        input: str | None = None,  # noqa: A002 -- as in System
        check: bool = True,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> Completed:
        self.seen.append((list(argv), input or ""))
        default = {"PGHOST": str(self._server.sockets), "PGPORT": str(self._server.port)}
        if user == pwd.getpwuid(os.geteuid()).pw_name:
            user = None
        return super().run(
            argv,
            timeout=timeout,
            input=input,
            check=check,
            env={**default, **(env or {})},
            user=user,
            progress=progress,
        )


@contextlib.contextmanager
def running(base: Path, me: str) -> Iterator[Server]:
    assert PG_BIN is not None
    data, sockets = base / "data", base / "sockets"
    for folder in (data, sockets):
        folder.mkdir(mode=0o700 if folder == data else 0o755)
    ca = _certificates(base)
    if os.geteuid() == 0:
        for path in (data, sockets, base / "server.key"):
            shutil.chown(path, me, me)
    account = {"user": me} if os.geteuid() == 0 else {}
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    subprocess.run(
        [PG_BIN / "initdb", "-D", data, "-U", me, "-A", "peer", "--no-sync", "-E", "UTF8", "--locale=C"],
        check=True,
        capture_output=True,
        cwd="/",
        **account,  # type: ignore[call-overload]
    )
    (data / "pg_hba.conf").write_text("local all all peer\nhostssl all all 127.0.0.1/32 scram-sha-256\n")
    arguments = ["-F", "-p", str(port), "-k", str(sockets), "-h", "127.0.0.1"]
    for setting in (
        "ssl=on",
        f"ssl_cert_file={base}/server.crt",
        f"ssl_key_file={base}/server.key",
        "shared_buffers=16MB",
        "log_statement=all",
        "max_connections=20",
    ):
        arguments += ["-c", setting]
    log = base / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [PG_BIN / "postgres", "-D", data, *arguments],
            stdout=out,
            stderr=out,
            cwd="/",
            **account,  # type: ignore[call-overload]
        )
    try:
        for _ in range(100):
            ready = subprocess.run(
                [PG_BIN / "pg_isready", "-q", "-h", sockets, "-p", str(port)], check=False, timeout=10
            )
            if ready.returncode == 0:
                break
            try:
                process.wait(timeout=0.1)
            except subprocess.TimeoutExpired:
                continue
            pytest.fail(log.read_text())
        yield Server(sockets=sockets, port=port, ca=ca, superuser=me, log=log)
    finally:
        process.terminate()
        process.wait(timeout=30)


def _certificates(base: Path) -> Path:
    """Make a CA and a server certificate for the names that the plan uses; return the CA's path."""
    now = dt.datetime.now(dt.UTC)

    def certificate(
        name: str, key: ec.EllipticCurvePrivateKey, issuer: str, by: ec.EllipticCurvePrivateKey, *, ca: bool
    ) -> x509.Certificate:
        def named(common: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])

        return (
            x509.CertificateBuilder()
            .subject_name(named(name))
            .issuer_name(named(issuer))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName(
                    [x509.DNSName("db-01.test"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
                ),
                critical=False,
            )
            .sign(by, hashes.SHA256())
        )

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    for name, made in (
        ("ca.crt", certificate("ca", ca_key, "ca", ca_key, ca=True)),
        ("server.crt", certificate("db-01.test", key, "ca", ca_key, ca=False)),
    ):
        (base / name).write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (base / "server.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (base / "server.key").chmod(0o600)
    return base / "ca.crt"
