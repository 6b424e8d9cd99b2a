"""Bad site files: what is changed in a valid one, and the one problem of services, dates and keys."""

from __future__ import annotations

import datetime as dt

from keadb.versions import FLOORS
from tests.unit.core.samples import Data, ha, host_key, put, says, single

DAY = 'a day from 2020 to 2100 as "YYYY-MM-DD"'
HOST_KEY = 'one line "ssh-ed25519 AAAA..." as in /etc/ssh/ssh_host_ed25519_key.pub'
OWN = "parameters that keadb does not set itself"
ARCHIVE = {"url": "https://example.com/etcd.tar.gz", "sha256": "0" * 64}
PACKAGE = 'the full version of a package as "apt-cache madison PACKAGE" shows it, quoted, such as "15.14-0+deb12u1"'
FIT = "versions of etcd and Patroni that work together"
MISMATCH = "etcd 3.5.28-1 (from 3.5.28 on) needs Patroni 4.1.1, not 4.0.7-3~deb13u1: it asks for authentication"
DB1, DB2 = "hosts/lab-kea-db-01", "hosts/lab-kea-db-02"

SETTINGS: dict[str, tuple[Data, str]] = {
    "sync with one database": (
        put(single(), "patroni/synchronous_mode", True),
        says(
            "patroni.synchronous_mode",
            "waits for a standby that cannot be there",
            "true",
            "false, or two database hosts",
        ),
    ),
    "pools larger than PostgreSQL": (
        put(ha(), "pooler/pool_size", 43),
        says(
            "pooler.pool_size",
            "leaves PostgreSQL no connection for anybody else",
            "43",
            "at most (max_connections - 15) / 2 = 42",
        ),
    ),
    "pool of one": (
        put(ha(), "pooler/pool_size", 1),
        says(
            "pooler.pool_size",
            "is too small",
            "1",
            "a whole number from 2 to 400 (connections to PostgreSQL for each login)",
        ),
    ),
    "no lag allowed": (
        put(ha(), "proxy/read_lag_mb", 0),
        says("proxy.read_lag_mb", "is too small", "0", "a whole number from 1 to 10240 (MiB)"),
    ),
    "looks faster than HAProxy can": (
        put(ha(), "proxy/check/interval_ms", 50),
        says("proxy.check.interval_ms", "is too small", "50", "a whole number from 100 to 10000 (ms)"),
    ),
    "a changing node is looked at less often": (
        put(ha(), "proxy/check/fast_ms", 501),
        says(
            "proxy.check.fast_ms",
            "looks at a node that is changing less often than at one that is not",
            "501",
            "at most interval_ms = 500",
        ),
    ),
    "never down": (
        put(ha(), "proxy/check/fall", 0),
        says("proxy.check.fall", "is too small", "0", "a whole number from 1 to 10 (looks in a row that fail)"),
    ),
    "HAProxy's name of a key": (
        put(ha(), "proxy/check/inter", 500),
        says(
            "proxy.check.inter",
            'is not a known key; did you mean "interval_ms"?',
            "500",
            "interval_ms, fast_ms, down_ms, timeout_ms, fall, rise",
        ),
    ),
    "an advert finer than VRRP can tell": (
        put(ha(), "virtual_address/advert_ms", 405),
        says(
            "virtual_address.advert_ms",
            "is finer than it can be told",
            "405",
            "a whole number from 100 to 10000 in steps of 10 (ms)",
        ),
    ),
    "ttl below Patroni's floor": (
        put(ha(), "patroni/ttl", 19),
        says("patroni.ttl", "is too small", "19", "a whole number from 20 to 300 (s)"),
    ),
    "loop_wait 0": (
        put(ha(), "patroni/loop_wait", 0),
        says("patroni.loop_wait", "is too small", "0", "a whole number from 1 to 60 (s)"),
    ),
    "retry_timeout 2": (
        put(ha(), "patroni/retry_timeout", 2),
        says("patroni.retry_timeout", "is too small", "2", "a whole number from 3 to 120 (s)"),
    ),
    "lease shorter than its retries": (
        put(ha(), "patroni/loop_wait", 11),
        says(
            "patroni.ttl",
            "ends the leader's lease before Patroni has retried",
            "20",
            "at least loop_wait + 2 * retry_timeout = 21",
        ),
    ),
    "yes/no as text": (
        put(ha(), "patroni/synchronous_mode", "true"),
        says("patroni.synchronous_mode", "is not a yes or no", '"true"', "true or false"),
    ),
    "election too close to the heartbeat": (
        put(ha(), "etcd/heartbeat_ms", 600),
        says(
            "etcd.election_ms",
            "elects anew after too few lost heartbeats",
            "2500",
            "at least 5 * heartbeat_ms = 3000",
        ),
    ),
    "election above etcd's limit": (
        put(ha(), "etcd/election_ms", 50_001),
        says("etcd.election_ms", "is too large", "50001", "a whole number from 500 to 50000 (ms)"),
    ),
    "archive where a package is": (
        put(ha(), "etcd/archive", ARCHIVE),
        says(
            "etcd.archive",
            "is not used: debian-13 has a package of etcd 3.5",
            '"https://example.com/etcd.tar.gz"',
            "nothing",
        ),
    ),
    "no archive where none is packaged": (
        put(put(ha(), "platform", "ubuntu-24.04"), "kea/version", "3.0"),
        says(
            "etcd.archive",
            "is missing: ubuntu-24.04 has no etcd 3.5",
            "nothing",
            "url and sha256 of a release archive",
        ),
    ),
    "archive of an etcd below the floor": (
        put(
            put(put(ha(), "platform", "ubuntu-24.04"), "kea/version", "3.0"),
            "etcd/archive",
            ARCHIVE | {"url": "https://example.com/etcd-v3.4.34-linux-amd64.tar.gz"},
        ),
        says(
            "etcd.archive.url",
            f"names etcd 3.4.34, which is below 3.5: {FLOORS['etcd'].reason}",
            '"https://example.com/etcd-v3.4.34-linux-amd64.tar.gz"',
            "etcd 3.5 or later",
        ),
    ),
    "archive over plain http": (
        put(ha(), "etcd/archive", ARCHIVE | {"url": "http://example.com/etcd.tar.gz"}),
        says(
            "etcd.archive.url",
            "is not of the right form",
            '"http://example.com/etcd.tar.gz"',
            "an https URL ending in .tar.gz",
        ),
    ),
    "checksum too short": (
        put(ha(), "etcd/archive", ARCHIVE | {"sha256": "abc"}),
        says("etcd.archive.sha256", "is not of the right form", '"abc"', "64 hexadecimal digits, lower case"),
    ),
    "PostgreSQL that nobody carries": (
        put(ha(), "postgresql/version", 14),
        says("postgresql.version", "is too small", "14", "a whole number from 15 to 17"),
    ),
    "PostgreSQL that the platform does not carry": (
        put(ha(), "postgresql/version", 17),
        says("postgresql.version", "is a version that debian-13 does not carry", "17", "15"),
    ),
    "Kea that the platform does not carry": (
        put(ha(), "kea/version", "3.0"),
        says("kea.version", "is a version that debian-13 does not carry", '"3.0"', '"2.6"'),
    ),
    "version of a program that is none": (
        put(ha(), "packages/patrony", "4.0.7-3"),
        says(
            "packages.patrony",
            'is not a known key; did you mean "patroni"?',
            '"4.0.7-3"',
            "etcd, patroni, postgresql, kea_admin",
        ),
    ),
    "version that YAML made a number": (
        put(ha(), "packages/postgresql", 15.14),
        says("packages.postgresql", "is not text", "15.14", PACKAGE),
    ),
    "version with an option in it": (
        put(ha(), "packages/patroni", "4.0 --force"),
        says("packages.patroni", "is not of the right form", '"4.0 --force"', PACKAGE),
    ),
    "Patroni below the floor": (
        put(ha(), "packages/patroni", "3.3.2-1"),
        says(
            "packages.patroni",
            f"is too old: patroni 3.3.2-1 is below 4.0: {FLOORS['patroni'].reason}",
            '"3.3.2-1"',
            "4.0 or later",
        ),
    ),
    "PostgreSQL of another major version": (
        put(ha(), "packages/postgresql", "17.2-1"),
        says(
            "packages.postgresql",
            "is of another major version",
            '"17.2-1"',
            "a version of PostgreSQL 15 (postgresql.version)",
        ),
    ),
    "kea-admin of another version than the servers": (
        put(ha(), "packages/kea_admin", "3.0.1-1"),
        says(
            "packages.kea_admin",
            "is of another version than the Kea servers",
            '"3.0.1-1"',
            "a version of Kea 2.6 (kea.version)",
        ),
    ),
    "etcd and Patroni that do not work together": (
        put(put(ha(), "packages/etcd", "3.5.28-1"), "packages/patroni", "4.0.7-3~deb13u1"),
        says("packages.patroni", f"does not fit: {MISMATCH}", '"4.0.7-3~deb13u1"', FIT),
    ),
    "package of etcd where an archive is": (
        put(put(put(ha(), "platform", "ubuntu-24.04"), "kea/version", "3.0"), "etcd/archive", ARCHIVE)
        | {"packages": {"etcd": "3.5.16-4"}},
        says(
            "packages.etcd",
            "names a package that ubuntu-24.04 does not have",
            '"3.5.16-4"',
            "nothing: etcd.archive says which etcd runs",
        ),
    ),
    "archive of an etcd that does not fit Patroni": (
        put(
            put(put(ha(), "platform", "ubuntu-24.04"), "kea/version", "3.0"),
            "etcd/archive",
            ARCHIVE | {"url": "https://example.com/etcd-v3.6.1-linux-amd64.tar.gz"},
        )
        | {"packages": {"patroni": "4.1.0-1"}},
        says(
            "packages.patroni",
            "does not fit: etcd 3.6.1 (from 3.5.28 on) needs Patroni 4.1.1, not 4.1.0-1: it asks for authentication",
            '"4.1.0-1"',
            FIT,
        ),
    ),
    "parameter with a key of its own": (
        put(ha(), "postgresql/parameters", {"max_connections": 200}),
        says(
            "postgresql.parameters.max_connections",
            "has a key of its own: postgresql.max_connections",
            "200",
            OWN,
        ),
    ),
    "parameter that Patroni sets": (
        put(ha(), "postgresql/parameters", {"synchronous_standby_names": "*"}),
        says(
            "postgresql.parameters.synchronous_standby_names",
            "is set by Patroni; use patroni.synchronous_mode",
            "*",
            OWN,
        ),
    ),
    "parameter of TLS": (
        put(ha(), "postgresql/parameters", {"ssl_min_protocol_version": "TLSv1"}),
        says(
            "postgresql.parameters.ssl_min_protocol_version",
            "is set by keadb, the same at every site; use tls.epoch for new certificates",
            "TLSv1",
            OWN,
        ),
    ),
    "parameter that gives up durability": (
        put(ha(), "postgresql/parameters", {"fsync": False}),
        says(
            "postgresql.parameters.fsync",
            "stays on: acknowledged data must survive",
            "False",
            OWN,
        ),
    ),
    "parameter of two lines": (
        put(ha(), "postgresql/parameters", {"application_name": "a\nfsync = off"}),
        says(
            "postgresql.parameters.application_name",
            "is not a plain value",
            '"a\\nfsync = off"',
            "text of one line (at most 500 characters), a number, true or false",
        ),
    ),
    "parameter that names a secret": (
        put(ha(), "postgresql/parameters", {"application_name": "@secret:ca_key@"}),
        says(
            "postgresql.parameters.application_name",
            "names a secret, which a site file cannot",
            '"@secret:ca_key@"',
            "text without @secret:NAME@",
        ),
    ),
    "too much shared memory": (
        put(put(ha(), "postgresql/shared_buffers_mb", 1025), f"{DB2}/memory_mb", 2560),
        says(
            "postgresql.shared_buffers_mb",
            "leaves too little memory",
            "1025",
            "at most 1024 (40 % of the 2560 MiB of lab-kea-db-02)",
        ),
    ),
    "too little memory": (
        put(ha(), f"{DB1}/memory_mb", 256),
        says("hosts.lab-kea-db-01.memory_mb", "is too small", "256", "a whole number from 512 to 4194304 (MiB)"),
    ),
    "number as text": (
        put(ha(), f"{DB1}/cores", "4"),
        says("hosts.lab-kea-db-01.cores", "is not a whole number", '"4"', "a whole number from 1 to 128"),
    ),
    "true as a number": (
        put(ha(), f"{DB1}/cores", True),
        says("hosts.lab-kea-db-01.cores", "is not a whole number", "True", "a whole number from 1 to 128"),
    ),
    "host key of another kind": (
        put(ha(), f"{DB1}/ssh_host_key", "ssh-rsa AAAAB3NzaC1yc2E="),
        says(
            "hosts.lab-kea-db-01.ssh_host_key",
            "is not an Ed25519 host key",
            '"ssh-rsa AAAAB3NzaC1yc2E="',
            HOST_KEY,
        ),
    ),
    "host key cut short": (
        put(ha(), f"{DB1}/ssh_host_key", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA=="),
        says(
            "hosts.lab-kea-db-01.ssh_host_key",
            "does not parse as an Ed25519 host key",
            '"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA=="',
            HOST_KEY,
        ),
    ),
    "epoch before the CA": (
        put(ha(), "tls/epoch", "2026-10-31"),
        says("tls.epoch", "is before the CA's first day", '"2026-10-31"', "2026-11-01 or later"),
    ),
    "certificates outlive their CA": (
        put(ha(), "tls/epoch", "2035-10-01"),
        says(
            "tls.epoch",
            "makes certificates that outlive their CA; set a new tls.ca_epoch",
            '"2035-10-01"',
            "2035-09-25 or earlier",
        ),
    ),
    "a day that the calendar lacks": (
        put(ha(), "tls/epoch", "2026-02-30"),
        says("tls.epoch", "is not a day of the calendar", '"2026-02-30"', DAY),
    ),
    "a time of day": (
        put(ha(), "tls/epoch", "2026-11-01T12:00:00Z"),
        says("tls.epoch", "is not a day", '"2026-11-01T12:00:00Z"', DAY),
    ),
    "a day without quotes": (
        put(ha(), "tls/epoch", dt.date(2026, 11, 1)),
        says(
            "tls.epoch",
            "is a day without quotes, which does not survive the engine's rewriting of the file",
            "2026-11-01",
            DAY,
        ),
    ),
    "a day as a number": (put(ha(), "tls/epoch", 20261101), says("tls.epoch", "is not a day", "20261101", DAY)),
    "unknown acceptance": (
        put(ha(), "accept/shared_hypervisors", {"reason": "the third one is late", "until": "2027-01-01"}),
        says(
            "accept.shared_hypervisors",
            "is not one of the known values",
            '"shared_hypervisors"',
            '"shared_hypervisor" or "schema_upgrade"',
        ),
    ),
    "acceptance without a reason": (
        put(ha(), "accept/schema_upgrade", {"reason": " ", "until": "2027-01-01"}),
        says(
            "accept.schema_upgrade.reason",
            "is too short or too long to explain anything",
            '" "',
            "a sentence of 10 to 500 characters",
        ),
    ),
    "acceptance without an end": (
        put(ha(), "accept/schema_upgrade", {"reason": "Kea 3.0 is rolled out"}),
        says("accept.schema_upgrade.until", "is missing", "nothing", "this key is needed"),
    ),
    "unknown login": (
        put(ha(), "logins/owner", "c"),
        says("logins.owner", "is not one of the known values", '"c"', '"a" or "b"'),
    ),
    "a kept login that nobody knows": (
        put(ha(), "logins/keep", ["patroni_a"]),
        says(
            "logins.keep.0",
            "is not one of the known values",
            '"patroni_a"',
            '"kea_owner_a" or "kea_owner_b" or "kea_read_a" or "kea_read_b"',
        ),
    ),
    "the login in use is kept": (
        put(ha(), "logins", {"read": "b", "keep": ["kea_owner_b", "kea_read_b"]}),
        says("logins.keep.1", "is the login in use: it is open anyway", '"kea_read_b"', '"kea_read_a", or nothing'),
    ),
    "a login kept twice": (
        put(ha(), "logins/keep", ["kea_read_b", "kea_read_b"]),
        says("logins.keep", "has an entry twice", "['kea_read_b', 'kea_read_b']", "a list of logins"),
    ),
    "a copied machine": (
        put(ha(), f"{DB2}/ssh_host_key", host_key(1) + " root@db-02"),
        says(
            "hosts.lab-kea-db-02.ssh_host_key",
            "is also that of lab-kea-db-01",
            f'"{host_key(1)}"',
            "a key of its own (a copied machine must make new ones)",
        ),
    ),
}
