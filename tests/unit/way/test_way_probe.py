"""What a node says of its part of the way, and when its check gives the address up."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hostkit import way_probe
from hostkit.context import Context
from hostkit.errors import BadInput, HostError
from hostkit.system import RealSystem
from keadb.templating import render
from tests.unit.kea.kea_server import _certificates as certificates


@contextlib.contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """Answer every connection on a port of loopback; yield the port."""
    with socket.create_server(("0.0.0.0", 0)) as server:  # noqa: S104 - 127.0.0.2 as well

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection, contextlib.suppress(OSError):
                        answer(connection)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def saying(said: bytes, *, to: int = 8) -> Callable[[socket.socket], None]:
    """Read so many bytes, then say this."""

    def answer(connection: socket.socket) -> None:
        connection.recv(to)
        connection.sendall(said)

    return answer


def http(status: int, word: str) -> Callable[[socket.socket], None]:
    """Answer as the proxy's health frontend."""
    return saying(f"HTTP/1.1 {status} X\r\ncontent-type: text/plain\r\n\r\n{word}".encode(), to=4096)


@pytest.fixture
def closed() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def pooler(tmp_path: Path) -> Callable[[socket.socket], None]:
    """Answer as a pooler: TLS when asked for it, with a certificate for 127.0.0.1."""
    certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")

    def answer(connection: socket.socket) -> None:
        assert connection.recv(8) == way_probe.SSL_REQUEST
        connection.sendall(b"S")
        with contextlib.suppress(ssl.SSLError), context.wrap_socket(connection, server_side=True) as secured:
            secured.recv(1)

    return answer


def trusting(root: Path, ca: Path) -> Context:
    """Return a host that trusts this CA."""
    place = root / "etc/keadb/tls/ca.crt"
    place.parent.mkdir(parents=True)
    place.write_bytes(ca.read_bytes())
    return Context(root, RealSystem())


def test_who_shows_the_sites_certificate_for_its_address_answers(tmp_path: Path) -> None:
    with listening(pooler(tmp_path)) as port:
        assert way_probe.answers(trusting(tmp_path / "host", tmp_path / "ca.crt"), "127.0.0.1", port) == ""


def test_another_ca_or_another_address_is_nobody_to_trust(tmp_path: Path) -> None:
    with listening(pooler(tmp_path)) as port:
        host = trusting(tmp_path / "host", tmp_path / "ca.crt")
        assert "is nobody to trust: IP address mismatch" in way_probe.answers(host, "127.0.0.2", port)
        (tmp_path / "other").mkdir()
        certificates(tmp_path / "other")
        stranger = trusting(tmp_path / "stranger", tmp_path / "other/ca.crt")
        assert "is nobody to trust: " in way_probe.answers(stranger, "127.0.0.1", port)


@pytest.mark.parametrize(("said", "problem"), [(b"N", "does not offer TLS"), (b"", "closes the connection")])
def test_who_does_not_speak_tls_does_not_answer(said: bytes, problem: str, tmp_path: Path) -> None:
    with listening(saying(said)) as port:
        assert way_probe.answers(Context(tmp_path, RealSystem()), "127.0.0.1", port) == problem


def test_nobody_there_is_said_with_the_reason(closed: int) -> None:
    said = way_probe.answers(Context(Path("/"), RealSystem()), "127.0.0.1", closed)
    assert said == "does not answer: Connection refused"
    with pytest.raises(HostError, match="does not answer: Connection refused"):
        way_probe.main(Context(Path("/"), RealSystem()), ["answers", "127.0.0.1", str(closed)])


@pytest.mark.parametrize(("status", "word"), [(200, "pooler"), (200, "direct"), (503, "none")])
def test_the_proxys_word_is_taken_as_it_is(status: int, word: str) -> None:
    with listening(http(status, word)) as port:
        assert way_probe.proxy("write", port) == word


def test_an_answer_that_no_proxy_of_ours_gives_is_an_error() -> None:
    with listening(http(404, "<html>")) as port, pytest.raises(HostError, match="never should"):
        way_probe.proxy("write", port)


def plan(root: Path, **ports: int) -> Context:
    path = root / way_probe.PLAN.lstrip("/")
    path.parent.mkdir(parents=True)
    data = {"format": 1, "address": "127.0.0.1", "vip": "127.0.0.1", "ports": ports}
    path.write_text(json.dumps(data))
    return Context(root, RealSystem())


def test_the_state_of_a_node(tmp_path: Path, closed: int) -> None:
    with listening(http(200, "pooler")) as health:
        state = way_probe.state(plan(tmp_path, pooler=closed, proxy_health=health))
    assert state["holds_vip"] is True
    assert state["proxy"] == {"write": "pooler", "read": "pooler"}
    assert state["pooler"] == "does not answer: Connection refused"
    assert set(state["units"]) == set(way_probe.UNITS)


def test_a_host_without_the_way_has_no_state(tmp_path: Path) -> None:
    assert way_probe.state(Context(tmp_path, RealSystem())) == {}


def test_an_address_that_may_only_be_bound_is_not_held() -> None:
    assert way_probe.holds("127.0.0.1")
    assert not way_probe.holds("203.0.113.7")


def test_words_that_it_does_not_know_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="allowed: nothing, 'proxy', or 'answers ADDRESS PORT'"):
        way_probe.main(Context(tmp_path, RealSystem()), ["answers", "127.0.0.1"])


TLS = {"ca": "ca.crt", "cert": "server.crt", "key": "server.key"}
"""One certificate for both sides."""


def check(tmp_path: Path, *, proxy: int, peer: int, others: list[int], name: str = "db-01.test") -> int:
    """Run the check of the virtual address against ports of loopback; return its exit code."""
    values: dict[str, Any] = {
        "health_port": proxy,
        "rest_port": peer,
        "tls": {part: str(tmp_path / file) for part, file in TLS.items()},
        "peers": [{"address": "127.0.0.1", "full": name}],
        "others": [{"address": "127.0.0.1", "port": port} for port in others],
    }
    script = tmp_path / "check"
    script.write_text(render("keepalived/check.sh.j2", **values))
    return subprocess.run(["bash", str(script)], check=False, timeout=30).returncode


def leading(tmp_path: Path, status: str) -> Callable[[socket.socket], None]:
    """Answer as Patroni: over TLS, to whoever has a certificate, with this status line."""
    certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(tmp_path / "ca.crt")
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")

    def answer(connection: socket.socket) -> None:
        with contextlib.suppress(ssl.SSLError), context.wrap_socket(connection, server_side=True) as secured:
            secured.recv(4096)
            secured.sendall(f"HTTP/1.0 {status}\r\n\r\n".encode())

    return answer


class TestCheck:
    def test_a_proxy_that_serves_keeps_the_address(self, tmp_path: Path, closed: int) -> None:
        with listening(http(200, "pooler")) as proxy:
            assert check(tmp_path, proxy=proxy, peer=closed, others=[closed]) == 0

    def test_a_dead_proxy_gives_it_up(self, tmp_path: Path, closed: int) -> None:
        with listening(saying(b"")) as place:
            assert check(tmp_path, proxy=closed, peer=closed, others=[place]) == 1

    def test_a_proxy_that_finds_nobody_gives_it_up_when_a_peer_leads(self, tmp_path: Path) -> None:
        with listening(http(503, "none")) as proxy, listening(leading(tmp_path, "200 OK")) as peer:
            assert check(tmp_path, proxy=proxy, peer=peer, others=[peer]) == 1

    def test_in_a_failover_nobody_leads_and_the_address_stays(self, tmp_path: Path) -> None:
        with listening(http(503, "none")) as proxy, listening(leading(tmp_path, "503 X")) as peer:
            assert check(tmp_path, proxy=proxy, peer=peer, others=[peer]) == 0

    def test_a_peer_that_is_not_who_it_should_be_is_not_believed(self, tmp_path: Path) -> None:
        with listening(http(503, "none")) as proxy, listening(leading(tmp_path, "200 OK")) as peer:
            assert check(tmp_path, proxy=proxy, peer=peer, others=[peer], name="other.test") == 0

    def test_a_node_that_is_cut_off_gives_it_up(self, tmp_path: Path, closed: int) -> None:
        with listening(http(503, "none")) as proxy:
            assert check(tmp_path, proxy=proxy, peer=closed, others=[closed, closed]) == 1
