"""What Patroni keeps in etcd about its cluster, as far as a birth needs it, and notes of our own beside it.

Of a born cluster nothing that is Patroni's is written here: that goes through its own REST API (``patroni_client``).
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from hostkit import etcd_client, store
from hostkit.errors import HostError

if TYPE_CHECKING:
    from hostkit.context import Context
    from hostkit.patroni_plan import Cluster

DECLARATIONS = "keadb-form/"
"""Below the cluster's prefix: what each database host found in its data directory, gone after a while."""
DECLARED_SECONDS = 60


class Dcs:
    """The cluster's keys in etcd, through the first member that takes our login."""

    def __init__(self, ctx: Context, cluster: Cluster) -> None:
        self._prefix = cluster.prefix
        self._etcd = _logged_in(ctx, cluster)

    def initialized(self) -> bool:
        """Say whether the cluster was born: Patroni writes the system identifier when initdb is through."""
        return bool(self.get("initialize"))

    def get(self, key: str) -> str | None:
        """Return a key's value, None without it."""
        answer = self._etcd.call("/v3/kv/range", {"key": self._key(key)})
        found = answer.get("kvs") or []
        return base64.b64decode(found[0].get("value", "")).decode() if found else None

    def birth_was_begun(self) -> bool:
        """Say whether initdb was begun somewhere and never came to its end (it may be running)."""
        return self.get("initialize") == ""

    def put_before_birth(self, key: str, value: str) -> bool:
        """Write a key of a cluster that was not born; False, and nothing written, when it was."""
        put = {"request_put": {"key": self._key(key), "value": _encoded(value)}}
        return self._if_unborn(put, begun=False) or self._if_unborn(put, begun=True)

    def forget_birth(self) -> bool:
        """Take back that a birth was begun; False, and nothing changed, when it came to its end after all."""
        return self._if_unborn({"request_delete_range": {"key": self._key("initialize")}}, begun=True)

    def _if_unborn(self, request: dict[str, Any], *, begun: bool) -> bool:
        name = self._key("initialize")
        held: dict[str, Any] = {"key": name, "target": "CREATE", "result": "EQUAL", "create_revision": "0"}
        if begun:
            held = {"key": name, "target": "VALUE", "result": "EQUAL", "value": ""}
        answer = self._etcd.call("/v3/kv/txn", {"compare": [held], "success": [request]})
        return bool(answer.get("succeeded", False))

    def declare(self, host: str, what: str) -> None:
        """Say what this host found, for DECLARED_SECONDS."""
        lease = self._etcd.call("/v3/lease/grant", {"TTL": str(DECLARED_SECONDS)})
        key = self._key(DECLARATIONS + host)
        self._etcd.call("/v3/kv/put", {"key": key, "value": _encoded(what), "lease": str(lease["ID"])})

    def declared(self, host: str) -> str | None:
        """Return what another host said lately; None when it said nothing."""
        return self.get(DECLARATIONS + host)

    def put(self, key: str, value: str) -> None:
        """Write a key of ours; it stays until it is removed."""
        self._etcd.call("/v3/kv/put", {"key": self._key(key), "value": _encoded(value)})

    def remove(self, key: str) -> None:
        """Remove a key of ours, if it is there."""
        self._etcd.call("/v3/kv/deleterange", {"key": self._key(key)})

    def _key(self, key: str) -> str:
        return _encoded(self._prefix + key)


def _logged_in(ctx: Context, cluster: Cluster) -> etcd_client.Etcd:
    """Return the first member that takes our login; EtcdError when none answers, HostError for a wrong password."""
    tls = etcd_client.tls_context(ctx, etcd_client.CLIENT_TLS)
    login = cluster.etcd_login
    password = store.secret(ctx, login.secret, wanted_by="Patroni's settings in etcd")
    problems = []
    for member in cluster.etcd:
        etcd = etcd_client.Etcd(member, cluster.etcd_port, tls=tls)
        try:
            taken = etcd.log_in(login.user, password)
        except etcd_client.EtcdError as e:
            problems.append(str(e))
            continue
        if taken:
            return etcd
        # Its peers hold the same users: nothing to try or to wait for.
        msg = f"etcd on {member.name} does not take the password of its user {login.user}"
        raise HostError(msg)
    msg = f"no etcd member can be used: {'; '.join(problems)}"
    raise etcd_client.EtcdError(msg)


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
