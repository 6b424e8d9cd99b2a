"""What a valid site file gives: values however YAML or JSON wrote them, defaults, derived names, the calendar."""

from __future__ import annotations

import copy
import datetime as dt
import json
import random
import re
from ipaddress import IPv4Address
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from keadb.site import Acceptance, Site, SiteError, load_site
from keadb.site_dates import example_values, expired_acceptances, not_usable, not_yet_valid, renewal_due
from tests.unit.core.samples import ROOT, STACKS, drop, ha, host_key, put, single, site

LATE = {"reason": "the third hypervisor is late", "until": "2027-03-31"}


def test_defaults_are_the_measured_set() -> None:
    """A site file without sections for services gets the documented values."""
    made = site()
    assert made.patroni.model_dump() == {
        "ttl": 20,
        "loop_wait": 3,
        "retry_timeout": 5,
        "primary_start_timeout": 10,
        "maximum_lag_on_failover_mb": 64,
        "synchronous_mode": True,
    }
    assert made.etcd.model_dump() == {
        "heartbeat_ms": 250,
        "election_ms": 2500,
        "quota_mb": 2048,
        "compaction_hours": 1,
        "archive": None,
    }
    assert made.postgresql.model_dump() == {
        "version": 15,
        "max_connections": 100,
        "shared_buffers_mb": None,
        "parameters": {},
    }
    host = made.hosts["lab-kea-db-01"]
    assert (host.cores, host.memory_mb, host.disk_gb, host.generation) == (4, 8192, 50, 1)
    assert (host.ssh_user, host.ssh_port) == ("keadb", 22)


def test_roles_and_names() -> None:
    """Everything that components derive from roles and names comes from the site."""
    made = site()
    assert [host.name for host in made.database_hosts] == ["lab-kea-db-01", "lab-kea-db-02"]
    assert [host.name for host in made.etcd_hosts] == ["lab-kea-db-01", "lab-kea-db-02", "lab-kea-witness"]
    assert made.witness is made.control_host is made.hosts["lab-kea-witness"]
    assert made.cluster == "lab"
    assert made.fqdn(made.control_host) == "lab-kea-witness.example.com"
    assert made.primary_name == "kea-db-primary.lab.example.com"
    assert made.standby_name == "kea-db-standby.lab.example.com"


def test_single_runs_on_one_host_without_sync() -> None:
    """With one database the default is asynchronous; growing to ha turns it on without touching the key."""
    made = site(single)
    assert made.witness is None
    assert made.control_host.name == "lab-kea-db-01"
    assert made.patroni.synchronous_mode is False
    assert site(ha).patroni.synchronous_mode is True
    assert load_site(put(single(), "patroni/synchronous_mode", False), source="x") == made


def test_no_time_server_means_that_the_clock_is_not_ours() -> None:
    """Containers cannot set a clock: their site file names no time server."""
    assert site().time_sync is False
    assert load_site(put(ha(), "network/ntp", ["172.30.30.1"]), source="x").time_sync is True


def test_dns_and_kea_servers_may_be_elsewhere() -> None:
    """DNS and NTP may be the gateway; Kea servers may sit in a subnet of their own (only ports are needed)."""
    data = put(put(ha(), "network/dns", ["172.30.30.1", "10.1.1.1"]), "network/ntp", ["172.30.30.1"])
    made = load_site(put(data, "kea/servers", {"lab-sprmcr-l01": "172.30.64.2"}), source="x")
    assert made.kea.servers == {"lab-sprmcr-l01": IPv4Address("172.30.64.2")}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("patroni/loop_wait", 10),
        ("etcd/heartbeat_ms", 500),
        ("tls/epoch", "2035-09-25"),
        ("tls/epoch", "2026-11-01"),
        ("postgresql/shared_buffers_mb", 3276),
        ("network/subnet", "172.30.30.0/28"),
        ("network/subnet", "172.30.0.0/16"),
    ],
)
def test_limits_themselves_are_allowed(path: str, value: Any) -> None:
    """What a message names as allowed is accepted to the last value."""
    load_site(put(ha(), path, value), source="x")


def test_five_voters_are_fine_four_are_not() -> None:
    """Members may have machines of their own; an even number survives no more losses than one less."""
    extra = {"roles": ["etcd"], "address": "172.30.30.14", "failure_domain": "hv-d", "ssh_host_key": host_key(4)}
    four = put(ha(), "hosts/lab-kea-etcd-04", extra)
    with pytest.raises(SiteError, match="has a number of etcd members that cannot elect safely; given 4 "):
        load_site(four, source="x")
    fifth = extra | {"address": "172.30.30.9", "failure_domain": "hv-e", "ssh_host_key": host_key(5)}
    assert len(load_site(put(four, "hosts/lab-kea-etcd-05", fifth), source="x").etcd_hosts) == 5


def test_whole_numbers_among_parameters_are_written_as_such() -> None:
    """YAML gives 4.0 where the engine's JSON gives 4; text made of it must not differ."""
    made = load_site(put(ha(), "postgresql/parameters", {"random_page_cost": 4.0, "a.b": 1.1}), source="x")
    assert [str(value) for value in made.postgresql.parameters.values()] == ["1.1", "4"]


def test_clients_are_addresses_or_networks() -> None:
    """A single machine is a network of one, as PostgreSQL's access rules write it."""
    made = load_site(put(ha(), "network/clients", ["10.1.1.1", "172.30.40.0/26"]), source="x")
    assert [str(source) for source in made.network.clients] == ["10.1.1.1/32", "172.30.40.0/26"]


@pytest.mark.parametrize(
    ("path", "written", "read"),
    [
        ("hosts/lab-kea-db-01/cores", 2.0, 2),
        ("hosts/lab-kea-db-01/roles", ["etcd", "database"], ("database", "etcd")),
        ("hosts/lab-kea-db-01/ssh_host_key", host_key(1) + " root@somewhere", host_key(1)),
        ("kea/version", 2.6, "2.6"),
        ("tls/epoch", "2026-11-02", dt.date(2026, 11, 2)),
        ("postgresql/parameters", {"random_page_cost": 4.0}, {"random_page_cost": 4}),
        ("postgresql/parameters", {"b": True, "a.b": "x"}, {"a.b": "x", "b": True}),
    ],
)
def test_one_value_however_it_is_written(path: str, written: Any, read: Any) -> None:
    """YAML and the engine's JSON write numbers and days differently; the bytes on the hosts must not."""
    made: Any = load_site(put(ha(), path, written), source="x")
    for part in path.split("/"):
        made = made[part] if isinstance(made, dict) else getattr(made, part)
    assert made == read
    assert type(made) is type(read)


def test_kea_3_as_a_number() -> None:
    """The engine's configuration turns an unquoted 3.0 into 3."""
    data = put(put(ha(), "platform", "ubuntu-24.04"), "kea/version", 3)
    data["etcd"] = {"archive": {"url": "https://example.com/e.tar.gz", "sha256": "0" * 64}}
    assert load_site(data, source="x").kea.version == "3.0"


def test_order_in_the_file_does_not_matter() -> None:
    """The engine hands mappings over in its own order: the same site must come out, in the same order."""
    data = ha()
    data["hosts"] = dict(reversed(data["hosts"].items()))
    made = load_site(data, source="x")
    assert made == site()
    assert list(made.hosts) == list(site().hosts)
    assert load_site(json.loads(json.dumps(data, sort_keys=True)), source="x") == site()


def test_a_site_cannot_be_changed() -> None:
    """Bundles are made from a site at several moments: nobody may change it between them."""
    with pytest.raises(ValueError, match="frozen"):
        site().patroni.ttl = 60  # type: ignore[misc]  # what the test is about


def test_shared_hypervisor_is_allowed_in_words() -> None:
    """A rule is loosened by its name with a reason and an end, and by nothing else."""
    data = put(ha(), "hosts/lab-kea-db-02/failure_domain", "hv-a")
    made = load_site(put(data, "accept/shared_hypervisor", LATE), source="x")
    assert made.accept["shared_hypervisor"].reason == LATE["reason"]
    with pytest.raises(SiteError):
        load_site(put(data, "accept/schema_upgrade", LATE), source="x")


def test_acceptances_expire() -> None:
    """The last day still counts; the day after says which and since when."""
    made = load_site(put(ha(), "accept/shared_hypervisor", LATE), source="x")
    assert expired_acceptances(made, dt.date(2027, 3, 31)) == ()
    [problem] = expired_acceptances(made, dt.date(2027, 4, 1))
    expected = 'accept.shared_hypervisor.until: has expired; given "2027-03-31", allowed: 2027-04-01 or later'
    assert str(problem) == expected


def test_certificate_dates() -> None:
    """Certificates that are not valid yet, or end within 60 days, are said before anybody applies them."""
    made = site()
    assert not_yet_valid(made, dt.date(2026, 11, 1)) == ()
    assert [p.path for p in not_yet_valid(made, dt.date(2026, 10, 31))] == ["tls.ca_epoch", "tls.epoch"]
    assert not_usable(made, dt.date(2026, 10, 31)) == not_yet_valid(made, dt.date(2026, 10, 31))
    assert renewal_due(made, dt.date(2027, 10, 7)) == ()
    [late] = renewal_due(made, dt.date(2027, 10, 8))
    assert late.message == "makes certificates that end on 2027-12-06: less than 60 days are left"
    renewed = load_site(put(ha(), "tls/epoch", "2026-11-02"), source="x")
    assert renewal_due(renewed, dt.date(2027, 10, 8)) == (), "what the message allows must be enough"


def test_an_examples_checksum_is_found() -> None:
    """The repository's stack files carry one that no archive has; a real one passes."""
    us3 = yaml.safe_load((ROOT / "Pulumi.us3.yaml").read_text())["config"]["keadb:site"]
    [problem] = example_values(load_site(us3, source="x"))
    assert problem.path == "etcd.archive.sha256"
    us3["etcd"]["archive"]["sha256"] = "0123456789abcdef" * 4
    assert example_values(load_site(us3, source="x")) == ()


ODD: list[Any] = [
    None, True, False, 0, -1, 2**64, 10**5000, 1.5, float("nan"), float("inf"), "", " ", "\0", "\ud800", "x" * 5000,
    "172.30.30.10", "0o17", "@secret:ca_key@", [], [[]], [None], {}, {"a": 1}, {1: 2}, {None: {}}, {(1, 2): 3},
    {10**5000: 1}, {"": {}}, {1, 2}, b"bytes", dt.date(1, 1, 1), dt.date(9999, 12, 31),
    object(), ("a",),
]  # fmt: skip


def _spots(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(value, dict):
        for key, inner in value.items():
            found += _spots(inner, (*path, key))
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            found += _spots(inner, (*path, position))
    return found


def _mutated(data: Any, chance: random.Random) -> Any:
    *above, last = chance.choice(_spots(data)[1:])
    at = data
    for part in above:
        at = at[part]
    match chance.randrange(5):
        case 0:
            del at[last]
        case 1 if isinstance(at, dict):
            at[chance.choice([1, None, "x", "name", "\ud800", str(last) + "s"])] = at.pop(last)
        case 2 if isinstance(at, dict):
            at[last] = data  # a value that holds itself, as a YAML anchor can make it
        case 3:
            at[last] = copy.copy(chance.choice([at[spot] for spot in at] if isinstance(at, dict) else at))
        case _:
            at[last] = chance.choice(ODD)
    return data


def _no_cycles(value: Any, depth: int = 0) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return depth < 20 and all(_no_cycles(item, depth + 1) for item in inner)


@pytest.mark.parametrize("seed", range(8))
def test_nothing_but_a_site_error_whatever_is_given(seed: int) -> None:
    """Whatever a file holds, the answer is a site or a SiteError with a printable text, never a traceback."""
    chance = random.Random(seed)  # noqa: S311 - repeatable test data
    said: list[str] = []
    text = (ROOT / f"Pulumi.{chance.choice(STACKS)}.yaml").read_text()
    real: Any = yaml.safe_load(text)["config"]["keadb:site"]
    for _ in range(250):
        data = copy.deepcopy(real)
        for _ in range(chance.randint(1, 4)):
            if _no_cycles(data) and data:
                data = _mutated(data, chance)
        try:
            assert isinstance(load_site(data, source="x"), Site)
        except SiteError as error:
            said.append(str(error))
    assert len(said) > 200, "mutations that are mostly accepted test nothing"
    assert all(re.match(r"x: [1-9]\d* problem", text) and text.isascii() for text in said)


def test_missing_everything_names_every_needed_key() -> None:
    """An empty file lists what is needed, so that nobody finds the keys one run at a time."""
    with pytest.raises(SiteError) as caught:
        load_site({}, source="x")
    needed = ["name", "topology", "domain", "platform", "network", "hosts", "kea", "tls"]
    assert [problem.path for problem in caught.value.problems] == needed
    with pytest.raises(SiteError) as caught:
        load_site(drop(ha(), "network/vip"), source="x")
    assert [problem.path for problem in caught.value.problems] == ["network.vip"]


def _documented(model: type[BaseModel], path: str = "") -> dict[str, Any]:
    """Return every key of the model with its default, as the documentation names it."""
    found: dict[str, Any] = {}
    for key, info in model.model_fields.items():
        if info.validation_alias is not None:
            continue
        inner = [part for part in _models_in(info.annotation) if part is not Acceptance]
        name = f"{path}{key}" + (".NAME" if key == "hosts" else "")
        if inner:
            found |= _documented(inner[0], f"{name}.")
        elif key != "accept":
            found[name] = info.get_default(call_default_factory=True)
    return found


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the models inside a type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in _models_in(part)]


def test_every_key_is_documented_with_its_default() -> None:
    """docs/site-file.md is where defaults are explained: a new key or default that is not in it is a defect."""
    rows = [
        line.split(" | ") for line in (ROOT / "docs/site-file.md").read_text().splitlines() if line.startswith("| `")
    ]
    said = {row[0].strip("| `"): row[2] for row in rows if len(row) > 3}
    keys = _documented(Site)
    assert set(keys) == set(said)
    for key, default in keys.items():
        if default is None or default is PydanticUndefined:
            expected = ""
        else:
            plain = list(default) if isinstance(default, tuple) else default
            expected = f"`{plain if isinstance(plain, str) else json.dumps(plain)}`"
        assert said[key].startswith(expected), key
