"""How the way to the database is on this node: pooler, proxy, virtual address (verb ``way-probe``). Reads only.

``way-probe answers ADDRESS PORT`` succeeds when whoever listens there speaks PostgreSQL's protocol with TLS and shows
a certificate of the site for that address; ``way-probe proxy`` when the local proxy has somebody to send writers to;
without arguments the state is printed.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
from typing import TYPE_CHECKING, Any

from hostkit import tls
from hostkit.errors import BadInput, HostError

if TYPE_CHECKING:
    from collections.abc import Callable

    from hostkit.context import Context

PLAN = "/etc/keadb/cluster/way.json"
FORMAT = 1
SECONDS = 2.0
SSL_REQUEST = bytes.fromhex("0000000804d2162f")
UNITS = ("pgbouncer.service", "haproxy.service", "keepalived.service")
NOBODY = "none"
DEFAULT_HEALTH_PORT = 8405
_ANSWERS_ARGUMENTS = 3


def main(ctx: Context, argv: list[str]) -> int:
    """Do what the words say; HostError when what they ask for does not hold."""
    if not argv:
        json.dump(state(ctx), sys.stdout, indent=1, sort_keys=True)
        sys.stdout.write("\n")
    elif argv == ["proxy"]:
        # The plan may not be here yet: the proxy is set up before the address.
        plan = _plan(ctx)
        said = proxy("write", plan["ports"]["proxy_health"] if plan else DEFAULT_HEALTH_PORT)
        if said == NOBODY:
            msg = "the local proxy finds no leader to send writers to"
            raise HostError(msg)
    elif argv[0] == "answers" and len(argv) == _ANSWERS_ARGUMENTS and argv[2].isdecimal():
        problem = answers(ctx, argv[1], int(argv[2]))
        if problem:
            msg = f"{argv[1]}:{argv[2]} {problem}"
            raise HostError(msg)
    else:
        msg = f"way-probe: given {argv}, allowed: nothing, 'proxy', or 'answers ADDRESS PORT'"
        raise BadInput(msg)
    return 0


def state(ctx: Context) -> dict[str, Any]:
    """Return the state of this node's part of the way; empty where there is none."""
    plan = _plan(ctx)
    if not plan:
        return {}
    health = plan["ports"]["proxy_health"]
    return {
        "vip": plan["vip"],
        "holds_vip": holds(plan["vip"]),
        "pooler": answers(ctx, plan["address"], plan["ports"]["pooler"]) or "answers",
        "proxy": {which: _tried(lambda which=which: proxy(which, health)) for which in ("write", "read")},  # type: ignore[misc]  # bound now
        "units": dict(zip(UNITS, _active(ctx), strict=True)),
    }


def answers(ctx: Context, address: str, port: int) -> str:
    """Return why nobody answers there whom a client that verifies would talk to; empty when somebody does."""
    try:
        with socket.create_connection((address, port), timeout=SECONDS) as connection:
            connection.sendall(SSL_REQUEST)
            said = connection.recv(1)
            if said != b"S":
                return "closes the connection" if not said else "does not offer TLS"
            trusted = ssl.create_default_context(cafile=str(ctx.path(tls.CA)))
            trusted.minimum_version = ssl.TLSVersion.TLSv1_2
            trusted.wrap_socket(connection, server_hostname=address).close()
    except ssl.SSLError as e:
        return f"is nobody to trust: {getattr(e, 'verify_message', None) or e.reason}"
    except OSError as e:
        return f"does not answer: {e.strerror or e}"
    return ""


def proxy(which: str, port: int) -> str:
    """Return to whom the local proxy sends ``write`` or ``read`` now: "pooler", "direct" or "none"."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
            connection.sendall(f"GET /{which} HTTP/1.0\r\n\r\n".encode())
            said = b"".join(iter(lambda: connection.recv(4096), b"")).decode(errors="replace")
    except OSError as e:
        msg = f"the local proxy does not answer: {e.strerror or e}"
        raise HostError(msg) from None
    word = said.rpartition("\n")[2].strip()
    if word not in {"pooler", "direct", NOBODY}:
        msg = f"the local proxy gives an answer that it never should: {said[:80]!r}"
        raise HostError(msg)
    return word


def holds(address: str) -> bool:
    """Say whether this node has the address, by the kernel's own list: it may be bound to without being here."""
    wanted = socket.inet_aton(address).hex()
    return wanted in _local_addresses()


def _local_addresses() -> set[str]:
    """Return every IPv4 address that the kernel delivers here, as hexadecimal digits in network order."""
    found = set()
    last = ""
    with open("/proc/net/fib_trie", encoding="ascii") as lines:  # noqa: PTH123 - a kernel's file, not a host's
        for line in lines:
            words = line.split()
            if words[:1] == ["|--"]:
                last = words[1]
            elif words[:1] == ["/32"] and "LOCAL" in words:
                found.add(socket.inet_aton(last).hex())
    return found


def _tried(look: Callable[[], str]) -> str:
    try:
        return look()
    except HostError as e:
        return str(e)


def _active(ctx: Context) -> list[str]:
    done = ctx.system.run(["systemctl", "is-active", "--", *UNITS], timeout=SECONDS, check=False)
    said = done.stdout.split()
    return said if len(said) == len(UNITS) else ["unknown"] * len(UNITS)


def _plan(ctx: Context) -> dict[str, Any] | None:
    try:
        plan = json.loads(ctx.path(PLAN).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        msg = f"plan {PLAN} is not JSON"
        raise BadInput(msg) from None
    if not isinstance(plan, dict) or plan.get("format") != FORMAT:
        msg = f"plan {PLAN} is of another format than {FORMAT}: applier and bundle are of different versions"
        raise BadInput(msg)
    return plan
