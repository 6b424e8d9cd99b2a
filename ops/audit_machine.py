"""The audit's items about the machine: files, accounts, SSH, sudo, confinement of services, sockets, upkeep. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from typing import Any

from keadb import ports
from keadb.bundle import APPLIER
from keadb.deploy_rights import applier_words
from keadb.site import Host, Site
from ops.audit_model import OWN, Check, Facts, Group, Item, among, equal, no_more_than, nothing, same

EXPOSURE = {
    "keadb-etcd.service": 2.0,
    "patroni.service": 2.0,
    "pgbouncer.service": 2.0,
    "haproxy.service": 2.0,
    "keepalived.service": 3.0,
    "keadb-etcd-lead.service": 2.0,
    "keadb-firewall.service": 2.0,
}
"""The most that ``systemd-analyze security`` may say of a service of ours: 0 is closed, 10 is open."""
OTHERS_EXPOSURE = 5.0
"""The same for the distribution's services that a bundle only configures."""
USERS = {
    "keadb-etcd.service": "etcd",
    "patroni.service": "postgres",
    "pgbouncer.service": "pgbouncer",
    "haproxy.service": "haproxy",
    "keepalived.service": "keepalived_script",
}
CAPABILITIES = {"keepalived.service": 0x3840, "keadb-firewall.service": 0x1000}
"""NET_ADMIN, NET_BROADCAST, NET_RAW and SETGID; NET_ADMIN; everything else has none."""
_KEY_OWNERS = {
    "/etc/etcd/": "etcd",
    "/etc/patroni/": "postgres",
    "/etc/pgbouncer/": "pgbouncer",
    "/etc/haproxy/": "haproxy",
    "/etc/keepalived/": "keepalived_script",
}
_WITH_SECRETS = {"/etc/patroni/config.yml": ("root", "postgres", 0o640)}
_MASK = 0o077
_LOCKED = "locked"
"""Of a password: there is none that opens the account."""
_LOOPBACK_HELPERS = {"systemd-resolve", "chronyd"}
"""Programs of the distribution that wait on loopback for questions of this host."""


def _modes(found: Mapping[str, Mapping[str, Any]], most: int) -> list[str]:
    return [
        f"{path} {state['mode']}"
        for path, state in found.items()
        if not state["link"] and not no_more_than(state["mode"], most)
    ]


def _private_files(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    found = facts.part("files")["private"]
    wrong = [f"{path} {state['owner']}" for path, state in found.items() if state["owner"] != _key_owner(path)]
    return [nothing("open to others", _modes(found, 0o600)), nothing("of another owner", wrong)]


def _key_owner(path: str) -> str:
    return next((owner for folder, owner in _KEY_OWNERS.items() if path.startswith(folder)), "root")


def _folders(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    found = {
        p: s for p, s in facts.part("files")["folders"].items() if not p.startswith(("/var/log", "/var/lib/post"))
    }
    return [nothing("open to others", _modes(found, 0o700))]


def _data_directory(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    found = {p: s for p, s in facts.part("files")["folders"].items() if p.startswith("/var/lib/postgresql/")}
    return [
        check
        for path, state in found.items()
        for check in (
            equal(f"mode of {path}", "0700", state["mode"]),
            equal(f"owner of {path}", "postgres", state["owner"]),
        )
    ] or [nothing("data directories that are missing", ["/var/lib/postgresql"])]


def _configs(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    found = facts.part("files")["configs"]
    checks = [nothing("writable by others than their owner", _modes(found, 0o755))]
    for path, (owner, group, most) in _WITH_SECRETS.items():
        if path in found:
            state = found[path]
            checks += [
                Check(
                    what=path,
                    expected=f"{owner}:{group}, at most {most:04o}",
                    actual=f"{state['owner']}:{state['group']} {state['mode']}",
                    good=(state["owner"], state["group"]) == (owner, group) and no_more_than(state["mode"], most),
                )
            ]
    return checks


def _history(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    found = facts.part("files")["history"]
    return [among(path, ("none", "link to /dev/null"), state) for path, state in found.items()]


def _accounts(facts: Facts, _site: Site, host: Host) -> Iterable[Check]:
    said = facts.part("accounts")
    return [
        nothing("that a password opens", (n for n, u in said["users"].items() if u["password"] != _LOCKED)),
        nothing(
            "services' users with a shell",
            (
                name
                for name, user in said["users"].items()
                # The distribution's own tools become this one.
                if name not in {host.ssh_user, "postgres"} and not user["shell"].endswith(("nologin", "false"))
            ),
        ),
        same("groups of the deploy user", [host.ssh_user], said["users"].get(host.ssh_user, {}).get("groups", ())),
        nothing("names with root's number", said["root_like"]),
    ]


def _sudo(facts: Facts, site: Site, host: Host) -> Iterable[Check]:
    expected = [f"(root) NOPASSWD: {APPLIER} {words or chr(34) * 2}" for words in applier_words(site, host)]
    return [same("rules of the deploy user", expected, facts.part("accounts")["sudo"])]


def _ssh_login(facts: Facts, _site: Site, host: Host) -> Iterable[Check]:
    said = facts.part("ssh")
    keys = facts.part("files")["ssh"]
    return [
        equal("AuthenticationMethods", "publickey", said["authenticationmethods"]),
        equal("PasswordAuthentication", "no", said["passwordauthentication"]),
        equal("KbdInteractiveAuthentication", "no", said["kbdinteractiveauthentication"]),
        equal("PermitEmptyPasswords", "no", said["permitemptypasswords"]),
        equal("PermitUserEnvironment", "no", said["permituserenvironment"]),
        nothing("its files that others may write", _modes(keys, 0o755)),
        nothing(
            "its files that are others'", (p for p, s in keys.items() if s["owner"] not in {host.ssh_user, "root"})
        ),
    ]


def _ssh_forwarding(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    said = facts.part("ssh")
    names = (
        "allowtcpforwarding",
        "allowstreamlocalforwarding",
        "allowagentforwarding",
        "permittunnel",
        "x11forwarding",
    )
    return [equal("disableforwarding", "yes", said["disableforwarding"]), *(equal(n, "no", said[n]) for n in names)]


def _units(facts: Facts) -> dict[str, dict[str, Any]]:
    return dict(facts.part("units"))


def _exposure(facts: Facts, _site: Site, _host: Host) -> Iterator[Check]:
    for name, unit in _units(facts).items():
        most, score = EXPOSURE.get(name, OTHERS_EXPOSURE), unit["exposure"]
        yield Check(
            what=name,
            expected=f"at most {most}",
            actual="unknown" if score is None else str(score),
            good=score is not None and score <= most,
        )


def _processes(facts: Facts) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return the processes of our own services with their unit's name."""
    return (
        (name, process) for name, unit in _units(facts).items() if name in EXPOSURE for process in unit["processes"]
    )


def _service_users(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    return [
        equal(f"{name}: {process['name']}", USERS[name], process["user"])
        for name, process in _processes(facts)
        if name in USERS
    ]


def _confined(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    found = []
    for name, process in _processes(facts):
        may = CAPABILITIES.get(name, 0)
        lacks = ["may gain rights"] * (not process["no_new_privileges"])
        lacks += ["every call of the kernel"] * (not process["filtered"])
        lacks += [f"{what} {process[what]}" for what in ("capabilities", "bounding") if int(process[what], 16) & ~may]
        found += [f"{name}: {process['name']}: {', '.join(lacks)}"] * bool(lacks)
    return [nothing("processes that are not confined", found)]


def _umask(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    wide = [
        f"{name}: {process['name']} {process['umask']}"
        for name, process in _processes(facts)
        if int(process["umask"], 8) & _MASK != _MASK
    ]
    return [nothing("processes whose new files others may read", wide)]


def _no_dumps(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    wide = [f"{name}: {p['name']} {p['core']}" for name, p in _processes(facts) if p["core"] != "none"]
    return [
        nothing("processes that may leave their memory in a file", wide),
        equal("fs.suid_dumpable", "0", facts.part("upkeep")["suid_dumpable"]),
    ]


def _environment(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    found = [f"{name}: {p['name']}" for name, p in _processes(facts) if p["password_in_environment"]]
    return [nothing("processes with a password in their environment", found)]


def declared_sockets(site: Site, host: Host) -> set[tuple[str, str, int]]:
    """Return who may wait for others on a host: program, address, port."""
    address, vip = str(host.address), str(site.network.vip)
    found: set[tuple[str, str, int]] = set()
    if "etcd" in host.roles:
        found |= {("etcd", a, ports.ETCD_CLIENT) for a in (address, "127.0.0.1")}
        found.add(("etcd", address, ports.ETCD_PEER))
    if "database" in host.roles:
        found |= {("postgres", a, ports.POSTGRESQL) for a in (address, "127.0.0.1")}
        found |= {("patroni", address, ports.PATRONI_REST), ("pgbouncer", address, ports.POOLER)}
        found |= {("haproxy", vip, ports.WRITE), ("haproxy", vip, ports.READ), ("haproxy", address, ports.READ)}
        found.add(("haproxy", "127.0.0.1", ports.PROXY_HEALTH))
    return found


def _sockets(facts: Facts, site: Site, host: Host) -> Iterable[Check]:
    declared = declared_sockets(site, host)
    others = [
        f"{s['program'] or 'unknown'} on {s['address']}:{s['port']} ({s['protocol']})"
        for s in facts.part("sockets")
        if (s["program"], s["address"], s["port"]) not in declared and not _of_the_machine(s, host)
    ]
    return [nothing("sockets that nobody declared", others)]


def _of_the_machine(found: Mapping[str, Any], host: Host) -> bool:
    """Say whether the machine itself needs this socket: SSH, its address, questions on loopback."""
    if found["protocol"] == "tcp" and found["port"] == host.ssh_port:
        return found["program"] in {"sshd", "systemd"}
    if found["program"] == "systemd-network":
        return bool(found["protocol"] == "udp" and found["port"] in {68, 546})
    return found["program"] in _LOOPBACK_HELPERS and ip_address(found["address"]).is_loopback


def _upkeep(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    said = facts.part("upkeep")
    return [
        equal("reboots by unattended upgrades", "false", said["reboots"]),
        equal("answer to a package that restarts a member", 101, said["policy"]),
        equal("needrestart leaves members alone", expected=True, actual=said["needrestart"]),
    ]


def _held(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    return [nothing("packages that are not held", facts.part("upkeep")["not_held"])]


def _journal(facts: Facts, _site: Site, _host: Host) -> Iterable[Check]:
    folders = facts.part("files")["folders"]
    logs = {path: state for path, state in folders.items() if path.startswith("/var/log")}
    return [
        equal("kept over a restart", expected=True, actual=facts.part("upkeep")["journal_persistent"]),
        nothing("log folders that others may write", _modes(logs, 0o2755)),
    ]


def _clock(facts: Facts, site: Site, _host: Host) -> Iterable[Check]:
    if not site.time_sync:
        return [
            Check(what="time servers of the site", expected="any", actual="none named: the machine's own", good=True)
        ]
    return [equal("clock is synchronised", expected=True, actual=facts.part("clock")["synchronised"])]


FILES = Group(
    name="Files",
    items=(
        Item(
            id="files-private",
            source=OWN,
            title="Keys, secrets and records are their owner's alone",
            look=_private_files,
        ),
        Item(
            id="folders-private",
            source=OWN,
            title="Folders with keys, records and etcd's data are closed",
            look=_folders,
        ),
        Item(
            id="data-directory",
            source="CIS 1, data cluster",
            title="PostgreSQL's data is open to PostgreSQL only",
            look=_data_directory,
            role="database",
        ),
        Item(
            id="files-configuration",
            source=OWN,
            title="Nobody but root and the service writes its files",
            look=_configs,
        ),
        Item(
            id="psql-history",
            source="CIS 2, command history",
            title="psql keeps no history of statements",
            look=_history,
        ),
        Item(
            id="journal",
            source="CIS 3.1.6",
            title="Logs outlive a restart, and others cannot write them",
            look=_journal,
        ),
    ),
)

ACCOUNTS = Group(
    name="Accounts and ways in",
    items=(
        Item(
            id="accounts-locked",
            source="CIS 4, interactive login",
            title="No password opens an account of ours",
            look=_accounts,
        ),
        Item(id="sudo", source="CIS 4, sudo", title="The deploy user may run the applier, word by word", look=_sudo),
        Item(id="ssh-login", source=OWN, title="The deploy user comes in with its key only", look=_ssh_login),
        Item(
            id="ssh-forwarding",
            source=OWN,
            title="The deploy user's connection leads nowhere else",
            look=_ssh_forwarding,
        ),
    ),
)

SERVICES = Group(
    name="Confinement of services",
    items=(
        Item(id="sandbox", source=OWN, title="systemd's own score of each service is low", look=_exposure),
        Item(
            id="service-users",
            source=OWN,
            title="Each service runs as its own user, none as root",
            look=_service_users,
        ),
        Item(
            id="processes-confined",
            source=OWN,
            title="Running processes are confined as their units say",
            look=_confined,
        ),
        Item(id="umask", source="CIS 2, file mask", title="New files of services are closed to others", look=_umask),
        Item(id="core-dumps", source=OWN, title="No service leaves its memory in a file", look=_no_dumps),
        Item(
            id="no-password-in-environment",
            source="CIS 1, PGPASSWORD",
            title="No password in an environment",
            look=_environment,
        ),
        Item(
            id="sockets",
            source="CIS 5, address",
            title="Only declared programs wait on declared addresses",
            look=_sockets,
        ),
    ),
)

UPKEEP = Group(
    name="Upkeep of the machine",
    items=(
        Item(id="no-unattended-restarts", source=OWN, title="The machine restarts no member by itself", look=_upkeep),
        Item(id="packages-held", source=OWN, title="Only a change of the site upgrades members", look=_held),
        Item(id="clock", source=OWN, title="The clock is kept where the site names time servers", look=_clock),
    ),
)
