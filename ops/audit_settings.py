"""The audit's items about PostgreSQL's settings as they are in force: durability, logs, access, connections. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from keadb.site import Host, Site
from ops.audit_model import OWN, Check, Facts, Group, Item, among, equal, nothing

_DATABASE = "database"
_PREFIX = ("%m", "%p", "%u", "%d", "%a", "%h")


def _settings(allowed: Mapping[str, tuple[str, ...]], facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    have = facts.part(_DATABASE)["settings"]
    return [among(name, values, str(have.get(name))) for name, values in allowed.items()]


def _item(name: str, source: str, title: str, **allowed: str | tuple[str, ...]) -> Item:
    """Return an item that holds while each of these settings has one of these values."""
    values = {key: (value,) if isinstance(value, str) else value for key, value in allowed.items()}
    return Item(id=name, source=source, title=title, role=_DATABASE, look=partial(_settings, values))


def _log_prefix(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    prefix = facts.part(_DATABASE)["settings"]["log_line_prefix"]
    lacks = [word for word in _PREFIX if word not in prefix]
    return [Check(what="log_line_prefix", expected=f"with {' '.join(_PREFIX)}", actual=prefix, good=not lacks)]


def _at_most(name: str, most: int, unit: str, facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    value = str(facts.part(_DATABASE)["settings"][name])
    good = value.isdecimal() and 0 < int(value) <= most
    return [Check(what=name, expected=f"1 to {most} {unit}", actual=f"{value} {unit}", good=good)]


def _listens(facts: Facts, _site: Site, host: Host) -> Iterable[Check]:
    have = facts.part(_DATABASE)["settings"]["listen_addresses"]
    found = {address.strip() for address in have.split(",") if address.strip()}
    allowed = {str(host.address), "127.0.0.1", "::1", "localhost"}
    return [Check(what="listen_addresses", expected=f"{host.address},127.0.0.1", actual=have, good=found <= allowed)]


def _ciphers(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    have = facts.part(_DATABASE)["settings"]["ssl_ciphers"]
    # Named one by one: a word such as HIGH or MEDIUM is whatever OpenSSL takes it for.
    weak = [
        word for word in have.split(":") if not word.startswith(("ECDHE", "!")) or not _strong(word.lstrip("!"), word)
    ]
    expected = "only forward secrecy with authenticated encryption (ECDHE with GCM or CHACHA20)"
    return [Check(what="ssl_ciphers", expected=expected, actual=have, good=not weak and bool(have))]


def _strong(name: str, word: str) -> bool:
    return word.startswith("!") or "GCM" in name or "CHACHA20" in name


def _pending(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    return [nothing("settings that wait for a restart", facts.part(_DATABASE)["pending_restart"])]


def _libraries(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    have = facts.part(_DATABASE)["settings"]
    lists = ("shared_preload_libraries", "session_preload_libraries", "local_preload_libraries")
    return [
        *(equal(name, "", have[name]) for name in lists),
        equal("dynamic_library_path", "$libdir", have["dynamic_library_path"]),
    ]


DURABILITY = Group(
    name="Durability",
    items=(
        _item("data-checksums", "CIS 1, data cluster", "Data pages carry checksums", data_checksums="on"),
        _item(
            "durable-writes",
            "CIS 6, reloaded parameters",
            "Acknowledged data is on disk, and pages are whole after a crash",
            fsync="on",
            full_page_writes="on",
            synchronous_commit=("on", "remote_apply"),
            wal_log_hints="on",
        ),
        _item(
            "damage-not-hidden",
            "CIS 6, superusers' parameters",
            "Damaged data is an error, never zeroed or passed over",
            zero_damaged_pages="off",
            ignore_checksum_failure="off",
            ignore_invalid_pages="off",
            ignore_system_indexes="off",
        ),
        Item(
            id="settings-in-force", source=OWN, title="No setting waits for a restart", role=_DATABASE, look=_pending
        ),
    ),
)

LOGS = Group(
    name="Logs of PostgreSQL",
    items=(
        _item(
            "log-destination",
            "CIS 3.1.2",
            "Logs go to stderr, from where the journal keeps them",
            log_destination="stderr",
            logging_collector="off",
        ),
        _item("log-messages", "CIS 3.1.14", "Warnings are logged", log_min_messages=("warning", "notice", "info")),
        _item(
            "log-failed-statements", "CIS 3.1.15", "Statements that fail are logged", log_min_error_statement="error"
        ),
        _item(
            "log-no-debugging",
            "CIS 3.1.16 to 3.1.19",
            "Parse trees and plans are not logged",
            debug_print_parse="off",
            debug_print_rewritten="off",
            debug_print_plan="off",
            debug_pretty_print="on",
        ),
        _item(
            "log-sessions",
            "CIS 3.1.20, 3.1.21",
            "Every session is logged at its end, with user, database, source and length; what only knocks is not",
            log_disconnections="on",
            log_connections="off",
        ),
        _item("log-no-names", "CIS 3.1.23", "Logging asks no name server", log_hostname="off"),
        Item(
            id="log-prefix",
            source="CIS 3.1.24",
            title="Each line says when, who, from where, in which database",
            role=_DATABASE,
            look=_log_prefix,
        ),
        _item(
            "log-statements",
            "CIS 3.1.25",
            "Changes of roles and schema are logged",
            log_statement=("ddl", "mod", "all"),
        ),
        _item("log-time", "CIS 3.1.26", "Logs have the time of UTC", log_timezone="UTC"),
        _item(
            "log-no-values",
            OWN,
            "Values of parameters are not logged: they may be secrets",
            log_parameter_max_length="0",
            log_parameter_max_length_on_error="0",
        ),
        _item(
            "log-replication",
            "CIS 7, replication commands",
            "Commands of replication are logged",
            log_replication_commands="on",
        ),
        _item("log-waits", OWN, "Checkpoints and long waits are logged", log_checkpoints="on", log_lock_waits="on"),
    ),
)

SETTINGS = Group(
    name="Settings of PostgreSQL",
    items=(
        Item(
            id="listen-addresses",
            source="CIS 5, address",
            title="PostgreSQL listens on the node's address and loopback only",
            role=_DATABASE,
            look=_listens,
        ),
        Item(
            id="login-timeout",
            source=OWN,
            title="A login that is not finished is ended",
            role=_DATABASE,
            look=partial(_at_most, "authentication_timeout", 60, "s"),
        ),
        Item(
            id="password-encryption",
            source="CIS 5, host login",
            title="Passwords are kept as SCRAM verifiers",
            role=_DATABASE,
            look=partial(_settings, {"password_encryption": ("scram-sha-256",)}),
        ),
        _item("tls-on", "CIS 6, TLS", "PostgreSQL speaks TLS", ssl="on"),
        _item(
            "tls-version",
            "CIS 6, TLS 1.0 and 1.1",
            "TLS is 1.2 or newer",
            ssl_min_protocol_version=("TLSv1.2", "TLSv1.3"),
        ),
        Item(
            id="tls-ciphers",
            source="CIS 6, weak ciphers",
            title="Weak ciphers are off",
            role=_DATABASE,
            look=_ciphers,
        ),
        _item(
            "runtime-backend",
            "CIS 6, backends' parameters",
            "Settings for developers are off in every session",
            jit="off",
            jit_debugging_support="off",
            jit_profiling_support="off",
            post_auth_delay="0",
        ),
        _item(
            "runtime-superuser",
            "CIS 6, superusers' and users' parameters",
            "Nothing weakens rights, quoting or triggers",
            allow_system_table_mods="off",
            lo_compat_privileges="off",
            session_replication_role="origin",
            row_security="on",
            standard_conforming_strings="on",
            backslash_quote=("safe_encoding", "off"),
        ),
        Item(
            id="idle-transactions",
            source=OWN,
            title="A transaction that was left open is ended",
            role=_DATABASE,
            look=partial(_at_most, "idle_in_transaction_session_timeout", 3_600_000, "ms"),
        ),
        Item(
            id="libraries",
            source="CIS 8, miscellaneous",
            title="No library is loaded that nobody declared",
            role=_DATABASE,
            look=_libraries,
        ),
    ),
)
