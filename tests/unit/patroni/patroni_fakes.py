"""Database hosts under temporary roots, and a fake Patroni and etcd that speak real TLS on loopback addresses."""

from __future__ import annotations

import base64
import json
import os
import socketserver
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from hostkit.context import Context
from hostkit.system import Completed
from keadb.bundle import Bundle
from tests.unit.etcd.etcd_authority import Authority
from tests.unit.etcd.etcd_fakes import free_port

DB1, DB2, WITNESS = "lab-kea-db-01", "lab-kea-db-02", "lab-kea-witness"
ADDRESSES = {DB1: "127.0.40.10", DB2: "127.0.40.11", WITNESS: "127.0.40.12"}
REST_PASSWORD = "rest-password-of-the-tests"
ETCD_PASSWORD = "etcd-password-of-the-tests"
ROOT_PASSWORD = "root-password-of-the-tests"
UNIT = "patroni.service"


@dataclass
class FakeSystem:
    """Systemd in memory and a clock that only moves while somebody waits; ``on_start`` is the unit's life."""

    on_start: Callable[[], None] = lambda: None
    on_reload: Callable[[], None] = lambda: None
    on_restart: Callable[[], None] = lambda: None
    on_sleep: Callable[[], None] = lambda: None
    active: str = "inactive"
    restarts: int = 0
    journal: str = f"the last words of Patroni, {REST_PASSWORD}\n"
    clock: float = 0.0
    commands: list[list[str]] = field(default_factory=list)

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        input: str | None = None,  # noqa: A002 - the real one's name
        check: bool = True,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> Completed:
        """Record a command and answer it."""
        del timeout, input, check, env, user, progress
        self.commands.append(list(argv))
        if argv[0] == "journalctl":
            return Completed(0, self.journal, "")
        if argv[1] == "start":
            self.active = "active"
            self.on_start()
        if argv[1] == "stop":
            self.active = "inactive"
        if argv[1] == "reset-failed":
            self.restarts = 0
        if argv[1] == "restart":
            self.on_restart()
        if argv[1] == "reload":
            self.on_reload()
        if "--property=NRestarts" in argv:
            return Completed(0, f"{self.restarts}\n", "")
        if argv[1] == "show":
            known = {"Id": UNIT, "LoadState": "loaded", "ActiveState": self.active, "UnitFileState": "enabled"}
            return Completed(0, "".join(f"{key}={value}\n" for key, value in known.items()), "")
        return Completed(0, "", "")

    @property
    def verbs(self) -> list[str]:
        """What was asked of systemd that changes something."""
        return [c[1] for c in self.commands if c[0] == "systemctl" and c[1] != "show"]

    def uid(self, name: str) -> int:
        """Everybody is whoever runs the tests."""
        del name
        return os.getuid()

    def gid(self, name: str) -> int:
        """Everybody is whoever runs the tests."""
        del name
        return os.getgid()

    def sleep(self, seconds: float) -> None:
        """Move the world, and the clock much more: nobody waits here."""
        self.clock += 10 * seconds
        self.on_sleep()

    def monotonic(self) -> float:
        """Return the pretended time."""
        return self.clock


class _Server:
    """An HTTPS server on one address; ``answer(method, path, headers, body)`` gives status and JSON."""

    def __init__(self, address: str, port: int, tls: ssl.SSLContext, answer: Callable[..., tuple[int, Any]]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def _do(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length) or b"null")
                status, data = answer(self.command, self.path, self.headers, body)
                text = (data if isinstance(data, str) else json.dumps(data)).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PATCH = _do  # noqa: N815 - the library's names

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            def server_bind(self) -> None:
                """Bind without looking up the host's name: name servers may not answer here."""
                socketserver.TCPServer.server_bind(self)
                self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Say nothing of clients that were turned away."""

        self.http = Server((address, port), Handler)
        self.http.socket = tls.wrap_socket(self.http.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()


class FakePatroni:
    """Patroni on both database hosts: what it would say of a cluster, and what was asked of it."""

    def __init__(self, tls: Mapping[str, ssl.SSLContext], port: int) -> None:
        self.port = port
        self.config: dict[str, Any] = {}
        self.leader: str | None = DB1
        self.sync: str | None = DB2
        self.paused = False
        self.lag = 0
        self.stale: dict[str, str] = {}
        """What a node wrote into etcd before its state changed."""
        self.states = {DB1: "running", DB2: "streaming"}
        self.pending: dict[str, dict[str, Any]] = {}
        self.patches: list[dict[str, Any]] = []
        self.deaf_to: set[str] = set()
        self.identifiers = {DB1: "7300000000000000001", DB2: "7300000000000000001"}
        self.timelines = {DB1: 1, DB2: 1}
        self.loops = True
        self.extra: list[dict[str, Any]] = []
        self.acts: list[tuple[str, str, dict[str, Any]]] = []
        """Node, path and body of every POST with the right password."""
        self.answers: dict[tuple[str, str], tuple[int, str]] = {}
        """What a node answers to a POST without doing it."""
        self.on_act: Callable[[str, str], None] = lambda _name, _path: None
        self.starts = {DB1: 1, DB2: 1}
        """How often each node's PostgreSQL was started."""
        self.running_values: dict[str, dict[str, int]] = {}
        """Limits that each node's PostgreSQL was started with; set, restarts are flagged as Patroni flags them."""
        self._seen = 1000
        self._tls = tls
        self._servers: dict[str, _Server] = {}

    def start(self, name: str) -> None:
        """Let a node answer."""

        def answer(method: str, path: str, headers: Mapping[str, str], body: Any) -> tuple[int, Any]:
            return self._answer(name, method, path, headers, body)

        self._servers[name] = _Server(ADDRESSES[name], self.port, self._tls[name], answer)

    def stop(self, name: str) -> None:
        """Let a node fall silent."""
        self._servers.pop(name).stop()

    def stop_all(self) -> None:
        """End all servers."""
        for name in list(self._servers):
            self.stop(name)

    def _answer(self, name: str, method: str, path: str, headers: Mapping[str, str], body: Any) -> tuple[int, Any]:
        if method in {"PATCH", "POST"}:
            wanted = "Basic " + base64.b64encode(f"patroni:{REST_PASSWORD}".encode()).decode()
            if headers.get("Authorization") != wanted:
                return 401, {}
            if method == "POST":
                return self._act(name, path, body)
            self.patches.append(body)
            self.paused = bool(body.get("pause", self.paused))
            _merge(self.config, {k: v for k, v in body.items() if k not in self.deaf_to})
            self._flag()
            return 200, self.config
        if path == "/config":
            return 200, self.config
        return (200, self._cluster()) if path == "/cluster" else self._node(name)

    def _act(self, name: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        self.acts.append((name, path, body))
        self.on_act(name, path)
        if (name, path) in self.answers:
            return self.answers[name, path]
        if path == "/restart":
            role = "primary" if name == self.leader else "replica"
            if body.get("role", role) != role or (body.get("restart_pending") and name not in self.pending):
                return 503, "restart conditions are not satisfied"
            self._started(name)
            return 200, "restarted successfully"
        if path == "/switchover":
            self.leader, self.sync = body["candidate"], body["leader"]
            self.states |= {self.leader: "running", self.sync: "streaming"}
            self._started(body["leader"])
            return 200, f'Successfully switched over to "{body["candidate"]}"'
        return 202, "reinitialize started"

    def _started(self, name: str) -> None:
        """A node starts with the declared limits; a standby with no less than its leader has."""
        self.pending.pop(name, None)
        self.starts[name] += 1
        for limit in self.running_values.get(name, ()):
            wanted = int(self.config["postgresql"]["parameters"].get(limit, 8))
            least = 0 if name == self.leader or self.leader is None else self.running_values[self.leader][limit]
            self.running_values[name][limit] = max(wanted, least)
        self._flag()

    def _flag(self) -> None:
        for name, limits in self.running_values.items():
            wanted = {n: int(self.config["postgresql"]["parameters"].get(n, 8)) for n in limits}
            reasons = {
                n: {"old_value": str(now), "new_value": str(wanted[n])}
                for n, now in limits.items()
                if now != wanted[n]
            }
            self.pending.pop(name, None)
            if reasons:
                self.pending[name] = reasons

    def _role(self, name: str) -> str:
        if name == self.leader:
            return "leader"
        return "sync_standby" if name == self.sync else "replica"

    def _cluster(self) -> dict[str, Any]:
        members = [
            {
                "name": name,
                "role": self._role(name),
                "state": self.stale.get(name, state),
                "timeline": self.timelines[name],
                "lag": self.lag,
            }
            | ({"pending_restart": True} if name in self.pending else {})
            for name, state in self.states.items()
        ]
        return {"members": members + self.extra} | ({"pause": True} if self.paused else {})

    @property
    def loops_begun(self) -> int:
        """Return how many loops all nodes together have begun, from some number on."""
        return self._seen

    def _node(self, name: str) -> tuple[int, dict[str, Any]]:
        if self.loops:
            self._seen += 1
        state = self.states.get(name, "starting")
        node: dict[str, Any] = {"state": state, "role": "replica", "dcs_last_seen": self._seen}
        node["timeline"] = self.timelines[name]
        node |= {"postmaster_start_time": f"2026-11-23 10:00:{self.starts[name]:02}+00:00", "server_version": 150014}
        node["patroni"] = {"version": "4.0.7", "scope": "lab"}
        if name == self.leader:
            node["role"] = "primary"
        elif state == "streaming":
            node |= {"state": "running", "replication_state": "streaming"}
        if name in self.pending:
            node |= {"pending_restart": True, "pending_restart_reason": self.pending[name]}
        if self.paused:
            node["pause"] = True
        node["database_system_identifier"] = self.identifiers.get(name)
        return (200 if node["state"] == "running" else 503), node


def _merge(into: dict[str, Any], patch: Mapping[str, Any]) -> None:
    for name, value in patch.items():
        if value is None:
            into.pop(name, None)
        elif isinstance(value, dict) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        else:
            into[name] = value


class FakeEtcd:
    """The keys of etcd behind its JSON gateway, for users with passwords; rights are not looked at."""

    def __init__(self, tls: ssl.SSLContext, port: int) -> None:
        self.port = port
        self.keys: dict[str, str] = {}
        self.leases: dict[str, str] = {}
        self.users = {"root": ROOT_PASSWORD, "patroni_a": ETCD_PASSWORD}
        self.on_delete: Callable[[], None] = lambda: None
        self.down = False
        self._server = _Server(ADDRESSES[WITNESS], port, tls, self._answer)

    def stop(self) -> None:
        """End the server."""
        self._server.stop()

    def _answer(self, method: str, path: str, headers: Mapping[str, str], body: Any) -> tuple[int, Any]:
        del method
        if self.down:
            return 503, {"error": "etcdserver: no leader", "message": "etcdserver: no leader"}
        if path == "/v3/auth/authenticate":
            if self.users.get(body["name"]) == body["password"]:
                return 200, {"token": f"token-of-{body['name']}"}
            return 400, {"message": "etcdserver: authentication failed, invalid user ID or password"}
        if (headers.get("Authorization") or "").removeprefix("token-of-") not in self.users:
            return 401, {"message": "etcdserver: user name is empty"}
        if path.startswith("/v3/auth/user/"):
            return self._user(path.rsplit("/", 1)[1], body["name"])
        return 200, getattr(self, "_" + path.rsplit("/", 1)[1])(body)

    def _user(self, what: str, name: str) -> tuple[int, Any]:
        if name not in self.users:
            return 400, {"message": "etcdserver: user name not found"}
        if what == "delete":
            self.on_delete()
            del self.users[name]
        return 200, {"roles": ["patroni"]}

    def _range(self, body: dict[str, str]) -> dict[str, Any]:
        value = self.keys.get(_text(body["key"]))
        return {} if value is None else {"kvs": [{"value": base64.b64encode(value.encode()).decode()}]}

    def _put(self, body: dict[str, str]) -> dict[str, Any]:
        self.keys[_text(body["key"])] = _text(body["value"])
        if "lease" in body:
            self.leases[_text(body["key"])] = body["lease"]
        return {}

    def _txn(self, body: dict[str, Any]) -> dict[str, Any]:
        for compare in body["compare"]:
            found = self.keys.get(_text(compare["key"]))
            if found != (None if compare["target"] == "CREATE" else _text(compare["value"])):
                return {}
        for request in body["success"]:
            if "request_put" in request:
                self._put(request["request_put"])
            else:
                del self.keys[_text(request["request_delete_range"]["key"])]
        return {"succeeded": True}

    def _deleterange(self, body: dict[str, str]) -> dict[str, Any]:
        self.keys.pop(_text(body["key"]), None)
        return {}

    def _grant(self, body: dict[str, str]) -> dict[str, Any]:
        return {"ID": "77", "TTL": body["TTL"]}


def _text(encoded: str) -> str:
    return base64.b64decode(encoded).decode()


class World:
    """Both services and the hosts' roots. ``ctx(host)`` is where a verb works."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self.folder = folder
        self.authority = authority
        self.systems = {name: FakeSystem() for name in ADDRESSES}
        contexts = {name: self._server_tls(name) for name in ADDRESSES}
        self.patroni = FakePatroni(contexts, free_port())
        self.etcd = FakeEtcd(contexts[WITNESS], free_port())
        self.contexts = contexts

    def _server_tls(self, name: str) -> ssl.SSLContext:
        cert, key = self.authority.issue(name, ADDRESSES[name])
        root = self.folder / name
        for path, data in {
            "var/lib/keadb/tls/client.crt": cert,
            "var/lib/keadb/tls/client.key": key,
            "etc/keadb/tls/ca.crt": self.authority.certificate,
            "etc/patroni/tls/postgres.crt": cert,
        }.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
        (root / "etc/keadb/cluster").mkdir()
        store = root / "var/lib/keadb/secrets.json"
        known = {
            "patroni_rest_password": REST_PASSWORD,
            "etcd_patroni_a_password": ETCD_PASSWORD,
            "etcd_root_password": ROOT_PASSWORD,
        }
        store.write_text(json.dumps(known))
        store.chmod(0o600)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(root / "var/lib/keadb/tls/client.crt", root / "var/lib/keadb/tls/client.key")
        tls.load_verify_locations(root / "etc/keadb/tls/ca.crt")
        tls.verify_mode = ssl.CERT_REQUIRED
        return tls

    def ctx(self, host: str) -> Context:
        """Return the host's context."""
        return Context(self.folder / host, self.systems[host])

    def place(self, bundle: Bundle) -> None:
        """Write the bundle's plans, with addresses and ports of this world."""
        for path, file in bundle.files.items():
            plan = json.loads(file.content)
            for member in (*plan["members"], *plan["etcd"]):
                member["address"] = ADDRESSES[member["name"]]
            # One etcd member answers; the others are as good as down.
            plan |= {"rest_port": self.patroni.port, "etcd_port": self.etcd.port}
            (self.folder / bundle.host / path.removeprefix("/")).write_text(json.dumps(plan))

    def stop(self) -> None:
        """End everything."""
        self.patroni.stop_all()
        self.etcd.stop()
