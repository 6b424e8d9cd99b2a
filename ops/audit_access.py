"""The audit's items about who may log in to PostgreSQL, as what, and what they may do there. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_network
from typing import Any

from components.kea_database import OWN_SCHEMA
from components.patroni_settings import POOLER, REPLICATOR, REWINDER, access_rules
from keadb.logins import KEA_OWNER, KEA_READ, LETTERS
from keadb.site import Host, Site
from ops.audit_model import OWN, Check, Facts, Group, Item, equal, nothing, same

_DATABASE = "database"
_SUPERUSER = "postgres"
_PAIRS = (KEA_OWNER, KEA_READ)
_BY_CERTIFICATE = (REPLICATOR, REWINDER, POOLER)
_UNSAFE = frozenset(["trust", "password", "md5", "ident"])
_NONE = "none"
"""Of a password: there is none."""
_ATTRIBUTES = ("createdb", "createrole", "bypassrls")


def _rules(facts: Facts) -> list[dict[str, Any]]:
    return [rule for rule in facts.part(_DATABASE)["hba"] if not rule["error"]]


def _line(rule: Mapping[str, Any]) -> str:
    """Return a rule as it is written: type, databases, users, network, method."""
    address = rule["address"] or ""
    if rule["netmask"] and address:
        try:
            address = str(ip_network((address, _bits(rule["netmask"]))))
        except ValueError:
            address = f"{address} {rule['netmask']}"
    words = [rule["type"], ",".join(rule["database"]), ",".join(rule["user"]), address, rule["method"]]
    return " ".join(word for word in words if word)


def _bits(netmask: str) -> int:
    if ":" in netmask:
        return sum(int(group or "0", 16).bit_count() for group in netmask.split(":"))
    return sum(int(part).bit_count() for part in netmask.split("."))


def _methods(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    return [nothing("rules with an unsafe method", (_line(r) for r in _rules(facts) if r["method"] in _UNSAFE))]


def _local(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    wide = [
        _line(rule)
        for rule in _rules(facts)
        if rule["type"] == "local"
        and rule["method"] != "reject"
        and (rule["method"] != "peer" or rule["user"] != [_SUPERUSER])
    ]
    return [nothing("local rules besides peer for the superuser", wide)]


def _encrypted(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    clear = [_line(r) for r in _rules(facts) if r["type"] not in {"local", "hostssl"} and r["method"] != "reject"]
    return [
        nothing("rules that let in without TLS", clear),
        equal("sessions over the network without TLS", 0, facts.part(_DATABASE)["clear_sessions"]),
    ]


def _narrow(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    wide = [
        _line(rule)
        for rule in _rules(facts)
        if rule["method"] != "reject"
        and rule["type"] != "local"
        and ("all" in rule["user"] or "all" in rule["database"] or rule["address"] in {"all", "0.0.0.0", "::"})  # noqa: S104 -- looked for, not bound to
    ]
    return [nothing("rules for everybody, every database or every address", wide)]


def _superuser_stays(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    roles = facts.part(_DATABASE)["roles"]
    supers = {name for name, role in roles.items() if role["superuser"]}
    found = [
        _line(rule)
        for rule in _rules(facts)
        if rule["type"] != "local" and rule["method"] != "reject" and supers.intersection(rule["user"])
    ]
    return [nothing("rules that let a superuser in over the network", found)]


def _declared_rules(facts: Facts, site: Site, _host: Host) -> Iterable[Check]:
    errors = {str(rule["error"]) for rule in facts.part(_DATABASE)["hba"] if rule["error"]}
    expected = [" ".join(line.split()) for line in access_rules(site)]
    actual = [_line(rule) for rule in _rules(facts)]
    last = actual[-1] if actual else "nothing"
    return [
        nothing("rules that PostgreSQL cannot read", errors),
        same("pg_hba", expected, actual),
        equal("the last rule", expected[-1], last),
    ]


def _superusers(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    roles = facts.part(_DATABASE)["roles"]
    return [same("superusers", [_SUPERUSER], (name for name, role in roles.items() if role["superuser"]))]


def _attributes(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    roles = facts.part(_DATABASE)["roles"]
    strong = [
        f"{name} {attribute}"
        for name, role in roles.items()
        for attribute in _ATTRIBUTES
        if role[attribute] and not role["superuser"]
    ]
    return [nothing("roles that may make roles or databases, or pass row security by", strong)]


def _logins(facts: Facts, site: Site, _host: Host) -> Iterable[Check]:
    roles = facts.part(_DATABASE)["roles"]
    opened = {pair.login(letter) for pair in _PAIRS for letter in pair.open(site.logins)}
    return [
        same(
            "roles that may log in",
            {_SUPERUSER, *_BY_CERTIFICATE, *opened},
            (name for name, role in roles.items() if role["login"]),
        ),
        same("roles with a password", opened, (name for name, role in roles.items() if role["password"] != _NONE)),
    ]


def _verifiers(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    roles = facts.part(_DATABASE)["roles"]
    weak = [f"{name} ({r['password']})" for name, r in roles.items() if r["password"] not in {_NONE, "scram"}]
    return [nothing("passwords that are no SCRAM verifier", weak)]


def _memberships(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    roles = facts.part(_DATABASE)["roles"]
    expected = {f"{pair.login(letter)} in {pair.user}" for pair in _PAIRS for letter in LETTERS}
    return [same("memberships", expected, (f"{name} in {of}" for name, r in roles.items() for of in r["member_of"]))]


def _replication(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    said = facts.part(_DATABASE)
    may = (name for name, role in said["roles"].items() if role["replication"] and not role["superuser"])
    checks = [
        same("roles that may replicate", [REPLICATOR], may),
        nothing(
            "replicas of another user or without TLS",
            (str(r["user"]) for r in said["replicas"] if r["user"] != REPLICATOR or not r["ssl"]),
        ),
    ]
    if said["primary"]:
        checks += [
            equal("sslmode towards the leader", "verify-full", said["primary"]["sslmode"]),
            equal("password towards the leader", "none", said["primary"]["password"]),
        ]
    return checks


def _public(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    said = facts.part(_DATABASE)
    return [
        nothing("rights of everybody on the database", (r for r in said["database_acl"] if r.startswith("PUBLIC "))),
        nothing("rights of everybody on schemas", (r for r in said["schema_acl"] if " PUBLIC " in r)),
        nothing("rights of everybody on tables", said["public_rights"]),
        nothing("default rights of everybody", (r for r in said["default_rights"] if r.startswith("PUBLIC "))),
    ]


def _makers(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    said = facts.part(_DATABASE)
    rights = [*said["database_acl"], *said["schema_acl"]]
    return [
        nothing("who may make schemas or objects besides their owner", (r for r in rights if r.endswith(" CREATE")))
    ]


def _functions(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    found = facts.part(_DATABASE)["definers"]
    return [
        nothing("without a fixed search_path", (f["name"] for f in found if not f["search_path"])),
        nothing("open to everybody", (f["name"] for f in found if f["public"])),
    ]


def _inside(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    said = facts.part(_DATABASE)
    return [
        same("extensions", ["plpgsql"], said["extensions"]),
        nothing("languages that may do anything on the host", said["untrusted_languages"]),
        nothing("foreign servers, event triggers, publications", said["outside"]),
    ]


def _databases(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    found = facts.part(_DATABASE)
    return [
        same("databases", ["kea", _SUPERUSER, "template0", "template1"], found["databases"]),
        same("settings of roles and databases", ["role"], found["role_settings"]),
    ]


def _owners(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    others = [
        entry
        for entry in facts.part(_DATABASE)["owners"]
        if entry.rpartition(" ")[2] != KEA_OWNER.user and entry != f"{OWN_SCHEMA} {_SUPERUSER}"
    ]
    return [nothing("tables of somebody else than the owning role", others)]


def _item(name: str, source: str, title: str, look: Any) -> Item:
    return Item(id=name, source=source, title=title, look=look, role=_DATABASE)


RULES = Group(
    name="Who may log in to PostgreSQL",
    items=(
        _item(
            "hba-local", "CIS 5, local login", "The local socket is for the superuser, known by its account", _local
        ),
        _item("hba-methods", "CIS 5, host login", "No rule lets in by trust, clear password or MD5", _methods),
        _item("hba-tls", "CIS 5, host login", "Nobody comes over the network without TLS", _encrypted),
        _item(
            "hba-addresses", "CIS 5, host login", "No rule is for everybody, every database or every address", _narrow
        ),
        _item("hba-superuser", OWN, "No superuser comes over the network", _superuser_stays),
        _item(
            "hba-as-declared", OWN, "The rules are those of the site file, and the last one refuses", _declared_rules
        ),
    ),
)

ROLES = Group(
    name="Roles and rights in PostgreSQL",
    items=(
        _item("superusers", "CIS 4, administrative privileges", "There is one superuser", _superusers),
        _item(
            "role-attributes",
            "CIS 4, administrative privileges",
            "No other role has an attribute of a superuser",
            _attributes,
        ),
        _item("logins-as-declared", OWN, "Only declared roles log in, and only clients' have a password", _logins),
        _item("password-verifiers", "CIS 5, host login", "Every password is kept as a SCRAM verifier", _verifiers),
        _item(
            "memberships",
            "CIS 4, predefined roles",
            "Logins are members of their own role and of no predefined one",
            _memberships,
        ),
        _item(
            "replication-role",
            "CIS 7, replication user, streaming",
            "Replication has a role of its own, over verified TLS",
            _replication,
        ),
        _item(
            "public-rights",
            "CIS 4, DML privileges",
            "Everybody has no right on database, schemas and tables",
            _public,
        ),
        _item("create-rights", OWN, "Nobody but the owners makes schemas and objects", _makers),
        _item(
            "definer-functions",
            "CIS 4, function privileges",
            "Functions with their owner's rights look in fixed places and are not open to everybody",
            _functions,
        ),
        _item("extensions", OWN, "No extension, language or foreign server that nobody declared", _inside),
        _item("databases", OWN, "No database and no setting of a role that nobody declared", _databases),
        _item("owners", OWN, "Tables belong to the owning role, not to a login", _owners),
    ),
)
