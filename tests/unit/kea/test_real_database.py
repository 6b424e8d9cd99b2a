"""Both steps against a real server: first run, second run, drift, rotation, and what the log must not hold."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hostkit import kea_database, kea_plan, kea_roles, store
from hostkit.context import Context
from hostkit.errors import HostError, Refused
from hostkit.psql import Psql
from tests.unit.kea.kea_server import PG_BIN, LocalSystem, Server

PASSWORDS = {
    "kea_owner_a_password": "owner-A_" + "1" * 16,
    "kea_owner_b_password": "owner-B_" + "2" * 16,
    "kea_read_a_password": "read-A_" + "3" * 17,
    "kea_read_b_password": "read-B_" + "4" * 17,
}


class Site:
    """One host that is database host and control host at once, with its plans."""

    def __init__(self, root: Path, server: Server, kea_admin: Path) -> None:
        self.server = server
        self.system = LocalSystem(server)
        self.ctx = Context(root, self.system)
        self.roles: dict[str, Any] = {
            "format": 1,
            "psql": f"{PG_BIN}/psql",
            "superuser": server.superuser,
            "database": "kea",
            "owner": "kea_owner",
            "roles": ["kea_owner", "kea_read"],
            "connect": ["kea_read"],
            "logins": {},
            "pooler": {
                "role": "pooler",
                "schema": "kea_ext",
                "function": "pooler_login",
                "of": ["kea_owner", "kea_read"],
            },
            "timeout": 20,
        }
        self.database: dict[str, Any] = {
            "format": 1,
            "kea": "2.6",
            "kea_admin": str(kea_admin),
            "psql": f"{PG_BIN}/psql",
            "endpoints": [{"host": "db-01.test", "address": "127.0.0.1"}],
            "port": server.port,
            "database": "kea",
            "ca": str(server.ca),
            "schema": "22.2",
            "accept_upgrade": False,
            "reader": "kea_read",
            "tables": ["schema_version", "hosts", "dhcp4_options", "dhcp6_options", "ipv6_reservations"],
            "timeout": 0,
        }
        self.activate("a", "a")
        secrets = root / "var/lib/keadb/secrets.json"
        secrets.parent.mkdir(parents=True)
        secrets.write_text(json.dumps(PASSWORDS))
        secrets.chmod(0o600)

    def activate(self, owner: str, read: str) -> None:
        for role, active in (("kea_owner", owner), ("kea_read", read)):
            for letter in "ab":
                name = f"{role}_{letter}"
                secret = f"{name}_password" if letter == active else None
                self.roles["logins"][name] = {"role": role, "secret": secret, "set_role": role == "kea_owner"}
        self.database["logins"] = {
            "owner": {"name": f"kea_owner_{owner}", "secret": f"kea_owner_{owner}_password"},
            "read": {"name": f"kea_read_{read}", "secret": f"kea_read_{read}_password"},
        }

    def run(self, verb: Any, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
        for path, plan in ((kea_plan.ROLES_PLAN, self.roles), (kea_plan.DATABASE_PLAN, self.database)):
            self.ctx.path(path).parent.mkdir(parents=True, exist_ok=True)
            self.ctx.path(path).write_text(json.dumps(plan))
        assert verb.main(self.ctx, []) == 0
        said: dict[str, Any] = json.loads(capsys.readouterr().out)
        return said

    def admin(self, database: str = "kea") -> Psql:
        return Psql(self.ctx, program=f"{PG_BIN}/psql", user=self.server.superuser, database=database)

    def login(self, name: str, password: str, sslmode: str = "verify-full") -> subprocess.CompletedProcess[str]:
        conninfo = (
            f"host=db-01.test hostaddr=127.0.0.1 port={self.server.port} dbname=kea user={name} "
            f"sslmode={sslmode} sslrootcert={self.server.ca}"
        )
        return subprocess.run(
            [f"{PG_BIN}/psql", "-XAtw", conninfo, "-c", "SELECT current_user, session_user"],
            capture_output=True,
            text=True,
            check=False,
            env={"PGPASSWORD": password},
            timeout=20,
        )


@pytest.fixture
def site(tmp_path: Path, server: Server, kea_admin: Path) -> Iterator[Site]:
    made = Site(tmp_path / "root", server, kea_admin)
    yield made
    postgres = made.admin("postgres")
    postgres.execute_alone("DROP DATABASE IF EXISTS kea WITH (FORCE)")
    for role in ("kea_owner_a", "kea_owner_b", "kea_read_a", "kea_read_b", "kea_read", "kea_owner", "pooler"):
        postgres.execute_alone(f"DROP ROLE IF EXISTS {role}")


def test_first_run_makes_everything_and_the_second_nothing(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert site.run(kea_roles, capsys)["changed"]
    made = site.run(kea_database, capsys)
    assert (made["changed"], made["schema"], made["reservations"]) == (True, "22.2", 0)
    assert site.run(kea_roles, capsys) == {"changed": False, "leader": True, "actions": []}
    assert site.run(kea_database, capsys)["actions"] == []


def test_owner_login_acts_as_the_role_and_the_tables_are_the_roles(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.run(kea_roles, capsys)
    site.run(kea_database, capsys)
    assert site.login("kea_owner_a", PASSWORDS["kea_owner_a_password"]).stdout.strip() == "kea_owner|kea_owner_a"
    owners = site.admin().json("SELECT json_agg(DISTINCT tableowner) FROM pg_tables WHERE schemaname = 'public'")
    assert owners == ["kea_owner"]


def test_reader_reads_five_tables_and_nothing_else(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.run(kea_roles, capsys)
    site.run(kea_database, capsys)
    rights = site.admin().json(
        "SELECT json_agg(c.relname || ' ' || p ORDER BY 1) FROM pg_class c, "
        "unnest(ARRAY['SELECT','INSERT','UPDATE','DELETE','TRUNCATE','REFERENCES','TRIGGER']) p "
        "WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' "
        "AND has_table_privilege('kea_read_a', c.oid, p)"
    )
    assert rights is not None
    assert sorted(rights) == sorted(f"{table} SELECT" for table in site.database["tables"])


def test_without_tls_and_with_the_closed_login_no_connection(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.run(kea_roles, capsys)
    assert site.login("kea_read_a", PASSWORDS["kea_read_a_password"]).returncode == 0
    assert "no encryption" in site.login("kea_read_a", PASSWORDS["kea_read_a_password"], "disable").stderr
    assert site.login("kea_read_b", PASSWORDS["kea_read_b_password"]).returncode != 0


def test_activating_the_other_login_opens_it_and_closes_the_first(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.run(kea_roles, capsys)
    site.activate("a", "b")
    actions = site.run(kea_roles, capsys)["actions"]
    assert actions == [
        "close login kea_read_a",
        "forget password of kea_read_a",
        "open login kea_read_b",
        "set password of kea_read_b",
    ]
    assert site.login("kea_read_b", PASSWORDS["kea_read_b_password"]).returncode == 0
    assert site.login("kea_read_a", PASSWORDS["kea_read_a_password"]).returncode != 0


def test_no_password_reaches_statements_arguments_or_the_servers_log(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.run(kea_roles, capsys)
    site.run(kea_database, capsys)
    log = site.server.log.read_text()
    assert "kea_read_a" in log
    for value in PASSWORDS.values():
        assert value not in log
        assert not [call for call in site.system.seen if value in " ".join(call[0]) or value in call[1]]


def test_drift_in_roles_and_rights_is_taken_back(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.run(kea_roles, capsys)
    site.run(kea_database, capsys)
    site.admin().execute(
        [
            "ALTER ROLE kea_read_a CREATEDB",
            "GRANT CREATE ON SCHEMA public TO PUBLIC",
            "GRANT CONNECT ON DATABASE kea TO PUBLIC",
            "ALTER ROLE kea_owner_a RESET role",
            "REVOKE SELECT ON hosts FROM kea_read",
            "GRANT SELECT ON lease4 TO kea_read",
        ]
    )
    assert site.run(kea_roles, capsys)["actions"] == [
        "settings of kea_owner_a",
        "kea_owner_a acts as kea_owner",
        "open login kea_read_a",
        "revoke CONNECT on DATABASE kea from PUBLIC",
        "revoke CREATE on SCHEMA public from PUBLIC",
    ]
    assert site.run(kea_database, capsys)["actions"] == [
        "revoke SELECT on lease4 from kea_read",
        "grant SELECT on hosts to kea_read",
    ]


def test_foreign_tables_are_refused_by_name(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.run(kea_roles, capsys)
    site.admin().execute(["CREATE TABLE bmc (id int)", "ALTER TABLE bmc OWNER TO kea_owner"])
    with pytest.raises(Refused, match=r"public\.bmc"):
        site.run(kea_database, capsys)


def test_schema_that_the_owner_cannot_read_is_not_taken_for_an_empty_one(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.run(kea_roles, capsys)
    site.admin().execute(["CREATE TABLE schema_version (version int, minor int)"])
    with pytest.raises(Refused, match="cannot read it"):
        site.run(kea_database, capsys)


def test_database_without_leader_is_one_clear_error(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.run(kea_roles, capsys)
    site.database["port"] = 1
    with pytest.raises(HostError, match=r"no leader took a connection within 0 s: .*Connection refused"):
        site.run(kea_database, capsys)


def test_status_shows_schema_and_number_of_reservations(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    from hostkit import status

    site.run(kea_roles, capsys)
    assert "error" in status.state(site.ctx)["kea"]
    site.run(kea_database, capsys)
    site.admin().execute(["INSERT INTO hosts (dhcp4_subnet_id) SELECT generate_series(1, 3)"])
    assert status.kea(site.ctx) == {"schema": "22.2", "reservations": 3}


def test_missing_secret_is_named(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.ctx.path(store.SECRETS).unlink()
    with pytest.raises(HostError, match="kea_owner_a_password"):
        site.run(kea_roles, capsys)


def _as_pooler(site: Site, statement: str) -> Any:
    """Return what a statement gives the pooler's role; the server's message when it is refused."""
    try:
        return site.admin().json(f"SET ROLE pooler; SELECT coalesce(to_json(({statement})), 'null')")
    except HostError as error:
        return str(error)


def test_the_pooler_is_told_the_verifiers_of_keas_logins_and_nobody_elses(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.run(kea_roles, capsys)
    asked = "SELECT verifier FROM kea_ext.pooler_login('%s')"
    assert _as_pooler(site, asked % "kea_read_a").startswith("SCRAM-SHA-256$")
    assert _as_pooler(site, asked % "kea_owner_a").startswith("SCRAM-SHA-256$")
    for name in ("kea_read_b", "kea_owner", "pooler", site.server.superuser, "nobody"):
        assert _as_pooler(site, asked % name) is None, name
    assert "permission denied" in _as_pooler(site, "SELECT count(*) FROM pg_authid")
    others = site.admin().json(
        "SELECT coalesce(json_agg(r.rolname), '[]') FROM pg_roles r WHERE NOT r.rolsuper AND r.rolname <> 'pooler' "
        "AND has_function_privilege(r.oid, 'kea_ext.pooler_login(text)', 'EXECUTE')"
    )
    assert others == []


def test_edits_of_the_poolers_role_and_function_are_taken_back(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.run(kea_roles, capsys)
    site.admin().execute(
        [
            "ALTER ROLE pooler PASSWORD 'something'",
            "GRANT kea_read TO pooler",
            "GRANT EXECUTE ON FUNCTION kea_ext.pooler_login(text) TO PUBLIC",
            "ALTER FUNCTION kea_ext.pooler_login(text) RESET search_path",
            "GRANT CREATE ON SCHEMA kea_ext TO pooler",
        ]
    )
    assert site.run(kea_roles, capsys)["actions"] == [
        "alter login pooler",
        "revoke kea_read from pooler",
        "revoke CREATE on SCHEMA kea_ext from pooler",
        "drop function kea_ext.pooler_login(login text)",
        "create function kea_ext.pooler_login(login text)",
        "revoke EXECUTE on FUNCTION kea_ext.pooler_login(login text) from PUBLIC",
        "grant EXECUTE on FUNCTION kea_ext.pooler_login(login text) to pooler",
    ]
    assert site.run(kea_roles, capsys) == {"changed": False, "leader": True, "actions": []}
