"""The keys of a site file as types. Use it through `keadb.site`, whose `load_site` is the only way to make a Site.

What a single key may hold is in `keadb.site_fields`, what keys must hold together in `keadb.site_rules`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from keadb import site_fields as f
from keadb.logins import KEPT
from keadb.versions import KEA_VERSIONS, PLATFORMS, POSTGRESQL_VERSIONS

ROLES = ("database", "etcd", "witness")
ACCEPTANCES = ("shared_hypervisor", "schema_upgrade")
"""Rules that a site file may loosen, each with a reason and an end."""


class _Part(BaseModel):
    """A part of a site: cannot be changed, takes no unknown key."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Network(_Part):
    """Addresses of a site. No NTP server means that the hosts' clock is kept by what they run on.

    ``clients`` are named automation and admin sources: they may log in to the database beside Kea's servers.
    """

    subnet: f.Subnet
    gateway: f.Address
    vip: f.Address
    dns: Annotated[tuple[f.Address, ...], f.ordered("a list of IPv4 addresses")] = ()
    ntp: Annotated[tuple[f.Address, ...], f.ordered("a list of IPv4 addresses")] = ()
    clients: Annotated[tuple[f.Source, ...], f.ordered("a list of IPv4 addresses or networks")] = ()


def _roles(value: Any) -> tuple[str, ...]:
    """Put the roles into a fixed order, so that their order in the file changes nothing."""
    allowed = "a list of database, etcd and witness, at least one"
    if not isinstance(value, list | tuple) or not value or any(role not in ROLES for role in value):
        message = "is not a list of known roles"
        raise f.refuse(message, allowed)
    if len(set(value)) != len(value):
        message = "has a role twice"
        raise f.refuse(message, allowed)
    return tuple(role for role in ROLES if role in value)


class Host(_Part):
    """A machine. ``name`` is its key in the file; sizes are in MiB (memory) and GiB (disk)."""

    name: str = Field(validation_alias="@name")  # put there by `_name_hosts`; no file can give it
    roles: Annotated[tuple[Literal["database", "etcd", "witness"], ...], BeforeValidator(_roles)]
    address: f.Address
    ssh_host_key: f.HostKey
    ssh_user: Annotated[str, f.text(r"[a-z_][a-z0-9_-]*", "a user name", longest=32)] = "keadb"
    ssh_port: Annotated[int, f.whole(1, 65535)] = 22
    failure_domain: Annotated[str, f.text(r"[a-z0-9][a-z0-9.-]*", "the hypervisor's name, lower case", longest=63)]
    cores: Annotated[int, f.whole(1, 128)] = 4
    memory_mb: Annotated[int, f.whole(512, 4_194_304, "MiB")] = 8192
    disk_gb: Annotated[int, f.whole(1, 65_536, "GiB")] = 50
    generation: Annotated[int, f.whole(1, 1_000_000)] = 1


class Archive(_Part):
    """A release archive and its checksum, for a platform that does not package etcd."""

    url: Annotated[
        str, f.text(r"https://[A-Za-z0-9._~:/%+-]+\.tar\.gz", "an https URL ending in .tar.gz", longest=500)
    ]
    sha256: Annotated[str, f.text(r"[0-9a-f]{64}", "64 hexadecimal digits, lower case", longest=64)]


class Etcd(_Part):
    """Timings in milliseconds, backend quota in MiB, compaction in hours."""

    heartbeat_ms: Annotated[int, f.whole(50, 5_000, "ms")] = 250
    election_ms: Annotated[int, f.whole(500, 50_000, "ms")] = 2500
    quota_mb: Annotated[int, f.whole(256, 8192, "MiB")] = 2048
    compaction_hours: Annotated[int, f.whole(1, 168, "hours")] = 1
    archive: Archive | None = None


class Patroni(_Part):
    """Dynamic settings of Patroni; times in seconds. The defaults are the measured "fast" set."""

    ttl: Annotated[int, f.whole(20, 300, "s")] = 20
    loop_wait: Annotated[int, f.whole(1, 60, "s")] = 3
    retry_timeout: Annotated[int, f.whole(3, 120, "s")] = 5
    primary_start_timeout: Annotated[int, f.whole(0, 600, "s")] = 10
    maximum_lag_on_failover_mb: Annotated[int, f.whole(1, 10_240, "MiB")] = 64
    synchronous_mode: f.Flag = True


class Postgresql(_Part):
    """PostgreSQL's version, sizes and further parameters. ``shared_buffers_mb`` None: 25 % of a host's memory."""

    version: Annotated[int, f.whole(min(POSTGRESQL_VERSIONS), max(POSTGRESQL_VERSIONS))] = 15
    max_connections: Annotated[int, f.whole(25, 1000)] = 100
    shared_buffers_mb: Annotated[int, f.whole(64, 1_048_576, "MiB")] | None = None
    parameters: Annotated[
        dict[
            Annotated[
                str, f.text(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)?", "a parameter name in lower case", longest=63)
            ],
            f.Scalar,
        ],
        f.by_name("parameter names with their values"),
    ] = Field(default_factory=dict)


class Packages(_Part):
    """Full versions of packages, by program; None: what the package sources have at the first installation."""

    etcd: f.PackageVersion | None = None
    patroni: f.PackageVersion | None = None
    postgresql: f.PackageVersion | None = None
    kea_admin: f.PackageVersion | None = None

    @property
    def versions(self) -> dict[str, str]:
        """The pinned versions, by program."""
        return {program: version for program, version in self if version is not None}


class Pooler(_Part):
    """PgBouncer on each database host. ``pool_size`` None: derived from ``postgresql.max_connections``."""

    pool_size: Annotated[int, f.whole(2, 400, "connections to PostgreSQL for each login")] | None = None
    max_clients: Annotated[int, f.whole(20, 5000)] = 500


class ProxyCheck(_Part):
    """How often HAProxy looks at a node (milliseconds), and how many looks decide. The defaults are measured.

    ``fast_ms`` while a node is changing between up and down, ``down_ms`` while it is down, ``interval_ms`` otherwise.
    """

    interval_ms: Annotated[int, f.whole(100, 10_000, "ms")] = 500
    fast_ms: Annotated[int, f.whole(100, 10_000, "ms")] = 250
    down_ms: Annotated[int, f.whole(100, 10_000, "ms")] = 250
    timeout_ms: Annotated[int, f.whole(100, 15_000, "ms")] = 700
    fall: Annotated[int, f.whole(1, 10, "looks in a row that fail")] = 3
    rise: Annotated[int, f.whole(1, 10, "looks in a row that succeed")] = 1


class Proxy(_Part):
    """HAProxy on each database host; ``read_lag_mb`` is in MiB."""

    read_lag_mb: Annotated[int, f.whole(1, 10_240, "MiB")] = 64
    check: ProxyCheck = Field(default_factory=ProxyCheck)


class VirtualAddress(_Part):
    """keepalived on each database host. A holder that is silent for three adverts has lost the address."""

    advert_ms: Annotated[int, f.whole(100, 10_000, "ms", step=10)] = 400


class Kea(_Part):
    """Version of Kea (major.minor) that reads the database, and the servers that do."""

    version: Annotated[str, f.choice(*KEA_VERSIONS)]
    servers: Annotated[dict[f.Label, f.Address], f.by_name("server names with their addresses")] = Field(
        default_factory=dict
    )


class Tls(_Part):
    """First day of the site's CA (10 years) and of its certificates (400 days); a later epoch renews them."""

    ca_epoch: f.Day
    epoch: f.Day


class Logins(_Part):
    """Which login of each pair is in use, and which others stay open until their clients have moved."""

    owner: Annotated[Literal["a", "b"], f.choice("a", "b")] = "a"
    read: Annotated[Literal["a", "b"], f.choice("a", "b")] = "a"
    etcd: Annotated[Literal["a", "b"], f.choice("a", "b")] = "a"
    keep: Annotated[tuple[Annotated[str, f.choice(*KEPT)], ...], f.ordered("a list of logins")] = ()


class Acceptance(_Part):
    """A rule that does not hold here, why, and the last day on which that is fine."""

    reason: f.Reason
    until: f.Day


def _name_hosts(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: {**host, "@name": key} if isinstance(host, dict) else host for key, host in value.items()}


class Site(_Part):
    """One site. Hosts are in the order of their names."""

    name: f.SiteName
    topology: Annotated[Literal["ha", "single"], f.choice("ha", "single")]
    domain: f.DomainName
    platform: Annotated[str, f.choice(*PLATFORMS)]
    network: Network
    hosts: Annotated[dict[f.Label, Host], BeforeValidator(_name_hosts), f.by_name("host names with their settings")]
    etcd: Etcd = Field(default_factory=Etcd)
    patroni: Patroni = Field(default_factory=Patroni)
    postgresql: Postgresql = Field(default_factory=Postgresql)
    packages: Packages = Field(default_factory=Packages)
    pooler: Pooler = Field(default_factory=Pooler)
    proxy: Proxy = Field(default_factory=Proxy)
    virtual_address: VirtualAddress = Field(default_factory=VirtualAddress)
    kea: Kea
    tls: Tls
    logins: Logins = Field(default_factory=Logins)
    accept: Annotated[
        dict[Annotated[str, f.choice(*ACCEPTANCES)], Acceptance],
        f.by_name("names of rules, each with reason and until"),
    ] = Field(default_factory=dict)

    @property
    def cluster(self) -> str:
        """Name of the Patroni cluster, under etcd's ``/service/``."""
        return self.name

    def _with(self, role: str) -> tuple[Host, ...]:
        return tuple(host for host in self.hosts.values() if role in host.roles)

    @property
    def database_hosts(self) -> tuple[Host, ...]:
        """Hosts that run PostgreSQL; the first is preferred when all else is equal."""
        return self._with("database")

    @property
    def etcd_hosts(self) -> tuple[Host, ...]:
        """Hosts that run an etcd member."""
        return self._with("etcd")

    @property
    def witness(self) -> Host | None:
        """The third voter's host, outside both database hosts; None in topology single."""
        return next(iter(self._with("witness")), None)

    @property
    def control_host(self) -> Host:
        """Where cluster-level steps run: the witness, else the one database host."""
        return self.witness or self.database_hosts[0]

    @property
    def primary_name(self) -> str:
        """DNS name under which clients write (the VIP)."""
        return f"kea-db-primary.{self.name}.{self.domain}"

    @property
    def standby_name(self) -> str:
        """DNS name under which clients read (the VIP)."""
        return f"kea-db-standby.{self.name}.{self.domain}"

    @property
    def time_sync(self) -> bool:
        """Whether hosts keep their own clock; containers and some guests cannot."""
        return bool(self.network.ntp)

    def fqdn(self, host: Host) -> str:
        """Return the full name of ``host``."""
        return f"{host.name}.{self.domain}"
