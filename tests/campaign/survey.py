"""What a site's hosts are at one moment, and what is wrong with them after an interrupted run: state, not echoes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.catalog import bundles
from ops import sites
from ops.stacks import resolve

if TYPE_CHECKING:
    from lab.api import Lab

LOOK = r"""
import glob, hashlib, json, os, subprocess

def said(*argv):
    return subprocess.run(argv, capture_output=True, text=True).stdout

applied, paths = {}, set()
for record in sorted(glob.glob("/var/lib/keadb/applied/*.json")):
    content = json.load(open(record))
    applied[os.path.basename(record)[:-5]] = content["bundle"]
    paths |= {record, *content["files"]}
for top in ("/etc/keadb", "/usr/lib/keadb", "/etc/patroni", "/etc/etcd", "/var/lib/keadb/tls", "/var/lib/keadb"):
    paths |= {entry.path for entry in os.scandir(top) if entry.is_file()} if os.path.isdir(top) else set()
files = {}
for path in sorted(paths):
    try:
        info = os.lstat(path)
        digest = hashlib.sha256(open(path, "rb").read()).hexdigest()
        files[path] = [digest, info.st_mtime_ns, info.st_ino, oct(info.st_mode), info.st_uid, info.st_gid]
    except OSError as error:
        files[path] = [str(error)]
units = "Id,ActiveState,NRestarts,ExecMainStartTimestampMonotonic"
control = glob.glob("/usr/lib/postgresql/*/bin/pg_controldata")
identifier = [
    line.split()[-1]
    for data in glob.glob("/var/lib/postgresql/*/kea") if control
    for line in said(control[0], data).splitlines() if "system identifier" in line
]
member = glob.glob("/var/lib/etcd/keadb/member")
print(json.dumps({
    "applied": applied,
    "files": files,
    "units": said("systemctl", "show", "-p", units, "keadb-etcd", "patroni", "keadb-etcd-lead.timer").split("\n\n"),
    "postmaster": open("/var/lib/postgresql/15/kea/postmaster.pid").read().split("\n")[:3]
        if os.path.exists("/var/lib/postgresql/15/kea/postmaster.pid") else [],
    "system_identifier": identifier,
    "requests": [p for p in glob.glob("/run/keadb/requests/*")],
    "check": json.loads(said("/usr/lib/keadb/keadb-apply", "check") or "{}"),
    "status": json.loads(said("/usr/lib/keadb/keadb-apply", "status") or "{}"),
}))
"""
"""Runs on a host with its own Python; reads only."""


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Every host's answer by name."""

    hosts: dict[str, dict[str, Any]]

    @property
    def running(self) -> dict[str, Any]:
        """Return what no repeated run may touch: files with their times and inodes, and when services started."""
        keys = ("files", "units", "postmaster")
        return {name: {key: host[key] for key in keys} for name, host in self.hosts.items()}

    @property
    def identity(self) -> dict[str, Any]:
        """Return what a cluster is: etcd's member ids, PostgreSQL's system identifier."""
        return {
            name: {"etcd": _members(host["status"]), "system_identifier": host["system_identifier"]}
            for name, host in self.hosts.items()
        }


def survey(lab: Lab) -> Survey:
    """Look at every host; fails with what the host said when one cannot be asked."""
    answers = {}
    for host in lab.hosts:
        done = lab.exec(host.name, ["python3", "-c", LOOK], timeout=120)
        if done.returncode:
            msg = f"{host.name}: {done.stderr.strip()}"
            raise RuntimeError(msg)
        answers[host.name] = json.loads(done.stdout)
    return Survey(hosts=answers)


def wrong_with(found: Survey, stack: str) -> list[str]:
    """Return everything in which the hosts are not what the stack's site file says, after a run that went well."""
    site = sites.load(resolve(stack))
    wrong = []
    for name, declared in bundles(site).items():
        host = found.hosts[name]
        for bundle in declared:
            there = host["applied"].get(bundle.name)
            if there is None:
                wrong.append(f"{name}: bundle {bundle.name} was never applied")
                continue
            content = json.loads(bundle.to_json())
            wrong += [
                f"{name}: bundle {bundle.name} was applied with other {key}"
                for key in ("files", "units", "packages", "tls", "inputs")
                if there.get(key) != content.get(key)
            ]
        wrong += [f"{name}: {what}" for what in host["check"].get("drift", ["no answer to check"])]
        wrong += [f"{name}: unfinished {what}" for what in host["check"].get("unfinished", [])]
    identifiers = {i for host in found.hosts.values() for i in host["system_identifier"]}
    if len(identifiers) != 1:
        wrong.append(f"system identifiers {sorted(identifiers)} instead of one")
    members = {json.dumps(_members(found.hosts[h.name]["status"])) for h in site.etcd_hosts}
    if len(members) != 1:
        wrong.append(f"etcd hosts see different members: {sorted(members)}")
    return wrong


def _members(status: dict[str, Any]) -> list[Any]:
    members = (status.get("etcd") or {}).get("members") or []
    return sorted((m["name"], m.get("id")) for m in members)
