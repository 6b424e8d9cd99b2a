"""``keadb audit``: each item on facts that are good and on facts that are not; report, words and exit codes."""

from __future__ import annotations

import copy
import json
from io import StringIO
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from keadb.site import Host, Site, load_site
from ops import audit
from ops.audit_command import audit as command
from ops.audit_model import Facts
from ops.drift import Reply
from ops.exits import Exit
from tests.unit.core.samples import ROOT, ha, put, single, site
from tests.unit.ops.audit_facts import facts, rule

ITEMS = {item.id: item for group in audit.GROUPS for item in group.items}
SET = "database/settings/"
PROCESS = "units/haproxy.service/processes/0/"


def broken(of: Site, host: Host, path: str, value: Any) -> dict[str, Any]:
    """Return good facts with one thing changed; numbers in the path are places in lists, ``+`` adds to one."""
    document = copy.deepcopy(facts(of, host))
    *above, last = path.split("|") if "|" in path else path.split("/")
    at: Any = document
    for part in above:
        at = at[int(part)] if isinstance(at, list) else at[part]
    if last == "+":
        at.append(value)
    elif last == "-":
        at.remove(value)
    else:
        at[last] = value
    return document


def failing(of: Site, host: Host, document: dict[str, Any]) -> dict[str, list[str]]:
    """Return the reasons of the items that fail."""
    results = audit.evaluate(of, host, Facts(document=document))
    return {result.item.id: result.reasons for result in results if not result.passed}


@pytest.mark.parametrize("data", [ha(), single(), put(ha(), "network/ntp", ["172.30.30.1"])])
def test_everything_passes_on_hosts_that_are_as_they_should_be(data: dict[str, Any]) -> None:
    of = load_site(data, source="test")
    for host in of.hosts.values():
        assert failing(of, host, facts(of, host)) == {}


ROLE = "database/roles/"
CASES: list[tuple[str, str, Any, str]] = [
    ("postgresql-minor", "database/version", 150014, "PostgreSQL that runs is 15.14, expected: 15.15 or newer"),
    ("postgresql-minor", "database/version", 140020, "PostgreSQL that runs is 14.20, expected: one of 15, 16, 17"),
    ("versions", "packages/pgbouncer", "1.18.0-1", "pgbouncer 1.18.0-1 is below 1.22"),
    ("versions", "packages", {}, "packages that are missing is etcd-client, etcd-server"),
    ("data-checksums", SET + "data_checksums", "off", "data_checksums is off, expected: on"),
    ("durable-writes", SET + "fsync", "off", "fsync is off, expected: on"),
    (
        "durable-writes",
        SET + "synchronous_commit",
        "local",
        "synchronous_commit is local, expected: on or remote_apply",
    ),
    ("damage-not-hidden", SET + "zero_damaged_pages", "on", "zero_damaged_pages is on"),
    ("settings-in-force", "database/pending_restart", ["port"], "settings that wait for a restart is port"),
    ("log-destination", SET + "log_destination", "syslog", "log_destination is syslog"),
    ("log-messages", SET + "log_min_messages", "panic", "log_min_messages is panic"),
    ("log-failed-statements", SET + "log_min_error_statement", "panic", "is panic, expected: error"),
    ("log-no-debugging", SET + "debug_print_plan", "on", "debug_print_plan is on"),
    ("log-sessions", SET + "log_disconnections", "off", "log_disconnections is off"),
    ("log-sessions", SET + "log_connections", "on", "log_connections is on, expected: off"),
    ("log-no-names", SET + "log_hostname", "on", "log_hostname is on"),
    ("log-prefix", SET + "log_line_prefix", "%m [%p] %u@%d/%a ", "expected: with %m %p %u %d %a %h"),
    ("log-statements", SET + "log_statement", "none", "log_statement is none, expected: ddl or mod or all"),
    ("log-time", SET + "log_timezone", "CET", "log_timezone is CET"),
    ("log-no-values", SET + "log_parameter_max_length_on_error", "-1", "on_error is -1, expected: 0"),
    ("log-replication", SET + "log_replication_commands", "off", "log_replication_commands is off"),
    ("log-waits", SET + "log_lock_waits", "off", "log_lock_waits is off"),
    ("listen-addresses", SET + "listen_addresses", "*", "listen_addresses is *, expected: 172.30.30.10,127.0.0.1"),
    ("login-timeout", SET + "authentication_timeout", "600", "is 600 s, expected: 1 to 60 s"),
    ("password-encryption", SET + "password_encryption", "md5", "password_encryption is md5"),
    ("tls-on", SET + "ssl", "off", "ssl is off"),
    ("tls-version", SET + "ssl_min_protocol_version", "TLSv1", "is TLSv1, expected: TLSv1.2 or TLSv1.3"),
    ("tls-version", SET + "ssl_min_protocol_version", "", "is empty, expected: TLSv1.2 or TLSv1.3"),
    ("tls-ciphers", SET + "ssl_ciphers", "HIGH:MEDIUM:+3DES:!aNULL", "ssl_ciphers is HIGH:MEDIUM"),
    ("tls-ciphers", SET + "ssl_ciphers", "ECDHE+AES", "ssl_ciphers is ECDHE+AES,"),
    ("tls-ciphers", SET + "ssl_ciphers", "", "ssl_ciphers is empty"),
    ("runtime-backend", SET + "jit", "on", "jit is on"),
    ("runtime-superuser", SET + "session_replication_role", "replica", "session_replication_role is replica"),
    ("idle-transactions", SET + "idle_in_transaction_session_timeout", "0", "is 0 ms, expected: 1 to 3600000 ms"),
    ("libraries", SET + "session_preload_libraries", "auto_explain", "is auto_explain, expected: empty"),
    ("hba-local", "database/hba/+", rule("local kea nobody peer"), "is local kea nobody peer, expected: none"),
    ("hba-local", "database/hba/+", rule("local all all trust"), "is local all all trust"),
    ("hba-methods", "database/hba/+", rule("hostssl kea x 10.0.0.0/8 md5"), "is hostssl kea x 10.0.0.0/8 md5"),
    ("hba-tls", "database/hba/+", rule("host kea x 10.0.0.1/32 scram-sha-256"), "is host kea x 10.0.0.1/32"),
    ("hba-tls", "database/clear_sessions", 2, "sessions over the network without TLS is 2, expected: 0"),
    ("hba-addresses", "database/hba/+", rule("hostssl kea all fe80::/10 cert"), "is hostssl kea all fe80::/10 cert"),
    ("hba-addresses", "database/hba/+", rule("hostssl kea x 0.0.0.0/0 cert"), "is hostssl kea x 0.0.0.0/0 cert"),
    ("hba-superuser", "database/hba/+", rule("hostssl kea postgres 10.0.0.1/32 cert"), "postgres 10.0.0.1/32 cert"),
    ("hba-as-declared", "database/hba/+", rule("hostssl kea x 10.0.0.1/32 cert"), "unexpected: hostssl kea x"),
    ("hba-as-declared", "database/hba/0/error", "line 1: no", "rules that PostgreSQL cannot read is line 1: no"),
    ("superusers", ROLE + "kea_owner/superuser", True, "superusers is unexpected: kea_owner"),
    ("role-attributes", ROLE + "kea_read/createrole", True, "is kea_read createrole"),
    ("logins-as-declared", ROLE + "kea_owner_b/login", True, "roles that may log in is unexpected: kea_owner_b"),
    ("logins-as-declared", ROLE + "postgres/password", "scram", "roles with a password is unexpected: postgres"),
    ("logins-as-declared", ROLE + "kea_read_a/password", "none", "roles with a password is missing: kea_read_a"),
    ("password-verifiers", ROLE + "kea_read_a/password", "md5", "is kea_read_a (md5)"),
    ("memberships", ROLE + "kea_read_a/member_of/+", "pg_write_server_files", "kea_read_a in pg_write_server_files"),
    ("memberships", ROLE + "kea_read_a/member_of", [], "missing: kea_read_a in kea_read"),
    ("replication-role", ROLE + "kea_read/replication", True, "roles that may replicate is unexpected: kea_read"),
    ("replication-role", "database/replicas/0/ssl", False, "without TLS is replicator"),
    ("replication-role", "database/primary/sslmode", "require", "sslmode towards the leader is require"),
    ("replication-role", "database/primary/password", "given", "password towards the leader is given"),
    ("public-rights", "database/database_acl/+", "PUBLIC CONNECT", "on the database is PUBLIC CONNECT"),
    ("public-rights", "database/schema_acl/+", "public PUBLIC USAGE", "on schemas is public PUBLIC USAGE"),
    ("public-rights", "database/public_rights/+", "public.hosts SELECT", "on tables is public.hosts SELECT"),
    ("public-rights", "database/default_rights/+", "PUBLIC SELECT", "default rights of everybody is PUBLIC SELECT"),
    ("create-rights", "database/schema_acl/+", "public kea_read CREATE", "is public kea_read CREATE"),
    (
        "definer-functions",
        "database/definers/0/search_path",
        False,
        "without a fixed search_path is kea_ext.pooler_login",
    ),
    ("definer-functions", "database/definers/0/public", True, "open to everybody is kea_ext.pooler_login"),
    ("extensions", "database/extensions/+", "dblink", "extensions is unexpected: dblink"),
    ("extensions", "database/untrusted_languages/+", "plpython3u", "may do anything on the host is plpython3u"),
    ("extensions", "database/outside/+", "server away", "is server away"),
    ("databases", "database/databases/+", "test", "databases is unexpected: test"),
    ("databases", "database/role_settings/+", "log_statement", "unexpected: log_statement"),
    ("owners", "database/owners/+", "public kea_owner_a", "is public kea_owner_a"),
    (
        "patroni-rest",
        "patroni/without_password",
        "let in (status 202)",
        "without the password is let in (status 202)",
    ),
    ("etcd-certificates", "etcd/peer_without_certificate", "let in", "a peer without a certificate is let in"),
    ("etcd-login", "etcd/without_login", "let in", "a read without a login is let in"),
    ("pooler-logins", "pooler/auth_type", "any", "auth_type is any, expected: hba"),
    ("pooler-logins", "pooler/admin_users", "postgres", "admin_users is postgres, expected: empty"),
    ("pooler-logins", "pooler/rules/+", ["host", "trust"], "rules without TLS or SCRAM is host trust"),
    ("pooler-tls", "pooler/client_tls_sslmode", "allow", "client_tls_sslmode is allow"),
    ("pooler-tls", "pooler/server_tls_sslmode", "require", "server_tls_sslmode is require, expected: verify-full"),
    ("pooler-tls", "pooler/listen_addr", "*", "listen_addr is *, expected: 172.30.30.10"),
    (
        "proxy-socket",
        "proxy/sockets",
        {"/run/x": {"mode": "0660", "owner": "haproxy", "group": "adm"}},
        "others may use is /run/x 0660 haproxy",
    ),
    ("proxy-socket", "proxy/levels", ["admin"], "more than a user's rights is admin"),
    ("proxy-checks", "proxy/verify", "none", "ssl-server-verify is none"),
    ("address-peers", "address/script_user", "root", "user of its check is root, expected: not root"),
    ("address-peers", "address/peers", {}, "peers, each from the same wire only is {}"),
    (
        "files-private",
        "files|private|/var/lib/keadb/secrets.json|mode",
        "0640",
        "is /var/lib/keadb/secrets.json 0640",
    ),
    ("files-private", "files|private|/etc/etcd/tls/server.key|owner", "root", "is /etc/etcd/tls/server.key root"),
    ("folders-private", "files|folders|/var/lib/keadb/tls|mode", "0750", "open to others is /var/lib/keadb/tls 0750"),
    ("data-directory", "files|folders|/var/lib/postgresql/15/kea|mode", "0750", "is 0750, expected: 0700"),
    ("files-configuration", "files|configs|/etc/patroni/config.yml|mode", "0644", "is root:postgres 0644, expected"),
    (
        "files-configuration",
        "files|configs|/etc/haproxy/haproxy.cfg|mode",
        "0664",
        "is /etc/haproxy/haproxy.cfg 0664",
    ),
    ("psql-history", "files|history|/root/.psql_history", "file", "/root/.psql_history is file"),
    ("journal", "files|folders|/var/log/journal|mode", "2777", "others may write is /var/log/journal 2777"),
    ("journal", "upkeep/journal_persistent", False, "kept over a restart is no, expected: yes"),
    ("accounts-locked", "accounts/users/keadb/password", "set", "that a password opens is keadb"),
    ("accounts-locked", "accounts/users/etcd/shell", "/bin/sh", "services' users with a shell is etcd"),
    ("accounts-locked", "accounts/users/keadb/groups/+", "sudo", "groups of the deploy user is unexpected: sudo"),
    ("accounts-locked", "accounts/root_like/+", "toor", "names with root's number is toor"),
    ("sudo", "accounts/sudo/+", "(root) NOPASSWD: ALL", "unexpected: (root) NOPASSWD: ALL"),
    ("ssh-login", "ssh/passwordauthentication", "yes", "PasswordAuthentication is yes, expected: no"),
    (
        "ssh-login",
        "files|ssh|/home/keadb/.ssh/authorized_keys|mode",
        "0666",
        "is /home/keadb/.ssh/authorized_keys 0666",
    ),
    ("ssh-forwarding", "ssh/allowtcpforwarding", "yes", "allowtcpforwarding is yes, expected: no"),
    ("sandbox", "units/patroni.service/exposure", 9.2, "patroni.service is 9.2, expected: at most 2.0"),
    ("sandbox", "units/patroni.service/exposure", None, "patroni.service is unknown"),
    ("sandbox", "units/systemd-journald.service/exposure", 9.6, "is 9.6, expected: at most 5.0"),
    ("service-users", PROCESS + "user", "root", "haproxy.service: haproxy is root, expected: haproxy"),
    ("processes-confined", PROCESS + "no_new_privileges", False, "haproxy.service: haproxy: may gain rights"),
    ("processes-confined", PROCESS + "filtered", False, "haproxy: every call of the kernel"),
    ("processes-confined", PROCESS + "capabilities", "1", "haproxy: capabilities 1"),
    ("processes-confined", "units/keepalived.service/processes/0/bounding", "3841", "keepalived: bounding 3841"),
    ("umask", PROCESS + "umask", "0022", "is haproxy.service: haproxy 0022"),
    ("core-dumps", PROCESS + "core", "0/unlimited", "is haproxy.service: haproxy 0/unlimited"),
    ("core-dumps", "upkeep/suid_dumpable", "2", "fs.suid_dumpable is 2, expected: 0"),
    ("no-password-in-environment", PROCESS + "password_in_environment", True, "is haproxy.service: haproxy"),
    (
        "sockets",
        "sockets/+",
        {"protocol": "tcp", "program": "postgres", "address": "*", "port": 5432},
        "is postgres on *:5432 (tcp)",
    ),
    ("firewall-default", "firewall/policies/output", "accept", "what output does with what is not allowed is accept"),
    (
        "firewall-as-declared",
        "firewall/differs",
        ["table inet keadb: changed"],
        "not as declared is table inet keadb: changed",
    ),
    ("firewall-at-boot", "firewall/at_boot", "disabled", "keadb-firewall.service is disabled, expected: enabled"),
    ("firewall-at-boot", "firewall/unconfirmed", True, "rules are confirmed is no, expected: yes"),
    ("no-unattended-restarts", "upkeep/reboots", "true", "reboots by unattended upgrades is true"),
    ("no-unattended-restarts", "upkeep/policy", 104, "restarts a member is 104, expected: 101"),
    ("packages-held", "upkeep/not_held", ["patroni"], "packages that are not held is patroni"),
    ("clock", "clock/synchronised", False, "clock is synchronised is no, expected: yes"),
]
TOGETHER = {
    "hba-local": {"hba-as-declared", "hba-methods"},
    "hba-methods": {"hba-as-declared"},
    "hba-tls": {"hba-as-declared"},
    "hba-addresses": {"hba-as-declared"},
    "hba-superuser": {"hba-as-declared"},
    "password-verifiers": set(),
}
"""Items that may fail with another one: what is wrong is wrong in more than one way."""


@pytest.mark.parametrize(("item", "path", "value", "reason"), CASES, ids=[f"{c[0]}-{c[1]}" for c in CASES])
def test_an_item_fails_with_a_reason_that_names_what_is_there(item: str, path: str, value: Any, reason: str) -> None:
    of = load_site(put(ha(), "network/ntp", ["172.30.30.1"]), source="test")
    host = of.database_hosts[0]
    found = failing(of, host, broken(of, host, path, value))
    assert any(reason in told for told in found[item]), found[item]
    assert set(found) - {item} <= TOGETHER.get(item, set())


def test_every_item_has_a_case() -> None:
    assert set(ITEMS) - {case[0] for case in CASES} == set()


def test_ids_are_unique_and_the_list_in_the_docs_is_this_one() -> None:
    """People read docs/hardening.md; it must not lag behind."""
    items = [(group.name, item) for group in audit.GROUPS for item in group.items]
    assert len(items) == len(ITEMS)
    rows = [line for line in (ROOT / "docs" / "hardening.md").read_text().splitlines() if line.startswith("| `")]
    documented = [line for line in rows if line.count("|") == 5]
    assert documented == [f"| `{item.id}` | {group} | {item.title} | {item.source} |" for group, item in items]


def test_a_part_that_could_not_be_seen_fails_with_the_hosts_reason() -> None:
    """What nobody can look at is not taken for good."""
    of = site()
    host = of.database_hosts[0]
    found = failing(of, host, broken(of, host, "ssh", {"error": "cannot start sshd"}))
    assert set(found) == {"ssh-login", "ssh-forwarding"}
    assert found["ssh-forwarding"] == ["could not be looked at: cannot start sshd"]
    missing = failing(of, host, broken(of, host, "clock", None) | {"database": {"settings": {}}})
    assert missing["superusers"] == ["could not be looked at: its facts have another form (KeyError('roles'))"]
    assert "run 'keadb up' first" in failing(of, host, facts(of, host) | {"units": None})["sandbox"][0]


def test_items_are_for_hosts_that_carry_what_they_are_about() -> None:
    of = site()
    witness = of.hosts["lab-kea-witness"]
    seen = {result.item.id for result in audit.evaluate(of, witness, Facts(document=facts(of, witness)))}
    assert {"etcd-login", "sudo", "sandbox", "clock"} <= seen
    assert not seen & {"superusers", "patroni-rest", "pooler-tls", "data-directory"}


def test_the_machines_own_sockets_are_no_finding() -> None:
    of = site()
    host = of.database_hosts[0]
    for program, address, port, protocol in (
        ("systemd", "::", 22, "tcp"),
        ("systemd-resolve", "127.0.0.53", 53, "udp"),
        ("chronyd", "::1", 323, "udp"),
        ("systemd-network", "172.30.30.10", 68, "udp"),
    ):
        own = {"program": program, "address": address, "port": port, "protocol": protocol}
        assert failing(of, host, broken(of, host, "sockets/+", own)) == {}
    for program, address, port in (("chronyd", "172.30.30.10", 123), ("python3", "127.0.0.1", 8000)):
        other = {"program": program, "address": address, "port": port, "protocol": "udp"}
        assert set(failing(of, host, broken(of, host, "sockets/+", other))) == {"sockets"}


def replies(*, of: Site, path: str = "format", value: Any = 1) -> dict[str, Reply]:
    """Return good answers of all hosts but the first, which has one thing changed."""
    first, *others = of.hosts.values()
    found = {host.name: Reply(document=facts(of, host)) for host in others}
    return {first.name: Reply(document=broken(of, first, path, value)), **found}


def test_exit_codes_are_those_of_drift() -> None:
    of = site()
    assert audit.report("lab", of, replies(of=of)).exit_code is Exit.OK
    bad = replies(of=of, path="upkeep/reboots", value="true")
    assert audit.report("lab", of, bad).exit_code is Exit.CHANGES
    silent = {**bad, "lab-kea-witness": Reply(error="does not answer", unreachable=True)}
    made = audit.report("lab", of, silent)
    assert (made.exit_code, made.unreachable) == (Exit.UNREACHABLE, {"lab-kea-witness": "does not answer"})


@pytest.mark.parametrize(
    "said",
    ["keadb-apply: verb 'audit' is given, allowed: accept, apply", "sudo: a password is required\n"],
)
def test_a_host_of_before_the_audit_is_told_as_that(said: str) -> None:
    of = site()
    made = audit.report("lab", of, {"lab-kea-db-01": Reply(error=said)})
    assert made.unreachable["lab-kea-db-01"] == (
        "it has an older applier, which does not know audit: run 'keadb up' first"
    )
    newer = audit.report("lab", of, replies(of=of, path="format", value=2))
    assert "another version than this checkout" in newer.unreachable["lab-kea-db-01"]


def test_people_see_one_line_an_item_and_why_it_fails() -> None:
    of, out = site(), StringIO()
    made = audit.report("lab", of, replies(of=of, path="upkeep/reboots", value="[bold]true"))
    audit.show(made, Console(file=out, width=60, highlight=False))
    text = out.getvalue()
    assert "  pass  superusers " in text
    assert "  FAIL  no-unattended-restarts " in text
    assert "lab-kea-db-01: reboots by unattended upgrades is [bold]true, expected: false" in text
    assert f"stack lab: 1 of {len(ITEMS)} items fail: no-unattended-restarts" in text


def test_machines_get_every_check() -> None:
    of = site()
    made = audit.report("lab", of, replies(of=of, path="upkeep/reboots", value="true")).as_dict()
    json.dumps(made)
    assert made["passed"] is False
    found = next(i for i in made["items"] if i["id"] == "no-unattended-restarts" and not i["passed"])
    assert found["checks"][0] == {
        "what": "reboots by unattended upgrades",
        "expected": "false",
        "actual": "true",
        "good": False,
    }


def test_the_command_prints_json_and_ends_with_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    of = site()
    made = audit.report("lab", of, replies(of=of, path="upkeep/reboots", value="true"))
    monkeypatch.setattr(audit, "look", lambda _stack: made)
    monkeypatch.setattr("ops.stacks.resolve", lambda name: name)
    monkeypatch.setattr("ops.stacks.enter_namespace", lambda _stack: None)
    done = CliRunner().invoke(command, ["--stack", "lab", "--json"], standalone_mode=False)
    assert done.return_value == Exit.CHANGES
    assert json.loads(done.stdout)["stack"] == "lab"
