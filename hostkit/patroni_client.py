"""A small client of Patroni's REST API over mutual TLS, as root's own steps use it.

The password goes into a header only: never into a command line, an address or an error. It does not retry.
"""

from __future__ import annotations

import base64
import http.client
import json
from typing import TYPE_CHECKING, Any

from hostkit import etcd_client, store
from hostkit.errors import HostError

if TYPE_CHECKING:
    from hostkit.context import Context
    from hostkit.etcd_plan import Member
    from hostkit.patroni_plan import Cluster

USER = "patroni"
SECRET = "patroni_rest_password"  # noqa: S105 - the name of the secret, not the secret
REQUEST_SECONDS = 4.0
"""Limit of each wait on the network; Patroni answers from memory and one short query."""
_MOST = 4 << 20
_OK = 200


class RestError(HostError):
    """A node did not answer, or not as asked."""


class Rest:
    """The REST API of all declared nodes; every call names the node it wants."""

    def __init__(self, ctx: Context, cluster: Cluster) -> None:
        self._ctx = ctx
        self._port = cluster.rest_port
        self._tls = etcd_client.tls_context(ctx, etcd_client.CLIENT_TLS)
        self.members = cluster.members

    def node(self, member: Member) -> dict[str, Any]:
        """Return what a node says of itself; also when it says (with status 503) that it is not well."""
        return self._fetch(member, "GET", "/patroni")[1]

    def cluster(self, member: Member) -> dict[str, Any]:
        """Return the cluster as a node sees it in etcd: ``members``, ``pause``."""
        return self._wanted(member, "GET", "/cluster")

    def config(self, member: Member) -> dict[str, Any]:
        """Return the dynamic configuration in etcd."""
        return self._wanted(member, "GET", "/config")

    def patch_config(self, member: Member, patch: dict[str, Any]) -> None:
        """Change the dynamic configuration; None takes a key away."""
        self._wanted(member, "PATCH", "/config", body=patch, login=self._login())

    def act(self, member: Member, path: str, body: dict[str, Any], *, seconds: float) -> tuple[int, str]:
        """Have a node do something that it answers when it is done; return status and its own words.

        RestError when no answer comes within ``seconds``: whether it is being done must then be looked up.
        """
        status, _, text = self._fetch(member, "POST", path, body=body, login=self._login(), seconds=seconds)
        return status, text.decode(errors="replace").strip()

    def served_certificate(self, member: Member) -> bytes:
        """Return the certificate (DER) that a node's API shows right now."""
        connection = self._connection(member)
        try:
            connection.connect()
            shown: bytes | None = connection.sock.getpeercert(binary_form=True)
            # Patroni logs a traceback for a client that leaves without having asked anything.
            connection.request("GET", "/liveness")
            connection.getresponse().read()
        except (OSError, http.client.HTTPException) as e:
            raise self._unreachable(member, e) from e
        finally:
            connection.close()
        return shown or b""

    def first(self, what: str) -> tuple[Member, dict[str, Any]]:
        """Return the answer (``cluster`` or ``config``) of the first node that gives one; RestError otherwise."""
        problems = []
        for member in self.members:
            try:
                return member, getattr(self, what)(member)
            except RestError as e:
                problems.append(str(e))
        raise RestError("; ".join(problems))

    def _login(self) -> str:
        password = store.secret(self._ctx, SECRET, wanted_by="Patroni's REST API")
        return f"{USER}:{password}"

    def _wanted(self, member: Member, method: str, path: str, **more: Any) -> dict[str, Any]:
        status, answer, _ = self._fetch(member, method, path, **more)
        if status != _OK:
            msg = f"Patroni on {member.name} answered {method} {path} with status {status}"
            raise RestError(msg)
        return answer

    def _fetch(
        self,
        member: Member,
        method: str,
        path: str,
        *,
        body: dict[str, Any] | None = None,
        login: str | None = None,
        seconds: float = REQUEST_SECONDS,
    ) -> tuple[int, dict[str, Any], bytes]:
        headers = {} if body is None else {"Content-Type": "application/json"}
        if login is not None:
            headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
        connection = self._connection(member, seconds)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            text = response.read(_MOST)
        except (OSError, http.client.HTTPException) as e:
            raise self._unreachable(member, e) from e
        finally:
            connection.close()
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        return response.status, answer if isinstance(answer, dict) else {}, text

    def _connection(self, member: Member, seconds: float = REQUEST_SECONDS) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(member.address, self._port, timeout=seconds, context=self._tls)

    def _unreachable(self, member: Member, error: Exception) -> RestError:
        reason = str(error) or type(error).__name__
        return RestError(f"Patroni on {member.name} ({member.address}:{self._port}) is unreachable: {reason}")
