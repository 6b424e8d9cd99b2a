"""Kea's roles, logins and database, made by the superuser on whichever node leads (verb ``kea-roles``).

Runs on every database host: the leader changes what differs from the plan, a replica waits until replication
brought the same. Nothing is dropped here, and no role that the plan does not name is touched. Tables are made by
``kea-database``, as the owner.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from hostkit import kea_plan, kea_pooler, scram, store
from hostkit.context import Context
from hostkit.errors import CommandFailed, CommandTimeout, HostError
from hostkit.psql import Psql, identifier, literal

POLL_SECONDS = 1.0

_ROLES = """
SELECT json_build_object(
  'in_recovery', pg_is_in_recovery(),
  'roles', (SELECT coalesce(json_object_agg(r.rolname, json_build_object(
      'attributes', json_build_array(r.rolcanlogin, r.rolsuper, r.rolcreatedb, r.rolcreaterole, r.rolreplication,
                                     r.rolbypassrls, r.rolinherit),
      'password', r.rolpassword,
      'settings', coalesce((SELECT to_json(s.setconfig) FROM pg_db_role_setting s
                            WHERE s.setrole = r.oid AND s.setdatabase = 0), '[]'),
      'member_of', (SELECT coalesce(json_agg(g.rolname ORDER BY g.rolname), '[]') FROM pg_auth_members m
                    JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid))), '{}')
    FROM pg_authid r WHERE r.rolname = ANY (%(names)s)),
  'database', (SELECT json_build_object(
      'owner', pg_get_userbyid(d.datdba),
      'grants', (SELECT json_agg(CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END
                                 || ' ' || a.privilege_type)
                 FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a WHERE a.grantee <> d.datdba))
    FROM pg_database d WHERE d.datname = %(database)s))
"""
_SCHEMA = """
SELECT json_build_object(
  'owner', pg_get_userbyid(n.nspowner),
  'grants', (SELECT json_agg(CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END
                             || ' ' || a.privilege_type)
             FROM aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a WHERE a.grantee <> n.nspowner))
FROM pg_namespace n WHERE n.nspname = 'public'
"""
# canlogin, superuser, createdb, createrole, replication, bypassrls, inherit
_GROUP = [False, False, False, False, False, False, True]
_OPEN = [True, *_GROUP[1:]]

UNLOGGED = "-c log_statement=none -c log_min_duration_statement=-1 -c log_min_error_statement=panic"
"""For a session whose statements carry password verifiers: no log line shows them, however slow or wrong they are."""


def main(ctx: Context, argv: list[str]) -> int:  # noqa: ARG001 -- the verbs' common signature
    """Bring the plan into force and print a JSON summary; HostError after the plan's time limit."""
    plan = kea_plan.load(ctx, kea_plan.ROLES_PLAN)
    server = Psql(ctx, program=plan["psql"], user=plan["superuser"], environment={"PGOPTIONS": UNLOGGED})
    passwords = {
        login.name: store.secret(ctx, login.secret, wanted_by="kea-roles")
        for login in kea_plan.logins(plan)
        if login.secret is not None
    }
    done = converge(server, plan, passwords)
    json.dump(done, sys.stdout, sort_keys=True)
    sys.stdout.write("\n")
    return 0


def converge(server: Psql, plan: dict[str, Any], passwords: dict[str, str]) -> dict[str, Any]:
    """Return ``{"changed": bool, "leader": bool, "actions": [...]}`` once this node shows what the plan says.

    Who leads is asked again in every round, so a switch of the leader in the middle ends in the same place.
    """
    system = server.ctx.system
    deadline = system.monotonic() + plan["timeout"]
    actions: list[str] = []
    last = "PostgreSQL gave no answer"
    while True:
        leader = False
        try:
            leader, pending = look(server, plan, passwords)
            if not pending:
                return {"changed": bool(actions), "leader": leader, "actions": actions}
            if leader:
                actions += _apply(server, plan, pending)
            role = "leader" if leader else "replica"
            last = f"this {role} does not have yet: {', '.join(what for what, _, _ in pending)}"
        except (CommandFailed, CommandTimeout) as e:
            last = str(e)
        if system.monotonic() >= deadline:
            msg = f"roles and database of Kea are not in place after {plan['timeout']} s: {last}"
            raise HostError(msg)
        if not leader:  # the leader looks again at once: what it did may have opened the way to more
            system.sleep(POLL_SECONDS)


Pending = list[tuple[str, str, str]]
"""What is to be done, in words; the database where, ``""`` for outside a transaction; the statement."""


def look(server: Psql, plan: dict[str, Any], passwords: dict[str, str]) -> tuple[bool, Pending]:
    """Return whether this node leads, and everything in which it is not as planned. Reads only."""
    database = identifier(plan["database"])
    names = [*plan["roles"], *plan["logins"]]
    array = "ARRAY[" + ", ".join(literal(identifier(name)) for name in names) + "]"
    state = server.json(_ROLES % {"names": array, "database": literal(database)})
    pending = role_changes(state, plan, passwords) + kea_pooler.role_changes(server, plan)
    pending += database_changes(state, plan)
    if state["database"] is not None:
        pending += schema_changes(server.on(database).json(_SCHEMA), plan)
        pending += kea_pooler.function_changes(server.on(database), plan)
    return not state["in_recovery"], pending


def _apply(server: Psql, plan: dict[str, Any], pending: Pending) -> list[str]:
    """Run what is pending: roles in one transaction, then the database, then what lies inside it."""
    for where in ("postgres", "", plan["database"]):
        statements = [statement for _, at, statement in pending if at == where]
        if where == "":
            for statement in statements:
                server.execute_alone(statement)
        elif statements:
            server.on(where).execute(statements)
    return [what for what, _, _ in pending]


def role_changes(state: dict[str, Any], plan: dict[str, Any], passwords: dict[str, str]) -> Pending:
    """Return what differs between the roles that exist and the plan."""
    pending: Pending = []
    have = state["roles"]
    for role in plan["roles"]:
        name = identifier(role)
        if role not in have:
            pending.append((f"create role {role}", "postgres", f"CREATE ROLE {name} {_attributes(_GROUP)}"))
        elif have[role]["attributes"] != _GROUP or have[role]["password"] is not None:
            pending.append(
                (f"alter role {role}", "postgres", f"ALTER ROLE {name} {_attributes(_GROUP)} PASSWORD NULL")
            )
    for login in kea_plan.logins(plan):
        pending += _login_changes(have.get(login.name), login, passwords.get(login.name))
    return pending


def _login_changes(have: dict[str, Any] | None, login: kea_plan.Login, password: str | None) -> Pending:
    pending: Pending = []
    name, role = identifier(login.name), identifier(login.role)
    wanted = _GROUP if password is None else _OPEN
    if have is None:
        pending.append((f"create login {name}", "postgres", f"CREATE ROLE {name} {_attributes(wanted)}"))
        have = {"attributes": wanted, "password": None, "settings": [], "member_of": []}
    if have["attributes"] != wanted:
        what = "open" if password is not None else "close"
        pending.append((f"{what} login {name}", "postgres", f"ALTER ROLE {name} {_attributes(wanted)}"))
    if password is None and have["password"] is not None:
        pending.append((f"forget password of {name}", "postgres", f"ALTER ROLE {name} PASSWORD NULL"))
    if password is not None and not scram.matches(password, have["password"]):
        verifier = literal(scram.verifier(password))
        pending.append((f"set password of {name}", "postgres", f"ALTER ROLE {name} PASSWORD {verifier}"))
    if role not in have["member_of"]:
        pending.append((f"grant {role} to {name}", "postgres", f"GRANT {role} TO {name}"))
    settings = [f"role={role}"] if login.set_role else []
    if have["settings"] != settings:
        pending.append((f"settings of {name}", "postgres", f"ALTER ROLE {name} RESET ALL"))
        if login.set_role:
            pending.append((f"{name} acts as {role}", "postgres", f"ALTER ROLE {name} SET role = {literal(role)}"))
    return pending


def database_changes(state: dict[str, Any], plan: dict[str, Any]) -> Pending:
    """Return what is to be done about the database itself: existence, owner, who may connect."""
    name, owner = identifier(plan["database"]), identifier(plan["owner"])
    pending: Pending = []
    have = state["database"]
    if have is None:
        create = f"CREATE DATABASE {name} OWNER {owner} TEMPLATE template0 ENCODING 'UTF8'"
        return [(f"create database {name}", "", create)]
    if have["owner"] != owner:
        pending.append((f"owner of {name}", "postgres", f"ALTER DATABASE {name} OWNER TO {owner}"))
    wanted = {f"{identifier(role)} CONNECT" for role in (*plan["connect"], *kea_pooler.connects(plan))}
    return pending + _grants(have["grants"], wanted, f"DATABASE {name}", "postgres", owner)


def schema_changes(have: dict[str, Any], plan: dict[str, Any]) -> Pending:
    """Return what is to be done about schema ``public``: the owner role owns it, readers may look inside."""
    owner = identifier(plan["owner"])
    pending: Pending = []
    if have["owner"] != owner:
        pending.append(("owner of schema public", plan["database"], f"ALTER SCHEMA public OWNER TO {owner}"))
    wanted = {f"{identifier(role)} USAGE" for role in plan["connect"]}
    return pending + _grants(have["grants"], wanted, "SCHEMA public", plan["database"], owner)


def _grants(have: list[str] | None, wanted: set[str], on: str, where: str, owner: str) -> Pending:
    """Return the grants and revokes that make the privileges of everyone but the owner exactly ``wanted``.

    Grants to the owner itself are left alone: they are what ownership gives anyway.
    """
    given = {entry for entry in have or [] if entry.split(" ")[0] != owner}
    pending: Pending = []
    for entry in sorted(given - wanted):
        grantee, privilege = entry.split(" ", 1)
        who = "PUBLIC" if grantee == "PUBLIC" else '"' + grantee.replace('"', '""') + '"'
        pending.append(
            (f"revoke {privilege} on {on} from {grantee}", where, f"REVOKE {privilege} ON {on} FROM {who}")
        )
    for entry in sorted(wanted - given):
        grantee, privilege = entry.split(" ", 1)
        pending.append((f"grant {privilege} on {on} to {grantee}", where, f"GRANT {privilege} ON {on} TO {grantee}"))
    return pending


def _attributes(wanted: list[bool]) -> str:
    words = ("LOGIN", "SUPERUSER", "CREATEDB", "CREATEROLE", "REPLICATION", "BYPASSRLS", "INHERIT")
    return " ".join(word if on else f"NO{word}" for word, on in zip(words, wanted, strict=True))
