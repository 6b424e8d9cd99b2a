"""What the poolers need in the database: a role that may ask one question, and the function that answers it.

PgBouncer checks its clients by the SCRAM verifier that PostgreSQL holds, and logs in to PostgreSQL with what the
client proved: it never has a password. To get a verifier it logs in with the host's certificate as a role that owns
nothing, and calls a function of the superuser that answers for the logins of Kea's roles and for nobody else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hostkit.psql import Psql, identifier, literal

if TYPE_CHECKING:
    from collections.abc import Sequence

_ATTRIBUTES = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS NOINHERIT PASSWORD NULL"
_WANTED = [True, False, False, False, False, False, False, False]
_ROLE = """
SELECT coalesce((SELECT json_build_object(
  'attributes', json_build_array(r.rolcanlogin, r.rolsuper, r.rolcreatedb, r.rolcreaterole, r.rolreplication,
                                 r.rolbypassrls, r.rolinherit, r.rolpassword IS NOT NULL),
  'member_of', (SELECT coalesce(json_agg(g.rolname ORDER BY g.rolname), '[]') FROM pg_auth_members m
                JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid))
  FROM pg_authid r WHERE r.rolname = %(role)s), 'null')
"""
_FUNCTION = """
SELECT json_build_object(
  'schema', (SELECT json_build_object('owner', pg_get_userbyid(n.nspowner), 'grants', (
      SELECT json_agg(CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END
                      || ' ' || a.privilege_type)
      FROM aclexplode(n.nspacl) a WHERE a.grantee <> n.nspowner))
    FROM pg_namespace n WHERE n.nspname = %(schema)s),
  'function', (SELECT json_build_object('owner', pg_get_userbyid(p.proowner), 'definer', p.prosecdef,
      'settings', p.proconfig, 'body', p.prosrc, 'result', pg_get_function_result(p.oid), 'grants', (
      SELECT json_agg(CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END
                      || ' ' || a.privilege_type)
      FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a WHERE a.grantee <> p.proowner))
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname = %(schema)s AND p.proname = %(function)s
      AND pg_get_function_identity_arguments(p.oid) = 'login text'))
"""
_RESULT = "TABLE(name text, verifier text)"

Pending = list[tuple[str, str, str]]
"""As in ``hostkit.kea_roles``."""


def connects(plan: dict[str, Any]) -> Sequence[str]:
    """Return the role that may connect to the database besides those of the plan; none without poolers."""
    return (plan["pooler"]["role"],) if "pooler" in plan else ()


def role_changes(server: Psql, plan: dict[str, Any]) -> Pending:
    """Return what is to be done about the role: it logs in by certificate, is nobody's member and has no password."""
    if "pooler" not in plan:
        return []
    role = identifier(plan["pooler"]["role"])
    have = server.json(_ROLE % {"role": literal(role)})
    if have is None:
        return [(f"create login {role}", "postgres", f"CREATE ROLE {role} {_ATTRIBUTES}")]
    pending: Pending = []
    if have["attributes"] != _WANTED:
        pending.append((f"alter login {role}", "postgres", f"ALTER ROLE {role} {_ATTRIBUTES}"))
    for group in have["member_of"]:
        quoted = '"' + group.replace('"', '""') + '"'
        pending.append((f"revoke {group} from {role}", "postgres", f"REVOKE {quoted} FROM {role}"))
    return pending


def function_changes(server: Psql, plan: dict[str, Any]) -> Pending:
    """Return what is to be done inside Kea's database: schema, function, and who may use them."""
    if "pooler" not in plan:
        return []
    pooler, where = plan["pooler"], plan["database"]
    role, schema, owner = identifier(pooler["role"]), identifier(pooler["schema"]), identifier(plan["superuser"])
    have = server.json(_FUNCTION % {"schema": literal(schema), "function": literal(identifier(pooler["function"]))})
    name = f"{schema}.{identifier(pooler['function'])}(login text)"
    pending: Pending = []
    if have["schema"] is None:
        pending.append((f"create schema {schema}", where, f"CREATE SCHEMA {schema}"))
        have["schema"] = {"owner": owner, "grants": None}
    if have["schema"]["owner"] != owner:
        pending.append((f"owner of schema {schema}", where, f"ALTER SCHEMA {schema} OWNER TO {owner}"))
    pending += _rights(have["schema"]["grants"], f"{role} USAGE", f"SCHEMA {schema}", where)
    body = _body(pooler["of"])
    found = have["function"]
    wanted = {
        "owner": owner,
        "definer": True,
        "settings": ["search_path=pg_catalog"],
        "body": body,
        "result": _RESULT,
    }
    if found is None or {key: found[key] for key in wanted} != wanted:
        # Dropped, not replaced: a function of another result or owner cannot be.
        drop = [] if found is None else [(f"drop function {name}", where, f"DROP FUNCTION {name}")]
        make = (
            f"CREATE FUNCTION {name} RETURNS {_RESULT} LANGUAGE sql STABLE STRICT SECURITY DEFINER "
            f"SET search_path = pg_catalog AS $body${body}$body$"
        )
        pending += [*drop, (f"create function {name}", where, make)]
        found = {"grants": ["PUBLIC EXECUTE"]}
    return pending + _rights(found["grants"], f"{role} EXECUTE", f"FUNCTION {name}", where)


def _body(groups: Sequence[str]) -> str:
    """Return the question: a login that is a member of one of these groups and no more than that."""
    members = " OR ".join(f"pg_has_role(r.oid, {literal(identifier(group))}, 'MEMBER')" for group in groups)
    return (
        "SELECT r.rolname::text, r.rolpassword FROM pg_authid r WHERE r.rolname = login AND r.rolcanlogin "  # noqa: S608 - of checked identifiers
        f"AND NOT r.rolsuper AND NOT r.rolreplication AND ({members})"
    )


def _rights(have: Sequence[str] | None, wanted: str, on: str, where: str) -> Pending:
    """Return what makes ``wanted`` ("role PRIVILEGE") the only right of anybody but the owner."""
    pending: Pending = []
    for entry in sorted(set(have or ()) - {wanted}):
        grantee, privilege = entry.rsplit(" ", 1)
        who = "PUBLIC" if grantee == "PUBLIC" else '"' + grantee.replace('"', '""') + '"'
        pending.append(
            (f"revoke {privilege} on {on} from {grantee}", where, f"REVOKE {privilege} ON {on} FROM {who}")
        )
    if wanted not in (have or ()):
        role, privilege = wanted.split(" ")
        pending.append((f"grant {privilege} on {on} to {role}", where, f"GRANT {privilege} ON {on} TO {role}"))
    return pending
