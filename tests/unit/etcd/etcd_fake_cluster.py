"""A fake etcd of several members that speaks real TLS on loopback addresses."""

from __future__ import annotations

import json
import shutil
import socketserver
import ssl
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.unit.etcd.etcd_fakes import ADDRESSES, DATA, HostRoot


class FakeCluster:
    """What members share: who they are, who leads, users and roles, in etcd's own words."""

    def __init__(self, hosts: Mapping[str, HostRoot]) -> None:
        self.hosts = hosts
        self.peer_port = next(iter(hosts.values())).plan["peer_port"]
        self.client_port = next(iter(hosts.values())).plan["client_port"]
        self.list = [
            {"id": 100 + i, "name": n, "peerURLs": [f"https://{ADDRESSES[n]}:{self.peer_port}"]}
            for i, n in enumerate(hosts)
        ]
        self.running: dict[str, list[_TlsServer]] = {}
        self.leader: str | None = None
        self.auth = False
        self.users: dict[str, dict[str, Any]] = {}
        self.roles: dict[str, list[dict[str, str]]] = {}
        self.alarms: list[str] = []
        self.calls: list[str] = []
        self.unsettled = 0
        self.keys: dict[str, str] = {}
        self.addresses = dict(ADDRESSES)
        self.next_id = 200
        self.lock = threading.Lock()

    def entry(self, name: str) -> dict[str, Any]:
        """Return a member's entry of the list, by its address, else by the name that it has."""
        by_address = (m for m in self.list if m["peerURLs"] == [self.url(name)])
        return next(by_address, None) or next(m for m in self.list if m["name"] == name)

    def url(self, name: str) -> str:
        """Return a member's peer address."""
        return f"https://{self.addresses[name]}:{self.peer_port}"

    def lose(self, name: str) -> None:
        """Stop a member and take its data; another one leads."""
        self.stop(name)
        if self.leader == name:
            self.leader = next(iter(self.running))
        self.hosts[name].system.active = "inactive"
        shutil.rmtree(self.hosts[name].root / DATA[1:])

    @property
    def quorum(self) -> bool:
        """Whether more than half of the voters run."""
        voters = [m for m in self.list if not m.get("isLearner")]
        there = {
            name for name in self.running for m in voters if [self.url(name)] == m["peerURLs"] or name == m["name"]
        }
        return len(there) * 2 > len(voters)

    def start(self, name: str) -> None:
        """Start a member: serves its peers at once, its clients' health with a quorum."""
        host = self.hosts[name]
        with self.lock:
            if name in self.running:
                return
            host.give_data()
            servers = [_TlsServer(self, host, port) for port in (self.peer_port, self.client_port)]
            self.running[name] = servers
            if self.quorum:
                self.leader = self.leader or name
                for running in self.running:
                    self.entry(running)["name"] = running
                    self.entry(running)["clientURLs"] = [f"https://{self.addresses[running]}:{self.client_port}"]

    def stop(self, name: str) -> None:
        """Stop a member."""
        for server in self.running.pop(name, []):
            server.shutdown()
            server.server_close()

    def stop_all(self) -> None:
        """Stop everything."""
        for name in list(self.running):
            self.stop(name)

    def answer(self, name: str, path: str, body: Any, token: str | None) -> tuple[int, Any]:
        """Answer a request to a member."""
        if path == "/members":
            return 200, self.list
        if path == "/health":
            healthy = self.quorum and not self.alarms
            return (200, {"health": "true"}) if healthy else (503, {"health": "false", "reason": "RAFT NO LEADER"})
        if not path.startswith("/v3/"):
            return 404, None
        with self.lock:
            self.calls.append(path)
            try:
                return 200, self._v3(name, path.removeprefix("/v3/"), body, token)
            except _FakeError as e:
                return 400, {"error": str(e), "message": str(e), "code": 9}

    def _v3(self, name: str, path: str, body: Any, token: str | None) -> dict[str, Any]:
        leader = self.entry(self.leader)["id"] if self.leader and self.quorum else 0
        if path == "maintenance/status":
            errors = [f"memberID:1 alarm:{a} " for a in self.alarms]
            found = {"header": {"member_id": str(self.entry(name)["id"])}, "dbSize": "20480", "dbSizeInUse": "16384"}
            return {**found, "leader": str(leader), "errors": errors} if leader else found
        if path == "auth/authenticate":
            if not self.auth:
                msg = "etcdserver: authentication is not enabled"
                raise _FakeError(msg)
            user = self.users.get(body["name"])
            if user is None or user["password"] != body["password"]:
                msg = "etcdserver: authentication failed, invalid user ID or password"
                raise _FakeError(msg)
            return {"token": self._token(body["name"])}
        if self.auth and token != self._token("root"):
            raise _FakeError("etcdserver: user name is empty" if token is None else "etcdserver: invalid auth token")
        if name != self.leader and path in {"maintenance/transfer-leadership", "cluster/member/promote"}:
            msg = "etcdserver: not leader"
            raise _FakeError(msg)
        if path == "maintenance/transfer-leadership":
            self.leader = next(str(m["name"]) for m in self.list if str(m["id"]) == body["targetID"])
            return {}
        method: Callable[[Any], dict[str, Any]] = getattr(self, "_" + path.replace("/", "_"))
        return method(body)

    def _token(self, name: str) -> str:
        """Return the one valid token of a user: a new password makes the earlier ones void."""
        return f"token-{name}-{hash(self.users[name]['password'])}"

    def _auth_enable(self, body: Any) -> dict[str, Any]:
        del body
        if "root" not in self.users.get("root", {}).get("roles", ()):
            msg = "etcdserver: root user does not have root role"
            raise _FakeError(msg)
        self.auth = True
        return {}

    def _cluster_member_remove(self, body: Any) -> dict[str, Any]:
        self.list.remove(next(m for m in self.list if str(m["id"]) == body["ID"]))
        self.unsettled = 2
        return {}

    def _cluster_member_update(self, body: Any) -> dict[str, Any]:
        next(m for m in self.list if str(m["id"]) == body["ID"])["peerURLs"] = body["peerURLs"]
        return {}

    def _kv_range(self, body: Any) -> dict[str, Any]:
        return {"kvs": [{"key": body["key"], "value": self.keys[body["key"]]}]} if body["key"] in self.keys else {}

    def _kv_put(self, body: Any) -> dict[str, Any]:
        self.keys[body["key"]] = body["value"]
        return {}

    def _cluster_member_add(self, body: Any) -> dict[str, Any]:
        if self.unsettled:
            self.unsettled -= 1
            msg = "etcdserver: unhealthy cluster"
            raise _FakeError(msg)
        self.next_id += 1
        self.list.append(
            {"id": self.next_id, "name": "", "peerURLs": body["peerURLs"], "isLearner": body["isLearner"]}
        )
        return {}

    def _cluster_member_promote(self, body: Any) -> dict[str, Any]:
        entry = next(m for m in self.list if str(m["id"]) == body["ID"])
        if not entry.get("clientURLs"):
            msg = "etcdserver: can only promote a learner member which is in sync with leader"
            raise _FakeError(msg)
        entry["isLearner"] = False
        return {}

    def _user(self, name: str) -> dict[str, Any]:
        if name not in self.users:
            msg = "etcdserver: user name not found"
            raise _FakeError(msg)
        return self.users[name]

    def _auth_user_get(self, body: Any) -> dict[str, Any]:
        roles = self._user(body["name"])["roles"]
        return {"roles": roles} if roles else {}

    def _auth_user_add(self, body: Any) -> dict[str, Any]:
        if body["name"] in self.users:
            msg = "etcdserver: user name already exists"
            raise _FakeError(msg)
        self.users[body["name"]] = {"password": body["password"], "roles": []}
        return {}

    def _auth_user_delete(self, body: Any) -> dict[str, Any]:
        self._user(body["name"])
        del self.users[body["name"]]
        return {}

    def _auth_user_changepw(self, body: Any) -> dict[str, Any]:
        self._user(body["name"])["password"] = body["password"]
        return {}

    def _auth_user_grant(self, body: Any) -> dict[str, Any]:
        if body["role"] not in {"root", *self.roles}:
            msg = "etcdserver: role name not found"
            raise _FakeError(msg)
        self._user(body["user"])["roles"].append(body["role"])
        return {}

    def _auth_user_revoke(self, body: Any) -> dict[str, Any]:
        self._user(body["name"])["roles"].remove(body["role"])
        return {}

    def _auth_role_get(self, body: Any) -> dict[str, Any]:
        if body["role"] not in self.roles:
            msg = "etcdserver: role name not found"
            raise _FakeError(msg)
        return {"perm": self.roles[body["role"]]} if self.roles[body["role"]] else {}

    def _auth_role_add(self, body: Any) -> dict[str, Any]:
        self.roles[body["name"]] = []
        return {}

    def _auth_role_grant(self, body: Any) -> dict[str, Any]:
        self.roles[body["name"]].append(body["perm"])
        return {}

    def _auth_role_revoke(self, body: Any) -> dict[str, Any]:
        perms = self.roles[body["role"]]
        perms[:] = [p for p in perms if (p["key"], p.get("range_end", "")) != (body["key"], body["range_end"])]
        return {}


class _FakeError(Exception):
    """An error of etcd's own wording."""


class _TlsServer(ThreadingHTTPServer):
    """One port of a fake member, under mutual TLS with its host's own certificate."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, cluster: FakeCluster, host: HostRoot, port: int) -> None:
        self.cluster = cluster
        self.name = host.name
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(host.ctx.path("/etc/etcd/tls/ca.crt")))
        tls.load_cert_chain(host.ctx.path("/etc/etcd/tls/server.crt"), host.ctx.path("/etc/etcd/tls/server.key"))
        tls.verify_mode = ssl.CERT_REQUIRED
        self._tls = tls
        super().__init__((cluster.addresses[host.name], port), _FakeHandler)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def server_bind(self) -> None:
        """Bind without looking up the host's name: name servers may not answer here."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Shake hands in the connection's own thread."""
        with self._tls.wrap_socket(request, server_side=True) as wrapped:
            _FakeHandler(wrapped, client_address, self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay quiet."""


class _FakeHandler(BaseHTTPRequestHandler):
    server: _TlsServer

    def do_GET(self) -> None:
        self._reply(None)

    def do_POST(self) -> None:
        self._reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _reply(self, body: Any) -> None:
        status, answer = self.server.cluster.answer(
            self.server.name, self.path, body, self.headers.get("Authorization")
        )
        text = b"404 page not found\n" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Stay quiet."""
