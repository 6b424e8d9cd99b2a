"""Site files to test with: a small valid one, and ways to break it."""

from __future__ import annotations

import base64
import copy
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keadb.site import Site, load_site

ROOT = Path(__file__).resolve().parents[3]
STACKS = ("us1", "us2", "us3", "us4", "dv")
Data = dict[str, Any]


def host_key(number: int) -> str:
    """Return a well-formed Ed25519 host key line; the same number gives the same key."""
    raw = struct.pack(">I", 11) + b"ssh-ed25519" + struct.pack(">I", 32) + bytes([number]) * 32
    return f"ssh-ed25519 {base64.b64encode(raw).decode()}"


def ha() -> Data:
    """Return a valid site of three hosts, in the form that YAML gives."""
    return {
        "name": "lab",
        "topology": "ha",
        "domain": "example.com",
        "platform": "debian-13",
        "network": {
            "subnet": "172.30.30.0/24",
            "gateway": "172.30.30.1",
            "vip": "172.30.30.13",
            "deploy": ["172.30.30.1"],
        },
        "hosts": {
            "lab-kea-db-01": _host(["database", "etcd"], 10, "hv-a", 1),
            "lab-kea-db-02": _host(["database", "etcd"], 11, "hv-b", 2),
            "lab-kea-witness": _host(["etcd", "witness"], 12, "hv-c", 3),
        },
        "kea": {"version": "2.6"},
        "tls": {"ca_epoch": "2026-11-01", "epoch": "2026-11-01"},
    }


def single() -> Data:
    """Return a valid site of one host."""
    data = ha()
    data["topology"] = "single"
    del data["hosts"]["lab-kea-db-02"], data["hosts"]["lab-kea-witness"]
    return data


def _host(roles: list[str], last: int, domain: str, key: int) -> Data:
    return {
        "roles": roles,
        "address": f"172.30.30.{last}",
        "failure_domain": domain,
        "ssh_host_key": host_key(key),
    }


def put(data: Data, path: str, value: Any) -> Data:
    """Return a copy of ``data`` with ``value`` at the path; parts are separated by "/"."""
    copied = copy.deepcopy(data)
    at, *rest = copied, *path.split("/")
    for part in rest[:-1]:
        at = at.setdefault(part, {})
    at[rest[-1]] = value
    return copied


def drop(data: Data, path: str) -> Data:
    """Return a copy of ``data`` without the key at the path."""
    copied = copy.deepcopy(data)
    *above, last = path.split("/")
    at = copied
    for part in above:
        at = at[part]
    del at[last]
    return copied


def site(make: Callable[[], Data] = ha) -> Site:
    """Return a valid site."""
    return load_site(make(), source="test")


def says(path: str, message: str, given: str, allowed: str) -> str:
    """Return a problem's line as it must read."""
    return f"{path}: {message}; given {given}, allowed: {allowed}"
