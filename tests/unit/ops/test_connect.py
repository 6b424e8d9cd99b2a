"""``keadb connect``: the right way, login and CA, and neither password nor CA where others could read them."""

from __future__ import annotations

import os
import subprocess
import sys
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from click.testing import CliRunner

from keadb.site import Site
from keadb.stackfile import read_stack
from ops import connect
from ops.connect_command import connect as command
from ops.exits import CommandError

STACK_FILE = Path(__file__).parents[3] / "Pulumi.us3.yaml"
PSQL = """#!{python}
import os, re, sys
conninfo = next(a for a in sys.argv if a.startswith("--dbname="))
ca = re.search("sslrootcert=([^ ]+)", conninfo)[1]
print("arguments", sys.argv[1:])
print("ca", open(ca).read())
print("again", open(ca).read())
print("login", open(os.environ["PGPASSFILE"]).read(), oct(os.stat(os.environ["PGPASSFILE"]).st_mode)[-4:])
print("environment", sorted(key for key in os.environ if key.startswith("PG")))
print("everything", sys.argv, dict(os.environ))
"""
STARTS = """
from pathlib import Path
from keadb.stackfile import read_stack
from ops import connect
site = read_stack(Path({file!r}).read_text(), stack="us3", source="test")
connect.start(connect.plan(site, "write"), site=site, password="pass-word", ca="THE CA", arguments=["-c", "SELECT 1"])
"""


@pytest.fixture
def site() -> Site:
    """A real site file's."""
    return read_stack(STACK_FILE.read_text(), stack="us3", source="test")


@pytest.mark.parametrize(
    ("way", "port", "address", "user"),
    [
        ("write", "5432", "172.30.19.13", "kea_owner_a"),
        ("read", "5433", "172.30.19.13,172.30.19.10,172.30.19.11", "kea_read_a"),
        ("direct", "5432", "172.30.19.10,172.30.19.11", "kea_owner_a"),
    ],
)
def test_each_way_has_its_address_port_and_login(site: Site, way: str, port: str, address: str, user: str) -> None:
    plan = connect.plan(site, way)
    settings = dict(pair.split("=", 1) for pair in plan.conninfo.split())
    assert (settings["port"], settings["hostaddr"], settings["user"]) == (port, address, user)
    assert settings["sslmode"] == "verify-full"
    assert (plan.user, plan.secret) == (user, f"{user}_password")
    assert user in plan.said(site)


def test_the_login_in_use_is_taken(site: Site) -> None:
    rotated = site.model_copy(update={"logins": site.logins.model_copy(update={"owner": "b"})})
    assert connect.plan(rotated, "write").user == "kea_owner_b"


def test_psql_gets_password_and_ca_by_descriptors_only(tmp_path: Path) -> None:
    """Read twice, as a reconnection does; nothing of this shell's libpq variables is left to decide."""
    psql = tmp_path / "psql"
    psql.write_text(PSQL.format(python=sys.executable))
    psql.chmod(0o755)
    shell = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PGPASSWORD": "other", "PGSSLMODE": "disable", "PGTZ": "UTC"}
    done = subprocess.run(
        [sys.executable, "-c", STARTS.format(file=str(STACK_FILE))],
        capture_output=True,
        text=True,
        check=True,
        env=shell,
        cwd=STACK_FILE.parent,
    )
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    assert (said["ca"], said["again"]) == ("THE CA", "THE CA")
    assert said["login"].strip() == "*:*:*:*:pass-word"
    assert "0600" in done.stdout
    assert said["environment"] == "['PGPASSFILE', 'PGTZ']"
    assert said["arguments"].endswith("'-c', 'SELECT 1']")
    assert "pass-word" not in said["everything"]
    assert "THE CA" not in said["everything"]


def test_without_psql_it_says_what_to_install(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(CommandError, match="psql is not on the path: install it"):
        connect.start(connect.plan(site, "write"), site=site, password="x", ca="y", arguments=())


def test_a_machine_that_will_be_cut_off_is_told(site: Site) -> None:
    kea_server = next(iter(site.kea.servers.values()))
    assert connect.refused_source(site, kea_server) is None
    assert connect.refused_source(site, site.database_hosts[0].address) is None
    said = connect.refused_source(site, IPv4Address("192.0.2.7"))
    assert said
    assert "192.0.2.7" in said
    assert "network.clients" in said


def test_show_prints_the_connection_string_without_secrets() -> None:
    """Works with no secrets made, no engine and no network."""
    done = CliRunner().invoke(command, ["--stack", "us3", "--read", "--show"])
    assert done.exit_code == 0
    assert "host=kea-db-standby.us3.example.com" in done.stdout
    assert done.stdout.strip().endswith("user=kea_read_a")


def test_read_and_direct_exclude_each_other() -> None:
    done = CliRunner().invoke(command, ["--stack", "us3", "--read", "--direct"])
    assert isinstance(done.exception, CommandError)
    assert "either --read or --direct" in str(done.exception)
