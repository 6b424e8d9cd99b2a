"""How etcd members are born: together, or not at all.

A blank member that starts alone, or beside a cluster that already knows it, can take acknowledged data with it.
So a blank host only starts when *all* declared members were seen blank at the same time, each by each. While
etcd is down its peer port is free: every host of a birth answers there, under etcd's own certificates, with what
it is and how far it has seen (``ready``):

- 0: some peer has not been seen blank (or is not one of this birth);
- 1: all peers have been seen blank;
- 2: all peers have said 1: the decision is on disk and nothing can take it back.

A host that was slow or was cut meets peers whose etcd runs already. It may still start when every peer is
reachable and knows it as a declared member that never started. When they know it as one that ran, or not at all, it
is not born but has to join (``hostkit.etcd_rejoin``). What this never does: remove or add members, touch a data
directory, or start anything when it refuses.
"""

from __future__ import annotations

import hashlib
import json
import re
import socketserver
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

from hostkit import files
from hostkit.errors import HostError, Refused
from hostkit.etcd_client import EtcdError, Unreachable, fetch, member_list, tls_context, tls_server_context

if TYPE_CHECKING:
    import socket
    import ssl
    from types import TracebackType

    from hostkit.context import Context
    from hostkit.etcd_plan import Member, Plan

PATH = "/keadb/birth"
POLL_SECONDS = 0.25
BORN = "born"
JOINS = "joins"
REACH_SECONDS = 20.0
"""How long a host that a peer says has lost its data waits for its other peers."""
LINGER_SECONDS = 10.0
"""How long a decided host goes on answering peers that have not decided yet."""
_ASK_SECONDS = 3.0
_DECIDED = 2


def digest(plan: Plan) -> str:
    """Return what two hosts must agree on: the cluster's name and its declared members."""
    agreed = [plan.cluster, sorted((m.name, plan.peer_url(m)) for m in plan.members)]
    return hashlib.sha256(json.dumps(agreed).encode()).hexdigest()


@dataclass(frozen=True)
class Answer:
    """What a peer was found to be.

    ``obstacle`` says why it keeps this birth from happening (None: it does not), ``ready`` how far it has seen
    (``_DECIDED`` for one whose etcd runs already), ``final`` that waiting can't help. ``silent``: nobody there.
    ``lost``: its etcd runs and knows this host as one that ran, or not at all. ``added``: it waits for it to join.
    """

    obstacle: str | None
    ready: int = 0
    final: bool = False
    silent: bool = False
    lost: bool = False
    added: bool = False


def decided(ctx: Context, plan: Plan) -> bool:
    """Say whether this host decided this very birth earlier and was cut before its member was healthy."""
    try:
        return _record(plan) in ctx.path(plan.birth_file).read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, ValueError):
        return False


def _record(plan: Plan) -> str:
    return f"KEADB_ETCD_BIRTH={digest(plan)}"


def decide(ctx: Context, plan: Plan) -> None:
    """Record the decision, so that a cut does not make this host decide anew. The unit starts only with it."""
    first_start(ctx, plan, "new", ",".join(f"{m.name}={plan.peer_url(m)}" for m in plan.members))
    text = f"KEADB_ETCD_CONFIG={plan.rejoin_config}\n{_record(plan)}\n"
    files.replace(ctx, plan.birth_file, text.encode(), mode=0o600, owner=files.Owner.root(ctx))


def first_start(ctx: Context, plan: Plan, state: str, members: str) -> None:
    """Write the configuration with which a blank member starts: the usual one, and who the others are.

    The usual one does not say that, so that a member which runs has nothing to read when others come and go.
    """
    text = ctx.path(plan.config).read_text(encoding="utf-8")
    text, states = re.subn(r"(?m)^initial-cluster-state: .*$", f"initial-cluster-state: {state}", text)
    text, lists = re.subn(r"(?m)^initial-cluster: .*$", f"initial-cluster: {members}", text)
    if (states, lists) != (1, 1):
        msg = f"{plan.config} has no initial-cluster and initial-cluster-state, each in a line of its own"
        raise HostError(msg)
    files.replace(ctx, plan.rejoin_config, text.encode(), mode=0o644, owner=files.Owner.root(ctx))


def done(ctx: Context, plan: Plan) -> None:
    """Forget the decision once the member is healthy: from now on a blank data directory means lost data."""
    files.remove(ctx, plan.birth_file)


def await_birth(ctx: Context, plan: Plan) -> str:
    """Return ``BORN`` once this blank host may start its member (the decision is on disk), ``JOINS`` if it can't.

    ``JOINS``: all peers were reached, and of those whose etcd runs none counts on this host being born. Refused,
    with nothing started, when not all peers were reached or seen blank within ``plan.birth_seconds`` (a shorter
    time when one says that data was lost); the message names each peer and what is in the way.
    """
    if not plan.peers:
        decide(ctx, plan)
        return BORN
    tls = tls_context(ctx, plan.tls)
    if decided(ctx, plan):
        # The others may have gone on without us, or not: both are the birth decided then. Only lost data isn't.
        answers = ask_all(plan, tls)
        _refuse_final(plan, answers)
        if not any(a.lost or a.added for a in answers.values()):
            return BORN
    # One of other members, decided and never carried out, must not let the unit start at the next boot.
    done(ctx, plan)
    began = ctx.system.monotonic()
    deadline = began + plan.birth_seconds
    with Listener(ctx, plan) as listener:
        shown: dict[str, str] = {}
        while True:
            answers = ask_all(plan, tls)
            _refuse_final(plan, answers)
            if any(a.lost or a.added for a in answers.values()):
                if all(a.lost or a.added or a.obstacle is None for a in answers.values()):
                    return JOINS
                deadline = min(deadline, began + REACH_SECONDS)
            obstacles = {name: a.obstacle for name, a in answers.items() if a.obstacle is not None}
            listener.ready = 0 if obstacles else 1
            if not obstacles and all(a.ready >= 1 for a in answers.values()):
                decide(ctx, plan)
                listener.ready = _DECIDED
                break
            if obstacles != shown and obstacles:
                sys.stderr.write("waiting for " + "; ".join(obstacles.values()) + "\n")
            shown = obstacles
            if ctx.system.monotonic() > deadline:
                waited = obstacles or {n: f"{n} has not seen all others" for n, a in answers.items() if not a.ready}
                _refuse(plan, f"after {deadline - began:g} s: " + "; ".join(waited.values()))
            ctx.system.sleep(POLL_SECONDS)
        _linger(ctx, plan, tls)
    return BORN


def _linger(ctx: Context, plan: Plan, tls: ssl.SSLContext) -> None:
    """Go on answering until every peer has decided too, has started, or is gone."""
    deadline = ctx.system.monotonic() + LINGER_SECONDS
    while ctx.system.monotonic() < deadline:
        if all(a.silent or a.ready >= _DECIDED for a in ask_all(plan, tls).values()):
            return
        ctx.system.sleep(POLL_SECONDS)


def ask_all(plan: Plan, tls: ssl.SSLContext) -> dict[str, Answer]:
    """Ask all peers at once."""
    with ThreadPoolExecutor(max_workers=len(plan.peers)) as pool:
        return dict(zip((p.name for p in plan.peers), pool.map(lambda p: ask(plan, p, tls), plan.peers), strict=True))


def ask(plan: Plan, peer: Member, tls: ssl.SSLContext) -> Answer:
    """Find out what a peer is; never raises for what the network or the peer does."""
    try:
        status, said = fetch(peer, plan.peer_port, PATH, tls=tls, seconds=_ASK_SECONDS)
        if status == HTTPStatus.OK and isinstance(said, dict):
            return _of_birth(plan, peer, said)
        return _of_etcd(plan, peer, member_list(peer, plan.peer_port, tls=tls, seconds=_ASK_SECONDS))
    except Unreachable as e:
        return Answer(str(e), silent=True)
    except EtcdError as e:
        return Answer(str(e))


def _of_birth(plan: Plan, peer: Member, said: dict[str, Any]) -> Answer:
    if said.get("host") != peer.name:
        return Answer(f"{peer.address} says that it is {said.get('host')!r}, not {peer.name}")
    if said.get("cluster") != plan.cluster or said.get("members") != digest(plan):
        return Answer(f"{peer.name} was given other members or another cluster than {plan.host}")
    if said.get("blank") is not True:
        return Answer(f"{peer.name} has data of an earlier etcd")
    ready = said.get("ready")
    return Answer(None, ready=ready if isinstance(ready, int) else 0)


def _of_etcd(plan: Plan, peer: Member, known: list[dict[str, Any]]) -> Answer:
    """Judge a peer whose etcd runs: only a member that it knows and that never started may join."""
    mine = [m for m in known if plan.peer_url(plan.me) in m.get("peerURLs", ())]
    if not mine:
        return Answer(f"etcd runs on {peer.name} and does not know {plan.host}", lost=True)
    if mine[0].get("clientURLs"):
        return Answer(
            f"etcd on {peer.name} knows {plan.host} as a member that has run before, but {plan.data_dir} on "
            f"{plan.host} is blank: its data is lost",
            lost=True,
        )
    if mine[0].get("isLearner") or mine[0].get("name") != plan.host:
        # Members of a birth have their names from the start; one that was added has none until it runs.
        return Answer(f"{plan.host} was added to the running etcd of {peer.name} and has to join it", added=True)
    declared = sorted(plan.peer_url(m) for m in plan.members)
    if sorted(url for m in known for url in m.get("peerURLs", ())) != declared:
        return Answer(f"etcd runs on {peer.name} with other members than declared: {_names(known)}", final=True)
    return Answer(None, ready=_DECIDED)


def _names(known: list[dict[str, Any]]) -> str:
    return ", ".join(sorted(str(m.get("name") or m.get("peerURLs")) for m in known))


def _refuse_final(plan: Plan, answers: dict[str, Answer]) -> None:
    final = next((a.obstacle for a in answers.values() if a.final and a.obstacle), None)
    if final:
        _refuse(plan, final)


def _refuse(plan: Plan, why: str) -> None:
    msg = f"etcd on {plan.host} is blank and cannot be born or join: {why}. Nothing was started on {plan.host}"
    raise Refused(msg)


class _Handler(BaseHTTPRequestHandler):
    """Answers the one question; ``server`` is the listener's."""

    server: _Server
    timeout = 5

    def do_GET(self) -> None:
        """Say what this host is; anything else does not exist here."""
        if self.path != PATH:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        body = json.dumps(self.server.says()).encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Stay quiet: peers ask several times a second."""


class _Server(ThreadingHTTPServer):
    """The peer port while etcd is down. The handshake happens in the connection's own thread, with a limit."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, listener: Listener, address: tuple[str, int], tls: ssl.SSLContext) -> None:
        self._listener = listener
        self._tls = tls
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind without looking up the host's name: name servers may not answer here."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def says(self) -> dict[str, Any]:
        """Return the answer."""
        return self._listener.says()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Shake hands, then answer."""
        plain: socket.socket = request
        plain.settimeout(_Handler.timeout)
        with self._tls.wrap_socket(plain, server_side=True) as wrapped:
            _Handler(wrapped, client_address, self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Drop a connection that fails: a stranger without a certificate, or a peer that was cut."""


class Listener:
    """Holds the peer port and says ``ready`` until it is closed; ``lost`` asks to be taken in by who may do that."""

    def __init__(self, ctx: Context, plan: Plan, *, lost: bool = False) -> None:
        self.ready = 0
        self._lost = lost
        self._plan = plan
        try:
            self._server = _Server(self, (plan.me.address, plan.peer_port), tls_server_context(ctx, plan.tls))
        except OSError as e:
            msg = (
                f"cannot listen on {plan.me.address}:{plan.peer_port} to find etcd's peers: {e.strerror}; "
                "something else holds etcd's peer port, or the address is not this host's"
            )
            raise HostError(msg) from e

    def says(self) -> dict[str, Any]:
        """Return what peers are told."""
        return {
            "cluster": self._plan.cluster,
            "host": self._plan.host,
            "members": digest(self._plan),
            "blank": True,
            "lost": self._lost,
            "ready": self.ready,
        }

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
