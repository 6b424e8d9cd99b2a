"""Invariants of the whole program, for every stack file."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from typing import Any

import pytest

from components.catalog import bundles
from keadb.site import load_site
from tests.program.harness import STACKS, Program, is_secret, load_program, unwrap


def _strings(value: Any) -> list[str]:
    if is_secret(value):
        return []
    if isinstance(value, dict):
        return [s for pair in value.items() for part in pair for s in _strings(part)]
    if isinstance(value, list):
        return [s for part in value for s in _strings(part)]
    return [str(value)]


def test_every_resource_has_a_parent_of_ours(program: Program) -> None:
    """The preview reads like the site: hosts and services at the top, commands under them."""
    for resource in program.resources:
        if resource.type.startswith("keadb:components:") or resource.type == "pulumi:pulumi:Stack":
            continue
        assert "keadb:components:" in resource.parent, f"{resource.urn} hangs under {resource.parent!r}"


def test_urns_are_unique(program: Program) -> None:
    """The mock engine accepts two resources of one name; the real one does not."""
    counted = Counter((r.type, r.name, r.parent) for r in program.resources)
    assert [key for key, count in counted.items() if count > 1] == []


def test_only_hosts_run_commands_and_always_by_the_applier(program: Program) -> None:
    """No service builds a shell line of its own: whatever runs is the applier, by name."""
    for command in program.commands():
        create = command.inputs["create"]
        assert "/usr/lib/keadb/keadb-apply" in create, command.urn
        assert "update" not in command.inputs, command.urn
        assert "delete" not in command.inputs, command.urn
        assert command.inputs["addPreviousOutputInEnv"] is False, command.urn
        assert "environment" not in command.inputs, command.urn


def test_every_connection_is_secret_and_pins_the_host_key(program: Program) -> None:
    """Without hostKey the provider checks no host key at all."""
    for command in program.commands():
        connection = command.inputs["connection"]
        assert is_secret(connection) or is_secret(connection["privateKey"]), command.urn
        plain = unwrap(connection)
        host = program.site["hosts"][_host_of(command.name, program)]
        assert plain["hostKey"] == host["ssh_host_key"], command.urn
        assert plain["host"] == str(host["address"]), command.urn


def _host_of(name: str, program: Program) -> str:
    return max((str(h) for h in program.site["hosts"] if name.startswith(f"{h}-")), key=len)


def test_no_secret_outside_secret_inputs(program: Program) -> None:
    """Looks for the real values, not for names."""
    for resource in program.resources:
        for text in _strings(resource.inputs):
            for name, value in program.secrets.items():
                assert value.strip() not in text, f"{name} stands in an input of {resource.urn}"
    assert program.outputs["site"] == program.stack
    exported = json.dumps(program.outputs)
    assert [name for name, value in program.secrets.items() if value.strip() in exported] == []


def test_commands_that_carry_secrets_log_nothing(program: Program) -> None:
    """The provider streams output to the log even when the outputs are secret."""
    carrying = [c for c in program.commands() if is_secret(c.inputs["stdin"])]
    assert {c.name for c in carrying} == {f"{host}-secrets" for host in program.site["hosts"]}
    assert [c.inputs["logging"] for c in carrying] == ["none"] * len(carrying)


def test_bundles_are_those_of_the_catalog(program: Program) -> None:
    """What `keadb render` shows in a pull request is what the engine sends, but for fingerprints."""
    planned = {
        (bundle.host, bundle.name): bundle.as_dict()
        for per_host in bundles(load_site(program.site, source="test")).values()
        for bundle in per_host
    }
    sent = program.bundles()
    assert sorted(sent) == sorted(planned)
    for key, bundle in sent.items():
        fingerprints = bundle.pop("secrets")
        names = planned[key].pop("secrets")
        assert bundle == planned[key]
        assert set(fingerprints) == set(names)
        assert None not in fingerprints.values()


def test_a_host_only_gets_the_secrets_that_its_bundles_use(program: Program) -> None:
    """A stolen witness does not know what only the database hosts need."""
    for command in program.commands():
        if not command.name.endswith("-secrets"):
            continue
        host = _host_of(command.name, program)
        given = set(json.loads(unwrap(command.inputs["stdin"]))["secrets"])
        used = {n for (h, _), b in program.bundles().items() if h == host for n in b["secrets"]}
        assert given == used
        assert not given & {"deploy_key", "ca_key", "fingerprint_key"}


@pytest.mark.parametrize("stack", STACKS)
def test_a_first_preview_knows_everything_but_the_certificates(stack: str) -> None:
    """Nothing is registered inside an apply, and only signed certificates wait for the hosts' keys."""
    preview = load_program(stack, unknown=True)
    known = load_program(stack)
    assert {(r.type, r.name) for r in preview.resources} == {(r.type, r.name) for r in known.resources}
    unknown = [c.name for c in preview.commands() if "04da6b54" in json.dumps(unwrap(c.inputs["stdin"]))]
    assert sorted(unknown) == sorted(f"{host}-certificates" for host in preview.site["hosts"])


def test_sites_differ_in_data_only() -> None:
    """The same resources for every site of a topology, but for the site's name in theirs."""
    shapes: dict[str, dict[str, list[tuple[str, str]]]] = {}
    for stack in STACKS:
        loaded = load_program(stack)
        shape = sorted(
            (r.type, r.name.replace(f"{stack}-", "SITE-"))
            for r in loaded.resources
            if r.type != "pulumi:pulumi:Stack"
        )
        shapes.setdefault(loaded.site["topology"], {})[stack] = shape
    for by_stack in shapes.values():
        first, *rest = by_stack.values()
        for other in rest:
            assert other == first


def test_a_single_node_site_is_the_same_program() -> None:
    """The development phase: one database host that carries etcd, no witness."""

    def single(site: dict[str, Any]) -> None:
        site["topology"] = "single"
        site["hosts"] = dict(list(site["hosts"].items())[:1])
        site.setdefault("patroni", {})["synchronous_mode"] = False

    names = [c.name for c in load_program("dv", change=single).commands()]
    assert names
    assert all(name.startswith("dv-kea-db-01-") for name in names)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        (("patroni", "loop_wait"), 4, {"patroni-settings", "patroni-converge"}),
        (
            ("logins", "etcd"),
            "b",
            {"etcd-form", "etcd-roll", "patroni", "patroni-settings", "patroni-form", "patroni-converge"}
            | {"patroni-login"},
        ),
        (("etcd", "heartbeat_ms"), 300, {"etcd", "etcd-form", "etcd-roll"}),
        (("proxy", "read_lag_mb"), 65, {"proxy"}),
        (("proxy", "check"), {"interval_ms": 1000}, {"proxy"}),
        (("virtual_address", "advert_ms"), 1000, {"virtual-address"}),
        (("pooler", "max_clients"), 501, {"pooler", "proxy"}),
    ],
)
def test_a_change_reaches_exactly_the_bundles_concerned(
    key: tuple[str, str], value: object, expected: set[str]
) -> None:
    """One key of the site file changes the bundles that use it, and the steps that bring those into force."""

    def change(site: dict[str, Any]) -> None:
        site.setdefault(key[0], {})[key[1]] = value

    before, after = load_program("us3").bundles(), load_program("us3", change=change).bundles()
    changed = {name for (host, name), bundle in after.items() if before[host, name] != bundle}
    assert changed == expected


def test_services_wait_for_what_they_stand_on(program: Program) -> None:
    """Order exists only by depends_on: every bundle of a service waits for its host's certificates."""
    dependencies = {c.name: " ".join(c.dependencies) for c in program.commands()}
    for name, waits_for in dependencies.items():
        step = name.removeprefix(_host_of(name, program) + "-")
        if step not in {"bootstrap", "secrets", "base", "keys", "certificates"}:
            assert f"{_host_of(name, program)}-certificates" in waits_for, name


def test_patronis_login_is_open_before_its_configuration_names_it_and_the_other_is_closed_last(
    program: Program,
) -> None:
    """A Patroni that cannot log in to etcd gives up the leadership."""
    dependencies = {c.name: " ".join(c.dependencies) for c in program.commands()}
    staged = [name for name in dependencies if name.endswith("-patroni")]
    assert len(staged) == 2
    assert all("-witness-etcd-form" in dependencies[name] for name in staged)
    (last,) = [name for name in dependencies if name.endswith("-patroni-login")]
    assert "-witness-patroni-converge" in dependencies[last]


def test_one_host_after_the_other_gets_what_clients_go_through(program: Program) -> None:
    """A change of pooler, proxy or virtual address never reaches all hosts at once; each needs the one before it."""
    order = ("kea-roles", "pooler", "proxy", "virtual-address")
    commands = {c.name: " ".join(c.dependencies) for c in program.commands()}
    databases = sorted(h for h, spec in program.site["hosts"].items() if "database" in spec["roles"])
    for before, service in itertools.pairwise(order):
        for number, host in enumerate(databases):
            waits_for = commands[f"{host}-{service}"]
            assert [h for h in databases if f"::{h}-{before}" not in waits_for] == []
            assert [h for h in databases[:number] if f"::{h}-{service}" not in waits_for] == []


def test_every_host_is_told_its_bundles_after_all_are_in_force(program: Program) -> None:
    """What the site no longer has goes last; the list is the one of the bundles that were sent."""
    prunes = {_host_of(c.name, program): c for c in program.commands() if c.name.endswith("-prune")}
    assert set(prunes) == set(program.site["hosts"])
    sent = program.bundles()
    for host, command in prunes.items():
        assert command.inputs["create"] == "sudo -n /usr/lib/keadb/keadb-apply prune"
        assert json.loads(unwrap(command.inputs["stdin"])) == {
            "host": host,
            "bundles": sorted(name for on, name in sent if on == host),
        }
        waits_for = " ".join(command.dependencies)
        assert [key for key in sent if f"{key[0]}-{key[1]}" not in waits_for] == []
