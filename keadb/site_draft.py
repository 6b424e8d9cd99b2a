"""The readable parts of a site file that cannot be read as a whole, so that rules still see the rest."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError

from keadb.site_model import (
    Etcd,
    Host,
    Kea,
    Logins,
    Network,
    Packages,
    Patroni,
    Pooler,
    Postgresql,
    Proxy,
    Site,
    Tls,
)


@dataclass(frozen=True, kw_only=True)
class Draft:
    """Parts of a site; None where a part has problems of its own. ``hosts`` holds those that can be read."""

    name: str | None = None
    domain: str | None = None
    topology: str | None = None
    platform: str | None = None
    network: Network | None = None
    hosts: Mapping[str, Host] = field(default_factory=dict)
    hosts_complete: bool = False
    etcd: Etcd | None = None
    patroni: Patroni | None = None
    postgresql: Postgresql | None = None
    packages: Packages | None = None
    pooler: Pooler | None = None
    proxy: Proxy | None = None
    kea: Kea | None = None
    tls: Tls | None = None
    logins: Logins | None = None
    accepted: frozenset[str] = frozenset()

    @classmethod
    def of(cls, data: Mapping[Any, Any], site: Site | None) -> Draft:
        """Return the draft of ``data``; of ``site`` when it could be read as a whole."""
        accept = data.get("accept")
        accepted = frozenset(str(name) for name in accept) if isinstance(accept, dict) else frozenset[str]()
        names = [name for name in Site.model_fields if name in cls.__dataclass_fields__ and name != "hosts"]
        if site is not None:
            parts = {name: getattr(site, name) for name in names}
            return cls(**parts, hosts=site.hosts, hosts_complete=True, accepted=accepted)
        given = data.get("hosts")
        found = [_read("hosts", {key: value}) for key, value in given.items()] if isinstance(given, dict) else [None]
        hosts = {name: host for one in found if one for name, host in one.items()}
        return cls(
            **{name: _read(name, data[name]) if name in data else _default(name) for name in names},
            hosts=dict(sorted(hosts.items())),
            hosts_complete=all(found),
            accepted=accepted,
        )

    def with_role(self, role: str) -> list[Host]:
        """Return the hosts that have ``role``."""
        return [host for host in self.hosts.values() if role in host.roles]


@functools.cache
def _adapter(name: str) -> TypeAdapter[Any]:
    info = Site.model_fields[name]
    kind: Any = info.annotation
    return TypeAdapter(Annotated[(kind, *info.metadata)] if info.metadata else kind)


def _read(name: str, value: Any) -> Any:
    try:
        return _adapter(name).validate_python(value)
    except ValidationError:
        return None


def _default(name: str) -> Any:
    info = Site.model_fields[name]
    return None if info.is_required() else info.get_default(call_default_factory=True)
