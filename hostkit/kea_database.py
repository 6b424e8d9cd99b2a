"""Kea's schema in its database, by ``kea-admin`` against the leader over TLS (verb ``kea-database``).

The version decides: a really empty database is initialised, the expected version is left alone, a lower one is
upgraded only when the site accepts it, a higher one or foreign tables are refused. Then the reading role gets
exactly the rights of a serving Kea, and a login as the reader proves that they are enough.

Safe to cut and to run twice at once: ``db-init`` is one transaction, and after every attempt the version is asked
again. It never drops anything and takes no backup.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from typing import Any

from hostkit import kea_plan, store
from hostkit.context import Context
from hostkit.errors import CommandFailed, CommandTimeout, HostError, Refused
from hostkit.psql import Psql, identifier, literal
from hostkit.system import Completed, last_lines

POLL_SECONDS = 1.0
ATTEMPTS = 3
VERSION_SECONDS = 30
SCRIPT_SECONDS = 300
NO_SCHEMA = 3
"""Exit code of ``db-version`` when ``schema_version`` cannot be read: no schema, or no right to see it."""

_VERSION = re.compile(r"(\d+)\.(\d+)")
_RELATIONS = """
SELECT coalesce(json_agg(x.name ORDER BY x.name), '[]') FROM (
  SELECT n.nspname || '.' || c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') LIMIT 6) x
"""
_GRANTS = """
SELECT coalesce(json_agg(c.relname || ' ' || a.privilege_type), '[]')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, aclexplode(c.relacl) a
WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND a.grantee = %(role)s::regrole
"""


@dataclass(frozen=True)
class Admin:
    """Calls of ``kea-admin`` as the owner: same way to the server as ``psql``, password in its environment."""

    ctx: Context
    program: str
    hosts: str
    port: str
    database: str
    login: str
    environment: dict[str, str]

    def run(self, command: str, timeout: float) -> Completed:
        """Run one command; the exit code is for the caller to read."""
        argv = [self.program, command, "pgsql", "-h", self.hosts, "-P", self.port, "-u", self.login]
        argv += ["-n", self.database]
        return self.ctx.system.run(argv, timeout=timeout, check=False, env=self.environment)

    def tool_version(self) -> str:
        """Return the version of ``kea-admin`` itself."""
        return self.ctx.system.run([self.program, "--version"], timeout=VERSION_SECONDS).stdout.strip()


def main(ctx: Context, argv: list[str]) -> int:  # noqa: ARG001 -- the verbs' common signature
    """Bring the plan into force and print a JSON summary. Refused leaves the database as it was."""
    plan = kea_plan.load(ctx, kea_plan.DATABASE_PLAN)
    owner = Psql(
        ctx, program=plan["psql"], database=plan["database"], environment=_login_environment(ctx, plan, "owner")
    )
    reader = Psql(
        ctx, program=plan["psql"], database=plan["database"], environment=_login_environment(ctx, plan, "read")
    )
    environment = dict(owner.environment)
    # kea-admin hands the password on to psql itself; 2.2 to 3.2 all read it from here.
    environment["KEA_ADMIN_DB_PASSWORD"] = environment.pop("PGPASSWORD")
    admin = Admin(
        ctx,
        program=plan["kea_admin"],
        hosts=environment.pop("PGHOST"),
        port=environment["PGPORT"],
        database=plan["database"],
        login=environment.pop("PGUSER"),
        environment=environment,
    )
    actions = converge_schema(admin, owner, plan)
    actions += converge_grants(owner, plan)
    seen = verify_reader(reader, plan)
    summary = {"changed": bool(actions), "actions": actions, "schema": plan["schema"], **seen}
    json.dump(summary, sys.stdout, sort_keys=True)
    sys.stdout.write("\n")
    return 0


def _login_environment(ctx: Context, plan: dict[str, Any], which: str) -> dict[str, str]:
    """Return libpq's environment: every database host, the one that takes writes, verified TLS."""
    login = plan["logins"][which]
    endpoints = plan["endpoints"]
    return {
        "PGHOST": ",".join(e["host"] for e in endpoints),
        # The names are verified against the certificates; the addresses spare a name server.
        "PGHOSTADDR": ",".join(e["address"] for e in endpoints),
        "PGPORT": str(plan["port"]),
        "PGTARGETSESSIONATTRS": "read-write",
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": plan["ca"],
        # PostgreSQL itself is on the other end: the password counts for this TLS connection only.
        "PGCHANNELBINDING": "require",
        "PGCONNECT_TIMEOUT": "5",
        "PGAPPNAME": "keadb",
        # No certificate, password file or setting of root's own home takes part.
        "HOME": "/nonexistent",
        "PGUSER": login["name"],
        "PGPASSWORD": store.secret(ctx, login["secret"], wanted_by="kea-database"),
    }


def converge_schema(admin: Admin, owner: Psql, plan: dict[str, Any]) -> list[str]:
    """Bring the schema to the plan's version; return what was done. Refused when that must not be done."""
    expected = _parsed(plan["schema"])
    actions: list[str] = []
    said = ""
    for _ in range(ATTEMPTS):
        version = current_version(admin, plan["timeout"])
        if version == expected:
            return actions
        if version is None:
            _refuse_unless_empty(owner)
            _refuse_other_tool(admin, plan)
            done = admin.run("db-init", SCRIPT_SECONDS)
            what = f"schema {plan['schema']} made by kea-admin db-init"
        elif version > expected:
            msg = (
                f"the database has Kea schema {_shown(version)}, newer than {plan['schema']} of Kea {plan['kea']}: "
                "set kea.version to what the servers run; a schema is never taken back"
            )
            raise Refused(msg)
        elif not plan["accept_upgrade"]:
            msg = (
                f"the database has Kea schema {_shown(version)}, Kea {plan['kea']} needs {plan['schema']}: "
                "an upgrade stops every Kea server of the old version; accept it with accept.schema_upgrade "
                "(reason and until) in the site file, after a backup"
            )
            raise Refused(msg)
        else:
            _refuse_other_tool(admin, plan)
            done = admin.run("db-upgrade", SCRIPT_SECONDS)
            what = f"schema {_shown(version)} upgraded to {plan['schema']}"
        if done.returncode == 0:
            actions.append(what)
        else:
            # Another run may have been faster, or the leader went away: the version decides what is next.
            said = last_lines(done.stdout + "\n" + done.stderr, 5)
    version = current_version(admin, plan["timeout"])
    if version == expected:
        return actions
    have = "none" if version is None else _shown(version)
    msg = (
        f"Kea's schema is {have} after {ATTEMPTS} attempts, expected {plan['schema']}: {said or 'no error was shown'}"
    )
    raise HostError(msg)


def current_version(admin: Admin, seconds: float) -> tuple[int, int] | None:
    """Return the schema's version, None without a schema; wait for a leader for at most ``seconds``."""
    system = admin.ctx.system
    deadline = system.monotonic() + seconds
    while True:
        try:
            done = admin.run("db-version", VERSION_SECONDS)
        except CommandTimeout as e:
            said = str(e)
        else:
            words = done.stdout.split()
            # The password's origin is announced on stdout first: only the last word is the answer.
            if done.returncode == 0 and words and _VERSION.fullmatch(words[-1]):
                return _parsed(words[-1])
            said = last_lines(done.stderr, 5) or last_lines(done.stdout, 5)
            if done.returncode == NO_SCHEMA and not _connection_trouble(done.stderr):
                return None
        if system.monotonic() >= deadline:
            msg = f"no leader took a connection within {seconds:g} s: {said}"
            raise HostError(msg)
        system.sleep(POLL_SECONDS)


def _connection_trouble(stderr: str) -> bool:
    """Tell a server that went away in the middle from one that has no schema: psql ends alike for both."""
    return any(sign in stderr for sign in ("could not connect", "connection to server", "server closed"))


def _refuse_unless_empty(owner: Psql) -> None:
    """Refuse to initialise what only looks empty: tables that are not Kea's, or a schema that cannot be read."""
    relations = owner.json(_RELATIONS)
    if "public.schema_version" in relations:
        msg = "schema_version exists but the owner's login cannot read it: someone changed its owner or rights"
        raise Refused(msg)
    if relations:
        msg = (
            f"the database holds no Kea schema but other relations in schema public: {', '.join(relations)}; "
            "kea-admin only starts from an empty schema (put your own objects into another one)"
        )
        raise Refused(msg)


def _refuse_other_tool(admin: Admin, plan: dict[str, Any]) -> None:
    """Refuse before anything is written when the installed ``kea-admin`` would make another schema."""
    version = admin.tool_version()
    if not version.startswith(f"{plan['kea']}."):
        msg = f"kea-admin on this host is {version}, kea.version of the site is {plan['kea']}: they must agree"
        raise Refused(msg)


def converge_grants(owner: Psql, plan: dict[str, Any]) -> list[str]:
    """Give the reading role SELECT on exactly the plan's tables; return what was changed."""
    role = identifier(plan["reader"])
    have = set(owner.json(_GRANTS % {"role": literal(role)}))
    wanted = {f"{identifier(table)} SELECT" for table in plan["tables"]}
    actions: list[str] = []
    statements: list[str] = []
    for entry in sorted(have - wanted):
        table, privilege = entry.split(" ", 1)
        statements.append(f'REVOKE {privilege} ON public."{table}" FROM {role}')
        actions.append(f"revoke {privilege} on {table} from {role}")
    for entry in sorted(wanted - have):
        table, privilege = entry.split(" ", 1)
        statements.append(f"GRANT {privilege} ON public.{table} TO {role}")
        actions.append(f"grant {privilege} on {table} to {role}")
    if statements:
        owner.execute(statements)
    return actions


def verify_reader(reader: Psql, plan: dict[str, Any]) -> dict[str, Any]:
    """Log in as the reader and read every table that Kea prepares statements on; HostError when one is refused.

    Kea itself starts without SELECT on ``hosts`` and then drops every packet in silence: so it is proved here.
    """
    tables = [identifier(table) for table in plan["tables"]]
    counts = ", ".join(f"'{t}', (SELECT count(*) FROM public.{t})" for t in tables)  # noqa: S608 -- names were checked
    query = (
        f"SELECT json_build_object('rows', json_build_object({counts}), "  # noqa: S608 -- names were checked
        "'tls', (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), "
        "'writes', has_table_privilege('public.hosts', 'INSERT, UPDATE, DELETE, TRUNCATE'))"
    )
    try:
        seen = reader.json(query)
    except CommandFailed as e:
        msg = f"the reading login {plan['logins']['read']['name']} cannot do what Kea does: {e}"
        raise HostError(msg) from e
    if seen["tls"] is not True or seen["writes"]:
        what = "may write to hosts" if seen["writes"] else "is connected without TLS"
        msg = f"the reading login {plan['logins']['read']['name']} {what}"
        raise HostError(msg)
    return {"reservations": seen["rows"]["hosts"]}


def _parsed(version: str) -> tuple[int, int]:
    found = _VERSION.fullmatch(version)
    if found is None:
        msg = f"schema version {version!r} is not MAJOR.MINOR"
        raise HostError(msg)
    return int(found[1]), int(found[2])


def _shown(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
