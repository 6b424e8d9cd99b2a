"""Either end of one TLS connection, to see whether the other end goes on; run inside a host's network.

usage: tls_peer.py serve|ask JSON

``serve`` listens on loopback, says ``{"port": N}``, and then of each connection ``{"went_on": ..., "why": ...}``:
whether the client sent anything after the handshake, and else the handshake's end in OpenSSL's words. ``ask``
connects, sends what a client of that protocol sends first, and says the same of the server's answer. In clear
(``tls`` false) nothing is verified and everything is said.

Keys: ``protocol`` (postgres, http), ``cert``, ``key``, ``ca``, ``oldest``/``newest`` (names of ``ssl.TLSVersion``),
``tls``, ``address``, ``port``. Standard library only.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import sys
from typing import Any

SECONDS = 5.0
SSL_REQUEST = struct.pack("!ii", 8, 80877103)
STARTUP = b"user\0kea_read_a\0database\0kea\0\0"
FIRST = {
    "postgres": struct.pack("!ii", len(STARTUP) + 8, 196608) + STARTUP,
    "http": b"GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
}


def _context(given: dict[str, Any], protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if given.get("newest"):
        # What is old is only spoken where it is asked for by lowering OpenSSL's own floor.
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion[given["newest"]]
    if given.get("cert"):
        context.load_cert_chain(given["cert"], given["key"])
    return context


def _serve(given: dict[str, Any]) -> None:
    context = _context(given, ssl.PROTOCOL_TLS_SERVER)
    with socket.create_server(("127.0.0.1", 0)) as server:
        _say(port=server.getsockname()[1])
        while True:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(SECONDS)
                try:
                    if given["protocol"] == "postgres" and not _agreed(connection):
                        continue
                    with context.wrap_socket(connection, server_side=True) as secured:
                        data = secured.recv(4096)
                        _say(went_on=bool(data), why="" if data else "closed", version=secured.version())
                except OSError as error:
                    _say(went_on=False, why=_reason(error))


def _agreed(connection: socket.socket) -> bool:
    """Answer until the client asks for TLS; False when it leaves or asks for anything else."""
    while True:
        asked = connection.recv(8)
        if asked == SSL_REQUEST:
            connection.sendall(b"S")
            return True
        if len(asked) < len(SSL_REQUEST):
            return False
        connection.sendall(b"N")  # GSSAPI


def _ask(given: dict[str, Any]) -> None:
    first = FIRST[given["protocol"]]
    try:
        with socket.create_connection((given["address"], given["port"]), timeout=SECONDS) as connection:
            if not given.get("tls", True):
                connection.sendall(first)
                data = connection.recv(4096)
                _say(went_on=bool(data), why=data.decode(errors="replace"))
                return
            if given["protocol"] == "postgres":
                connection.sendall(SSL_REQUEST)
                if connection.recv(1) != b"S":
                    _say(went_on=False, why="no TLS")
                    return
            with _context(given, ssl.PROTOCOL_TLS_CLIENT).wrap_socket(connection) as secured:
                shown = secured.getpeercert(binary_form=True) or b""
                secured.sendall(first)
                data = secured.recv(4096)
                _say(went_on=bool(data), why="" if data else "closed", version=secured.version(), shown=shown.hex())
    except OSError as error:
        _say(went_on=False, why=_reason(error))


def _reason(error: OSError) -> str:
    return getattr(error, "reason", None) or str(error) or type(error).__name__


def _say(**said: Any) -> None:
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    {"serve": _serve, "ask": _ask}[sys.argv[1]](json.loads(sys.argv[2]))
