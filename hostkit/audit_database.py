"""Facts for the audit: what PostgreSQL on this node says of itself, asked by the superuser. See ``hostkit.audit``.

Of a password only its kind is asked for, of the settings only those of the list.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from hostkit import kea_plan
from hostkit.psql import Psql, identifier, literal

if TYPE_CHECKING:
    from hostkit.context import Context

SECONDS = 20
SETTINGS = """
allow_system_table_mods authentication_timeout backslash_quote client_min_messages cluster_name data_checksums
data_directory_mode debug_pretty_print debug_print_parse debug_print_plan debug_print_rewritten dynamic_library_path
fsync full_page_writes idle_in_transaction_session_timeout ignore_checksum_failure ignore_invalid_pages
ignore_system_indexes jit jit_debugging_support jit_profiling_support listen_addresses
lo_compat_privileges local_preload_libraries log_checkpoints log_connections log_destination log_disconnections
log_duration log_error_verbosity log_hostname log_line_prefix log_lock_waits log_min_error_statement
log_min_messages log_parameter_max_length log_parameter_max_length_on_error log_replication_commands log_statement
log_timezone logging_collector password_encryption post_auth_delay restart_after_crash row_security
session_preload_libraries session_replication_role shared_preload_libraries ssl ssl_ciphers
ssl_ca_file ssl_min_protocol_version ssl_prefer_server_ciphers standard_conforming_strings synchronous_commit
unix_socket_directories unix_socket_permissions wal_level wal_log_hints zero_damaged_pages
""".split()  # noqa: SIM905 - one name a line would be sixty lines

_SERVER = """
SELECT json_build_object(
  'version', current_setting('server_version_num')::int,
  'in_recovery', pg_is_in_recovery(),
  'settings', (SELECT json_object_agg(name, setting) FROM pg_settings WHERE name = ANY (%(settings)s)),
  'pending_restart', (SELECT coalesce(json_agg(name ORDER BY name), '[]') FROM pg_settings WHERE pending_restart),
  'hba', (SELECT coalesce(json_agg(json_build_object(
      'type', type, 'database', database, 'user', user_name, 'address', address, 'netmask', netmask,
      'method', auth_method, 'options', options, 'error', error) ORDER BY line_number), '[]')
    FROM pg_hba_file_rules),
  'databases', (SELECT json_agg(datname ORDER BY datname) FROM pg_database),
  'roles', (SELECT json_object_agg(r.rolname, json_build_object(
      'login', r.rolcanlogin, 'superuser', r.rolsuper, 'createdb', r.rolcreatedb, 'createrole', r.rolcreaterole,
      'replication', r.rolreplication, 'bypassrls', r.rolbypassrls,
      'password', CASE WHEN r.rolpassword IS NULL THEN 'none' WHEN r.rolpassword LIKE 'SCRAM-SHA-256$%%' THEN 'scram'
                       WHEN r.rolpassword LIKE 'md5%%' THEN 'md5' ELSE 'other' END,
      'member_of', (SELECT coalesce(json_agg(g.rolname ORDER BY g.rolname), '[]') FROM pg_auth_members m
                    JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid)))
    FROM pg_authid r WHERE r.rolname !~ '^pg_'),
  'role_settings', (SELECT coalesce(json_agg(DISTINCT s.name ORDER BY s.name), '[]') FROM (
      SELECT split_part(unnest(setconfig), '=', 1) AS name FROM pg_db_role_setting) s),
  'clear_sessions', (SELECT count(*) FROM pg_stat_activity a JOIN pg_stat_ssl s USING (pid)
    WHERE a.client_addr IS NOT NULL AND NOT s.ssl),
  'replicas', (SELECT coalesce(json_agg(json_build_object('user', r.usename, 'ssl', s.ssl)), '[]')
    FROM pg_stat_replication r JOIN pg_stat_ssl s USING (pid)),
  'primary_conninfo', current_setting('primary_conninfo'))
"""
_DATABASE = """
SELECT json_build_object(
  'database_acl', (SELECT coalesce(json_agg(CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END
        || ' ' || a.privilege_type), '[]')
    FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
    WHERE d.datname = current_database() AND a.grantee <> d.datdba),
  'schema_acl', (SELECT coalesce(json_agg(n.nspname || ' ' || CASE a.grantee WHEN 0 THEN 'PUBLIC'
        ELSE pg_get_userbyid(a.grantee) END || ' ' || a.privilege_type), '[]')
    FROM pg_namespace n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
    WHERE a.grantee <> n.nspowner AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'),
  'public_rights', (SELECT coalesce(json_agg(DISTINCT n.nspname || '.' || c.relname || ' ' || a.privilege_type), '[]')
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, aclexplode(c.relacl) a
    WHERE a.grantee = 0 AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'),
  'default_rights', (SELECT coalesce(json_agg(DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC'
        ELSE pg_get_userbyid(a.grantee) END || ' ' || a.privilege_type), '[]')
    FROM pg_default_acl d, aclexplode(d.defaclacl) a WHERE a.grantee <> d.defaclrole),
  'definers', (SELECT coalesce(json_agg(json_build_object('name', n.nspname || '.' || p.proname,
      'search_path', EXISTS (SELECT FROM unnest(p.proconfig) c WHERE c LIKE 'search_path=%%'),
      'public', EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
                        WHERE a.grantee = 0))), '[]')
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE p.prosecdef AND n.nspname NOT IN ('pg_catalog', 'information_schema')),
  'extensions', (SELECT coalesce(json_agg(extname ORDER BY extname), '[]') FROM pg_extension),
  'untrusted_languages', (SELECT coalesce(json_agg(lanname ORDER BY lanname), '[]') FROM pg_language
    WHERE NOT lanpltrusted AND lanname NOT IN ('internal', 'c')),
  'owners', (SELECT coalesce(json_agg(DISTINCT n.nspname || ' ' || pg_get_userbyid(c.relowner)), '[]')
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND n.nspname !~ '^pg_'
      AND n.nspname <> 'information_schema'),
  'outside', (SELECT coalesce(json_agg(name), '[]') FROM (
      SELECT 'server ' || srvname AS name FROM pg_foreign_server
      UNION ALL SELECT 'event trigger ' || evtname FROM pg_event_trigger
      UNION ALL SELECT 'publication ' || pubname FROM pg_publication) o))
"""
_WORD = re.compile(r"(\w+)=(?:'([^']*)'|(\S+))")


def database(ctx: Context, user: str) -> dict[str, Any] | None:  # noqa: ARG001 -- the parts' common signature
    """Return what PostgreSQL says of settings, access, roles and rights; None on a host without a database."""
    if not ctx.path(kea_plan.ROLES_PLAN).exists():
        return None
    plan = kea_plan.load(ctx, kea_plan.ROLES_PLAN)
    server = Psql(
        ctx,
        program=plan["psql"],
        user=plan["superuser"],
        timeout=SECONDS,
        environment={"PGOPTIONS": f"-c statement_timeout={SECONDS}s -c log_min_duration_statement=-1"},
    )
    names = "ARRAY[" + ", ".join(literal(name) for name in SETTINGS) + "]"
    found: dict[str, Any] = server.json(_SERVER % {"settings": names})
    found["primary"] = conninfo(found.pop("primary_conninfo"))
    inside = server.on(identifier(plan["database"])).json(_DATABASE % {})
    return {**found, **inside}


def conninfo(text: str) -> dict[str, str]:
    """Return how a standby reaches its leader: ``user``, ``sslmode`` and whether a ``password`` stands there."""
    words = {name: quoted or plain for name, quoted, plain in _WORD.findall(text)}
    found = {name: words.get(name, "") for name in ("user", "sslmode")}
    return {**found, "password": "given" if "password" in words else "none"} if words else {}
