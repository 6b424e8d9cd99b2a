"""The changes of the campaign. A new one is one more entry of `CHANGES`; everything else reads this list.

An entry says what is changed (the site file, a copy of the checkout, the hosts, or a command that is run), what that
may restart in which order, and whether leaderships move. Whatever else happens is wrong. ``host`` in an edit is a
name without the site's: "db-01".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.lab.harness import raise_generation

if TYPE_CHECKING:
    from tests.lab.harness import Site

Data = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Ground:
    """The site as it is before a change; roles are those of that moment."""

    site: Site
    leader: str
    standby: str

    @property
    def witness(self) -> str:
        """The control host."""
        return f"{self.site.name}-kea-witness"

    def sh(self, host: str, script: str) -> None:
        """Run a script as root on a host; fails with what it said."""
        done = self.site.lab.exec(host, ["sh", "-ec", script])
        if done.returncode:
            msg = f"{host}: {done.stderr.strip()}"
            raise RuntimeError(msg)


@dataclass(frozen=True, kw_only=True)
class Expect:
    """What one run may do.

    ``restarts``: starts of services in order, as "PostgreSQL standby" (roles before the change) or "etcd db-01";
    None when ``only`` names those that may start, in any order and number. ``leader`` and ``etcd_leader``: whether
    that leadership moves; None: either is fine.
    """

    restarts: tuple[str, ...] | None = ()
    only: frozenset[str] = frozenset()
    leader: bool | None = False
    etcd_leader: bool | None = False


@dataclass(frozen=True, kw_only=True)
class Change:
    """One row of the table.

    ``name`` chooses it on the command line, ``what`` is its row. ``edit`` changes the site file's data; ``files`` are
    edits of a copy of the checkout, by path; ``fault`` is done to the hosts first; ``command`` is run instead of
    ``up``. ``back`` is what the way back may do (site file and checkout as before, and ``up``); None: there is none.
    ``shows`` are PostgreSQL settings as both nodes show them afterwards. ``around`` makes hosts ready on entering
    (True) and undoes it at the end (False).
    """

    name: str
    what: str
    edit: Callable[[Data, Ground], None] | None = None
    files: Mapping[str, Callable[[str], str]] = field(default_factory=dict)
    fault: Callable[[Ground], None] | None = None
    command: tuple[str, ...] = ()
    expect: Expect = Expect()
    back: Expect | None = None
    shows: Mapping[str, str] = field(default_factory=dict)
    around: Callable[[Ground, bool], None] | None = None


NOTHING = Expect()
STANDBY_FIRST = Expect(restarts=("PostgreSQL standby", "PostgreSQL leader"))
LEADER_FIRST = Expect(restarts=("PostgreSQL leader", "PostgreSQL standby"))
BOTH_WAYS = Expect(restarts=("PostgreSQL standby", "PostgreSQL leader", "PostgreSQL standby"))
ETCD_IN_TURNS = Expect(restarts=("etcd db-01", "etcd db-02", "etcd witness"), etcd_leader=True)
PATRONI_IN_TURNS = Expect(
    # The old leader's PostgreSQL becomes a standby first (one start), then its Patroni is restarted with it.
    restarts=(
        "Patroni standby",
        "PostgreSQL standby",
        "PostgreSQL leader",
        "Patroni leader",
        "PostgreSQL leader",
    ),
    leader=True,
)
HANDED_OVER = Expect(restarts=("PostgreSQL leader",), leader=True)


def _set(section: str, **values: Any) -> Callable[[Data, Ground], None]:
    def edit(data: Data, _ground: Ground) -> None:
        data.setdefault(section, {}).update(values)

    return edit


def _both(*edits: Callable[[Data, Ground], None]) -> Callable[[Data, Ground], None]:
    def edit(data: Data, ground: Ground) -> None:
        for one in edits:
            one(data, ground)

    return edit


def _hosts(**values: Any) -> Callable[[Data, Ground], None]:
    def edit(data: Data, _ground: Ground) -> None:
        for host in data["hosts"].values():
            host.update(values)

    return edit


def _bump_all(data: Data, _ground: Ground) -> None:
    for host in data["hosts"]:
        raise_generation(data, host)


def _renew(data: Data, _ground: Ground) -> None:
    """Bump the epoch to the next day; needs a site whose epoch is not today's (see ``changes.dated``)."""
    import datetime as dt

    epoch = dt.date.fromisoformat(data["tls"]["epoch"])
    data["tls"]["epoch"] = (epoch + dt.timedelta(days=1)).isoformat()


def _kea_server(data: Data, ground: Ground) -> None:
    data["kea"].setdefault("servers", {})[f"{ground.site.name}-sprmcr-l02"] = "172.30.30.77"


def _client(data: Data, _ground: Ground) -> None:
    data["network"]["clients"].append("172.30.30.78")


def _clockless_chrony(ground: Ground, entering: bool) -> None:  # noqa: FBT001 -- see Change.around
    """Let chrony run in a container, which has no clock of its own: it keeps time without setting it."""
    folder = "/etc/systemd/system/chrony.service.d"
    content = "[Unit]\\nConditionCapability=\\n[Service]\\nExecStart=\\nExecStart=!/usr/sbin/chronyd -x\\n"
    script = (
        f"mkdir -p {folder}; printf '{content}' >{folder}/lab.conf; systemctl daemon-reload"
        if entering
        else f"rm -rf {folder}; systemctl daemon-reload"
    )
    for host in ground.site.lab.hosts:
        ground.sh(host.name, script)


def _comment(text: str) -> str:
    return f"{text.rstrip()}\n# One more line, for the campaign of changes.\n"


def _instead(old: str, new: str) -> Callable[[str], str]:
    def edit(text: str) -> str:
        if text.count(old) != 1:
            msg = f"tests/campaign/change_list.py edits what is there {text.count(old)} times, not once: {old!r}"
            raise ValueError(msg)
        return text.replace(old, new)

    return edit


_NO_NEEDRESTART = _instead('            NEEDRESTART: File(content=render("base/needrestart.conf.j2")),\n', "")
_NEW_FILE = _instead(
    '            "/etc/hosts": File(',
    '            "/etc/keadb/campaign": File(content="new\\n"),\n            "/etc/hosts": File(',
)


def _no_prepare(text: str) -> str:
    text = _instead(
        "        bundles[host.name] = [postgresql_prepare_bundle(site, host), staged[host.name]]",
        "        bundles[host.name] = [staged[host.name]]",
    )(text)
    return _instead('apply(host, "patroni", apply(host, "postgresql-prepare"), ', 'apply(host, "patroni", ')(text)


def _wipe_standby(ground: Ground) -> None:
    ground.sh(ground.standby, "systemctl stop patroni; rm -rf /var/lib/postgresql/15/kea")


def _wipe_leader(ground: Ground) -> None:
    ground.sh(ground.leader, "systemctl stop patroni; rm -rf /var/lib/postgresql/15/kea")


def _wipe_etcd(ground: Ground) -> None:
    ground.sh(f"{ground.site.name}-kea-db-02", "systemctl stop keadb-etcd; rm -rf /var/lib/etcd/keadb")


CHANGES: tuple[Change, ...] = (
    # PostgreSQL
    Change(
        name="pg-reload",
        what="PostgreSQL parameter that a reload takes over (`log_min_duration_statement`)",
        edit=_set("postgresql", parameters={"log_min_duration_statement": 1234}),
        back=NOTHING,
        shows={"log_min_duration_statement": "1234ms"},
    ),
    Change(
        name="pg-restart",
        what="parameter read at the start that is no limit (`shared_buffers_mb`)",
        edit=_set("postgresql", shared_buffers_mb=272),
        expect=STANDBY_FIRST,
        back=STANDBY_FIRST,
        shows={"shared_buffers": "272MB"},
    ),
    Change(
        name="limit",
        what="`max_connections` raised; back: lowered",
        edit=_set("postgresql", max_connections=120),
        expect=STANDBY_FIRST,
        back=LEADER_FIRST,
        shows={"max_connections": "120"},
    ),
    Change(
        name="limits",
        what="one limit up, another down (`max_connections`, `max_locks_per_transaction`)",
        edit=_set("postgresql", max_connections=90, parameters={"max_locks_per_transaction": 80}),
        expect=BOTH_WAYS,
        back=BOTH_WAYS,
        shows={"max_connections": "90", "max_locks_per_transaction": "80"},
    ),
    Change(
        name="memory",
        what="`memory_mb` of the hosts (`shared_buffers` follows)",
        edit=_hosts(memory_mb=1280),
        expect=STANDBY_FIRST,
        back=STANDBY_FIRST,
        shows={"shared_buffers": "320MB"},
    ),
    # Patroni
    Change(
        name="patroni",
        what="Patroni's parameters (`loop_wait`, `maximum_lag_on_failover_mb`)",
        edit=_set("patroni", loop_wait=4, maximum_lag_on_failover_mb=80),
        back=NOTHING,
    ),
    Change(
        name="sync-off",
        what="`synchronous_mode` off; back: on",
        edit=_set("patroni", synchronous_mode=False),
        back=NOTHING,
        shows={"synchronous_standby_names": ""},
    ),
    Change(name="switchover", what="`keadb switchover`", command=("switchover",), expect=HANDED_OVER),
    Change(
        name="rolling",
        what="`keadb restart --rolling`",
        command=("restart", "--rolling"),
        expect=STANDBY_FIRST,
    ),
    # etcd
    Change(
        name="etcd-timing",
        what="`etcd.heartbeat_ms`, `election_ms`",
        edit=_set("etcd", heartbeat_ms=300, election_ms=3000),
        expect=ETCD_IN_TURNS,
        back=ETCD_IN_TURNS,
    ),
    Change(
        name="etcd-quota",
        what="`etcd.quota_mb`",
        edit=_set("etcd", quota_mb=1024),
        expect=ETCD_IN_TURNS,
        back=ETCD_IN_TURNS,
    ),
    Change(
        name="etcd-compaction",
        what="`etcd.compaction_hours`",
        edit=_set("etcd", compaction_hours=2),
        expect=ETCD_IN_TURNS,
        back=ETCD_IN_TURNS,
    ),
    # Templates and bundles: a copy of the checkout with the edit
    Change(
        name="template-base",
        what="template of the base system (kernel settings)",
        files={"templates/base/sysctl.conf.j2": _comment},
        back=NOTHING,
    ),
    Change(
        name="template-etcd",
        what="template of etcd's configuration",
        files={"templates/etcd/etcd.yml.j2": _comment},
        expect=ETCD_IN_TURNS,
        back=ETCD_IN_TURNS,
    ),
    Change(
        name="template-postgresql",
        what="template of PostgreSQL's preparation",
        files={"templates/postgresql/createcluster.conf.j2": _comment},
        back=NOTHING,
    ),
    Change(
        name="template-patroni",
        what="template of Patroni's configuration",
        files={"templates/patroni/config.yml.j2": _comment},
        back=NOTHING,
    ),
    Change(
        name="unit-patroni",
        what="what Patroni reads only when it starts (its unit's drop-in)",
        files={"templates/patroni/patroni.service.conf.j2": _comment},
        expect=PATRONI_IN_TURNS,
        back=PATRONI_IN_TURNS,
    ),
    Change(
        name="file-new",
        what="a new file in a bundle; back: removed from it",
        files={"components/base_system.py": _NEW_FILE},
        back=NOTHING,
    ),
    Change(
        name="file-gone",
        what="a file leaves a bundle; back: it returns",
        files={"components/base_system.py": _NO_NEEDRESTART},
        back=NOTHING,
    ),
    Change(
        name="bundle-gone",
        what="a bundle leaves its hosts; back: it returns",
        files={"components/postgres_cluster.py": _no_prepare},
        back=NOTHING,
    ),
    # Access, names, certificates
    Change(name="certificates", what="`tls.epoch` (every certificate but the CA's)", edit=_renew, back=NOTHING),
    Change(name="clients", what="`network.clients` (access rules)", edit=_client, back=NOTHING),
    Change(name="kea-servers", what="`kea.servers` (access rules)", edit=_kea_server, back=NOTHING),
    Change(
        name="logins",
        what="`logins.read` from `a` to `b`; back: to `a`",
        edit=_set("logins", read="b"),
        back=NOTHING,
    ),
    Change(
        name="ntp",
        what="`network.ntp` (chrony comes); back: it goes",
        edit=lambda data, _ground: data["network"].update(ntp=["172.30.30.1"]),
        back=NOTHING,
        around=_clockless_chrony,
    ),
    Change(name="disk", what="`disk_gb` of the hosts (journal's limit)", edit=_hosts(disk_gb=16), back=NOTHING),
    Change(name="generation", what="`generation` of every host", edit=_bump_all),
    # Repair. The generation stays in the file: what was wiped is a new machine.
    Change(
        name="wiped-standby",
        what="a standby's database deleted, Patroni stopped, `generation` of its host raised",
        fault=_wipe_standby,
        edit=lambda data, ground: raise_generation(data, ground.standby),
        expect=Expect(restarts=None, only=frozenset({"Patroni standby", "PostgreSQL standby"})),
    ),
    Change(
        name="wiped-etcd",
        what="an etcd member lost its data, `generation` of its host raised",
        fault=_wipe_etcd,
        edit=lambda data, ground: raise_generation(data, f"{ground.site.name}-kea-db-02"),
        expect=Expect(restarts=None, only=frozenset({"etcd db-02"})),
    ),
    Change(
        name="wiped-leader",
        what="the leader's database deleted, Patroni stopped, `generation` raised",
        fault=_wipe_leader,
        edit=lambda data, ground: raise_generation(data, ground.leader),
        expect=Expect(restarts=None, only=frozenset({"Patroni leader", "PostgreSQL leader"}), leader=True),
    ),
    # More go here: rotated secrets, package versions, single to ha, DNS names, addresses, placement of etcd.
)
