"""The bundles of Kea's database: who gets what, which secrets, and what the applier's steps will read."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.kea_database import kea_bundles
from hostkit import kea_plan
from keadb.bundle import Bundle
from keadb.site import Site, load_site

STACK_FILE = Path(__file__).parents[3] / "Pulumi.us3.yaml"


@pytest.fixture
def data() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(STACK_FILE.read_text())["config"]["keadb:site"]
    return copy.deepcopy(found)


def site(data: dict[str, Any]) -> Site:
    return load_site(data, source="test")


def plan(bundle: Bundle) -> dict[str, Any]:
    (file,) = bundle.files.values()
    found: dict[str, Any] = json.loads(file.content)
    return found


def test_roles_on_every_database_host_schema_on_the_witness(data: dict[str, Any]) -> None:
    made = {host: [b.name for b in bundles] for host, bundles in kea_bundles(site(data)).items()}
    assert made == {
        "us3-kea-db-01": ["kea-roles"],
        "us3-kea-db-02": ["kea-roles"],
        "us3-kea-witness": ["kea-database"],
    }


def test_plan_files_are_where_the_steps_read_them(data: dict[str, Any]) -> None:
    made = kea_bundles(site(data))
    assert list(made["us3-kea-db-01"][0].files) == [kea_plan.ROLES_PLAN]
    assert list(made["us3-kea-witness"][0].files) == [kea_plan.DATABASE_PLAN]


def test_only_passwords_in_use_reach_a_host(data: dict[str, Any]) -> None:
    data["logins"] = {"owner": "b", "read": "a"}
    for bundles in kea_bundles(site(data)).values():
        assert bundles[0].secrets == ("kea_owner_b_password", "kea_read_a_password")


def test_inactive_login_is_closed_and_the_active_one_is_used(data: dict[str, Any]) -> None:
    data["logins"] = {"owner": "a", "read": "b"}
    made = kea_bundles(site(data))
    secrets = {name: login["secret"] for name, login in plan(made["us3-kea-db-01"][0])["logins"].items()}
    assert secrets == {
        "kea_owner_a": "kea_owner_a_password",
        "kea_owner_b": None,
        "kea_read_a": None,
        "kea_read_b": "kea_read_b_password",
    }
    assert plan(made["us3-kea-witness"][0])["logins"]["read"]["name"] == "kea_read_b"


def test_a_kept_login_stays_open_beside_the_one_in_use(data: dict[str, Any]) -> None:
    data["logins"] = {"read": "b", "keep": ["kea_read_a"]}
    made = kea_bundles(site(data))
    roles, schema = made["us3-kea-db-01"][0], made["us3-kea-witness"][0]
    secrets = {name: login["secret"] for name, login in plan(roles)["logins"].items()}
    assert secrets["kea_read_a"] == "kea_read_a_password"
    assert secrets["kea_read_b"] == "kea_read_b_password"
    assert roles.secrets == ("kea_owner_a_password", "kea_read_a_password", "kea_read_b_password")
    assert schema.secrets == ("kea_owner_a_password", "kea_read_b_password")


def test_schema_follows_keas_version_and_upgrades_only_when_accepted(data: dict[str, Any]) -> None:
    assert plan(kea_bundles(site(data))["us3-kea-witness"][0])["schema"] == "29.0"
    assert plan(kea_bundles(site(data))["us3-kea-witness"][0])["accept_upgrade"] is False
    data["accept"] = {"schema_upgrade": {"reason": "Kea 3.0 on us3 this week", "until": "2099-01-01"}}
    assert plan(kea_bundles(site(data))["us3-kea-witness"][0])["accept_upgrade"] is True


def test_change_of_roles_runs_the_schemas_proof_again(data: dict[str, Any]) -> None:
    before = kea_bundles(site(data))["us3-kea-witness"][0].inputs
    data["logins"] = {"read": "b"}
    after = kea_bundles(site(data))["us3-kea-witness"][0].inputs
    assert set(before) == {"us3-kea-db-01/kea-roles", "us3-kea-db-02/kea-roles"}
    assert all(before[name] != after[name] for name in before)


def test_kea_admin_and_the_client_get_their_pinned_versions(data: dict[str, Any]) -> None:
    """kea-admin with what it depends on in exactly its version; the client as on the database hosts."""
    data["packages"] = {"kea_admin": "3.0.1-1", "postgresql": "15.15-1"}
    packages = kea_bundles(site(data))["us3-kea-witness"][-1].packages
    assert packages.install == ("isc-kea-admin=3.0.1-1", "isc-kea-common=3.0.1-1", "postgresql-client-15=15.15-1")
    assert packages.hold == ("isc-kea-admin", "isc-kea-common", "postgresql-client-15")
