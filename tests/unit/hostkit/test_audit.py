"""The verb ``audit``: facts of a host, without a secret; what cannot be seen is said and spoils its own part only."""

from __future__ import annotations

import http.client
import io
import json
import os
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from hostkit import audit, audit_database, audit_host, audit_network, audit_services, audit_units
from hostkit.context import Context
from hostkit.errors import BadInput, HostError
from hostkit.etcd_plan import Member
from hostkit.system import Completed
from tests.unit.hostkit.fakes import FakeSystem, FakeUnit

SHADOW = "root:*:1::::::\nkeadb:$y$j9T$of-a-test:1::::::\nopen::1::::::\netcd:!*:1::::::\n"


@pytest.fixture
def host(tmp_path: Path) -> Context:
    """A host's root file system."""
    return Context(tmp_path, FakeSystem(tmp_path))


def put(ctx: Context, path: str, text: str = "", mode: int = 0o644) -> None:
    """Write a file of the host."""
    target = ctx.path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    target.chmod(mode)


def says(ctx: Context, program: str, text: str) -> None:
    """Have a command print this."""
    assert isinstance(ctx.system, FakeSystem)
    ctx.system.commands[program] = lambda _argv: Completed(0, text, "")


def test_every_part_has_its_function() -> None:
    """They are found by name when they are asked for."""
    modules = {
        m.__name__.removeprefix("hostkit."): m
        for m in (audit_host, audit_network, audit_units, audit_database, audit_services)
    }
    assert all(callable(getattr(modules[module], part)) for part, module in audit.PARTS.items())


def test_a_part_that_fails_says_why_and_spoils_no_other(host: Context) -> None:
    found = audit.facts(host, "nobody-at-all")
    assert found["files"] == {"error": "there is no user 'nobody-at-all' on this host"}
    assert found["database"] is found["etcd"] is found["patroni"] is found["pooler"] is None
    assert set(found) == {"format", "host", *audit.PARTS}


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"deploy_user": 1}', '{"deploy_user": ""}', '{"deploy_user": "a", "b": 1}']
)
def test_bad_input_is_one_clear_error(host: Context, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    with pytest.raises(BadInput, match="deploy_user"):
        audit.main(host, [])
    with pytest.raises(BadInput, match="allowed are none"):
        audit.main(host, ["x"])


def test_facts_are_json(host: Context, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    put(host, "/etc/keadb/host", "db-01\n")
    monkeypatch.setattr("sys.stdin", io.StringIO('{"deploy_user": "root"}'))
    assert audit.main(host, []) == 0
    assert json.loads(capsys.readouterr().out)["host"] == "db-01"


def test_of_files_only_mode_and_owner_are_told(host: Context) -> None:
    put(host, "/var/lib/keadb/secrets.json", '{"password": "of-a-test"}', 0o600)
    put(host, "/etc/patroni/tls/postgres.key", "of-a-test", 0o640)
    host.path("/root").mkdir()
    host.path("/root/.psql_history").symlink_to("/dev/null")
    found = audit_host.files(host, "root")
    assert "of-a-test" not in json.dumps(found)
    assert {path: state["mode"] for path, state in found["private"].items()} == {
        "/etc/patroni/tls/postgres.key": "0640",
        "/var/lib/keadb/secrets.json": "0600",
    }
    assert found["private"]["/var/lib/keadb/secrets.json"]["link"] is False
    assert found["history"] == {
        "/var/lib/postgresql/.psql_history": "none",
        "/root/.psql_history": "link to /dev/null",
    }


def test_of_passwords_only_their_kind_is_told(host: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    put(host, "/etc/shadow", SHADOW)
    says(host, "sudo", "User root may run the following commands on db:\n    (root) NOPASSWD: /x a\n    (root) /y\n")
    monkeypatch.setattr(audit_host, "SERVICE_USERS", ())
    found = audit_host.accounts(host, "root")
    assert found["users"]["root"]["password"] == "locked"
    assert found["sudo"] == ["(root) NOPASSWD: /x a", "(root) /y"]
    kinds = {name: audit_host._password(host, name) for name in ("keadb", "open", "etcd", "nobody")}
    assert kinds == {"keadb": "set", "open": "empty", "etcd": "locked", "nobody": "locked"}


def test_no_rule_of_sudo_is_an_empty_list(host: Context) -> None:
    put(host, "/etc/shadow", SHADOW)
    says(host, "sudo", "User root is not allowed to run sudo on db.\n")
    assert audit_host.accounts(host, "root")["sudo"] == []


def test_sockets_are_taken_apart(host: Context) -> None:
    says(
        host,
        "ss",
        'tcp LISTEN 0 244 172.30.30.10:5432 0.0.0.0:* users:(("postgres",pid=1,fd=5))\n'
        'tcp LISTEN 0 128 [::]:22 [::]:* users:(("sshd",pid=2,fd=7),("systemd",pid=1,fd=3))\n'
        "udp UNCONN 0 0 127.0.0.53%lo:53 0.0.0.0:*\n",
    )
    assert audit_units.sockets(host, "root") == [
        {"protocol": "tcp", "address": "172.30.30.10", "port": 5432, "program": "postgres"},
        {"protocol": "tcp", "address": "::", "port": 22, "program": "sshd"},
        {"protocol": "udp", "address": "127.0.0.53", "port": 53, "program": ""},
    ]


def test_a_process_is_as_the_kernel_says(host: Context) -> None:
    put(
        host,
        "/proc/7/status",
        "Name:\tpostgres\nUmask:\t0077\nUid:\t1\t0\t0\t0\nCapEff:\t0000000000003840\nCapBnd:\t0000000000000000\n"
        "NoNewPrivs:\t1\nSeccomp:\t2\n",
    )
    put(
        host,
        "/proc/7/limits",
        "Limit  Soft\nMax core file size        0                    unlimited            bytes\n",
    )
    put(host, "/proc/7/environ", "A=b\0PGPASSWORD=of-a-test\0")
    found = audit_units.process(host, "7")
    assert "of-a-test" not in json.dumps(found)
    assert found == {
        "name": "postgres",
        "user": "root",
        "no_new_privileges": True,
        "filtered": True,
        "capabilities": "3840",
        "bounding": "0",
        "umask": "0077",
        "core": "0/unlimited",
        "password_in_environment": True,
    }


def test_a_process_of_this_machine_can_be_read() -> None:
    """The files have the form that is expected."""
    found = audit_units.process(Context(Path("/"), FakeSystem(Path("/"))), str(os.getpid()))
    assert found["name"]
    assert int(found["bounding"], 16) >= 0
    assert found["umask"].startswith("0")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        (
            "dbname=postgres user=replicator host=10.0.0.1 sslmode=verify-full application_name='a b'",
            {"user": "replicator", "sslmode": "verify-full", "password": "none"},
        ),
        ("user=x password='of-a-test' sslmode=prefer", {"user": "x", "sslmode": "prefer", "password": "given"}),
    ],
)
def test_of_the_way_to_the_leader_no_password_is_told(text: str, found: dict[str, str]) -> None:
    assert audit_database.conninfo(text) == found


def test_the_poolers_included_settings_count(host: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_services, "_applied", lambda _ctx, _name: True)
    put(host, "/etc/pgbouncer/more.ini", "listen_addr = 10.0.0.1\n")
    put(host, "/etc/pgbouncer/rules.conf", "# a comment\nhostssl kea all 10.0.0.1/32 scram-sha-256\n")
    put(
        host,
        audit_services.POOLER,
        "[databases]\nkea = host=x auth_user=pooler\n[pgbouncer]\n%include /etc/pgbouncer/more.ini\n"
        "; auth_type = any\nauth_type = hba\nauth_hba_file = /etc/pgbouncer/rules.conf\nauth_query = SELECT 1\n",
    )
    found = audit_services.pooler(host, "root")
    assert found is not None
    assert (found["auth_type"], found["listen_addr"], found["admin_users"]) == ("hba", "10.0.0.1", "")
    assert (found["auth_query"], found["rules"]) == ("set", [["hostssl", "scram-sha-256"]])


def test_the_proxys_sockets_and_pages_are_found(host: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_services, "_applied", lambda _ctx, _name: True)
    put(host, "/run/a.sock", mode=0o600)
    put(
        host,
        audit_services.PROXY,
        "global\n stats socket /run/a.sock mode 600 level user\n stats socket ipv4@:9 level admin\n"
        " ssl-server-verify required\n ssl-default-server-options ssl-min-ver TLSv1.2\n"
        "backend b\n stats enable\n server a 10.0.0.1 check verify none\n",
    )
    found = audit_services.proxy(host, "root")
    assert found is not None
    assert [state["mode"] for state in found["sockets"].values()] == ["0600", "on the network"]
    assert (found["levels"], found["pages"]) == (["user", "admin"], ["stats enable"])
    assert (found["verify"], found["unverified"], found["oldest_tls"]) == ("required", 1, "TLSv1.2")


def test_the_addresses_peers_are_found(host: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_services, "_applied", lambda _ctx, _name: True)
    put(
        host,
        audit_services.ADDRESS,
        "global_defs {\n script_user a a\n enable_script_security\n}\nvrrp_instance x {\n unicast_peer {\n"
        "  10.0.0.1 min_ttl 255 max_ttl 255\n  10.0.0.2\n }\n}\n",
    )
    found = audit_services.address(host, "root")
    assert found == {
        "script_security": True,
        "script_user": "a",
        "checks_source": False,
        "peers": {"10.0.0.1": True, "10.0.0.2": False},
    }


def test_of_the_firewall_policies_and_differences_are_told(host: Context) -> None:
    listing = (
        "table inet keadb {{\n"
        "\tchain input {{\n\t\ttype filter hook input priority filter; policy drop;\n\t}}\n"
        "\tchain forward {{\n\t\ttype filter hook forward priority filter; policy {};\n\t}}\n}}\n"
    )
    for path in ("/etc/keadb/firewall.nft", "/var/lib/keadb/firewall.nft"):
        put(host, path, "rules\n")
    says(host, "unshare", listing.format("drop"))
    says(host, "nft", listing.format("accept"))
    assert isinstance(host.system, FakeSystem)
    host.system.units["keadb-firewall.service"] = FakeUnit(file="enabled")
    found = audit_network.firewall(host, "root")
    assert found == {
        "policies": {"input": "drop", "forward": "accept"},
        "differs": ["table inet keadb: changed"],
        "unconfirmed": False,
        "at_boot": "enabled",
    }
    put(host, "/var/lib/keadb/firewall.nft", "older rules\n")
    says(host, "nft", listing.format("drop"))
    found = audit_network.firewall(host, "root")
    assert found["differs"] == [
        "/var/lib/keadb/firewall.nft: other rules than those declared: the host starts with them"
    ]
    assert found["unconfirmed"] is True


@pytest.mark.parametrize(
    ("at", "error", "said"),
    [
        ("connect", ssl.SSLError("certificate required"), "refused"),
        ("request", ssl.SSLError("certificate required"), "refused"),
        ("request", ConnectionResetError("reset by peer"), "refused"),
        ("getresponse", http.client.RemoteDisconnected("no response"), "refused"),
        ("connect", ConnectionRefusedError("refused"), None),
        ("getresponse", TimeoutError("timed out"), None),
    ],
)
def test_who_is_hung_up_on_after_the_handshake_is_refused(
    monkeypatch: pytest.MonkeyPatch, at: str, error: Exception, said: str | None
) -> None:
    """With TLS 1.3 it is chance whether a client without a certificate is told so or only cut off."""

    class Connection:
        def __init__(self, *_arguments: object, **_settings: object) -> None:
            pass

        def __getattr__(self, name: str) -> Callable[..., None]:
            def call(*_arguments: object) -> None:
                if name == at:
                    raise error

            return call

    monkeypatch.setattr(http.client, "HTTPSConnection", Connection)
    me = Member("db-01", "192.0.2.1")
    if said is None:
        with pytest.raises(HostError, match="does not answer"):
            audit_services._change(me, 8008, ssl.create_default_context())
    else:
        assert audit_services._change(me, 8008, ssl.create_default_context()) == said
