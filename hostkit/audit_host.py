"""Facts for the audit: files, accounts, SSH, upkeep and clock of the machine. See ``hostkit.audit``."""

from __future__ import annotations

import grp
import pwd
import stat
from typing import TYPE_CHECKING, Any

from hostkit import applied
from hostkit.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hostkit.context import Context

SECONDS = 20.0
SERVICE_USERS = ("etcd", "postgres", "pgbouncer", "haproxy", "keepalived_script")
PRIVATE = (
    *("/etc/*/tls/*.key", "/etc/ssh/ssh_host_*_key"),
    *("/var/lib/keadb/tls/*.key", "/var/lib/keadb/secrets*.json", "/var/lib/keadb/applied/*.json"),
)
"""Keys, passwords, and records that name them: for one user alone."""
FOLDERS = (
    *("/var/lib/keadb/applied", "/var/lib/keadb/pending", "/var/lib/keadb/tls"),
    *("/var/lib/etcd", "/var/lib/etcd/keadb", "/var/lib/postgresql/*/kea", "/var/log/journal"),
)
CONFIGS = (
    *("/etc/patroni/config.yml", "/etc/pgbouncer/*.ini", "/etc/pgbouncer/*.conf", "/etc/haproxy/haproxy.cfg"),
    *("/etc/keepalived/keepalived.conf", "/etc/etcd/keadb*.yml", "/etc/sudoers", "/etc/sudoers.d/*"),
    *("/var/lib/postgresql/*/kea/*.conf", "/usr/lib/keadb/*", "/etc/systemd/system/*.service.d/keadb.conf"),
)
HISTORIES = ("/var/lib/postgresql/.psql_history", "/root/.psql_history")
_SSHD = (
    *("passwordauthentication", "kbdinteractiveauthentication", "permitemptypasswords", "authenticationmethods"),
    *("disableforwarding", "allowtcpforwarding", "allowstreamlocalforwarding", "allowagentforwarding"),
    *("permittunnel", "x11forwarding", "permituserenvironment"),
)


def files(ctx: Context, user: str) -> dict[str, Any]:
    """Return mode and owner of what must not be anybody's, by group and path; ``history`` of psql's by path."""
    return {
        "private": dict(_states(ctx, PRIVATE)),
        "folders": dict(_states(ctx, FOLDERS)),
        "configs": dict(_states(ctx, CONFIGS)),
        "ssh": dict(_states(ctx, [f"{_home(user)}", f"{_home(user)}/.ssh", f"{_home(user)}/.ssh/*"])),
        "history": {path: _history(ctx.path(path)) for path in HISTORIES},
    }


def _states(ctx: Context, patterns: Iterator[str] | tuple[str, ...] | list[str]) -> Iterator[tuple[str, Any]]:
    for pattern in patterns:
        for path in sorted(ctx.root.glob(pattern.removeprefix("/"))):
            try:
                info = path.lstat()
            except FileNotFoundError:
                continue
            state = {"mode": f"{stat.S_IMODE(info.st_mode):04o}", "owner": _name(info.st_uid)}
            link = stat.S_ISLNK(info.st_mode)
            yield f"/{path.relative_to(ctx.root)}", {**state, "group": _group(info.st_gid), "link": link}


def _history(path: Path) -> str:
    if path.is_symlink():
        return f"link to {path.readlink()}"
    return "file" if path.exists() else "none"


def _home(user: str) -> str:
    try:
        return pwd.getpwnam(user).pw_dir
    except KeyError:
        msg = f"there is no user {user!r} on this host"
        raise HostError(msg) from None


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def accounts(ctx: Context, user: str) -> dict[str, Any]:
    """Return of the deploy user and the services' users whether a password opens them, and the deploy user's rights.

    ``sudo`` has one line a rule, as sudo itself understands them; ``root_like`` every other name with number 0.
    """
    found = {}
    for name in (user, *SERVICE_USERS):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        groups = sorted(_group(gid) for gid in _groups(name, entry.pw_gid))
        found[name] = {"shell": entry.pw_shell, "password": _password(ctx, name), "groups": groups}
    rules = ctx.system.run(["sudo", "-l", "-U", user], timeout=SECONDS).stdout.splitlines()
    root_like = sorted(entry.pw_name for entry in pwd.getpwall() if entry.pw_uid == 0 and entry.pw_name != "root")
    begins = next((n + 1 for n, line in enumerate(rules) if "may run the following" in line), len(rules))
    return {"users": found, "sudo": [line.strip() for line in rules[begins:] if line.strip()], "root_like": root_like}


def _groups(name: str, own: int) -> set[int]:
    return {own, *(entry.gr_gid for entry in grp.getgrall() if name in entry.gr_mem)}


def _password(ctx: Context, name: str) -> str:
    """Return "locked", "empty" or "set" of a user's password."""
    for line in ctx.path("/etc/shadow").read_text(encoding="utf-8", errors="replace").splitlines():
        fields = line.split(":")
        if fields[0] == name:
            return "empty" if not fields[1] else "locked" if fields[1][0] in "!*" else "set"
    return "locked"


def ssh(ctx: Context, user: str) -> dict[str, Any]:
    """Return what the SSH server's files say for the deploy user, by keyword in lower case."""
    asked = f"user={user},host=audit.invalid,addr=192.0.2.1"
    said = ctx.system.run(["/usr/sbin/sshd", "-T", "-C", asked], timeout=SECONDS).stdout
    found = dict(line.partition(" ")[::2] for line in said.splitlines())
    return {key: found.get(key, "") for key in _SSHD}


def upkeep(ctx: Context, user: str) -> dict[str, Any]:  # noqa: ARG001 -- the parts' common signature
    """Return what the machine may do to the cluster by itself, and how its logs are kept."""
    config = ctx.system.run(["apt-config", "dump"], timeout=SECONDS).stdout
    settings = dict(line.rstrip(";").partition(" ")[::2] for line in config.splitlines())
    policy = ctx.system.run(["/usr/sbin/policy-rc.d", "patroni", "restart"], timeout=SECONDS, check=False)
    held = {name for record in applied.records(ctx) for name in record.bundle.packages.hold}
    shown = ctx.system.run(["apt-mark", "showhold"], timeout=SECONDS).stdout.split()
    return {
        "reboots": settings.get("Unattended-Upgrade::Automatic-Reboot", "").strip('"'),
        "policy": policy.returncode,
        "needrestart": ctx.path("/etc/needrestart/conf.d/60-keadb.conf").exists(),
        "not_held": sorted(held - set(shown)),
        "core_pattern_pipe": ctx.path("/proc/sys/kernel/core_pattern").read_text(encoding="ascii").startswith("|"),
        "suid_dumpable": ctx.path("/proc/sys/fs/suid_dumpable").read_text(encoding="ascii").strip(),
        "journal_persistent": ctx.path("/var/log/journal").is_dir(),
    }


def clock(ctx: Context, user: str) -> dict[str, Any]:  # noqa: ARG001 -- the parts' common signature
    """Return whether a time service says that it keeps the clock."""
    argv = ["timedatectl", "show", "--property=NTPSynchronized", "--value"]
    said = ctx.system.run(argv, timeout=SECONDS, check=False).stdout.strip()
    return {"synchronised": said == "yes"}
