"""Every unit of ours is in the same sandbox, and says of itself what it needs more."""

from __future__ import annotations

import pytest

from components.catalog import bundles
from keadb.templating import TEMPLATES
from ops.audit_machine import CAPABILITIES, EXPOSURE, USERS
from tests.unit.core.samples import site

CAPABILITY_BITS = {"CAP_SETGID": 6, "CAP_NET_BROADCAST": 11, "CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13}
SANDBOX = [
    line
    for line in (TEMPLATES / "systemd" / "sandbox.conf.j2").read_text().splitlines()
    if line and not line.startswith("#")
]


def units() -> dict[str, str]:
    """Return the text of every unit and drop-in of a service that lands on a host of the site, by unit."""
    found = {}
    for of_host in bundles(site()).values():
        for bundle in of_host:
            for path, file in bundle.files.items():
                if path.startswith("/etc/systemd/system/") and ".service" in path:
                    name = path.split("/")[4].removesuffix(".d")
                    found[name] = file.content
    return found


def settings(text: str, name: str) -> list[str]:
    """Return every value of a setting, in order."""
    return [line.partition("=")[2] for line in text.splitlines() if line.startswith(f"{name}=")]


def test_every_service_of_ours_is_known_to_the_audit() -> None:
    assert set(units()) == set(EXPOSURE)


@pytest.mark.parametrize("name", sorted(EXPOSURE))
def test_every_service_has_the_whole_sandbox(name: str) -> None:
    """In one piece, so that nothing between its lines takes a part of it back."""
    text = units()[name]
    assert all(line in text.splitlines() for line in SANDBOX)
    assert len(settings(text, "RestrictAddressFamilies")) == 1
    assert settings(text, "UMask") == ["0077"]


@pytest.mark.parametrize("name", sorted(EXPOSURE))
def test_capabilities_are_those_that_the_audit_expects(name: str) -> None:
    text = units()[name]
    (bounding,) = settings(text, "CapabilityBoundingSet")
    assert sum(1 << CAPABILITY_BITS[word] for word in bounding.split()) == CAPABILITIES.get(name, 0)
    assert settings(text, "AmbientCapabilities") == ([bounding] if bounding else [])


def test_only_address_and_firewall_loosen_the_sandbox() -> None:
    """What stands after the list and changes it, service by service."""
    after = {
        name: [line for line in text.split("UMask=0077\n")[1].splitlines() if line and line[0] not in "#["]
        for name, text in units().items()
    }
    assert after.pop("keepalived.service") == ["SystemCallFilter=@setuid capset", "ProtectProc=default"]
    assert after.pop("keadb-firewall.service") == ["PrivateTmp=no", "WantedBy=sysinit.target"]
    assert {name: lines for name, lines in after.items() if lines and lines != ["WantedBy=multi-user.target"]} == {}


@pytest.mark.parametrize("name", ["haproxy.service", "keepalived.service", "pgbouncer.service", "keadb-etcd.service"])
def test_no_service_starts_as_root(name: str) -> None:
    assert settings(units()[name], "User") == [USERS[name]]


def test_a_defaults_file_of_the_distribution_changes_no_command() -> None:
    """Variables of /etc/default win over those of a unit: commands are written out."""
    for name in ("haproxy.service", "keepalived.service"):
        first, second = settings(units()[name], "ExecStart")
        assert first == ""
        assert "$" not in second


def test_postgresql_keeps_the_hosts_shared_memory() -> None:
    """Else one that outlived its Patroni would not be seen by the next one, and started a second time."""
    text = units()["patroni.service"]
    assert settings(text, "PrivateIPC") == settings(text, "RemoveIPC") == []
    assert settings(text, "ReadWritePaths") == ["/var/lib/postgresql /run/postgresql"]
