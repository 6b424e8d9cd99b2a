"""A small client of etcd: its JSON gateway, its health page and its peers' member list, over mutual TLS.

Passwords and tokens travel in request bodies and headers only: never in a command line, an environment or an
error. It does not retry, balance or cache; callers decide what a failure means.
"""

from __future__ import annotations

import http.client
import json
import ssl
from typing import TYPE_CHECKING, Any

from hostkit.errors import HostError
from hostkit.etcd_plan import Member, Tls

if TYPE_CHECKING:
    from hostkit.context import Context

CLIENT_TLS = Tls(
    cert="/var/lib/keadb/tls/client.crt",
    key="/var/lib/keadb/tls/client.key",
    ca="/etc/keadb/tls/ca.crt",
)
"""The certificate with which root's own steps talk to services."""

REQUEST_SECONDS = 5.0
"""Limit of one request. etcd itself answers later than this only when it has no leader."""

_OK = 200
_MOST = 4 << 20
"""Bytes of an answer that are read at most."""


class EtcdError(HostError):
    """etcd answered with an error; ``message`` is its own text, such as ``etcdserver: user name not found``."""

    def __init__(self, text: str, message: str = "") -> None:
        super().__init__(text)
        self.message = message


class Unreachable(EtcdError):  # noqa: N818 - named for what was found
    """Nothing that speaks our TLS answered in time; the message says what happened."""


def tls_context(ctx: Context, tls: Tls) -> ssl.SSLContext:
    """Return the client side of mutual TLS: the peer must carry the site CA's certificate for its address."""
    return _loaded(ctx, tls, ssl.Purpose.SERVER_AUTH)


def tls_server_context(ctx: Context, tls: Tls) -> ssl.SSLContext:
    """Return the server side of mutual TLS: clients must carry a certificate of the site CA."""
    context = _loaded(ctx, tls, ssl.Purpose.CLIENT_AUTH)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def _loaded(ctx: Context, tls: Tls, purpose: ssl.Purpose) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(purpose, cafile=str(ctx.path(tls.ca)))
        context.load_cert_chain(ctx.path(tls.cert), ctx.path(tls.key))
    except (OSError, ssl.SSLError) as e:
        msg = f"cannot use the certificate {tls.cert} with {tls.key} and {tls.ca}: {e}"
        raise HostError(msg) from e
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def fetch(
    member: Member,
    port: int,
    path: str,
    *,
    tls: ssl.SSLContext,
    body: dict[str, Any] | None = None,
    token: str | None = None,
    seconds: float = REQUEST_SECONDS,
) -> tuple[int, Any]:
    """Send one request (POST with a body, else GET); return status and decoded JSON (None when it isn't JSON).

    Unreachable when there was no complete answer within ``seconds`` for each wait on the network.
    """
    connection = http.client.HTTPSConnection(member.address, port, timeout=seconds, context=tls)
    headers = {} if token is None else {"Authorization": token}
    try:
        if body is None:
            connection.request("GET", path, headers=headers)
        else:
            headers["Content-Type"] = "application/json"
            connection.request("POST", path, body=json.dumps(body).encode(), headers=headers)
        response = connection.getresponse()
        text = response.read(_MOST)
        status = response.status
    except (OSError, http.client.HTTPException) as e:
        msg = f"{member.name} ({member.address}:{port}) is unreachable: {_reason(e)}"
        raise Unreachable(msg) from e
    finally:
        connection.close()
    try:
        return status, json.loads(text)
    except ValueError:
        return status, None


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return str(error) or type(error).__name__


class AuthenticationOff(EtcdError):  # noqa: N818 - named for what was found
    """etcd runs without authentication, so nobody can log in."""


class Etcd:
    """One member's client port. ``log_in`` gives all later calls a token."""

    def __init__(self, member: Member, port: int, *, tls: ssl.SSLContext, seconds: float = REQUEST_SECONDS) -> None:
        self.member = member
        self._seconds = seconds
        self.port = port
        self._tls = tls
        self._token: str | None = None

    def call(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Call the gateway (``/v3/...``); EtcdError for anything but a JSON object with status 200."""
        status, answer = fetch(
            self.member, self.port, path, tls=self._tls, body=body or {}, token=self._token, seconds=self._seconds
        )
        if status == _OK and isinstance(answer, dict):
            return answer
        message = ""
        if isinstance(answer, dict):
            message = str(answer.get("message") or answer.get("error") or "")
        text = f"etcd on {self.member.name} refused {path}: {message or f'HTTP status {status}'}"
        raise EtcdError(text, message)

    def healthy(self) -> tuple[bool, str]:
        """Return whether this member takes part in a quorum and has no alarm, and the reason when it does not."""
        try:
            _, answer = fetch(self.member, self.port, "/health", tls=self._tls, seconds=self._seconds)
        except Unreachable as e:
            return False, str(e)
        if not isinstance(answer, dict):
            return False, f"{self.member.name} did not say whether it is healthy"
        if answer.get("health") == "true":
            return True, ""
        return False, f"{self.member.name} is not healthy: {answer.get('reason') or 'no quorum'}"

    def status(self) -> dict[str, Any]:
        """Return this member's own view: ``leader``, ``dbSize``, ``errors`` ..., also without a quorum."""
        return self.call("/v3/maintenance/status")

    def log_in(self, user: str, password: str) -> bool:
        """Take a token; False when etcd says that user or password is wrong.

        AuthenticationOff when there is none (etcd tells nobody but root's token whether it is on, so logging in
        is how to find out), EtcdError for anything else.
        """
        self._token = None
        try:
            self._token = str(self.call("/v3/auth/authenticate", {"name": user, "password": password})["token"])
        except EtcdError as e:
            if "authentication failed" in e.message:
                return False
            if "authentication is not enabled" in e.message:
                raise AuthenticationOff(str(e), e.message) from e
            raise
        return True


def member_list(
    member: Member, peer_port: int, *, tls: ssl.SSLContext, seconds: float = REQUEST_SECONDS
) -> list[dict[str, Any]]:
    """Return the members as one member knows them, from its peer port: needs no quorum and no login.

    Each has ``id`` (a number), ``name`` (empty until it was born when it was added later), ``peerURLs``,
    ``clientURLs`` (missing until it was born) and ``isLearner``. Unreachable or EtcdError otherwise.
    """
    status, answer = fetch(member, peer_port, "/members", tls=tls, seconds=seconds)
    if status == _OK and isinstance(answer, list):
        return [m for m in answer if isinstance(m, dict)]
    msg = f"{member.name} ({member.address}:{peer_port}) gave no member list: HTTP status {status}"
    raise EtcdError(msg)
