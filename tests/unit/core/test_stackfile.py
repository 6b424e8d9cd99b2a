"""Stack files: the five real ones, and how secrets, unknown keys and broken YAML are refused."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from keadb.secrets import SECRETS
from keadb.site import Site, SiteError
from keadb.stackfile import missing_secrets, parse, read_stack, site_of
from tests.unit.core.samples import ROOT, STACKS, ha, put


def _stack(name: str) -> Site:
    return read_stack((ROOT / f"Pulumi.{name}.yaml").read_text(), stack=name, source=f"Pulumi.{name}.yaml")


def _refused(config: Any, stack: str = "lab") -> list[str]:
    with pytest.raises(SiteError) as caught:
        site_of({"config": config}, stack=stack, source="Pulumi.lab.yaml")
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("name", STACKS)
def test_the_stack_files_hold_the_agreed_addresses(name: str) -> None:
    """Addresses are written down once, in conventions; a slip here would reach real machines."""
    made = _stack(name)
    network = f"172.30.{17 + STACKS.index(name)}"
    assert str(made.network.subnet) == f"{network}.0/24"
    assert [str(host.address) for host in made.hosts.values()] == [f"{network}.{n}" for n in (10, 11, 12)]
    assert list(made.hosts) == [f"{name}-kea-db-01", f"{name}-kea-db-02", f"{name}-kea-witness"]
    assert (str(made.network.vip), str(made.network.gateway)) == (f"{network}.13", f"{network}.1")
    assert {k: str(v) for k, v in made.kea.servers.items()} == {f"{name}-sprmcr-l01": f"{network}.2"}
    assert made.topology == "ha"


def _leaves(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {k: v for key, inner in value.items() for k, v in _leaves(inner, f"{path}.{key}").items()}
    return {path.lstrip("."): value}


@pytest.mark.parametrize("name", STACKS[1:])
def test_sites_differ_in_names_addresses_and_keys_only(name: str) -> None:
    """After the site's name and third octet are made equal, only host keys may differ from us1."""
    texts = {}
    for one in ("us1", name):
        text = (ROOT / f"Pulumi.{one}.yaml").read_text()
        octet = 17 + STACKS.index(one)
        texts[one] = re.sub(rf"\b{one}\b", "SITE", text.replace(f"172.30.{octet}.", "172.30.N."))
    first, other = (_leaves(yaml.safe_load(texts[one])["config"]["keadb:site"]) for one in ("us1", name))
    different = {path for path in {*first, *other} if first.get(path) != other.get(path)}
    hosts = ("SITE-kea-db-01", "SITE-kea-db-02", "SITE-kea-witness")
    assert different == {f"hosts.{host}.ssh_host_key" for host in hosts}


def test_host_keys_are_distinct_over_all_sites() -> None:
    """One pinned key at two sites would let one machine pass for another."""
    keys = [host.ssh_host_key for name in STACKS for host in _stack(name).hosts.values()]
    assert len(set(keys)) == len(keys) == 3 * len(STACKS)


def test_the_stack_is_the_site() -> None:
    """`-s us2` with us1's file would apply one site's data under another's state."""
    text = (ROOT / "Pulumi.us1.yaml").read_text()
    with pytest.raises(SiteError) as caught:
        read_stack(text, stack="us2", source="Pulumi.us2.yaml")
    assert [str(problem) for problem in caught.value.problems] == [
        'name: is not the name of the stack; given "us1", allowed: "us2"'
    ]


def test_encrypted_secrets_are_fine() -> None:
    """What `keadb secrets init` leaves in the file is accepted, and counted."""
    config = {"keadb:site": ha()} | {spec.config_key: {"secure": "v1:abc"} for spec in SECRETS}
    data = {"config": config, "encryptionsalt": "v1:x"}
    assert site_of(data, stack="lab", source="x").name == "lab"
    assert missing_secrets(data) == ()
    assert missing_secrets({"config": {"keadb:site": ha()}}) == tuple(spec.name for spec in SECRETS)


@pytest.mark.parametrize(
    "value", ["Hunter2-Hunter2-Hunter2", {"secure": "v1:x", "plain": "Hunter2"}, {"secure": 3}, None]
)
def test_a_plaintext_secret_is_refused_without_showing_it(value: Any) -> None:
    """A password typed into a file is in its history: the message says so and does not repeat it."""
    [said] = _refused({"keadb:site": ha(), "keadb:secret_ca_key": value})
    assert said.startswith("config.keadb:secret_ca_key: is not encrypted")
    assert "Hunter2" not in said


def test_unknown_keys_are_refused_without_showing_their_value() -> None:
    """The value under a mistyped secret's key is a secret too."""
    said = _refused({"keadb:site": ha(), "keadb:secret_cakey": "Hunter2-Hunter2-Hunter2"})
    assert len(said) == 1
    assert 'config.keadb:secret_cakey: is not a known key; did you mean "keadb:secret_ca_key"?' in said[0]
    assert "Hunter2" not in said[0]


def test_all_problems_of_stack_and_site_together() -> None:
    """Problems of the file's frame do not hide those of the site."""
    said = _refused({"keadb:site": put(ha(), "patroni/ttl", 3), "keadb:secret_ca_key": "x", "keadb:sites": 1})
    paths = [line.split(": ")[0] for line in said]
    assert paths == ["config.keadb:secret_ca_key", "config.keadb:sites", "patroni.ttl"]


def test_keys_of_other_namespaces_are_left_alone() -> None:
    """`pulumi:` and providers have configuration of their own."""
    data = {"config": {"keadb:site": ha(), "pulumi:tags": {"a": "b"}}}
    assert site_of(data, stack="lab", source="x").name == "lab"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("config:\n  a: [1\n", "given line 3, column 1"),
        ("config:\n  a: 1\n  b: 2\n  a: 3\n", 'has the key "a" twice; given line 4, column 3'),
        ("config: !!python/object:os.system x\n", "given line 1, column 9"),
        ("config: \0", "cannot be read"),
        ("config: 2026-13-45\n", "cannot be read"),
        ("[" * 5000, "cannot be read"),
    ],
)
def test_broken_yaml_says_where(text: str, expected: str) -> None:
    """A slip of indentation is found by line and column; a key given twice is never silently the last one."""
    with pytest.raises(SiteError) as caught:
        parse(text, source="Pulumi.lab.yaml")
    assert expected in str(caught.value)
    assert str(caught.value).startswith("Pulumi.lab.yaml: 1 problem\n")


@pytest.mark.parametrize("data", [None, [], {}, {"config": None}, {"config": {}}, "x"])
def test_no_configuration(data: Any) -> None:
    """An empty file is a SiteError that names the key that is needed."""
    with pytest.raises(SiteError, match="keadb:site"):
        site_of(data, stack="lab", source="x")
