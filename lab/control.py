"""Talking to a lab's supervisor."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from typing import TYPE_CHECKING, Any

from lab import process
from lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.model import LabSpec


@contextlib.contextmanager
def short_path(spec: LabSpec) -> Iterator[str]:
    """Give the socket's path by way of a descriptor: a socket's name is limited to 107 bytes, a folder's isn't."""
    descriptor = os.open(spec.folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{spec.socket.name}"
    finally:
        os.close(descriptor)


def supervisor(spec: LabSpec) -> process.Identity | None:
    """Return the lab's living supervisor, None when there is none."""
    identity = process.load(spec.record).get("supervisor")
    return identity if process.alive(identity) else None


def ask(spec: LabSpec, verb: str, *, seconds: float = 30, **arguments: Any) -> dict[str, Any]:
    """Send one request and return its answer.

    Raises LabError with the supervisor's message when it fails, and when the lab isn't up.
    """
    try:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(seconds + 10)
            with short_path(spec) as path:
                link.connect(path)
            link.sendall((json.dumps({"verb": verb, "seconds": seconds, **arguments}) + "\n").encode())
            with link.makefile(encoding="utf-8") as stream:
                reply = json.loads(stream.readline() or "{}")
    except (FileNotFoundError, ConnectionError):
        message = f"lab {spec.name} is not up; start it with: keadb lab up --name {spec.name}"
        raise LabError(message) from None
    except (TimeoutError, ValueError) as error:
        message = f"lab {spec.name}: its supervisor gave no answer to {verb!r} ({error}); see {spec.logs}"
        raise LabError(message) from None
    if "error" in reply:
        raise LabError(reply["error"]["message"])
    if "ok" not in reply:
        message = f"lab {spec.name}: its supervisor stopped during {verb!r}; see {spec.logs}"
        raise LabError(message)
    return dict(reply["ok"])


def status(spec: LabSpec) -> dict[str, Any] | None:
    """Return each host's state; None when the lab isn't up."""
    with contextlib.suppress(LabError):
        return ask(spec, "status", seconds=5)
    return None
