"""Facts for the audit: versions, and how the services around PostgreSQL let others in. See ``hostkit.audit``."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import stat
from typing import TYPE_CHECKING, Any

from hostkit import applied, etcd_client, etcd_plan, patroni_plan
from hostkit import packages as dpkg
from hostkit.audit_host import _group, _name
from hostkit.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hostkit.context import Context
    from hostkit.etcd_plan import Member

SECONDS = 4.0
POOLER = "/etc/pgbouncer/pgbouncer.ini"
PROXY = "/etc/haproxy/haproxy.cfg"
ADDRESS = "/etc/keepalived/keepalived.conf"
_POOLER_KEYS = (
    *("auth_type", "client_tls_sslmode", "client_tls_protocols", "server_tls_sslmode", "server_tls_protocols"),
    *("admin_users", "stats_users", "listen_addr", "unix_socket_mode", "auth_query"),
)
_INCLUDE = re.compile(r"^%include\s+(\S+)", re.MULTILINE)


def packages(ctx: Context, user: str) -> dict[str, str]:  # noqa: ARG001 -- the parts' common signature
    """Return the version of every package that the applied bundles install."""
    wanted = [name for record in applied.records(ctx) for name in record.bundle.packages.install]
    return {name: version for name, (_, status, version) in dpkg.known(ctx, wanted).items() if status == "installed"}


def patroni(ctx: Context, user: str) -> dict[str, Any] | None:  # noqa: ARG001 -- the parts' common signature
    """Return what this node's REST API says to a change without password and to one without a certificate.

    The change is to read its files again, so nothing happens should it be let in.
    """
    if not ctx.path(patroni_plan.FORM_PLAN).exists():
        return None
    plan = patroni_plan.form(ctx)
    port = plan.cluster.rest_port
    with_certificate = etcd_client.tls_context(ctx, etcd_client.CLIENT_TLS)
    without = ssl.create_default_context(cafile=str(ctx.path(etcd_client.CLIENT_TLS.ca)))
    return {
        "without_password": _change(plan.me, port, with_certificate),
        "without_certificate": _change(plan.me, port, without),
        "cleartext": _cleartext(plan.me.address, port),
    }


def _change(member: Member, port: int, tls: ssl.SSLContext) -> str:
    connection = http.client.HTTPSConnection(member.address, port, timeout=SECONDS, context=tls)
    handshake = False
    try:
        connection.connect()
        handshake = True
        connection.request("POST", "/reload")
        answer = connection.getresponse()
        answer.read(4096)
    except ssl.SSLError:
        return "refused"
    except (OSError, http.client.HTTPException) as e:
        # In TLS 1.3 the server looks at the client's certificate after the client is done: it may just hang up.
        if handshake and isinstance(e, ConnectionError):
            return "refused"
        msg = f"Patroni's REST API does not answer: {e}"
        raise HostError(msg) from None
    finally:
        connection.close()
    return "refused" if answer.status in (401, 403) else f"let in (status {answer.status})"


def etcd(ctx: Context, user: str) -> dict[str, Any] | None:  # noqa: ARG001 -- the parts' common signature
    """Return how this member answers who comes without a certificate, without a login, and in clear."""
    plan = etcd_plan.load(ctx)
    if plan is None:
        return None
    without = ssl.create_default_context(cafile=str(ctx.path(etcd_client.CLIENT_TLS.ca)))
    return {
        "without_certificate": _anonymous(plan.me, plan.client_port, without),
        "peer_without_certificate": _anonymous(plan.me, plan.peer_port, without),
        "without_login": _range(ctx, plan.me, plan.client_port),
        "cleartext": _cleartext(plan.me.address, plan.client_port),
    }


def _anonymous(member: Member, port: int, tls: ssl.SSLContext) -> str:
    try:
        etcd_client.fetch(member, port, "/version", tls=tls, seconds=SECONDS)
    except etcd_client.Unreachable as e:
        if "refused" in str(e) or "no answer" in str(e):
            raise
        return "refused"
    return "let in"


def _range(ctx: Context, member: Member, port: int) -> str:
    tls = etcd_client.tls_context(ctx, etcd_client.CLIENT_TLS)
    try:
        etcd_client.Etcd(member, port, tls=tls, seconds=SECONDS).call("/v3/kv/range", {"key": "YXVkaXQ="})
    except etcd_client.Unreachable:
        raise
    except etcd_client.EtcdError as e:
        if "user name is empty" in e.message or "permission denied" in e.message or "token" in e.message:
            return "refused"
        raise
    return "let in"


def _cleartext(address: str, port: int) -> str:
    try:
        with socket.create_connection((address, port), timeout=SECONDS) as connection:
            connection.sendall(b"GET /version HTTP/1.0\r\n\r\n")
            said = connection.recv(64)
    except TimeoutError:
        msg = f"{address}:{port} does not answer in time"
        raise HostError(msg) from None
    except OSError:
        return "refused"
    return "let in" if b" 200 " in said else "refused"


def pooler(ctx: Context, user: str) -> dict[str, Any] | None:  # noqa: ARG001 -- the parts' common signature
    """Return PgBouncer's settings of who may come in, and the methods of its rules."""
    if not ctx.path(POOLER).exists() or not _applied(ctx, "pooler"):
        return None
    text = ctx.path(POOLER).read_text(encoding="utf-8")
    for included in _INCLUDE.findall(text):
        text += "\n" + ctx.path(included).read_text(encoding="utf-8")
    found = dict(_ini(line) for line in text.splitlines() if "=" in line and line[:1] not in ";#%[ ")
    rules = ctx.path(found["auth_hba_file"]).read_text(encoding="utf-8") if "auth_hba_file" in found else ""
    return {
        **{key: found.get(key, "") for key in _POOLER_KEYS if key != "auth_query"},
        "auth_query": "set" if found.get("auth_query") else "",
        "auth_file": found.get("auth_file", ""),
        "rules": [
            [words[0], words[-1]] for line in rules.splitlines() if (words := line.split()) and line[:1] != "#"
        ],
    }


def _ini(line: str) -> tuple[str, str]:
    key, _, value = line.partition("=")
    return key.strip(), value.strip()


def _applied(ctx: Context, name: str) -> bool:
    return any(record.bundle.name == name for record in applied.records(ctx))


def proxy(ctx: Context, user: str) -> dict[str, Any] | None:  # noqa: ARG001 -- the parts' common signature
    """Return HAProxy's sockets for people, with mode and owner, and what its file says of TLS of its checks."""
    if not ctx.path(PROXY).exists() or not _applied(ctx, "proxy"):
        return None
    lines = [line.split() for line in ctx.path(PROXY).read_text(encoding="utf-8").splitlines()]
    named = [words[2] for words in lines if words[:2] == ["stats", "socket"]]
    return {
        "sockets": {path: _socket(ctx, path) for path in named},
        "levels": [words[words.index("level") + 1] for words in lines if words[:2] == ["stats", "socket"]],
        "verify": next((words[1] for words in lines if words[:1] == ["ssl-server-verify"]), ""),
        "unverified": sum(1 for words in lines if _pair(words, "verify", "none")),
        "pages": [" ".join(words) for words in lines if words[:2] in (["stats", "enable"], ["stats", "uri"])],
        "oldest_tls": next((words[-1] for words in lines if words[:1] == ["ssl-default-server-options"]), ""),
    }


def _pair(words: list[str], first: str, second: str) -> bool:
    return any(words[n : n + 2] == [first, second] for n in range(len(words)))


def _socket(ctx: Context, path: str) -> Mapping[str, str]:
    if not path.startswith("/"):
        return {"mode": "on the network", "owner": "", "group": ""}
    try:
        info = ctx.path(path).lstat()
    except FileNotFoundError:
        return {"mode": "missing", "owner": "", "group": ""}
    return {
        "mode": f"{stat.S_IMODE(info.st_mode):04o}",
        "owner": _name(info.st_uid),
        "group": _group(info.st_gid),
    }


def address(ctx: Context, user: str) -> dict[str, Any] | None:  # noqa: ARG001 -- the parts' common signature
    """Return how keepalived tells its peers from strangers, and as whom it runs its check."""
    if not ctx.path(ADDRESS).exists() or not _applied(ctx, "virtual-address"):
        return None
    lines = [line.split() for line in ctx.path(ADDRESS).read_text(encoding="utf-8").splitlines()]
    begins = next((n for n, words in enumerate(lines) if words[:1] == ["unicast_peer"]), None)
    peers = [] if begins is None else lines[begins + 1 : lines.index(["}"], begins)]
    return {
        "script_security": ["enable_script_security"] in lines,
        "script_user": next((words[1] for words in lines if words[:1] == ["script_user"]), ""),
        "checks_source": ["check_unicast_src"] in lines,
        "peers": {words[0]: "min_ttl 255" in " ".join(words) for words in peers if words},
    }
