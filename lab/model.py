"""What a lab is made of: names, addresses and where its state lives. Changes nothing."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from lab.errors import LabError

SUBNET = IPv4Network("172.30.30.0/24")
GATEWAY = SUBNET[1]
"""The bridge itself: where clients inside the namespace stand."""
KEA_SERVER = SUBNET[2]
VIP = SUBNET[13]
DOMAIN = "example.com"
DEFAULT_NAME = "lab"
NAME = re.compile(r"[a-z][a-z0-9]{0,11}")
"""Short: host names, interface names and the namespace carry it."""

BRIDGE = "br0"
DEPLOY_USER = "keadb"


@dataclass(frozen=True)
class LabHost:
    """One host of a lab; ``short`` is what stands after the lab's name."""

    name: str
    short: str
    address: IPv4Address
    roles: tuple[str, ...]
    failure_domain: str

    @property
    def machine(self) -> str:
        """Name towards systemd-nspawn; short enough for an interface name."""
        return self.short.removeprefix("kea-")

    @property
    def interface(self) -> str:
        """The bridge's end of the host's cable, as systemd-nspawn names it."""
        return f"vb-{self.machine}"


_HOSTS = (
    ("kea-db-01", 10, ("database", "etcd"), "lab-a"),
    ("kea-db-02", 11, ("database", "etcd"), "lab-b"),
    ("kea-witness", 12, ("witness", "etcd"), "lab-c"),
)
_SPARE = ("kea-witness-02", 14, ("witness", "etcd"), "lab-d")
"""A machine more, for labs that were made with one: the site file does not have it until somebody writes it there."""


@dataclass(frozen=True)
class Made:
    """Whether a lab has the spare machine, and the addresses that were changed since it was made."""

    spare: bool = False
    addresses: Mapping[str, IPv4Address] = field(default_factory=dict)


_MADE = "made.json"


@dataclass(frozen=True)
class LabSpec:
    """A lab by its name: everything here follows from the name and the state root.

    Raises LabError for a name that cannot become a host name.
    """

    name: str
    root: Path

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            message = f"lab name {self.name!r}: allowed are a letter, then up to 11 letters and digits, lower case"
            raise LabError(message)

    @property
    def folder(self) -> Path:
        """The one folder that holds everything of this lab."""
        return self.root / self.name

    @property
    def netns(self) -> str:
        """Its network namespace."""
        return f"keadb-{self.name}"

    @property
    def netns_path(self) -> Path:
        """Where iproute2 keeps the namespace."""
        return Path("/run/netns") / self.netns

    @property
    def cgroup(self) -> str:
        """Its control group, below the root of the cgroup2 tree."""
        return f"keadb-{self.name}"

    @property
    def hosts(self) -> tuple[LabHost, ...]:
        """Its machines, in the site file's order, with the addresses that they have now."""
        made = self.made
        known = (*_HOSTS, *((_SPARE,) if made.spare else ()))
        return tuple(
            LabHost(f"{self.name}-{short}", short, made.addresses.get(short, SUBNET[number]), roles, domain)
            for short, number, roles, domain in known
        )

    @property
    def made(self) -> Made:
        """How this lab differs from others, as its folder has it."""
        try:
            data = json.loads((self.folder / _MADE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return Made()
        return Made(data["spare"], {short: IPv4Address(text) for short, text in data["addresses"].items()})

    def remember(self, made: Made) -> None:
        """Write that down; the folder must be there."""
        data = {"spare": made.spare, "addresses": {short: str(a) for short, a in made.addresses.items()}}
        temporary = self.folder / f"{_MADE}.new"
        temporary.write_text(json.dumps(data) + "\n", encoding="utf-8")
        temporary.replace(self.folder / _MADE)

    def moved(self, host: LabHost, address: str) -> LabHost:
        """Return the host with another address; LabError for one that is not free in the lab's network."""
        try:
            wanted = IPv4Address(address)
        except ValueError:
            wanted = SUBNET.network_address
        taken = {GATEWAY, KEA_SERVER, VIP, SUBNET.network_address, SUBNET.broadcast_address}
        taken |= {other.address for other in self.hosts}
        if wanted not in SUBNET or wanted in taken:
            message = f"address {address!r}: allowed is a free one of {SUBNET}"
            raise LabError(message)
        return replace(host, address=wanted)

    def stranger(self, address: str) -> IPv4Address:
        """Return the address of a machine that is none of the lab's hosts; LabError for one that is taken."""
        try:
            wanted = IPv4Address(address)
        except ValueError:
            wanted = SUBNET.network_address
        taken = {GATEWAY, VIP, SUBNET.network_address, SUBNET.broadcast_address, *(h.address for h in self.hosts)}
        if wanted not in SUBNET or wanted in taken:
            message = f"address {address!r}: allowed is one of {SUBNET} that no host of the lab has"
            raise LabError(message)
        return wanted

    def host(self, name: str) -> LabHost:
        """Find a host by its name, or by what stands after the lab's name; LabError lists the known ones."""
        for host in self.hosts:
            if name in {host.name, host.short, host.machine}:
                return host
        known = ", ".join(host.name for host in self.hosts)
        message = f"lab {self.name} has no host {name!r}; hosts: {known}"
        raise LabError(message)

    # Files of the state folder.
    @property
    def record(self) -> Path:
        """Processes that this lab started."""
        return self.folder / "lab.json"

    @property
    def images(self) -> Path:
        """Which image each host's disk is a layer over."""
        return self.folder / "images.json"

    @property
    def socket(self) -> Path:
        """Where the supervisor listens."""
        return self.folder / "control.sock"

    @property
    def ssh(self) -> Path:
        """Host keys and the deploy key."""
        return self.folder / "ssh"

    @property
    def deploy_key(self) -> Path:
        """Private key of the deploy user; `keadb secrets init` takes it over into the site's secrets."""
        return self.ssh / "deploy_key"

    @property
    def logs(self) -> Path:
        """The supervisor's log and each host's console."""
        return self.folder / "logs"

    @property
    def site_file(self) -> Path:
        """The site's data, in the form that the engine reads."""
        return self.folder / f"Pulumi.{self.name}.yaml"

    def host_key(self, host: LabHost) -> Path:
        """Return the host's private SSH key; its public half is beside it with the suffix .pub."""
        return self.ssh / f"{host.name}.host_key"

    def disk(self, host: LabHost) -> Path:
        """Return the host's disk image."""
        return self.folder / "disks" / f"{host.name}.ext4"

    def mounts(self, host: LabHost) -> Path:
        """Return the folder in which the supervisor mounts the host's disk and root file system."""
        return self.folder / "mounts" / host.name


def state_root() -> Path:
    """Folder that holds one folder a lab: $KEADB_LAB_STATE, else /var/lib/keadb-lab."""
    return Path(os.environ.get("KEADB_LAB_STATE") or "/var/lib/keadb-lab").absolute()


def lab_spec(name: str | None = None) -> LabSpec:
    """Return the lab of this name; without one $KEADB_LAB, else ``lab``."""
    return LabSpec(name or os.environ.get("KEADB_LAB") or DEFAULT_NAME, state_root())
