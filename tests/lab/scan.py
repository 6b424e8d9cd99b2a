"""A connect scan that needs nothing but Python: ``scan.py SECONDS ADDRESS PORTS [ADDRESS PORTS ...]``, JSON out.

PORTS is ``1-65535`` or ``22,80``. A port is ``open`` when it takes the connection, and ``nobody`` when the host says
that nobody listens there: the firewall let that through as well. What is not in the answer is closed. It runs on
hosts too: it imports nothing of ours.
"""

from __future__ import annotations

import errno
import json
import resource
import select
import socket
import sys
import time

BATCH = 4096


def ports(text: str) -> list[int]:
    """Return the ports that a word names."""
    first, dash, last = text.partition("-")
    return list(range(int(first), int(last) + 1)) if dash else [int(port) for port in text.split(",")]


def batch(address: str, some: list[int], seconds: float) -> dict[int, str]:
    """Connect to all of these at once; return what answered."""
    found: dict[int, str] = {}
    waiting: dict[int, tuple[socket.socket, int]] = {}
    poll = select.epoll()
    for port in some:
        link = socket.socket()
        link.setblocking(False)
        said = link.connect_ex((address, port))
        if said == errno.EINPROGRESS:
            waiting[link.fileno()] = (link, port)
            poll.register(link, select.EPOLLOUT)
        else:
            link.close()
    end = time.monotonic() + seconds
    while waiting and (left := end - time.monotonic()) > 0:
        for number, _ in poll.poll(left):
            link, port = waiting.pop(number)
            said = link.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if said in {0, errno.ECONNREFUSED}:
                found[port] = "nobody" if said else "open"
            poll.unregister(number)
            link.close()
    for link, _ in waiting.values():
        link.close()
    return found


def main() -> None:
    """Scan."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 2 * BATCH), most))
    size = min(BATCH, min(most, 2 * BATCH) - 64)
    seconds, *targets = sys.argv[1:]
    found: dict[str, dict[int, str]] = {}
    for address, words in zip(targets[::2], targets[1::2], strict=True):
        wanted = ports(words)
        found[address] = {}
        for start in range(0, len(wanted), size):
            found[address].update(batch(address, wanted[start : start + size], float(seconds)))
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
