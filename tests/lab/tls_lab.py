"""Both ends of TLS connections in a lab's hosts: fake servers, questions, and programs pointed at a fake server."""

from __future__ import annotations

import contextlib
import json
import queue
import shlex
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.harness import Site
    from tests.lab.tls_authority import Pair

PEER = Path(__file__).with_name("tls_peer.py")
SECONDS = 20
"""How long a program may take until it has tried its server."""
FOLDER = "/run/keadb-tls-test"
"""Where a host keeps what programs of a test read; gone with its next start at the latest."""


def in_network(site: Site, host: str) -> list[str]:
    """Return what runs a command of this machine in a host's network: its addresses, this machine's files."""
    states = site.lab.status()
    assert states
    return ["nsenter", f"--net=/proc/{states[host]['init']}/ns/net", "--"]


def ask(site: Site, host: str, **question: Any) -> dict[str, Any]:
    """Ask a server from a host's network; see ``tls_peer``."""
    done = subprocess.run(
        [*in_network(site, host), sys.executable, str(PEER), "ask", json.dumps(question)],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return dict(json.loads(done.stdout))


class Fake:
    """A server on a host's loopback, which clients of ours should take for another if its certificate is right."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._said: queue.Queue[dict[str, Any]] = queue.Queue()
        self._process = process
        threading.Thread(target=self._read, daemon=True).start()
        self.port = int(self._said.get(timeout=SECONDS)["port"])

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._said.put(json.loads(line))

    def heard(self) -> dict[str, Any]:
        """Return what the next client did after the handshake."""
        try:
            return self._said.get(timeout=SECONDS)
        except queue.Empty:
            return {"went_on": None, "why": "nobody came"}


@contextlib.contextmanager
def fake(site: Site, host: str, pair: Pair, protocol: str, newest: str | None = None) -> Iterator[Fake]:
    """Have a fake server with this certificate on a host's loopback."""
    given = {"protocol": protocol, "cert": str(pair.cert), "key": str(pair.key), "newest": newest}
    process = subprocess.Popen(
        [*in_network(site, host), sys.executable, str(PEER), "serve", json.dumps(given)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Fake(process)
    finally:
        process.kill()
        process.wait(timeout=10)


@contextlib.contextmanager
def running(site: Site, host: str, command: str, user: str = "root") -> Iterator[subprocess.Popen[str]]:
    """Have a shell command running in a host as a user, with everything that it starts; killed at the end."""
    # A session of its own: whatever the program leaves behind goes with it. The first line is the session's number.
    shell = f"echo $$; exec runuser -u {user} -- sh -c {shlex.quote(command)} 2>&1"
    argv = site.lab.exec_argv(host, ["setsid", "--wait", "sh", "-c", shell])
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    assert process.stdout
    session = process.stdout.readline().strip()
    try:
        yield process
    finally:
        site.lab.exec(host, ["pkill", "-KILL", "--session", session])
        process.wait(timeout=10)


def write(site: Site, host: str, name: str, text: str) -> str:
    """Write a file that programs of a test read, for everybody on the host; return its path."""
    path = f"{FOLDER}/{name}"
    done = site.lab.exec(host, ["sh", "-c", f"mkdir -p -m 0777 {FOLDER} && cat > {path}"], stdin=text)
    assert done.returncode == 0, done.stderr
    return path


def read(site: Site, host: str, path: str) -> str:
    """Return a file of a host."""
    done = site.lab.exec(host, ["cat", path])
    assert done.returncode == 0, done.stderr
    return done.stdout
