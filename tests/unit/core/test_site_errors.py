"""Bad site files: each gives its message with key path, given and allowed; all problems come at once."""

from __future__ import annotations

from typing import Any

import pytest

from keadb.site import SiteError, load_site
from tests.unit.core.bad_places import PLACES
from tests.unit.core.bad_settings import SETTINGS
from tests.unit.core.samples import drop, ha, put, says

DB1, DB2, WITNESS = "hosts/lab-kea-db-01", "hosts/lab-kea-db-02", "hosts/lab-kea-witness"
ONE_PROBLEM = PLACES | SETTINGS


def _problems(data: Any) -> list[str]:
    with pytest.raises(SiteError) as caught:
        load_site(data, source="Pulumi.lab.yaml")
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("name", ONE_PROBLEM)
def test_one_problem(name: str) -> None:
    """Each bad file gives exactly its one problem, word for word."""
    data, expected = ONE_PROBLEM[name]
    assert _problems(data) == [expected]


def test_both_databases_on_one_hypervisor_break_two_rules() -> None:
    """One hypervisor that dies must take neither both databases nor two voters with it."""
    said = _problems(put(ha(), f"{DB2}/failure_domain", "hv-a"))
    where = "hosts.lab-kea-db-02.failure_domain: puts two"
    assert [line.split(";")[0] for line in said] == [
        f"{where} database hosts on one hypervisor (lab-kea-db-01 and lab-kea-db-02)",
        f"{where} etcd members on one hypervisor (lab-kea-db-01 and lab-kea-db-02)",
    ]


@pytest.mark.parametrize("roles", [["witness"], ["database", "etcd", "witness"]])
def test_the_witness_is_the_third_voter_outside_both_databases(roles: list[str]) -> None:
    """A witness that does not vote, or that is a database host, is refused whatever else is wrong."""
    said = _problems(put(ha(), f"{WITNESS}/roles", roles))
    message = "is a witness that is not the third voter outside both database hosts"
    assert (
        says("hosts.lab-kea-witness.roles", message, f"[{', '.join(roles)}]", "witness and etcd, not database")
        in said
    )


def test_single_has_one_host() -> None:
    """The development topology elects nobody: one member, on the database host, and no witness."""
    said = _problems(put(ha(), "topology", "single"))
    assert [line.split(";")[0] for line in said] == [
        "hosts: has the wrong number of database hosts",
        'hosts: has the wrong etcd members for topology "single"',
        'hosts: has a witness, which topology "single" cannot have',
    ]


def test_all_problems_come_at_once() -> None:
    """A bad key in one host hides neither another section's problems nor rules across the rest."""
    data = put(ha(), f"{DB1}/adress", "172.30.30.10")
    data = put(data, "netwrk", {})
    data = put(data, "patroni/loop_wait", 11)
    data = put(data, f"{WITNESS}/address", "172.30.31.12")
    data = put(drop(data, "kea"), "tls/epoch", 3)
    data[1] = 2  # type: ignore[index]  # what YAML makes of a line "1: 2"
    assert [line.split(";")[0] for line in _problems(data)] == [
        "hosts.lab-kea-db-01.adress: is not a known key",
        "kea: is missing",
        "tls.epoch: is not a day",
        "netwrk: is not a known key",
        "1: is under a key that is not text",
        "hosts.lab-kea-witness.address: is outside the site's subnet",
        "patroni.ttl: ends the leader's lease before Patroni has retried",
    ]


def test_the_message_names_file_and_count() -> None:
    """What a person sees: the file, how many problems, one line for each."""
    with pytest.raises(SiteError) as caught:
        load_site(put(put(ha(), "patroni/ttl", 5), "name", 7), source="Pulumi.lab.yaml")
    first, *rest = str(caught.value).splitlines()
    assert first == "Pulumi.lab.yaml: 2 problems"
    assert [line.split(":")[0] for line in rest] == ["  name", "  patroni.ttl"]


@pytest.mark.parametrize("data", [None, [], "site", 3, {}])
def test_not_a_site_at_all(data: Any) -> None:
    """An empty or odd file is a SiteError like any other."""
    assert _problems(data)
